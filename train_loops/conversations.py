"""Conversations in files as people have them.  Light on purpose: the loop reads with it, and so does whoever checks a job.

JSONL or one JSON list, in UTF-8, UTF-16 or UTF-32, with or without a byte order mark, with any line ends, plain or
gzipped.  Whatever else comes is refused with file, line, field and remedy.  Nothing is read whole: a line may be a
million characters long, and no more of it is ever in memory.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from train_loops.formats import file_in_words, row_in_words

Message = dict[str, Any]

MAX_LINE_CHARS = 1_000_000
SHAPE = 'a line looks like {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
_GZIP = b"\x1f\x8b"
_BLANK = re.compile(r"[ \t\r\n]*")
_TOO_LONG = (
    f"is longer than {MAX_LINE_CHARS:,} characters; give one conversation a line, and leave long ones out"
)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a template takes, and where it stands."""

    where: str
    """File and line, for whoever has to mend it."""
    messages: list[Message]


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in a file: `problem` is why no loop will read it, `note` what was left unread."""

    problem: str | None = None
    note: str | None = None


def check(path: str, until_s: float) -> Checked:
    """Read *path* as the loop will, until the clock `time.monotonic` says *until_s*."""
    began_s, count = time.monotonic(), 0
    try:
        for conversation in read(Path(path)):
            count += 1
            if time.monotonic() > until_s:
                took = f"{time.monotonic() - began_s:.0f} s"
                last = conversation.where.removeprefix(f"{path}, ")
                return Checked(
                    note=f"of {path} the first {count:,} conversations were checked, to {last}, in {took}"
                )
    except ValueError as error:
        return Checked(problem=str(error))
    except OSError as error:
        return Checked(problem=f"{path} cannot be read: {error.strerror or error}")
    return Checked()


def read(path: Path) -> Iterator[Conversation]:
    """Each conversation of the file.  Raises ValueError naming file, line and field at the first that is none."""
    is_empty = True
    for where, row in _rows(path):
        is_empty = False
        yield Conversation(where, messages_of(row, where))
    if is_empty:
        raise ValueError(f"{path} is empty: it holds no conversation; {SHAPE}")


def messages_of(row: Any, where: str) -> list[Message]:
    """The messages of one row, their contents as text.  Raises ValueError in words that begin with *where*."""
    if not isinstance(row, dict):
        raise ValueError(f"{where}: `messages` is missing: this is {_kind(row)}, not an object; {SHAPE}")
    if (messages := row.get("messages")) is None:
        raise ValueError(f"{where}: `messages` is missing{row_in_words(row)}; {SHAPE}")
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{where}: `messages` is {_kind(messages)}, not a list with messages; {SHAPE}")
    if row.get("tools"):
        raise ValueError(f"{where}: {_no_tools('tools')}")
    read = [_message(one, f"messages.{index}", where) for index, one in enumerate(messages)]
    if not any(message["role"] == "assistant" for message in read):
        raise ValueError(
            f"{where}: there is no message of the assistant to learn from{_other_roles(read)}; {SHAPE}"
        )
    return read


def _message(message: Any, field: str, where: str) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        hint = row_in_words(message) if isinstance(message, dict) else f": this is {_kind(message)}"
        raise ValueError(f"{where}: {field}: a message needs `role` and `content`, both text{hint}; {SHAPE}")
    if message.get("tool_calls") or message["role"] in ("tool", "function"):
        raise ValueError(f"{where}: {field}: {_no_tools('tool calls')}")
    content = _text_of(message.get("content"))
    if content is None:
        raise ValueError(
            f"{where}: {field}: a message needs `role` and `content`, both text: "
            f"content is {_kind(message.get('content'))}; {SHAPE}"
        )
    if not content.isascii() and _is_broken(content):
        raise ValueError(
            f"{where}: {field}.content holds half of a surrogate pair, or bytes that are not UTF-8; write the file as UTF-8"
        )
    return message | {"content": content}


def _text_of(content: Any) -> str | None:
    """A list of text parts is its text; what else stands there is none."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return None
    parts = [
        part.get("text") for part in content if isinstance(part, dict) and part.get("type", "text") == "text"
    ]
    texts = [text for text in parts if isinstance(text, str)]
    return "".join(texts) if len(texts) == len(content) else None


def _no_tools(what: str) -> str:
    return f"holds {what}, which this loop does not learn yet and would leave out unseen; leave such conversations out"


def _other_roles(messages: list[Message]) -> str:
    roles = ", ".join(sorted({message["role"][:40] for message in messages}))
    return f" (the roles here are {roles}: the one whose answers are learnt is called `assistant`)"


# Rows


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    with _opened(path) as (text, is_list):
        try:
            yield from _items(text, path) if is_list else _lines(text, path)
        except UnicodeDecodeError as error:
            encoding = error.encoding.upper().removesuffix("-LE").removesuffix("-BE")
            raise ValueError(f"{path} is not {encoding} text, as it begins; write it as UTF-8") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} is gzipped and cut or damaged ({error}); copy it again") from None


class _opened:
    """The text of a file, whatever its encoding; and whether it is one JSON list."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> tuple[IO[str], bool]:
        self._file = self._path.open("rb")
        try:
            return self._text()
        except BaseException:
            self._file.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _text(self) -> tuple[IO[str], bool]:
        binary: Any = self._file
        if binary.peek(2)[:2] == _GZIP:
            binary = gzip.GzipFile(fileobj=binary)
        try:
            head: bytes = binary.peek(4096)[:4096]
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{self._path} is gzipped and cut or damaged ({error}); copy it again") from None
        if words := file_in_words(head, self._path.name):
            raise ValueError(f"{self._path} {words}")
        encoding = json.detect_encoding(head)
        # A byte that is no UTF-8 becomes half of a surrogate pair, so that the line that holds it can be named.
        errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
        text = io.TextIOWrapper(binary, encoding=encoding, errors=errors)
        return text, head.decode(encoding, "ignore").lstrip()[:1] == "["


def _lines(text: IO[str], path: Path) -> Iterator[tuple[str, Any]]:
    number = 0
    while line := text.readline(MAX_LINE_CHARS + 1):
        number += 1
        if len(line) > MAX_LINE_CHARS:
            raise ValueError(f"{path}, line {number}: the line {_TOO_LONG}")
        if not line.isspace():
            where = f"{path}, line {number}"
            if not line.isascii() and _is_broken(line):
                raise ValueError(f"{where}: holds bytes that are not UTF-8; write the file as UTF-8")
            yield where, _json(line, where)


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError(f"{where}: is nested too deep; {SHAPE}") from None
    except ValueError as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ValueError(f"{where}: this is not JSON ({what}); {SHAPE}") from None


def _items(text: IO[str], path: Path) -> Iterator[tuple[str, Any]]:
    """The items of one list, each decoded by itself, with never more than a few of them in memory."""
    window, number = _Window(text), 0
    window.skip("[")
    while window.next() != "]":
        if number and not window.skip(","):
            raise ValueError(
                f"{path}, line {window.line}: a comma is missing after item {number} of the list"
            )
        number += 1
        window.next()
        where = f"{path}, line {window.line} (item {number} of the list)"
        yield where, window.item(where)
    window.skip("]")
    if window.next():
        raise ValueError(
            f"{path}, line {window.line}: more follows after the end of the list; give one list, or one object a line"
        )


class _Window:
    """A piece of a long text that always reaches further than one item may."""

    def __init__(self, text: IO[str]) -> None:
        self._text, self._held, self._at = text, "", 0
        self.line = 1
        self._decoder = json.JSONDecoder()

    def next(self) -> str:
        """The next character that is not blank; empty at the end."""
        while True:
            self._fill()
            match = _BLANK.match(self._held, self._at)
            assert match is not None
            self._go_to(match.end())
            if self._at < len(self._held) or not self._fill():
                return self._held[self._at : self._at + 1]

    def skip(self, character: str) -> bool:
        is_there = self.next() == character
        if is_there:
            self._go_to(self._at + 1)
        return is_there

    def item(self, where: str) -> Any:
        try:
            value, end = self._decoder.raw_decode(self._held, self._at)
        except RecursionError:
            raise ValueError(f"{where}: is nested too deep; {SHAPE}") from None
        except ValueError as error:
            if len(self._held) - self._at > MAX_LINE_CHARS:
                raise ValueError(f"{where}: is no JSON, or {_TOO_LONG}") from None
            what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise ValueError(f"{where}: this is not JSON ({what}); {SHAPE}") from None
        if end - self._at > MAX_LINE_CHARS:
            raise ValueError(f"{where}: {_TOO_LONG}")
        self._go_to(end)
        return value

    def _go_to(self, end: int) -> None:
        self.line += self._held.count("\n", self._at, end)
        self._at = end

    def _fill(self) -> bool:
        """Whether more came."""
        if len(self._held) - self._at > MAX_LINE_CHARS:
            return False
        more = self._text.read(2 * MAX_LINE_CHARS)
        self._held, self._at = self._held[self._at :] + more, 0
        return bool(more)


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return "missing" if value is None else names.get(type(value), "a number")
