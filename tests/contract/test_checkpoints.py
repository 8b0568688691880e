"""What a storage of checkpoints promises: on a disk, over the wire of S3, and through fsspec."""

from __future__ import annotations

import asyncio
import copy
import errno
import gzip
import math
import os
import posixpath
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import torch

from scheduler.core.checkpoints import Checkpoint
from scheduler.core.model import CheckpointPolicy, Fence, JobId, Origin
from scheduler.errors import CheckpointUnusable
from scheduler.runs.checkpoint_callback import CheckpointCallback
from scheduler.runs.checkpoint_store import MANIFEST, CheckpointStore, train_name
from tests import sealing
from tests.s3 import new_folder, s3_server

FILES = {
    "model.bin": bytes(range(256)) * 40,
    "shards/0/optimizer.bin": b"moments" * 100,
    "data.json.gz": gzip.compress(b"{}"),
    "empty": b"",
}


class CheckpointsContract:
    """Subclass it and give a `url` of an empty folder.  Files are put and spoilt past the class under test."""

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    def checkpoints(self, url: str) -> CheckpointStore:
        return CheckpointStore(url, JobId(str(uuid4())))

    def test_a_job_that_saved_nothing_has_no_checkpoints(self, checkpoints: CheckpointStore) -> None:
        assert (checkpoints.all(), checkpoints.unusable(), checkpoints.sweep(Fence(9))) == ([], [], [])
        assert checkpoints.open_newest([]) == (None, [])

    def test_a_sealed_folder_is_a_checkpoint_for_whoever_looks(
        self, checkpoints: CheckpointStore, url: str
    ) -> None:
        path = put(checkpoints, 2)
        assert checkpoints.all() == [], "it was taken for complete before it was sealed"

        began_s = time.monotonic() - 5
        sealed = checkpoints.seal(path, Fence(2), 3, 120, {"step": 120, "loss": 0.5}, began_s)

        found = CheckpointStore(url, checkpoints.job_id).all()
        assert found == [sealed]
        assert (sealed.id, sealed.fence, sealed.number, sealed.step) == ("2.3", 2, 3, 120)
        assert sealed.num_files == len(FILES)
        assert sealed.num_bytes == sum(map(len, FILES.values()))
        assert sealed.metrics == {"step": 120, "loss": 0.5}
        assert 5 <= sealed.seconds < 60
        assert checkpoints.unusable() == []
        checkpoints.verify(sealed)

    def test_sealing_twice_is_sealing_once(self, checkpoints: CheckpointStore) -> None:
        path = put(checkpoints, 1)
        checkpoints.seal(path, Fence(1), 1, 10, {}, time.monotonic())
        again = checkpoints.seal(path, Fence(1), 1, 10, {}, time.monotonic())
        assert checkpoints.all() == [again]
        checkpoints.verify(again)

    def test_checkpoints_of_all_attempts_are_found_and_of_no_other_job(
        self, checkpoints: CheckpointStore, url: str
    ) -> None:
        sealed(CheckpointStore(url, JobId(str(uuid4()))), 1, 1)
        made = [sealed(checkpoints, 1, 1), sealed(checkpoints, 1, 2), sealed(checkpoints, 12, 1)]
        assert checkpoints.all() == made[::-1], "newest first"

    def test_what_ray_train_leaves_beside_the_checkpoints_is_none(self, checkpoints: CheckpointStore) -> None:
        one = sealed(checkpoints, 1, 1)
        write(
            checkpoints,
            posixpath.join(posixpath.dirname(one.path), "checkpoint_manager_snapshot.json"),
            b"{}",
        )
        write(checkpoints, posixpath.join(checkpoints.root, "run-1", "checkpoint_1", "x"), b"{}")
        assert (checkpoints.all(), checkpoints.unusable()) == ([one], [])

    def test_a_folder_that_was_never_sealed_is_torn(self, checkpoints: CheckpointStore) -> None:
        path = put(checkpoints, 1)
        assert checkpoints.all() == []
        assert checkpoints.unusable() == [(path, f"{path}/{MANIFEST} is missing: it was never complete")]

    def test_a_missing_file_tears_it(self, checkpoints: CheckpointStore) -> None:
        one = sealed(checkpoints, 1, 1)
        checkpoints.filesystem.delete_file(f"{one.path}/shards/0/optimizer.bin")
        assert_torn(checkpoints, one, f"{one.path}/shards/0/optimizer.bin is missing")

    def test_a_short_file_tears_it(self, checkpoints: CheckpointStore) -> None:
        one = sealed(checkpoints, 1, 1)
        write(checkpoints, f"{one.path}/model.bin", FILES["model.bin"][:-1])
        assert_torn(checkpoints, one, f"{one.path}/model.bin: expected 10240 bytes, found 10239")

    @pytest.mark.parametrize("name", ["model.bin", "data.json.gz"])
    def test_a_flipped_byte_is_found_by_reading_it(self, checkpoints: CheckpointStore, name: str) -> None:
        one = sealed(checkpoints, 1, 1)
        write(checkpoints, f"{one.path}/{name}", flipped(FILES[name], -1))
        assert checkpoints.all() == [one]
        with pytest.raises(CheckpointUnusable, match=rf"{name}: expected SHA-256 \w{{64}}, found \w{{64}}"):
            checkpoints.verify(one)

    @pytest.mark.parametrize("kept", [0, 1, 2, 10])
    def test_a_part_of_a_manifest_is_none(self, checkpoints: CheckpointStore, kept: int) -> None:
        one = sealed(checkpoints, 1, 1)
        manifest = read(checkpoints, f"{one.path}/{MANIFEST}")
        write(checkpoints, f"{one.path}/{MANIFEST}", manifest[: len(manifest) * kept // 10 - (kept == 10)])
        assert_torn(checkpoints, one, f"{one.path}/{MANIFEST} is not as it was written")

    def test_a_manifest_that_was_changed_is_none(self, checkpoints: CheckpointStore) -> None:
        one = sealed(checkpoints, 1, 1, step=120)
        manifest = read(checkpoints, f"{one.path}/{MANIFEST}")
        write(checkpoints, f"{one.path}/{MANIFEST}", manifest.replace(b'"step": 120', b'"step": 130'))
        assert_torn(checkpoints, one, f"{one.path}/{MANIFEST} is not as it was written")

    def test_the_manifest_of_another_checkpoint_proves_nothing(self, checkpoints: CheckpointStore) -> None:
        one, other = sealed(checkpoints, 1, 1), sealed(checkpoints, 1, 2)
        write(checkpoints, f"{one.path}/{MANIFEST}", read(checkpoints, f"{other.path}/{MANIFEST}"))
        with pytest.raises(CheckpointUnusable, match=r"is checkpoint 1\.2, expected 1\.1"):
            checkpoints.verify(one)

    def test_the_newest_whole_one_is_opened_and_the_others_are_named(
        self, checkpoints: CheckpointStore
    ) -> None:
        first, second, third, fourth = [sealed(checkpoints, 1, number) for number in (1, 2, 3, 4)]
        write(checkpoints, f"{fourth.path}/model.bin", flipped(FILES["model.bin"], 7))
        checkpoints.filesystem.delete_dir(third.path)

        opened, skipped = checkpoints.open_newest([fourth, third, second, first])

        assert opened == second
        assert len(skipped) == 2
        assert skipped[0].startswith(
            f"checkpoint 1.4 was passed over: {fourth.path}/model.bin: expected SHA-256"
        )
        assert skipped[1].startswith(f"checkpoint 1.3 was passed over: {third.path}/{MANIFEST} is missing")

    def test_a_storage_that_does_not_answer_tears_nothing(self, checkpoints: CheckpointStore) -> None:
        """A run that began from the beginning because of a short outage would throw good work away."""
        one = sealed(checkpoints, 1, 1)
        error = OSError("AWS Error NETWORK_CONNECTION")
        outage = broken(checkpoints, "open_input_stream", error)
        half_way = broken(checkpoints, "open_input_stream", error, only=f"{one.path}/model.bin")
        for look in (outage.all, outage.unusable, lambda: half_way.open_newest([one])):
            with pytest.raises(OSError, match="NETWORK_CONNECTION"):
                look()

    def test_a_file_that_the_disk_cannot_read_tears_its_checkpoint(
        self, checkpoints: CheckpointStore
    ) -> None:
        newer, older = sealed(checkpoints, 1, 2), sealed(checkpoints, 1, 1)
        bad = OSError(errno.EIO, "Input/output error")
        disk = broken(checkpoints, "open_input_stream", bad, only=f"{newer.path}/model.bin")
        opened, skipped = disk.open_newest([newer, older])
        assert opened == older
        assert "model.bin cannot be read" in skipped[0]

    def test_a_deleted_one_is_gone_and_deleting_again_is_fine(self, checkpoints: CheckpointStore) -> None:
        one, other = sealed(checkpoints, 1, 1), sealed(checkpoints, 1, 2)
        checkpoints.delete(one)
        checkpoints.delete(one)
        assert checkpoints.all() == [other]
        assert checkpoints.unusable() == []

    def test_half_a_deletion_leaves_no_complete_checkpoint(self, checkpoints: CheckpointStore) -> None:
        one = sealed(checkpoints, 1, 1)
        with pytest.raises(OSError, match="down"):
            broken(checkpoints, "delete_dir", OSError("down")).delete(one)
        assert checkpoints.all() == []
        assert checkpoints.sweep(Fence(2)) == [one.path]

    def test_garbage_of_attempts_that_are_over_is_swept(self, checkpoints: CheckpointStore) -> None:
        garbage, good, live = put(checkpoints, 1), sealed(checkpoints, 1, 1), put(checkpoints, 2)
        rotten = sealed(checkpoints, 1, 2)
        checkpoints.filesystem.delete_file(f"{rotten.path}/model.bin")

        assert checkpoints.sweep(Fence(2)) == [garbage]

        assert checkpoints.all() == [good]
        assert sorted(path for path, _ in checkpoints.unusable()) == sorted([rotten.path, live])
        assert checkpoints.sweep(Fence(2)) == []

    def test_nothing_outside_of_the_folder_of_an_attempt_is_touched(
        self, checkpoints: CheckpointStore
    ) -> None:
        path, one = put(checkpoints, 1), sealed(checkpoints, 1, 1)
        for elsewhere in (checkpoints.root, posixpath.dirname(path), f"{path}/shards", f"{path}/../../x"):
            with pytest.raises(ValueError, match="is not a folder directly in"):
                checkpoints.seal(elsewhere, Fence(1), 1, None, {}, time.monotonic())
        with pytest.raises(ValueError, match="is not a folder directly in"):
            checkpoints.seal(path, Fence(2), 1, None, {}, time.monotonic())
        with pytest.raises(ValueError, match="is not a folder directly in"):
            checkpoints.delete(Checkpoint(**{**as_dict(one), "path": checkpoints.root}))

    def test_a_folder_without_files_is_not_sealed(self, checkpoints: CheckpointStore) -> None:
        path = posixpath.join(checkpoints.root, train_name(checkpoints.job_id, Fence(1)), "checkpoint_1")
        with pytest.raises(CheckpointUnusable, match="has no files"):
            checkpoints.seal(path, Fence(1), 1, None, {}, time.monotonic())


class TestOnADisk(CheckpointsContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return str(tmp_path)

    def test_a_power_cut_leaves_it_complete_or_not_there(
        self, checkpoints: CheckpointStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The manifest gets its name after everything that it names is on the disk, and keeps it."""
        done: list[str] = []
        fsync, rename = os.fsync, Path.rename

        def noted_fsync(descriptor: int) -> None:
            done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink()}")
            fsync(descriptor)

        def noted_rename(self: Path, target: Path) -> Path:
            done.append(f"rename {self} {target}")
            return rename(self, target)

        path = put(checkpoints, 1)
        monkeypatch.setattr(os, "fsync", noted_fsync)
        monkeypatch.setattr(Path, "rename", noted_rename)
        checkpoints.seal(path, Fence(1), 1, None, {}, time.monotonic())

        named = next(index for index, what in enumerate(done) if what.startswith("rename"))
        _, draft, target = done[named].split()
        folders = [path, f"{path}/shards", f"{path}/shards/0", *map(str, Path(path).parents[:3])]
        assert target == f"{path}/{MANIFEST}"
        assert {f"sync {one}" for one in [draft, *(f"{path}/{name}" for name in FILES), *folders]} <= set(
            done[:named]
        )
        assert done[named + 1 :] == [f"sync {path}"]

    @pytest.mark.parametrize("kills", [12, pytest.param(60, marks=pytest.mark.long)])
    def test_no_kill_leaves_a_torn_one_that_is_taken_for_complete(
        self, checkpoints: CheckpointStore, tmp_path: Path, kills: int
    ) -> None:
        """Killed are processes that save, seal and delete without a pause."""
        chance = random.Random(20261122)
        processes = get_context("forkserver")
        processes.set_forkserver_preload([sealing.__name__])
        torn_at_a_kill = 0
        for fence in range(1, kills + 1):
            hear, tell = processes.Pipe(duplex=False)
            child = processes.Process(
                target=sealing.without_a_pause, args=(str(tmp_path), checkpoints.job_id, fence, tell)
            )
            child.start()
            tell.close()
            told = [hear.recv()]
            time.sleep(chance.uniform(0, 0.06))
            child.kill()
            with suppress(EOFError):
                while True:
                    told.append(hear.recv())
            child.join()

            complete = checkpoints.all()
            for one in complete:
                checkpoints.verify(one)
                assert one.num_bytes == sealing.NUM_BYTES, "it was sealed before it was all there"
            assert complete, "all are lost"
            assert (complete[0].fence, complete[0].number) >= (fence, told[-1]), "an acknowledged one is lost"
            torn_at_a_kill += bool(checkpoints.unusable())
            checkpoints.sweep(Fence(fence + 1))
            assert checkpoints.unusable() == []
        assert torn_at_a_kill >= kills // 6, "the kills came when nothing was being written"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as server:
        yield server


class TestOverS3(CheckpointsContract):
    @pytest.fixture
    def url(self, server: str) -> str:
        return new_folder(server)


class TestThroughFsspec(CheckpointsContract):
    @pytest.fixture
    def url(self) -> str:
        return f"memory://{uuid4()}/checkpoints"


def test_a_url_that_nobody_knows_is_refused() -> None:
    for url in ("nosuch://bucket/x", "relative/path"):
        with pytest.raises(ValueError, match=r"nosuch|relative"):
            CheckpointStore(url, JobId("j"))


def test_metrics_are_kept_as_json_can_hold_them(tmp_path: Path) -> None:
    checkpoints = CheckpointStore(str(tmp_path), JobId(str(uuid4())))
    path = Path(checkpoints.root, train_name(checkpoints.job_id, Fence(1)), "one")
    path.mkdir(parents=True)
    (path / "model").write_text("1")
    metrics = {
        "loss": math.nan,
        "best": math.inf,
        "step": 3,
        "done": True,
        "tensor": torch.tensor(0.5),
        "curve": (1.0, None),
        "nested": {1: "x"},
        "other": object,
    }
    checkpoints.seal(str(path), Fence(1), 1, 3, metrics, 0.0)
    assert checkpoints.all()[0].metrics == {
        "loss": None,
        "best": None,
        "step": 3,
        "done": True,
        "tensor": 0.5,
        "curve": [1.0, None],
        "nested": {"1": "x"},
        "other": "<class 'object'>",
    }


@pytest.mark.parametrize(("replaced", "left"), [(False, ["1.2"]), (True, ["1.2", "1.1"])])
def test_a_run_that_was_replaced_deletes_nothing(tmp_path: Path, replaced: bool, left: list[str]) -> None:
    checkpoints = CheckpointStore(str(tmp_path), JobId(str(uuid4())))
    seal = CheckpointCallback(
        url=str(tmp_path),
        job_id=checkpoints.job_id,
        fence=Fence(1),
        policy=CheckpointPolicy(keep_last=1),
        origin=Origin(),
        saved_file=tmp_path / "saved.jsonl",
    )
    if replaced:
        put(checkpoints, 2)
    for _ in range(2):
        reported: Any = SimpleNamespace(checkpoint=SimpleNamespace(path=put(checkpoints, 1)))
        seal.after_report(reported, [{}])
    asyncio.run(seal.before_controller_shutdown())
    assert [one.id for one in checkpoints.all()] == left


class Broken:
    """A storage where one operation raises; *only* for one path, if given."""

    def __init__(self, whole: Any, operation: str, error: OSError, only: str | None = None) -> None:
        self._whole, self._operation, self._error, self._only = whole, operation, error, only

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if name == self._operation and self._only in (None, args[0]):
                raise self._error
            return getattr(self._whole, name)(*args, **options)

        return call


def broken(
    checkpoints: CheckpointStore, operation: str, error: OSError, only: str | None = None
) -> CheckpointStore:
    """The same checkpoints on the same storage, where *operation* raises."""
    same = copy.copy(checkpoints)
    same.filesystem = Broken(checkpoints.filesystem, operation, error, only)
    return same


def put(checkpoints: CheckpointStore, fence: int) -> str:
    """A folder as Ray Train leaves it at a report; its path."""
    run = posixpath.join(checkpoints.root, train_name(checkpoints.job_id, Fence(fence)))
    path = posixpath.join(run, f"checkpoint_{uuid4().hex[:8]}")
    for name, data in FILES.items():
        write(checkpoints, posixpath.join(path, name), data)
    return path


def sealed(checkpoints: CheckpointStore, fence: int, number: int, step: int | None = None) -> Checkpoint:
    return checkpoints.seal(put(checkpoints, fence), Fence(fence), number, step, {}, time.monotonic())


def write(checkpoints: CheckpointStore, path: str, data: bytes) -> None:
    checkpoints.filesystem.create_dir(posixpath.dirname(path))
    with checkpoints.filesystem.open_output_stream(path, compression=None) as stream:
        stream.write(data)


def read(checkpoints: CheckpointStore, path: str) -> bytes:
    with checkpoints.filesystem.open_input_stream(path, compression=None) as stream:
        return stream.read()


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def assert_torn(checkpoints: CheckpointStore, checkpoint: Checkpoint, why: str) -> None:
    assert checkpoints.all() == []
    assert checkpoints.unusable() == [(checkpoint.path, why)]
    assert checkpoints.open_newest([checkpoint]) == (
        None,
        [f"checkpoint {checkpoint.id} was passed over: {why}"],
    )


def as_dict(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: getattr(checkpoint, name) for name in checkpoint.__slots__}
