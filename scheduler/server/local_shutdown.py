"""`scheduler down`: lets what runs save and stop, and ends every process of this scheduler, by pid."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from scheduler.adapters.journal.files import running_in
from scheduler.core.model import OPERATOR_DOWN, Reason
from scheduler.errors import JournalUnusable, JournalUnwritable, NotReady
from scheduler.ports import Run
from scheduler.runs.run_dir import RunDir
from scheduler.server.api_probe import Life, Seen, api_url, client, probe
from scheduler.server.own_processes import Parts, freeze, kill, owns, parts
from scheduler.server.up_record import (
    UnreadableRecord,
    UpInfo,
    forget_info,
    only_one_at_work,
    ray_temp_dir,
    read_info,
)
from scheduler.settings import Settings

MARGIN_S = 15.0
"""Beyond the grace of the runs: until the scheduler has ended what did not save, and written it down."""
LOOK_EVERY_S = 0.2
TOLD_WITHIN_S = 20.0
WHY = Reason(code=OPERATOR_DOWN, message="the operator stopped the scheduler")

Say = Callable[[str], None]
Save = bool | Callable[[int], bool]
"""Whether runs save first; or who decides that, once it is known that so many run."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """What `down` found, and what became of it."""

    running: int | None
    """Jobs that ran; None when the journal does not tell."""
    unsaved: int = 0
    """Of these, how many were ended before they had saved, or without being asked to."""


def quiet(_: str) -> None:
    return None


def down(settings: Settings, *, save: Save = False, say: Say = quiet) -> Stopped | None:
    """End every process that `up` started.  Returns None when there was nothing to end.

    With *save* each run first saves and stops.  Either way it goes on at the next `up`, in its old place, and the
    stop is nobody's loss: that is in the journal, or in the run's folder, before any process is signalled.
    """
    if not settings.state_dir.is_dir():
        return None
    with only_one_at_work(settings, say):
        return stop_all(settings, save=save, say=say)


def stop_all(settings: Settings, *, save: Save, say: Say) -> Stopped | None:
    """As `down`, for whoever is the only one at work."""
    info = _record(settings, say)
    found = parts(info, ray_temp_dir(settings), str(settings.state_dir))
    if info is None and not found.all:
        return None
    _require_here(info, found)
    stopped = _stop_runs(settings, info, found, save=save, say=say) if found.ray else Stopped(running=0)
    _end(settings, info, found, say)
    return stopped


def running_jobs(settings: Settings) -> tuple[Run, ...] | None:
    """By the journal, whoever answers or not; None when it cannot be read."""
    try:
        return running_in(settings.state_dir / "journal.db")
    except (JournalUnusable, JournalUnwritable):
        return None


def _record(settings: Settings, say: Say) -> UpInfo | None:
    try:
        return read_info(settings)
    except UnreadableRecord as error:
        say(f"{error}; what runs is found by its folders")
        return None


def _require_here(info: UpInfo | None, found: Parts) -> None:
    if info and not found.all and not info.place.is_here and info.place.host != os.uname().nodename:
        raise NotReady(
            f"this scheduler was started on {info.place.host}, whose processes cannot be seen from here: "
            f"`scheduler down` there; if that machine is no more, remove {info.state_dir}/up.json"
        )


def _stop_runs(settings: Settings, info: UpInfo | None, found: Parts, *, save: Save, say: Say) -> Stopped:
    runs = running_jobs(settings)
    if callable(save):
        save = save(len(runs)) if runs else True
    grace_s = _report_to_scheduler(settings, info, found, save=save, say=say)
    if not runs or not save:
        return Stopped(running=None if runs is None else len(runs), unsaved=len(runs or ()))
    is_told = grace_s is not None
    if grace_s is None:
        grace_s = settings.stop_grace_s
        _ask_by_file(settings, info, runs)
    say(
        f"waiting for {'1 job' if len(runs) == 1 else f'{len(runs)} jobs'} to save, for up to {grace_s:g} s ..."
    )
    left = _wait_until_over(settings, info, runs, grace_s + MARGIN_S, is_told=is_told)
    forced = [run for run in runs if run not in left and _was_forced(_folder(settings, info, run))]
    return Stopped(running=len(runs), unsaved=len(left) + len(forced))


def _was_forced(folder: RunDir) -> bool:
    ended = folder.ended()
    return ended is not None and ended.code == "ended_by_force"


def _report_to_scheduler(
    settings: Settings, info: UpInfo | None, found: Parts, *, save: bool, say: Say
) -> float | None:
    """Let the scheduler write it down.  Returns the grace that it gives to each run; None when it does not take it."""
    url = info.api_url if info else api_url(settings.host, settings.port)
    seen = probe(url, settings)
    if seen.life is Life.SERVES and not owns(found, seen):
        seen = Seen(Life.FOREIGN, f"another scheduler answers at {url}")
    why = seen.words
    if seen.life is Life.SERVES:
        try:
            return _post(url, settings, save=save)
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            why = f"{type(error).__name__}: {error}"
    say(
        f"the scheduler cannot be reached ({why}); its runs are stopped by a file in their folders, and what is up is "
        "ended all the same"
    )
    return None


def _post(url: str, settings: Settings, *, save: bool) -> float:
    with client(settings, timeout_s=TOLD_WITHIN_S) as http:
        answer = http.post(
            f"{url}/api/training/shutdown", params={"save": save}, headers={"X-User": "operator"}
        )
        answer.raise_for_status()
        return float(answer.json()["grace_s"])


def _ask_by_file(settings: Settings, info: UpInfo | None, runs: Iterable[Run]) -> None:
    """Each rank looks for the file itself: nobody else need be alive."""
    _note_why(settings, info, runs)
    for run in runs:
        folder = _folder(settings, info, run)
        if _runs(folder):
            folder.stop_file.touch()


def _note_why(settings: Settings, info: UpInfo | None, runs: Iterable[Run]) -> None:
    """For the next life, which else would count the end of the run as a loss."""
    for run in runs:
        folder = _folder(settings, info, run)
        if _runs(folder) and folder.ended() is None:
            folder.write_ended(WHY)


def _wait_until_over(
    settings: Settings, info: UpInfo | None, runs: Iterable[Run], seconds: float, *, is_told: bool
) -> list[Run]:
    """Returns those that still run when the time is over: by the journal, or, where nobody writes it, by their folders."""
    until_s = time.monotonic() + seconds
    left = list(runs)
    while left and time.monotonic() < until_s:
        time.sleep(LOOK_EVERY_S)
        known = running_jobs(settings)
        left = [run for run in left if known is None or run in known]
        left = (
            left
            if is_told and known is not None
            else [run for run in left if _runs(_folder(settings, info, run))]
        )
    return left


def _runs(folder: RunDir) -> bool:
    return folder.has_begun() and folder.final() is None


def _end(settings: Settings, info: UpInfo | None, found: Parts, say: Say) -> None:
    frozen = freeze(found.all)
    # Nothing moves any more: what runs by the journal now is ended by this, also what started a moment ago.
    try:
        _note_why(settings, info, (running_jobs(settings) or ()) if found.ray else ())
    except OSError as error:
        say(
            f"the reason cannot be written to the folders of the runs ({error}): by the journal alone they may count as lost"
        )
    _kill(settings, frozen)


def abandon(settings: Settings) -> None:
    """End what was begun and never served.  By the journal jobs may run that died before: nothing is noted for those."""
    info = read_info(settings)
    found = parts(info, ray_temp_dir(settings), str(settings.state_dir))
    _kill(settings, freeze(found.all))


def _kill(settings: Settings, frozen: Iterable[psutil.Process]) -> None:
    kill(frozen)
    forget_info(settings)
    shutil.rmtree(ray_temp_dir(settings), ignore_errors=True)


def _folder(settings: Settings, info: UpInfo | None, run: Run) -> RunDir:
    storage = Path(info.storage_path) if info else settings.storage_path
    return RunDir.of(storage, *run)


def wait_for_end(info: UpInfo) -> None:
    """Until what `up` started is gone."""
    found = parts(info, info.ray_temp_dir, info.state_dir)
    psutil.wait_procs(found.all)
