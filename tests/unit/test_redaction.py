"""What looks like a secret is covered where many look; everything else is shown as it was written."""

from __future__ import annotations

import time
from typing import Any

import pytest

from scheduler.core.model import JobSpec
from scheduler.core.redaction import HIDDEN as COVER
from scheduler.core.redaction import Redactor, masked


@pytest.mark.parametrize(
    "name",
    ["token", "HF_TOKEN", "hfToken", "secret", "client_secret", "password", "db.password", "api_key", "apiKey", "X-Api-Key",
     "authorization", "credentials", "aws_secret_access_key", "privateKey", "passphrase"],
)  # fmt: skip
def test_the_value_of_a_field_that_names_a_secret_is_covered(name: str) -> None:
    assert masked({name: "abc123"}) == {name: COVER}
    assert masked({"deep": [{name: ["abc", 7]}]}) == {"deep": [{name: [COVER, COVER]}]}


@pytest.mark.parametrize(
    "name",
    ["max_tokens", "sample_max_tokens", "tokenizer", "eos_token", "pad_token", "author", "keep_last", "monkey", "keys"],
)  # fmt: skip
def test_names_that_only_sound_alike_are_shown(name: str) -> None:
    assert masked({name: "abc123"}) == {name: "abc123"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://ana:hunter2@db:5432/x", f"postgres://ana:{COVER}@db:5432/x"),
        ("https://ghp-token@example.org/repo", f"https://{COVER}@example.org/repo"),
        ("s3://bucket/folder?secret=abc&x=1", f"s3://bucket/folder?secret={COVER}&x=1"),
        ("export WANDB_API_KEY=0123abcd; run", f"export WANDB_API_KEY={COVER}; run"),
        ("password: hunter2", f"password: {COVER}"),
        ("Authorization: Bearer abcdefgh12345", f"Authorization: {COVER} {COVER}"),
        ("use hf_abcdefghijklmnopqrst now", f"use {COVER} now"),
        ("AKIAABCDEFGHIJKLMNOP", COVER),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", COVER),
    ],
)
def test_a_secret_inside_a_text_is_covered_and_the_text_around_it_is_not(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "/data/train.jsonl",
        "https://example.org/a?x=1",
        "learning_rate=0.1",
        "the password is asked later",
        "a@b.c",
    ],
)
def test_other_texts_are_as_they_were_written(text: str) -> None:
    assert masked({"path": text}) == {"path": text}


def test_what_follows_an_option_that_names_a_secret_is_covered() -> None:
    given = ["run", "--api-key", "abc", "--steps", "7", "--token=abc"]
    assert masked(given) == ["run", "--api-key", COVER, "--steps", "7", f"--token={COVER}"]


@pytest.mark.parametrize("value", [None, True, False, ""])
def test_that_there_is_no_secret_is_told(value: Any) -> None:
    assert masked({"token": value}) == {"token": value}


def test_what_was_given_is_not_changed() -> None:
    given = {"token": "a", "list": [{"secret": "b"}]}
    masked(given)
    assert given == {"token": "a", "list": [{"secret": "b"}]}


class TestTexts:
    """D: what a loop prints is masked as its spec is."""

    REDACTOR = Redactor.of(
        JobSpec(
            loop="a",
            config={"api_key": "hunter-22", "secret": "training", "deep": [{"password": "pässwörd1"}]},
        )
    )

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("connecting with hunter-22, again: hunter-22", "connecting with *********, again: *********"),
            ("is pässwörd1 right?", "is *·***·*** right?"),
            ("login hf_abcdefghijklmnopqrst ok", f"login {'*' * 23} ok"),
            ("sb_secret_0123456789abc", "*" * 23),
            ("sk-proj-abcdefghijklmnop1234", "*" * 28),
            ("GET https://ana:pw1@host/x", "GET https://ana:***@host/x"),
            ("Authorization: Bearer abc123def456", "Authorization: Bearer ************"),
            ("export WANDB_API_KEY='0123abcd'", "export WANDB_API_KEY='********'"),
        ],
    )
    def test_a_secret_is_covered_and_every_offset_stays(self, text: str, shown: str) -> None:
        assert self.REDACTOR.text(text) == shown
        assert (len(shown), len(shown.encode())) == (len(text), len(text.encode()))

    @pytest.mark.parametrize(
        "text",
        [
            "training goes on", "loss per token: 0.123", "token: 5 of 10", "num_tokens=512", "password: not given",
            "Bearer authentication is used", "PAD_TOKEN=<pad_0>", "MAX_STEPS=12345", "sk-learn-like-estimators-are-fine",
            "https://example.org/a?x=1", "see a@b.c", "eyJust a word", "task-abcdefghijklmnopqrstuvwxyz1", "\ud83d",
        ],
    )  # fmt: skip
    def test_ordinary_words_stay(self, text: str) -> None:
        assert self.REDACTOR.text(text) == text

    @pytest.mark.parametrize("cut", range(1, 60, 3))
    def test_a_secret_that_is_cut_by_the_end_of_a_piece_is_covered_in_both(self, cut: int) -> None:
        """D: a log is read in pieces, which end anywhere."""
        text = "a line\nuse hf_abcdefghijklmnopqrst and hunter-22 now\n"
        parts = [text[:cut], text[cut:]]
        told = self.REDACTOR.between("", parts[0], parts[1]) + self.REDACTOR.between(parts[0], parts[1], "")
        assert told == self.REDACTOR.text(text)
        assert "hf_" not in told

    @pytest.mark.parametrize(
        "piece", ["a", "a.", "a-", "eyJ-", "eyJaaaaaaaaaaa.", "A_", "a:", "://", "sk-", "bearer ", "x=", "@"]
    )
    def test_no_text_takes_long(self, piece: str) -> None:
        """A loop could print what blocks the scheduler otherwise."""
        began_s = time.process_time()
        text = piece * (200_000 // len(piece))
        self.REDACTOR.text(text)
        masked({"note": text})
        assert time.process_time() - began_s < 2
