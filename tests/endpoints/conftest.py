import pytest
from stub_endpoint import KEY

from alignpre_jax.endpoints import Endpoint, EndpointConfig


@pytest.fixture(autouse=True)
def loopback(monkeypatch):
    """No proxy stands between a test and its stub; the key is where the config says."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TEST_KEY", KEY)


@pytest.fixture
def endpoint():
    """Makes a client of a stub, which waits hardly at all between attempts."""

    def make(stub, **changes):
        settings = {"key_variable": "TEST_KEY", "first_wait": 0.01, "timeout": 5.0, "concurrency": 4} | changes
        return Endpoint(EndpointConfig(stub.url, "stub-model", **settings))

    return make
