"""Names what a file is that is no file of conversations, and how it becomes one."""

from __future__ import annotations

from typing import Any

_TO_JSONL = "write it as JSONL"
_UNPACK = "unpack it, and give the JSONL file"
_FILES: tuple[tuple[bytes, str], ...] = (
    (
        b"PAR1",
        'is a Parquet file; write it as JSONL: pandas.read_parquet("a.parquet").to_json("a.jsonl", '
        'orient="records", lines=True)',
    ),
    (b"ARROW1", f"is an Arrow file; {_TO_JSONL}: datasets.Dataset.from_file(...).to_json(...)"),
    (b"\xff\xff\xff\xff", f"is an Arrow stream; {_TO_JSONL}: datasets.Dataset.from_file(...).to_json(...)"),
    (b"PK\x03\x04", f"is a zip archive (or a sheet, or a saved tensor); {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"is compressed by zstd; {_UNPACK}, or compress it by gzip"),
    (b"BZh", f"is compressed by bzip2; {_UNPACK}, or compress it by gzip"),
    (b"\xfd7zXZ", f"is compressed by xz; {_UNPACK}, or compress it by gzip"),
    (b"\x1f\x8b", "is gzipped twice; unpack it once"),
    (b"SQLite format 3", f"is an SQLite database; {_TO_JSONL}"),
    (b"\x80\x04", f"is a pickle; {_TO_JSONL}"),
    (
        b"version https://git-lfs",
        "is a pointer of Git LFS, not the file itself; run `git lfs pull` where it came from",
    ),
    (b"<!DOCTYPE", "is a web page, perhaps an error that was downloaded; download the file again"),
    (b"<!doctype", "is a web page, perhaps an error that was downloaded; download the file again"),
    (b"<html", "is a web page, perhaps an error that was downloaded; download the file again"),
    (b"\0\0\0\0", "begins with NUL bytes: it is no text, or it was never written; copy it again"),
)
_TABLES = (".csv", ".tsv", ".xlsx", ".parquet")

_ROWS: tuple[tuple[frozenset[str], str, str], ...] = (
    (
        frozenset({"conversations"}),
        "ShareGPT",
        "rename `conversations` to `messages`, `from` to `role`, `value` to `content`, and the roles human and gpt to "
        "user and assistant",
    ),
    (
        frozenset({"from", "value"}),
        "ShareGPT",
        "rename `from` to `role`, `value` to `content`, and human and gpt to user and assistant",
    ),
    (
        frozenset({"instruction", "output"}),
        "Alpaca",
        "make `instruction`, with `input` after it, the content of a user's message, and `output` that of the assistant's",
    ),
    (
        frozenset({"prompt", "completion"}),
        "prompt and completion",
        "make `prompt` the content of a user's message, and `completion` that of the assistant's",
    ),
    (
        frozenset({"chosen", "rejected"}),
        "preference pairs",
        "this loop learns answers, not preferences: take `chosen` as `messages`",
    ),
    (
        frozenset({"question", "answer"}),
        "question and answer",
        "make `question` the content of a user's message, and `answer` that of the assistant's",
    ),
    (frozenset({"input_ids"}), "tokens", "this loop tokenizes by itself: give the conversations"),
    (frozenset({"text"}), "plain text", "this loop learns the answers of conversations: say who speaks"),
)
_MOST_FIELDS = 8


def file_in_words(head: bytes, name: str) -> str | None:
    """What a file is that begins with *head* and is called *name*; None where it may hold JSON."""
    for magic, words in _FILES:
        if head.startswith(magic):
            return words
    if name.lower().endswith(_TABLES) and head.lstrip(b"\xef\xbb\xbf \r\n")[:1] not in (b"{", b"["):
        return f"is a table ({name.rpartition('.')[2].lower()}), not JSON; {_TO_JSONL}"
    return None


def row_in_words(row: dict[str, Any]) -> str:
    """The format that *row* has, and how to convert it; else the fields that it has."""
    for fields, name, remedy in _ROWS:
        if fields <= row.keys():
            return f": this is the format {name}; {remedy}"
    some = ", ".join(f"`{str(field)[:40]}`" for field in list(row)[:_MOST_FIELDS])
    return f" (it has {some})" if row else " (it is empty)"
