"""A synthesis of 12 documents (18 calls) from a stub endpoint: `python stub_run.py URL FOLDER`."""

import sys

from alignpre_jax.documents.synthesis import (
    EndpointGenerator,
    Prices,
    Situation,
    SynthesisConfig,
    SynthesisReport,
    synthesize,
)
from alignpre_jax.endpoints import EndpointConfig

CALLS = 18


def run(url: str, folder: str) -> SynthesisReport:
    situations = [
        Situation(f"choice-{n}", "honesty", f"Shop {n} has a wrong sum.", f"tell owner {n}", f"fool owner {n}")
        for n in range(6)
    ]
    generator = EndpointGenerator(EndpointConfig(url, "m", "TEST_KEY", concurrency=3, first_wait=0.01))
    return synthesize(situations, SynthesisConfig(forms=("news",), prices=Prices(1, 1)), generator, folder)


if __name__ == "__main__":
    run(*sys.argv[1:])
