"""Makes the blocking client from the async one, so that every signature and docstring is written once.

`python -m scheduler.client.twin` writes the files again; it needs ruff.
Where the made files are too old to be imported, `python scheduler/client/twin.py` does the same.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
TWINS = {f"async_{part}.py": f"blocking_{part}.py" for part in ("transport", "handle", "client")}

_HEAD = re.compile(r'\A""".*?"""\n', re.DOTALL)
_WORDS = (
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\basync_(transport|handle|client)\b", r"blocking_\1"),
    (r"\bAsync(Transport|Client|JobHandle|Iterator|Generator|View)\b", r"\1"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\ba(closing|close|read|iter_sse)\b", r"\1"),
    (r"\banext\(", "next("),
    (r"\basyncio\b", "time"),
)


def blocking(source: str, name: str) -> str:
    """*source* without awaiting.  *name* is the file it came from."""
    text = source
    for pattern, replacement in _WORDS:
        text = re.sub(pattern, replacement, text)
    text = _HEAD.sub(f'"""Made from {name} by `python -m scheduler.client.twin`; change that one."""\n', text)
    return _ruff(
        _ruff(text, "check", "--select", "I,UP028", "--fix", "--unsafe-fixes", "--quiet"), "format", "--quiet"
    )


def _ruff(text: str, *command: str) -> str:
    # Named as if it lay here, so that the settings of this project count.
    call = [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(FOLDER / "made.py"), "-"]
    return subprocess.run(call, input=text, text=True, capture_output=True, check=True).stdout


def main() -> None:
    for name, twin in TWINS.items():
        (FOLDER / twin).write_text(blocking((FOLDER / name).read_text(), name))
        print(f"wrote {FOLDER / twin}")


if __name__ == "__main__":
    main()
