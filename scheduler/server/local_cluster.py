"""`scheduler up` on one machine: a Ray head, the actor, the API.  What is missing is started; what lives is left alone."""

from __future__ import annotations

import time
from pathlib import Path

from scheduler.errors import AlreadyUp, NotReady
from scheduler.server.api_probe import Life, Seen, api_url, probe
from scheduler.server.local_launch import (
    UP_WITHIN_S,
    begin,
    is_open,
    launch_keeper,
    note_served,
    ray_environment,
    require_all_checks,
)
from scheduler.server.local_shutdown import Say, down, quiet, stop_all, wait_for_end
from scheduler.server.own_processes import Parts, end, owns, parts
from scheduler.server.settings_fingerprint import Difference, differences
from scheduler.server.up_record import (
    Place,
    UnreadableRecord,
    UpInfo,
    only_one_at_work,
    ray_temp_dir,
    read_info,
)
from scheduler.settings import Settings

__all__ = ["UpInfo", "down", "ray_environment", "read_info", "up", "wait_for_end"]

BACK_WITHIN_S = 15.0
"""How long a second `up` waits for a scheduler that lives and does not serve: it may be just restarting."""
LISTENS_WITHIN_S = 90.0
"""And where nothing listens: Ray Serve takes half a minute to put another proxy in the place of one that died."""
LOOK_EVERY_S = 0.5


def up(
    settings: Settings,
    *,
    block: bool = False,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    replace: bool = False,
    say: Say = quiet,
) -> UpInfo:
    """Start what is not there, and return when `/health` answers.  A second call finds the first one's work.

    Nothing that lives is ended, except with *replace*: then the scheduler that is there, once its runs have saved.
    Raises NotReady, naming each missing thing and its remedy, before anything is started; AlreadyUp, saying what was
    seen, when something lives that is not as it was asked for.
    """
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        with only_one_at_work(settings, say):
            info = _look_and_start(settings, num_cpus, num_gpus, replace, say)
    except OSError as error:
        require_all_checks(settings)
        words = f"the system refuses: {error}; see that {settings.state_dir} can be written to and has room"
        raise NotReady(words) from error
    if block:
        wait_for_end(info)
    return info


def _look_and_start(
    settings: Settings, num_cpus: int | None, num_gpus: int | None, replace: bool, say: Say
) -> UpInfo:
    info, why_not = _record(settings)
    found = _settled(settings, info)
    changed = differences(info.settings, settings) if info else []
    if replace or not found.all:
        _require_as_much_protection(settings, info, found, changed)
    if replace:
        stop_all(settings, save=True, say=say)
    elif found.all:
        if info is None:
            raise _without_record(settings, why_not, found)
        if changed:
            raise _other_settings(info, changed)
        if kept := _keep(settings, info, found, say):
            return kept
    else:
        _require_gone(info)
    return begin(settings, num_cpus, num_gpus, say)


def _settled(settings: Settings, info: UpInfo | None) -> Parts:
    """What lives.  Where only parts of Ray do, it is just starting or just ending: a moment later it is whole, or gone."""
    until_s = time.monotonic() + BACK_WITHIN_S
    while (found := _parts(settings, info)).ray and not found.has_whole_ray and time.monotonic() < until_s:
        time.sleep(LOOK_EVERY_S)
    return found


def _parts(settings: Settings, info: UpInfo | None) -> Parts:
    return parts(info, ray_temp_dir(settings), str(settings.state_dir))


def _record(settings: Settings) -> tuple[UpInfo | None, UnreadableRecord | None]:
    try:
        return read_info(settings), None
    except UnreadableRecord as error:
        return None, error


# What is there already


def _keep(settings: Settings, info: UpInfo, found: Parts, say: Say) -> UpInfo | None:
    """What lives, with what was missing of it; None when nothing is left that could do anything."""
    if not found.ray:
        say("Ray is gone, and with it all that ran; its driver is ended, and both are started again")
        end(found.all)
        return None
    if not found.has_whole_ray:
        raise _left_alone(f"only parts of Ray live: {found}", probe(info.api_url, settings), _ANEW)
    if info.working_dir and not settings.data_roots and info.working_dir != str(Path.cwd()):
        say(f"it was started in {info.working_dir}: specs may read files there, and not below {Path.cwd()}")
    patience_s = 0.0 if info.has_served else UP_WITHIN_S
    if found.keeper is None:
        say("the driver was gone; it is started again, and nothing else is touched")
        info, patience_s = launch_keeper(settings, info), UP_WITHIN_S
    return _served(settings, info, patience_s, say)


def _served(settings: Settings, info: UpInfo, patience_s: float, say: Say) -> UpInfo:
    began_s, is_said = time.monotonic(), False
    while (seen := _seen(settings, info)).life is not Life.SERVES:
        usual_s = LISTENS_WITHIN_S if seen.life is Life.SILENT else BACK_WITHIN_S
        if seen.life is Life.REFUSES or time.monotonic() - began_s > max(patience_s, usual_s):
            what = f"{_parts(settings, info)} live, and the scheduler does not serve"
            raise _left_alone(what, seen, _wait_or_end(info))
        if not is_said:
            say(f"waiting for the scheduler: {seen.words}")
            is_said = True
        time.sleep(LOOK_EVERY_S)
    return note_served(info)


def _seen(settings: Settings, info: UpInfo) -> Seen:
    seen = probe(info.api_url, settings)
    if seen.life is Life.SERVES and not owns(_parts(settings, info), seen):
        return Seen(Life.FOREIGN, f"another scheduler answers at {info.api_url}")
    return seen


_ANEW = "`scheduler down` lets what runs save and ends it; then `scheduler up`"


def _wait_or_end(info: UpInfo) -> str:
    return f"It may be restarting: ask again in a little; the logs are in {info.state_dir}/logs. Else {_ANEW}"


def _without_record(settings: Settings, why_not: UnreadableRecord | None, found: Parts) -> AlreadyUp:
    what = why_not.message if why_not else f"{settings.state_dir}/up.json, which says what is up, is gone"
    seen = probe(api_url(settings.host, settings.port), settings)
    return _left_alone(f"{what}, and {found} of this scheduler live", seen, _ANEW)


def _left_alone(what: str, seen: Seen, remedy: str) -> AlreadyUp:
    return AlreadyUp(f"{what}; {seen.words}. Nothing was touched. {remedy}")


def _other_settings(info: UpInfo, changed: list[Difference]) -> AlreadyUp:
    lines = "\n".join(f"  {one}" for one in changed)
    return AlreadyUp(
        f"a scheduler is up at {info.api_url}, with other settings than here:\n{lines}\n"
        "Nothing was touched. To keep it, call `scheduler up` with the settings that it has; to change them, "
        "`scheduler up --replace`: what runs saves first, and goes on afterwards"
    )


def _require_as_much_protection(
    settings: Settings, info: UpInfo | None, found: Parts, changed: list[Difference]
) -> None:
    """What was protected by a token is not served without one because somebody forgot to set it."""
    weaker = [str(one) for one in changed if one.weakens]
    if info is None and found.all and settings.token is None:
        seen = probe(api_url(settings.host, settings.port), settings)
        weaker = [f"SCHEDULER_TOKEN: not set here, and {seen.words}"] if seen.life is Life.REFUSES else []
    if weaker:
        lines = "\n".join(f"  {one}" for one in weaker)
        raise AlreadyUp(
            f"the scheduler of this state folder was protected better:\n{lines}\n"
            "Nothing was touched. Set it as it was; if you mean it, `scheduler down` and then `scheduler up`"
        )


def _require_gone(info: UpInfo | None) -> None:
    """None of its processes is seen here.  That proves something only where they would be seen."""
    if info is None or info.place.is_here:
        return
    listens = [url for url in (info.api_url, f"http://{info.ray_address}") if is_open(url.partition("//")[2])]
    if listens or info.place.host != Place.here().host:
        raise AlreadyUp(
            f"a scheduler of this state folder was started on {info.place.host} where its processes cannot be seen from "
            f"here{'; ' + ' and '.join(listens) + ' answers' if listens else ''}. Nothing was touched. Call `scheduler up` "
            f"or `down` there; if that machine is no more, remove {info.state_dir}/up.json"
        )
