"""A disk that is slow or broken on demand, for processes started with it in LD_PRELOAD (Linux; needs cc)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int strike(const char *name, int fd) {
    const char *delay_us = getenv("DISK_SHIM_DELAY_US");
    const char *broken = getenv("DISK_SHIM_BROKEN_FILE");
    if (delay_us) usleep((useconds_t)atol(delay_us));
    if (broken && access(broken, F_OK) == 0) { errno = EIO; return -1; }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(fd);
}

int fsync(int fd) { return strike("fsync", fd); }
int fdatasync(int fd) { return strike("fdatasync", fd); }
"""


def build(folder: Path) -> Path | None:
    """Compile the shim into *folder* and return its path; None where there is no C compiler.

    DISK_SHIM_DELAY_US: microseconds that each fsync and fdatasync takes longer.
    DISK_SHIM_BROKEN_FILE: while this path exists, they fail with an I/O error.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "disk_shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-x", "c", "-", "-o", str(library), "-ldl"]
    subprocess.run(command, input=_SOURCE.encode(), check=True, capture_output=True)
    return library
