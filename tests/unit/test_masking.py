"""What looks like a secret is covered where many look; everything else is shown as it was written."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.pages.masking import HIDDEN as COVER
from serve_app.pages.masking import masked


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
