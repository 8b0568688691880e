"""With what a scheduler was started, and what is different now; without a secret in any file or sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest

from scheduler.server.settings_fingerprint import differences, fingerprint
from scheduler.settings import Settings

SECRETS: dict[str, Any] = {
    "token": "s3cret-token",
    "supabase_key": "s3cret-key",
    "webhook_secret": "s3cret-hook",
    "webhook_url": "https://hooks.example/s3cret",
    "supabase_url": "https://me:s3cret@db.example",
    "checkpoint_url": "s3://key:s3cret@bucket/folder",
}


def test_no_secret_can_be_read_from_it() -> None:
    kept = json.dumps(fingerprint(Settings(**SECRETS)))
    assert "s3cret" not in kept
    assert kept != json.dumps(fingerprint(Settings(**SECRETS))), "the same secret looks different each time"


def test_the_same_settings_do_not_differ_however_they_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """B3"""
    there = json.loads(json.dumps(fingerprint(Settings(**SECRETS))))
    assert differences(there, Settings(**SECRETS)) == []
    monkeypatch.setenv("SCHEDULER_PORT", "8000")  # the default, said
    monkeypatch.setenv("SCHEDULER_TOKEN", SECRETS["token"])
    assert differences(there, Settings(**{k: v for k, v in SECRETS.items() if k != "token"})) == []


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("there", [None, "x://first"])
@pytest.mark.parametrize("here", [None, "x://second"])
def test_a_secret_that_differs_is_named_and_not_told(name: str, there: str | None, here: str | None) -> None:
    found = differences(fingerprint(Settings(**{name: there})), Settings(**{name: here}))
    assert [one.name for one in found] == ([f"SCHEDULER_{name.upper()}"] if there or here else [])
    if name in ("token", "supabase_key", "webhook_secret", "webhook_url"):
        assert not any("first" in str(one) or "second" in str(one) for one in found)


def test_what_differs_is_said_with_both_values() -> None:
    found = differences(fingerprint(Settings()), Settings(port=9000, max_losses=7))
    assert [str(one) for one in found] == [
        "SCHEDULER_PORT: '8000' there, '9000' here",
        "SCHEDULER_MAX_LOSSES: '3' there, '7' here",
    ]


@pytest.mark.parametrize(
    ("there", "here", "weakens"),
    [
        ({"token": "a"}, {}, True),
        ({"token": "a"}, {"token": "b"}, False),
        ({}, {"token": "b"}, False),
        ({}, {"port": 9000}, False),
    ],
)
def test_only_what_protects_less_weakens(there: dict[str, Any], here: dict[str, Any], weakens: bool) -> None:
    """B3: it never serves with less protection than the scheduler that is there."""
    (found,) = differences(fingerprint(Settings(**there)), Settings(**here))
    assert found.weakens is weakens


def test_a_ray_without_its_token_protects_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    there = fingerprint(Settings())
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert differences(there, Settings()) == [], "the default is the same"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    (found,) = differences(there, Settings())
    assert (found.name, found.weakens) == ("RAY_AUTH_MODE", True)


def test_settings_that_a_release_did_not_know_yet_are_no_difference() -> None:
    there = fingerprint(Settings())
    del there["max_body_bytes"]
    assert differences(there | {"gone_since": "1"}, Settings(max_body_bytes=5000)) == []
    assert differences({}, Settings(port=9000)) == []
