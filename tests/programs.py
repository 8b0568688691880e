"""Programs of others that the tests run: from the PATH, or where `make` put them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_HERE = Path(__file__).resolve().parents[1] / ".cache" / "prometheus" / "usr" / "bin"


def found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}{os.pathsep}{_HERE}")
