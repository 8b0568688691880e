"""Checkpoints on a storage: a folder each, and complete only once its manifest is there.

<url>/<job_id>/
    train-<job>-<fence>/       what Ray Train writes for an attempt
        <checkpoint>/          named by Ray Train, or by the loop
            ...                the files of the loop
            manifest.json      written last: sizes and hashes of all the others

All methods block.  An `OSError` means that the storage did not answer; it never makes a checkpoint corrupt.
"""

from __future__ import annotations

import errno
import hashlib
import json
import posixpath
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyarrow import ArrowInvalid
from pyarrow.fs import FileSelector, FileSystem, FileType, FSSpecHandler, LocalFileSystem, PyFileSystem

from scheduler.core.checkpoints import Checkpoint, checkpoint_id, newest_first
from scheduler.core.model import CheckpointId, Fence, JobId, Json
from scheduler.core.plain_values import METRICS, plain_dict
from scheduler.errors import CheckpointUnusable
from scheduler.runs.atomic_write import fsync, write_whole

MANIFEST = "manifest.json"

READ_AHEAD_BYTES = 32 * 2**20
"""For storages in the network, where each read is a request: a quarter of a gigabyte took 154 s without, 4.8 s
with 8 MiB and 1.1 s with 64 MiB."""


@dataclass(slots=True)
class _Folder:
    fence: Fence
    path: str
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes by name, relative to the folder, of all its files; the manifest and its drafts are not among them."""
    has_manifest: bool = False


def train_name(job_id: JobId, fence: Fence) -> str:
    """The name of an attempt's run in Ray Train, and of its folder."""
    return f"train-{job_id[:8]}-{fence}"


def resolve(url: str) -> tuple[FileSystem, str]:
    """The file system of *url* and the path on it, as Ray Train resolves a `storage_path`.

    What pyarrow does not know, fsspec may; Ray Train then needs `storage_filesystem`, and the path alone.
    Raises ValueError for a URL that neither knows, ImportError when fsspec lacks the package for it.
    """
    try:
        return FileSystem.from_uri(url)
    except ArrowInvalid as error:
        if "Unrecognized filesystem type" not in str(error):
            raise
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(url)
    return PyFileSystem(FSSpecHandler(filesystem)), path


class CheckpointStore:
    """The checkpoints of one job, below *url*: an absolute path, or a URL that pyarrow or fsspec knows."""

    def __init__(self, url: str, job_id: JobId) -> None:
        self.filesystem, path = resolve(url)
        self.root = posixpath.normpath(posixpath.join(path, job_id))
        self.job_id = job_id
        self._is_local = isinstance(self.filesystem, LocalFileSystem)

    def all(self) -> list[Checkpoint]:
        """The complete ones, newest first: the manifest is whole, and every file is there with its size.

        No file is read, so that a flipped byte is only found by `verify`.
        """
        looks = map(self._look, self._folders())
        return newest_first(found for found in looks if isinstance(found, Checkpoint))

    def unusable(self) -> list[tuple[str, str]]:
        """The path of each folder that is no complete checkpoint, and why."""
        looks = [(folder.path, self._look(folder)) for folder in self._folders()]
        return [(path, found.message) for path, found in looks if isinstance(found, CheckpointUnusable)]

    def seal(
        self,
        path: str,
        fence: Fence,
        number: int,
        step: int | None,
        metrics: Mapping[str, Any],
        began_s: float,
    ) -> Checkpoint:
        """Make the folder *path* of attempt *fence* a complete checkpoint.  Safe to repeat.

        Hashes all its files, sees to it that they outlive a power cut, and writes the manifest last.  *began_s* is
        when it was reported, on the monotonic clock of this process.
        """
        folder = self._folder(fence, path)
        if not folder.sizes:
            raise CheckpointUnusable(f"{path} has no files")
        files = {
            name: {"size": size, "sha256": self._sha256(folder, name)} for name, size in folder.sizes.items()
        }
        if self._is_local:
            _sync([Path(path, name) for name in files], up_to=Path(self.root).parent)
        manifest = {
            "id": checkpoint_id(fence, number),
            "fence": fence,
            "number": number,
            "step": step,
            "at": datetime.now(UTC).isoformat(),
            "seconds": round(time.monotonic() - began_s, 3),
            "metrics": plain_dict(metrics, METRICS)[0],
            "files": files,
        }
        self._write(posixpath.join(path, MANIFEST), {"manifest": manifest, "sha256": _digest(manifest)})
        return _checkpoint(path, manifest)

    def verify(self, checkpoint: Checkpoint) -> None:
        """Read every byte of *checkpoint*; raise `CheckpointUnusable` unless all is as the manifest says."""
        folder = self._folder(checkpoint.fence, checkpoint.path)
        manifest = self._manifest(folder)
        if manifest["id"] != checkpoint.id:
            raise CheckpointUnusable(
                f"{checkpoint.path} is checkpoint {manifest['id']}, expected {checkpoint.id}"
            )
        _compare_sizes(folder, manifest)
        for name, file in manifest["files"].items():
            if (found := self._sha256(folder, name)) != file["sha256"]:
                raise CheckpointUnusable(
                    f"{folder.path}/{name}: expected SHA-256 {file['sha256']}, found {found}"
                )

    def open_newest(self, candidates: Iterable[Checkpoint]) -> tuple[Checkpoint | None, list[str]]:
        """The first of *candidates* that is whole, every byte read; and a sentence for each that was passed over."""
        skipped: list[str] = []
        for checkpoint in candidates:
            try:
                self.verify(checkpoint)
            except CheckpointUnusable as error:
                skipped.append(f"checkpoint {checkpoint.id} was passed over: {error.message}")
            else:
                return checkpoint, skipped
        return None, skipped

    def delete(self, checkpoint: Checkpoint) -> None:
        """Safe to repeat.  The manifest goes first, so that half a deletion leaves no complete checkpoint."""
        self._check_place(checkpoint.fence, checkpoint.path)
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(posixpath.join(checkpoint.path, MANIFEST))
        with suppress(FileNotFoundError):
            self.filesystem.delete_dir(checkpoint.path)

    def sweep(self, live_fence: Fence) -> list[str]:
        """Delete the folders without a manifest that attempts before *live_fence* left; return their paths."""
        garbage = [one.path for one in self._folders() if one.fence < live_fence and not one.has_manifest]
        for path in garbage:
            with suppress(FileNotFoundError):
                self.filesystem.delete_dir(path)
        return garbage

    def newest_attempt(self) -> Fence:
        """The newest attempt that Ray Train has begun here; 0 before the first."""
        return max(self._attempts(), default=Fence(0))

    def _look(self, folder: _Folder) -> Checkpoint | CheckpointUnusable:
        try:
            manifest = self._manifest(folder)
            _compare_sizes(folder, manifest)
        except CheckpointUnusable as error:
            return error
        return _checkpoint(folder.path, manifest)

    def _folders(self) -> Iterator[_Folder]:
        """All folders of all attempts, whatever is in them."""
        for fence in self._attempts():
            yield from self._folders_of(fence)

    def _attempts(self) -> list[Fence]:
        there = self.filesystem.get_file_info(FileSelector(self.root, allow_not_found=True))
        ends = ((info.path, info.base_name.rpartition("-")[2]) for info in there)
        numbers = ((path, Fence(int(end))) for path, end in ends if end.isdigit())
        return [fence for path, fence in numbers if path == self._run_path(fence)]

    def _folders_of(self, fence: Fence, checkpoint: str = "") -> Iterator[_Folder]:
        """Those of attempt *fence*, or only the one named *checkpoint*."""
        run = self._run_path(fence)
        folders: dict[str, _Folder] = {}
        selector = FileSelector(posixpath.join(run, checkpoint), allow_not_found=True, recursive=True)
        for info in self.filesystem.get_file_info(selector):
            top, _, name = posixpath.relpath(info.path, run).partition("/")
            if not name and info.type is not FileType.Directory:
                continue  # a note of Ray Train beside the checkpoints
            folder = folders.setdefault(top, _Folder(fence, posixpath.join(run, top)))
            if name == MANIFEST:
                folder.has_manifest = True
            elif info.type is FileType.File and not name.startswith(f".{MANIFEST}."):
                folder.sizes[name] = info.size
        yield from folders.values()

    def _folder(self, fence: Fence, path: str) -> _Folder:
        self._check_place(fence, path)
        return next(self._folders_of(fence, posixpath.basename(path)), _Folder(fence, path))

    def _check_place(self, fence: Fence, path: str) -> None:
        if posixpath.dirname(path) != self._run_path(fence):
            raise ValueError(f"{path} is not a folder directly in {self._run_path(fence)}")

    def _run_path(self, fence: Fence) -> str:
        return posixpath.join(self.root, train_name(self.job_id, fence))

    def _manifest(self, folder: _Folder) -> Json:
        """Raises `CheckpointUnusable` when there is none, or it is not as it was written."""
        path = posixpath.join(folder.path, MANIFEST)
        if not folder.has_manifest:
            raise CheckpointUnusable(f"{path} is missing: it was never complete")
        try:
            with self.filesystem.open_input_stream(path, compression=None) as stream:
                written = json.loads(stream.read())
            if written["sha256"] == _digest(written["manifest"]):
                return written["manifest"]
        except FileNotFoundError:
            raise CheckpointUnusable(f"{path} is missing: it is being deleted") from None
        except (ValueError, KeyError, TypeError):
            pass
        raise CheckpointUnusable(f"{path} is not as it was written")

    def _sha256(self, folder: _Folder, name: str) -> str:
        path = posixpath.join(folder.path, name)
        ahead = None if self._is_local else READ_AHEAD_BYTES
        try:
            # Without `compression=None` a file named `.gz` is unpacked on the way.
            with self.filesystem.open_input_stream(path, compression=None, buffer_size=ahead) as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
        except FileNotFoundError:
            raise CheckpointUnusable(f"{path} is missing") from None
        except OSError as error:
            if error.errno == errno.EIO:  # a bad disk; asking again does not help
                raise CheckpointUnusable(f"{path} cannot be read: {error}") from error
            raise

    def _write(self, path: str, value: Json) -> None:
        """Whole or not at all: by rename on a disk; elsewhere one upload, whose half would not parse."""
        data = json.dumps(value, allow_nan=False).encode()
        if self._is_local:
            return write_whole(Path(path), data)
        with self.filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(data)
        return None


def _checkpoint(path: str, manifest: Json) -> Checkpoint:
    files = manifest["files"]
    return Checkpoint(
        id=CheckpointId(manifest["id"]),
        fence=Fence(manifest["fence"]),
        number=manifest["number"],
        step=manifest["step"],
        at=datetime.fromisoformat(manifest["at"]),
        seconds=manifest["seconds"],
        num_bytes=sum(file["size"] for file in files.values()),
        num_files=len(files),
        metrics=manifest["metrics"],
        path=path,
    )


def _compare_sizes(folder: _Folder, manifest: Json) -> None:
    for name, file in manifest["files"].items():
        if name not in folder.sizes:
            raise CheckpointUnusable(f"{folder.path}/{name} is missing")
        if (found := folder.sizes[name]) != file["size"]:
            raise CheckpointUnusable(f"{folder.path}/{name}: expected {file['size']} bytes, found {found}")


def _digest(manifest: Json) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sync(files: list[Path], *, up_to: Path) -> None:
    """Have the disk hold *files*, and the folders that name them, from theirs up to *up_to*."""
    folders = {parent for file in files for parent in file.parents if parent.is_relative_to(up_to)}
    for path in [*files, *sorted(folders, reverse=True)]:
        fsync(path)
