"""Files as people have them: what the door takes, the loop reads, and every refusal says what to mend."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.model import JobSpec
from scheduler.engine.inspection import Inspection, Question
from scheduler.engine.spec_validation import Accepted, SpecValidator
from scheduler.errors import InvalidSpec, RegistryUnavailable
from scheduler.testing.builders import a_node
from train_loops.conversations import MAX_LINE_CHARS, check, read

READER = "train_loops.conversations:check"
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"{n}? ü 日本"},
            {"role": "assistant", "content": "\u2028" + "1" * n},
        ]
    }
    for n in range(3)
]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
IN_PARTS = [
    {"messages": [one | {"content": [{"type": "text", "text": one["content"]}]} for one in row["messages"]]}
    for row in ROWS
]

WORK = {
    "plain": JSONL.encode(),
    "without a last line end": JSONL.rstrip("\n").encode(),
    "CRLF": JSONL.replace("\n", "\r\n").encode(),
    "old Mac": JSONL.replace("\n", "\r").encode(),
    "blank lines": ("\n \n" + JSONL.replace("\n", "\n\n")).encode(),
    "escaped": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "BOM": JSONL.encode("utf-8-sig"),
    "UTF-16": JSONL.encode("utf-16"),
    "UTF-16 without BOM": JSONL.encode("utf-16-be"),
    "UTF-32": JSONL.encode("utf-32"),
    "UTF-32 without BOM": JSONL.encode("utf-32-le"),
    "gzip": gzip.compress(JSONL.encode()),
    "gzip of UTF-16": gzip.compress(JSONL.encode("utf-16")),
    "a list": json.dumps(ROWS).encode(),
    "a list over many lines": ("\ufeff" + json.dumps(ROWS, indent=1)).encode(),
    "a gzipped list": gzip.compress(json.dumps(ROWS).encode()),
    "text in parts": "".join(json.dumps(row) + "\n" for row in IN_PARTS).encode(),
    "fields of one's own": "".join(json.dumps(row | {"id": 7, "tools": []}) + "\n" for row in ROWS).encode(),
}


@pytest.mark.parametrize("kind", WORK)
def test_every_way_to_write_the_same_conversations_is_read_the_same(kind: str, tmp_path: Path) -> None:
    """B4: a BOM or a line end of Windows is nothing that a person sees, so it must be nothing that stops them."""
    (tmp_path / "d").write_bytes(WORK[kind])
    found = [[(m["role"], m["content"]) for m in one.messages] for one in read(tmp_path / "d")]
    assert found == [[(m["role"], m["content"]) for m in row["messages"]] for row in ROWS]
    assert check(str(tmp_path / "d"), time.monotonic() + 60).problem is None


def row(*messages: Any, **more: Any) -> str:
    return json.dumps({"messages": messages, **more})


ASKED, ANSWERED = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
GOOD = row(ASKED, ANSWERED)
WORDS = {
    "is a Parquet file; write it as JSONL": b"PAR1\x15\x04\x15",
    "is a zip archive": b"PK\x03\x04aaaa",
    "is a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
    "is a web page": b"<!DOCTYPE html><html>",
    "begins with NUL bytes": b"\0" * 100,
    "gzipped and cut": gzip.compress(JSONL.encode() * 50)[:60],
    "line 1: `messages` is missing: this is the format Alpaca": b'{"instruction": "Add", "input": "1 2", "output": "3"}',
    "this is the format ShareGPT; rename `conversations`": b'{"conversations": [{"from": "human", "value": "hi"}]}',
    "this is the format prompt and completion": b'{"prompt": "1+1=", "completion": "2"}',
    "`messages` is missing (it has `train`)": b'{"train": []}',
    "the roles here are gpt, user": row(ASKED, {"role": "gpt", "content": "a"}).encode(),
    "messages.1: holds tool calls": row(ASKED, {**ANSWERED, "content": None, "tool_calls": [{}]}).encode(),
    "line 1: holds tools": row(ASKED, ANSWERED, tools=[{"type": "function"}]).encode(),
    "messages.1: a message needs `role` and `content`, both text: content is missing": row(
        ASKED, {"role": "assistant", "content": None}
    ).encode(),
    "content is a list": row({"role": "user", "content": [{"type": "image_url"}]}, ANSWERED).encode(),
    "line 20001: this is not JSON": (GOOD + "\n").encode() * 20_000 + b'{"messages": [',
    "line 2 (item 2 of the list): `messages` is missing": f"[{GOOD},\n{{}}]".encode(),
    "a comma is missing after item 1": f"[{GOOD} {GOOD}]".encode(),
    "line 2: more follows after the end of the list": b"[" + GOOD.encode() + b"]\n[]",
    "nested too deep": b'{"messages": ' + b"[" * 100_000,
    "line 2: the line is longer than 1,000,000 characters": GOOD.encode()
    + b'\n{"a": "'
    + b"x" * MAX_LINE_CHARS,
    "item 1 of the list): is no JSON, or is longer than": b'[{"a": "' + b"x" * (2 * MAX_LINE_CHARS),
    "is empty": b"[]",
}


@pytest.mark.parametrize("words", WORDS)
def test_what_cannot_be_learnt_is_named_for_what_it_is(words: str, tmp_path: Path) -> None:
    """B4: "not JSON" sends people to search ten thousand lines for a mistake that is in none of them."""
    (tmp_path / "d").write_bytes(WORDS[words])
    found = check(str(tmp_path / "d"), time.monotonic() + 60)
    assert words in (found.problem or "")
    assert str(tmp_path / "d") in (found.problem or "")
    with pytest.raises(ValueError, match=r"."):
        list(read(tmp_path / "d"))


# The door, with its process beside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = (tmp_path / "data").resolve()
    (root / "model").mkdir(parents=True)
    (root / "model" / "config.json").write_text("{}")
    (root / "good.jsonl").write_text(JSONL)
    return root


def sft(root: Path, **config: Any) -> JobSpec:
    return JobSpec(
        loop="sft", config={"model": str(root / "model"), "dataset": str(root / "good.jsonl")} | config
    )


def accepted(root: Path, **config: Any) -> Accepted:
    return SpecValidator([], [root]).check(sft(root, **config), [a_node()])


def refusal(root: Path, **config: Any) -> str:
    with pytest.raises(InvalidSpec) as refused:
        accepted(root, **config)
    return str(refused.value)


@pytest.mark.parametrize("name", ["model", "dataset", "eval_dataset"])
@pytest.mark.parametrize(
    "way", ["~/{}", "{root}/../data/{}", "{root}/link/{}", "file://{root}/{}", "{root}//./{}"]
)
def test_what_was_checked_is_what_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, way: str, name: str
) -> None:
    """B4: the check wrote `~` out and the loop did not, so that a job passed and died at its first line."""
    monkeypatch.setenv("HOME", str(root))
    (root / "link").symlink_to(root)
    there = root / ("model" if name == "model" else "good.jsonl")
    found = accepted(root, **{name: way.format(there.name, root=root)})
    assert found.spec.config[name] == str(there)


def test_a_link_that_is_turned_later_changes_nothing(root: Path) -> None:
    """The file that was looked at is the one that is named, not whatever a link says by then."""
    (root / "newest").symlink_to(root / "good.jsonl")
    found = accepted(root, dataset=str(root / "newest"))
    assert found.spec.config["dataset"] == str(root / "good.jsonl")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("$HOME/a.jsonl", "names a variable"),
        ("%USERPROFILE%\\a", "names a variable"),
        ("C:\\data\\a.jsonl", "is a path of Windows"),
        ("\\\\server\\share", "is a path of Windows"),
        (" /data/a.jsonl", "begins or ends with a blank"),
        ("/data/a.jsonl\n", "begins or ends with a blank"),
        ("~nobody-of-that-name/a", "there is no such home folder"),
        ("s3://bucket/a.jsonl", "is a URL, and nothing is downloaded"),
        ("https://example.org/a.jsonl", "is a URL, and nothing is downloaded"),
        ("file://server/a.jsonl", "does not name a file of the nodes"),
        ("file:///data/%00", "this is not a path"),
        ("a\0b", "this is not a path"),
        ("data/a.jsonl", "give the absolute path"),
    ],
)
def test_a_path_that_is_none_of_the_nodes_is_refused_in_words(root: Path, value: str, words: str) -> None:
    message = refusal(root, dataset=value)
    assert "config.dataset" in message
    assert words in message


def test_what_is_no_file_is_told_for_what_it_is_and_hangs_nobody(root: Path) -> None:
    """A FIFO at the door was waited for without end."""
    os.mkfifo(root / "fifo")
    for path, words in (
        (str(root / "fifo"), "is a FIFO"),
        (str(root), "is a folder"),
        ("/dev/zero", "is a device"),
    ):
        with pytest.raises(InvalidSpec, match=words):
            SpecValidator([], [root, Path("/dev")]).check(sft(root, dataset=path), [a_node()])
    assert "is a file, not a model's folder" in refusal(root, model=str(root / "good.jsonl"))


def test_an_endless_line_is_neither_read_nor_held(root: Path) -> None:
    """A: one line of 1.5 GB took the scheduler from 274 MB to 3.3 GB, even by a plan."""
    with (root / "long.jsonl").open("wb") as file:
        file.write(b'{"messages": "')
        file.truncate(100_000_000_000)
    began_s = time.monotonic()
    assert "line 1: the line is longer than 1,000,000" in refusal(root, dataset=str(root / "long.jsonl"))
    assert time.monotonic() - began_s < 20
    with (root / "model" / "config.json").open("wb") as file:
        file.truncate(100_000_000_000)
    assert "is no JSON object of a model" in refusal(root)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2_000_000, "kB, of any child so far"


def test_a_file_system_that_hangs_is_told_within_the_budget(root: Path) -> None:
    """P1's cousin: a submit that never answers.  What comes after the one that hangs is not called well either."""
    inspection = Inspection([root], read_s=0.2, hang_s=0.8)
    hangs = Question("messages_jsonl", str(root / "good.jsonl"), "tests.hanging:check")
    after = Question("model", str(root / "model"))
    began_s = time.monotonic()
    found = inspection.of([hangs, after])
    assert time.monotonic() - began_s < 10
    assert "does not answer within 1 s" in str(found[hangs].problem)
    assert "was not reached" in str(found[after].problem)
    assert "did not answer" in str(inspection.of([hangs, after])[hangs].problem)
    assert inspection.of([after])[after].problem is None


def test_what_needs_too_much_memory_is_told(root: Path) -> None:
    question = Question("messages_jsonl", str(root / "good.jsonl"), "tests.hanging:devour")
    found = Inspection([root], read_s=30, hang_s=30).of([question])
    assert "needs more than 512 MB" in str(found[question].problem)


def test_a_checker_that_falls_refuses_nothing_for_good(root: Path) -> None:
    """Its fault is not the file's: whoever submits is told to ask again."""
    question = Question("messages_jsonl", str(root / "good.jsonl"), "tests.hanging:fall")
    with pytest.raises(RegistryUnavailable, match="this checker is broken"):
        Inspection([root]).of([question])


def test_what_is_too_long_to_be_read_at_the_door_is_left_to_the_run_and_told(root: Path) -> None:
    question = Question("messages_jsonl", str(root / "good.jsonl"), READER)
    found = Inspection([root], read_s=0.0).of([question])[question]
    assert found.problem is None
    assert "the first 1 conversations were checked, to line 1" in str(found.note)


def test_a_file_is_read_again_only_when_it_has_changed(root: Path) -> None:
    """A sweep of a thousand jobs on one file would read it a thousand times."""
    file, door = root / "good.jsonl", SpecValidator([], [root])
    door.check(sft(root), [a_node()])
    before = file.stat()
    file.write_text("x" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    door.check(sft(root), [a_node()])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(InvalidSpec, match="line 1: this is not JSON"):
        door.check(sft(root), [a_node()])


def test_a_batch_looks_at_a_file_once(root: Path) -> None:
    """A: a thousand jobs on one file are one question."""
    began_s = time.monotonic()
    door = SpecValidator([], [root])
    found = asyncio.run(door.admit_all([sft(root, seed=n) for n in range(1000)], [a_node()]))
    assert [one.spec.config["seed"] for one in found] == list(range(1000))
    assert time.monotonic() - began_s < 15
    with pytest.raises(InvalidSpec) as refused:
        door.check_all([sft(root), sft(root, dataset="/etc/passwd")], [a_node()])
    assert [problem.field for problem in refused.value.problems] == ["jobs.1.config.dataset"]
