"""`up.json`: read back whole, for its owner alone, and in words when it cannot be; and who waits for whom."""

from __future__ import annotations

import json
import stat
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from scheduler.errors import AlreadyUp
from scheduler.server.local_cluster import up
from scheduler.server.settings_fingerprint import fingerprint
from scheduler.server.up_record import (
    Place,
    UnreadableRecord,
    UpInfo,
    only_one_at_work,
    read_info,
    write_info,
)
from scheduler.settings import Settings
from tests.conftest import free_port
from tests.unit.test_own_processes import an_info


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(state_dir=tmp_path / "state", storage_path=tmp_path / "storage", port=free_port())
    settings.state_dir.mkdir()
    return settings


def an_info_of(settings: Settings) -> UpInfo:
    return replace(an_info(ray=(1, 0.5)), state_dir=str(settings.state_dir), settings=fingerprint(settings))


def test_it_is_read_back_and_nobody_else_reads_it(settings: Settings) -> None:
    assert read_info(settings) is None
    write_info(an_info_of(settings))
    assert read_info(settings) is not None
    assert replace(an_info_of(settings), settings={}) == replace(read_info(settings), settings={})  # type: ignore[type-var]
    mode = (settings.state_dir / "up.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert [path.name for path in settings.state_dir.iterdir()] == ["up.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"processes": {}}', '"text"', "\x00\x00", '{"processes": 5}']
)
def test_what_cannot_be_read_is_said_in_words(settings: Settings, text: str) -> None:
    """B3: torn by a full disk, or by hand."""
    (settings.state_dir / "up.json").write_text(text)
    with pytest.raises(UnreadableRecord, match=r"up\.json, which says what is up, cannot be read"):
        read_info(settings)


def test_records_of_an_older_and_of_a_newer_release_are_read(settings: Settings) -> None:
    row = asdict(an_info_of(settings))
    for name in ("settings", "working_dir", "place", "has_served"):
        del row[name]
    (settings.state_dir / "up.json").write_text(json.dumps(row | {"of_a_newer_release": 1}))
    info = read_info(settings)
    assert info is not None and (info.settings, info.place.is_here) == ({}, True)


def test_a_second_one_waits_and_says_so(settings: Settings) -> None:
    said: list[str] = []
    order: list[str] = []

    def second() -> None:
        with only_one_at_work(settings, said.append):
            order.append("second")

    with only_one_at_work(settings, said.append):
        thread = threading.Thread(target=second)
        thread.start()
        while not said:
            thread.join(0.01)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert "another `scheduler up`" in said[0]


def test_what_was_started_on_another_machine_is_not_taken_for_gone(settings: Settings) -> None:
    """B3: its pids mean nothing here; the folder may be shared."""
    elsewhere = Place(host="trainer-7", boot="another boot", processes="pid:[1]")
    write_info(replace(an_info_of(settings), place=elsewhere))
    with pytest.raises(AlreadyUp, match=r"started on trainer-7.*Nothing was touched.*remove .*up\.json"):
        up(settings)


def test_a_token_is_not_dropped_because_a_shell_forgot_it(settings: Settings) -> None:
    """B3: what crashed was protected; what follows it is too, or a person says otherwise."""
    with_token = Settings(**{**settings.model_dump(), "token": "correct-horse"})
    write_info(replace(an_info_of(settings), settings=fingerprint(with_token), processes={}))
    for replace_it in (False, True):
        with pytest.raises(
            AlreadyUp, match=r"(?s)SCHEDULER_TOKEN: set there, not set here.*`scheduler down`"
        ) as error:
            up(settings, replace=replace_it)
        assert "correct-horse" not in str(error.value)
