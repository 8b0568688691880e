"""Whatever is typed, piped or lies in a file: the command line answers in words, and a value is the same by every way."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from scheduler.cli import COMMANDS, app
from scheduler.cli.submit import spec_given
from scheduler.client import Client
from scheduler.client.spec_file import load_spec, parse_value
from scheduler.client.spec_text import MAX_BYTES
from scheduler.client.specs import to_wire
from scheduler.core.model import SPEC, JobSpec
from scheduler.errors import InvalidSpec, SchedulerError
from serve_app.request_body import parse
from tests.unit.served import LOOP, Served, scheduler_at

FAST = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with scheduler_at(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture(autouse=True)
def _at(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEDULER_URL", served.url)
    monkeypatch.delenv("SCHEDULER_TOKEN", raising=False)


def said(*args: str, piped: bytes | None = None) -> str:
    """What the command says; anything but an orderly exit fails the test."""
    done = CliRunner().invoke(app, list(args), input=piped, prog_name="scheduler")
    assert done.exception is None or isinstance(done.exception, SystemExit), (args, done.exception)
    assert 0 <= done.exit_code <= 130
    assert done.exit_code == 0 or done.stderr.strip() or done.stdout.strip()
    return done.stderr


# The same value by every way

PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
WORDS = st.sampled_from(
    [
        "no",
        "on",
        "y",
        "0123",
        "1_000",
        "0o17",
        "0x1F",
        "1e-4",
        ".5",
        "12:30",
        "2026-01-02",
        "null",
        "~",
        "<<",
        "true",
        "1.",
        "- a",
        "#",
    ]
)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | PLAIN | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN | WORDS, inner, max_size=3),
    max_leaves=8,
)


def spec_with(value: Any) -> dict[str, Any]:
    return {"loop": LOOP, "config": {"x": {"v": value}}}


@FAST
@given(value=VALUES)
def test_a_value_is_the_same_in_the_api_in_files_and_typed(tmp_path: Path, value: Any) -> None:
    """B4: what a loop gets in its config is what the person wrote, whichever way it came."""
    text = json.dumps(spec_with(value))
    (tmp_path / "job.json").write_text(
        json.dumps(spec_with(value), ensure_ascii=False, indent="\t"), encoding="utf-8"
    )
    (tmp_path / "job.yaml").write_text("# a comment, so that this is no JSON\n" + text)
    by_api = parse(text.encode(), SPEC).config
    assert by_api == spec_with(value)["config"]
    for path in ("job.json", "job.yaml"):
        by_file = parse(json.dumps(to_wire(load_spec(tmp_path / path))).encode(), SPEC).config
        assert repr(by_file) == repr(by_api)
    typed = spec_given(None, LOOP, None, [f"x.v={json.dumps(value)}"]).spec()
    assert repr(SPEC.validate_json(SPEC.dump_json(typed)).config) == repr(by_api)


@FAST
@given(value=VALUES)
def test_letters_written_as_they_are_mean_the_same_or_are_refused(tmp_path: Path, value: Any) -> None:
    """YAML takes some letters for line ends, and would join what stands on both sides."""
    path = tmp_path / "job.yaml"
    path.write_text(
        "# YAML\n" + json.dumps(spec_with(value), ensure_ascii=False), encoding="utf-8", newline=""
    )
    try:
        assert load_spec(path).config == spec_with(value)["config"]
    except InvalidSpec as error:
        assert "which cannot be seen" in str(error)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_encoding_of_unicode_and_every_line_end_is_read(
    tmp_path: Path, encoding: str, end: str
) -> None:
    """B4: what an editor of Windows writes is a spec as well."""
    text = 'loop: sft\nname: "ü 日本 \\ud83d\\ude00"\nconfig: {lr: 1e-4}\n'.replace("\n", end)
    (tmp_path / "job.yaml").write_bytes(text.encode(encoding))
    assert load_spec(tmp_path / "job.yaml") == JobSpec(loop="sft", name="ü 日本 😀", config={"lr": 1e-4})
    (tmp_path / "job.json").write_bytes(
        json.dumps({"loop": "sft", "name": "ü"}, indent=1).replace("\n", end).encode(encoding)
    )
    assert load_spec(tmp_path / "job.json").name == "ü"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("config: {a: no}", r"config.a: no may be meant as true or false.*line 2"),
        ("config: [a, Off]", r"config.1: Off may be meant"),
        ("config: {a: 0123}", r"config.a: 0123 begins with 0: some read it as octal"),
        ("config: {a: 1_000}", r"config.a: 1_000 is a number to some and text to others"),
        ("config: {a: 0b101}", r"0b101 is a number to some"),
        ("config: {a: \x07}", r"line 2, column 13: holds the character U\+0007"),
        ("config: {a: x\0y}", r"line 2, column 14: holds the character U\+0000"),
        ("config: {a: 'x\u2028y'}", r"holds the character U\+2028"),
        ("config: {a: !!int x}", r"a value that is not of its type"),
        ("config: {a: !!bool x}", r"a value that is not of its type"),
        ("config: {a: !!binary aGk=}", r"config.a: is of type bytes, which JSON cannot carry"),
        ("config: {a: !!timestamp 2026-01-02}", r"config.a: is of type date"),
        ("config: {a: " + "9" * 5000 + "}", r"a value that is not of its type"),
        ("config: {1: a}", r"has the key 1, which is not text"),
        ("config: {[a]: b}", r"has a key that is no text"),
        ("config: {a: 1, a: 2}", r"line 2: a is given twice"),
        ("\tconfig: {}", r"indent with blanks, not with tabs"),
        ("---\nloop: b", r"begins another document"),
        ("config: " + "[" * 5000, r"nested more than 100 levels deep"),
        ("config: {a: &a [*a]}", r"contains itself"),
        ('config: {a: "\\ud83d"}', r"config.a: holds half of a surrogate pair.*line 2"),
        ('config: {a: "\\0"}', r"config.a: holds .*NUL"),
        ("config: *nobody", r"is not YAML: found undefined alias"),
    ],
)
def test_what_yaml_has_that_a_spec_has_not(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"loop: sft\n{text}\n", encoding="utf-8")
    with pytest.raises(InvalidSpec, match=words):
        _wire(path)


def _wire(path: Path) -> None:
    given = spec_given(str(path), None, None, None)
    try:
        to_wire(given.spec())
    except InvalidSpec as error:
        raise given.placed(error) from None


def test_a_billion_laughs_are_counted_and_not_laughed(tmp_path: Path) -> None:
    """Each line is nine of the one before: written out, they would be more than there is memory."""
    lines = ["a0: &a0 [lol, lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    (tmp_path / "job.yaml").write_text("\n".join(lines))
    with pytest.raises(InvalidSpec, match="stands for more than 100,000 values"):
        load_spec(tmp_path / "job.yaml")


def test_what_an_alias_repeats_is_changed_in_one_place(tmp_path: Path) -> None:
    """`--set a.lr=1` changed b too, since both were one object."""
    (tmp_path / "job.yaml").write_text("loop: sft\nconfig:\n  a: &same {lr: 0}\n  b: *same\n")
    assert spec_given(str(tmp_path / "job.yaml"), None, None, ["a.lr=1"]).spec().config == {
        "a": {"lr": 1},
        "b": {"lr": 0},
    }


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("lr=no", "--set lr=no: no may be meant as true or false"),
        ("x=# heading", "# heading would be dropped"),
        ("x=a # b", "# b would be dropped"),
        ("x=---", "would be dropped"),
        ("x=@file", "quotes within quotes"),
        ("x=\x07", "holds the character U+0007"),
        ("x=\udcff", "holds the character U+DCFF"),
        ("a..b=1", "cannot be set"),
        (".=1", "cannot be set"),
        ("sample_prompts.7=a", "config.sample_prompts is a list of 1, which has no part '7'"),
        ("loop.a=1", "loop is a str, which has no part 'a'"),
        ("=1", "write it as KEY=VALUE"),
        ("x", "write it as KEY=VALUE"),
    ],
)
def test_what_is_typed_and_would_be_lost_is_told(tmp_path: Path, typed: str, words: str) -> None:
    (tmp_path / "job.yaml").write_text("loop: sft\nconfig: {sample_prompts: [a]}\n")
    assert words in said("plan", str(tmp_path / "job.yaml"), "--set", typed)


def test_an_item_of_a_list_can_be_set(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("loop: sft\nconfig: {sample_prompts: [a, {b: c}]}\n")
    found = spec_given(
        str(tmp_path / "job.yaml"), None, None, ["sample_prompts.0=x", "sample_prompts.1.b=y"]
    ).spec()
    assert found.config == {"sample_prompts": ["x", {"b": "y"}]}


def test_a_path_that_is_absolute_stays_as_it_is(tmp_path: Path) -> None:
    """`/data/` of a loop of one's own became `/data`."""
    (tmp_path / "job.json").write_text(
        json.dumps({"loop": LOOP, "config": {"prefix": f"{tmp_path}/", "dot": "/."}})
    )
    assert load_spec(tmp_path / "job.json").config == {"prefix": f"{tmp_path}/", "dot": "/."}


# What is no spec file at all


def test_things_that_are_no_files_are_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(5_000_000_000)
    for path, words in (
        ("/dev/zero", f"is larger than {MAX_BYTES:,} bytes"),
        (str(tmp_path / "large.yaml"), f"is larger than {MAX_BYTES:,} bytes"),
        (str(tmp_path), "directory"),
        ("~nobody-of-that-name/job.yaml", "is no path of a file"),
        ("/dev/null", "is empty"),
        (str(tmp_path / ("x" * 300)), "cannot be read"),
        ("a\0b", "is no path of a file"),
    ):
        with pytest.raises(InvalidSpec, match=words):
            load_spec(path)


def test_a_fifo_is_read_when_somebody_writes_into_it(tmp_path: Path) -> None:
    """As `scheduler submit <(make-spec)`."""
    os.mkfifo(tmp_path / "fifo")
    writer = threading.Timer(0.3, lambda: (tmp_path / "fifo").write_text("loop: sft\n"))
    writer.start()
    assert load_spec(tmp_path / "fifo") == JobSpec(loop="sft")
    writer.join()


def test_standard_input_is_read_as_a_file_is(served: Served) -> None:
    assert "is larger than" in said("plan", "-", piped=b" " * (MAX_BYTES + 1))
    assert "is not UTF-8 text (byte 6)" in said("plan", "-", piped=b"loop: \xff")
    assert (
        said(
            "plan", "-", piped=json.dumps({"loop": LOOP, "config": {"a": "ü"}}, indent="\t").encode("utf-16")
        )
        == ""
    )


# Anything

NOISE = st.text(max_size=20) | st.sampled_from(
    ["\udcff", "\x00", "-", "--", "{", "&a", "*a", "!!int x", "? a", "%YAML 9", "'", "1e999"]
)
BYTES = st.binary(max_size=60) | st.builds(
    lambda head, text, encoding: head + text.encode(encoding, "surrogatepass"),
    st.sampled_from([b"", b"loop: ", b"\xef\xbb\xbf", b"{", b"loop: a\nconfig: ", b'{"loop": ', b"\xff\xfe"]),
    NOISE,
    st.sampled_from(["utf-8", "utf-16", "utf-32"]),
)


@FAST
@given(raw=BYTES, name=st.sampled_from(["job.yaml", "job.json", "job"]))
def test_any_bytes_in_a_file_or_a_pipe_are_answered_in_words(tmp_path: Path, raw: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(raw)
    said("plan", str(tmp_path / name))
    said("plan", "-", "--json", piped=raw)


@FAST
@given(typed=st.lists(st.tuples(NOISE, NOISE), max_size=2), name=NOISE)
def test_any_text_that_is_typed_is_answered_in_words(typed: list[tuple[str, str]], name: str) -> None:
    values = [part for key, value in typed for part in ("--set", f"{key}={value}")]
    said("plan", "--loop", LOOP, "--name", name, *values, "--json")


ASKING = sorted(set(COMMANDS["Look"]) | {"wait", "loops", "health", "repairs"} - {"top", "open"})


@FAST
@given(command=st.sampled_from(ASKING), words=st.lists(NOISE, max_size=3), as_json=st.booleans())
def test_any_words_after_any_question_are_answered_in_words(
    command: str, words: list[str], as_json: bool
) -> None:
    """Options come by chance as well; those that would wait for ever are not among them."""
    if {"-f", "--follow", "--watch"} & set(words) or command in ("top", "open"):
        return
    said(command, *words, *(["--json"] if as_json else []))


@FAST
@given(value=st.text(max_size=30) | NOISE)
def test_any_value_that_is_typed_is_a_value_or_words(value: str) -> None:
    try:
        parse_value(value, "--set x")
    except SchedulerError as error:
        assert str(error)


@FAST
@given(
    name=st.sampled_from(
        ["SCHEDULER_URL", "SCHEDULER_TOKEN", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE"]
    ),
    value=st.text(st.characters(exclude_characters="\0"), max_size=20).filter(lambda text: _fits(text)),
)
def test_any_environment_is_answered_in_words(name: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        if name == "SCHEDULER_URL":
            patch.setenv(name, value.replace("://", ":"))  # none that would be asked
            said("loops")
            return
        try:
            Client("https://scheduler.example.invalid")
        except SchedulerError as error:
            assert str(error)


def _fits(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def test_the_program_itself_says_it_without_a_traceback(tmp_path: Path) -> None:
    """Once as people call it: bytes in the arguments, no home, a folder that is gone, letters that cannot be printed."""
    gone = tmp_path / "gone"
    gone.mkdir()
    code = "import os, sys; os.rmdir(os.getcwd()); from scheduler.cli import main; sys.argv[0] = 'scheduler'; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, b"plan", b"job\xff.yaml", b"--set", b"x=\xff", b"--json"],
        cwd=gone,
        env={
            "PYTHONPATH": str(ROOT),
            "LC_ALL": "C",
            "ALL_PROXY": "socks5://x:1",
            "PYTHONIOENCODING": "ascii",
        },
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr
    assert json.load(io.BytesIO(done.stderr))["code"] == "invalid_spec"
