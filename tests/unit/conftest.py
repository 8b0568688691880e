"""What several files of tests ask for by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from served import Served, scheduler_at


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A scheduler of one test, which the command line and clients find by themselves."""
    with scheduler_at(tmp_path_factory.mktemp("served")) as served:
        monkeypatch.setenv("SCHEDULER_URL", served.url)
        monkeypatch.delenv("SCHEDULER_TOKEN", raising=False)
        yield served
