"""What is refused in the environment before anything starts."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from scheduler.core.contender import Rules
from scheduler.settings import Settings


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCHEDULER_TOKEN", "SCHEDULER_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("token", [None, ""])
def test_beyond_loopback_no_token_and_an_empty_one_are_refused_alike(
    token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`SCHEDULER_TOKEN=$(cat missing)` is empty, and must not open the API to everybody."""
    monkeypatch.setenv("SCHEDULER_HOST", "0.0.0.0")
    if token is not None:
        monkeypatch.setenv("SCHEDULER_TOKEN", token)
    with pytest.raises(ValidationError, match="set SCHEDULER_TOKEN to a long random secret"):
        Settings()


def test_on_loopback_an_empty_token_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_TOKEN", "")
    assert not Settings().token


@pytest.mark.parametrize("token", ["tökén", "two words", "from-a-file\n", " padded"])
def test_a_token_that_no_header_can_carry_is_refused_in_words(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHEDULER_TOKEN", token)
    with pytest.raises(ValidationError, match="a header can only carry visible ASCII"):
        Settings()


@pytest.mark.parametrize("token", ["correct-horse", 'a:b"c+/=~'])
def test_any_other_token_is_taken_as_it_is(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_TOKEN", token)
    settings = Settings()
    assert settings.token is not None and settings.token.get_secret_value() == token


def test_rules_of_the_policy_are_read_and_written_as_the_command_line_takes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCHEDULER_POLICY_RULES", "preempt=class, min_run_s=300")
    settings = Settings()
    assert settings.policy_rules == Rules(preempt="class", min_run_s=300.0)
    text = settings.environment()["SCHEDULER_POLICY_RULES"]
    assert text == "preempt=class,min_run_s=300.0"
    monkeypatch.setenv("SCHEDULER_POLICY_RULES", text)
    assert Settings().policy_rules == settings.policy_rules


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("worht=3", "worht: there is no such rule; known are"),
        ("preempt=sometimes", "preempt: "),
        ("worth=0.5", "worth is 1 or more"),
        ("lost_share=2", "lost_share is a part of the cluster: 0 to 1"),
        ("min_run_s=nan", "min_run_s is a number of seconds"),
    ],
)
def test_a_rule_that_is_none_is_refused_in_words(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCHEDULER_POLICY_RULES", text)
    with pytest.raises(ValidationError, match=words):
        Settings()


def test_a_user_without_a_home_is_told_what_to_set() -> None:
    """B4: in a container with a bare user id it was a traceback."""
    with pytest.raises(
        ValidationError, match=r"no home folder for '~nobody-of-that-name/x' here; set it to an absolute"
    ):
        Settings(state_dir="~nobody-of-that-name/x")  # type: ignore[arg-type]
