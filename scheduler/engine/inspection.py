"""Questions about files, answered beside the scheduler: within a time and a memory, whatever the files are."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scheduler.engine.inspector import Finding
from scheduler.errors import RegistryUnavailable

log = logging.getLogger(__name__)

READ_S = 2.0
"""So long the contents of files are read; the rest is left to the run."""
HANG_S = 4.0
"""A file of which nothing was heard for so long after that hangs."""
_AVOIDED_S = 30.0
_REMEMBERED = 512
_START = "import sys; sys.path[:0] = sys.argv[1:]; from scheduler.engine.inspector import main; main()"


@dataclass(frozen=True, slots=True)
class Question:
    kind: str
    """`model` and `shape` ask of a folder; any other kind is a file that `check` reads."""
    path: str
    check: str = ""
    """`module:function` that is called with the path and with when to stop, by `time.monotonic`."""


class Inspection:
    """Safe to use from several threads.  A file that has not changed is not read again."""

    def __init__(self, roots: Sequence[Path], *, read_s: float = READ_S, hang_s: float = HANG_S) -> None:
        self._roots = [str(root.expanduser().resolve()) for root in roots]
        self._read_s, self._hang_s = read_s, hang_s
        self._known: OrderedDict[Question, Finding] = OrderedDict()
        self._hung_at_s: dict[str, float] = {}
        self._lock = threading.Lock()

    def of(self, questions: Sequence[Question]) -> dict[Question, Finding]:
        """What each is.  Raises RegistryUnavailable when that cannot be asked at all."""
        found = {question: late for question in questions if (late := self._still_hangs(question))}
        asked = [question for question in questions if question not in found]
        if asked:
            said = self._said(self._ask(asked))
            found |= {question: self._finding(question, index, said) for index, question in enumerate(asked)}
            self._remember(found)
        return found

    def _still_hangs(self, question: Question) -> Finding | None:
        """A process that hangs in the kernel stays: nobody is sent after it for a while."""
        since_s = time.monotonic() - self._hung_at_s.get(question.path, -math.inf)
        if since_s > _AVOIDED_S:
            return None
        words = f"{question.path} did not answer {since_s:.0f} s ago; see that its file system is there, and ask again later"
        return Finding(question.path, words)

    def _ask(self, questions: Sequence[Question]) -> bytes:
        known = [found.seen if (found := self._known.get(question)) else None for question in questions]
        asked = {
            "budget_s": self._read_s,
            "roots": self._roots,
            "questions": [
                {"kind": one.kind, "path": one.path, "check": one.check, "known": seen}
                for one, seen in zip(questions, known, strict=True)
            ],
        }
        try:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-X", "utf8", "-c", _START, *_import_folders()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd="/",
                env={},
            )
        except OSError as error:
            raise RegistryUnavailable(
                f"no process can be started to check files ({error}); ask again"
            ) from error
        return _answer_of(child, json.dumps(asked).encode() + b"\n", self._read_s + self._hang_s)

    def _said(self, answer: bytes) -> tuple[int, dict[int, Finding]]:
        """Which file was looked at last, and what was found in those before."""
        last, found = 0, dict[int, Finding]()
        for line in answer.splitlines(keepends=True):
            words: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
            last = words.get("at", last)
            if "of" in words:
                found[words["of"]] = Finding(**words["finding"])
        return last, found

    def _finding(self, question: Question, index: int, said: tuple[int, dict[int, Finding]]) -> Finding:
        last, found = said
        if index not in found:
            if index == last:
                now_s = time.monotonic()
                recent = {path: at_s for path, at_s in self._hung_at_s.items() if now_s - at_s < _AVOIDED_S}
                self._hung_at_s = recent | {question.path: now_s}
            what = "does not answer" if index == last else "was not reached: another file did not answer"
            limit_s = self._read_s + self._hang_s
            words = f"{question.path} {what} within {limit_s:g} s; see that its file system is there, and ask again"
            return Finding(question.path, words)
        finding, known = found[index], self._known.get(question)
        return known if known and finding.problem is None and known.seen == finding.seen else finding

    def _remember(self, found: dict[Question, Finding]) -> None:
        """What is well; what is wrong is soon mended."""
        with self._lock:
            for question, finding in found.items():
                if finding.problem is None and question.check:
                    self._known[question] = finding
                    self._known.move_to_end(question)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)


def _answer_of(child: subprocess.Popen[bytes], asked: bytes, limit_s: float) -> bytes:
    """All it said within *limit_s*.  One that hangs in the kernel is left behind; it cannot be waited for."""
    try:
        said, complaint = child.communicate(asked, timeout=limit_s)
    except subprocess.TimeoutExpired as late:
        child.kill()
        try:
            return child.communicate(timeout=0.5)[0]
        except subprocess.TimeoutExpired:
            log.warning("process %s looks at a file and cannot be ended: its file system hangs", child.pid)
            return late.stdout or b""
    if child.returncode:
        reason = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        log.error("files could not be checked: %s", complaint.decode(errors="replace"))
        raise RegistryUnavailable(
            f"files cannot be checked ({reason or child.returncode}); ask again, or see the log"
        )
    return said


def _import_folders() -> list[str]:
    """Where the packages are that it needs; it starts without what else this process can import."""
    found = (importlib.util.find_spec(name) for name in ("scheduler", "train_loops"))
    origins = [Path(spec.origin).parent.parent for spec in found if spec and spec.origin]
    return list(dict.fromkeys(map(str, origins)))
