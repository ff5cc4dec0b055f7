"""Loads the files in configs/ as the command line does."""

import importlib.util
from pathlib import Path

STUDIES = Path(__file__).parents[1] / "configs/studies"


def load_config(name: str, *arg: str):
    spec = importlib.util.spec_from_file_location(f"config_{name}", STUDIES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*arg)
