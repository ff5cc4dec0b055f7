"""The small real training run of the training room's tests: what it writes is what these tests read."""

from tests.training.conftest import compile_once, data, make_run, model

__all__ = ["compile_once", "data", "make_run", "model"]
