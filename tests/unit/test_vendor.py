"""The libraries that the pages bring: whole, licensed, and the ones that the list names."""

from __future__ import annotations

import re
from pathlib import Path

VENDOR = Path(__file__).resolve().parents[2] / "serve_app" / "static" / "vendor"
LISTED = re.findall(
    r"^\| (?P<files>[\w., -]+) \| (?P<package>[\w.]+) (?P<version>[\d.]+) \| .*\((?P<licence>LICENSE\.\w+)\)",
    (VENDOR / "README.md").read_text(),
    re.MULTILINE,
)


def test_every_library_is_listed_with_its_licence() -> None:
    """Code of others without its licence must not be shipped."""
    files = {name for files, *_ in LISTED for name in files.split(", ")}
    licences = {licence for *_, licence in LISTED}
    assert {path.name for path in VENDOR.iterdir()} == files | licences | {"README.md"}


def test_the_versions_are_those_in_the_files() -> None:
    """Whoever looks for a known flaw goes by the list."""
    versions = {package: version for _, package, version, _ in LISTED}
    assert f'version:"{versions["htmx.org"]}"' in (VENDOR / "htmx.min.js").read_text()
    assert f"v{versions['uplot']}" in (VENDOR / "uPlot.iife.min.js").read_text()[:300]


def test_nothing_in_them_is_fetched_from_elsewhere() -> None:
    """A cluster without internet has the whole page; and nobody learns who looks at it."""
    for path in VENDOR.glob("*.min.*"):
        for url in re.findall(r"https?://[^\s\"'`)]+", path.read_text()):
            assert url.startswith(("https://github.com/", "http://www.w3.org/")), (path.name, url)
