"""The fixture `server`: a web server with scripted faults."""

from collections.abc import Iterator

import pytest

from .faulty_server import FaultyServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FaultyServer() as server:
        yield server
