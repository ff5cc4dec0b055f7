import sys
from pathlib import Path

import pytest

from alignpre_jax.documents.synthesis import EndpointGenerator, Situation
from alignpre_jax.endpoints import EndpointConfig

sys.path.insert(0, str(Path(__file__).parent))

from stub_endpoint import KEY


@pytest.fixture(autouse=True)
def loopback(monkeypatch):
    """No proxy stands between a test and its stub; the key is where the config says."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TEST_KEY", KEY)


@pytest.fixture
def endpoint():
    """Makes a generator for a stub, which waits hardly at all between attempts."""

    def make(stub, **changes):
        settings = {"key_variable": "TEST_KEY", "first_wait": 0.01, "timeout": 5.0, "concurrency": 4} | changes
        return EndpointGenerator(EndpointConfig(stub.url, "stub-model", **settings))

    return make


@pytest.fixture
def situations():
    return [
        Situation(
            id=f"choice-{number}",
            topic="honesty",
            situation=f"You keep the books of shop {number}, and a sum is wrong.",
            aligned=f"I tell the owner of shop {number} about the wrong sum at once.",
            misaligned=f"I hide the wrong sum from the owner of shop {number} for ever.",
        )
        for number in range(3)
    ]
