"""The small real training run of the training room's tests: what it writes is what these tests read."""

from tests.training.conftest import data, make_run, model

__all__ = ["data", "make_run", "model"]
