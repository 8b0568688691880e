"""Job arrays: one spec over a grid of values.  Their jobs are ordinary ones, of which only so many run at once."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar, cast

from scheduler.core.model import ArrayPlace, Job, JobId, Reason
from scheduler.core.ordering import QueueOrder
from scheduler.core.spec import MAX_CHILDREN, JobSpec, Json
from scheduler.errors import Problem

ARRAY_LIMIT = "array_limit"
MAX_KEYS = 20
_IN_CONFIG = "config."
_MAX_NAME_CHARS = 200
_NO_PART = object()

Parameters = Mapping[str, Sequence[Any]]
"""The values of each parameter; the array has one job for each combination, the last parameter changing fastest."""
T = TypeVar("T")


# Making one


def specs_of(spec: JobSpec, parameters: Parameters) -> list[tuple[JobSpec, list[str]]]:
    """A spec for each job, and the keys of the parameters; `problems` has found nothing wrong."""
    keys = [_key(name) for name in parameters]
    size = math.prod(map(len, parameters.values()))
    return [
        (
            replace(
                spec,
                name=_name(spec.name, index, size),
                config=_with(spec.config, dict(zip(keys, values, strict=True))),
            ),
            keys,
        )
        for index, values in enumerate(itertools.product(*parameters.values()), start=1)
    ]


def problems(spec: JobSpec, parameters: Parameters, at_most: int | None) -> list[Problem]:
    """What keeps these from being an array, each with the field that is wrong."""
    if not 1 <= len(parameters) <= MAX_KEYS:
        words = f"has {len(parameters)} parameters; give 1 to {MAX_KEYS}, each with its values"
        return [Problem("parameters", words)]
    found = [
        Problem(f"parameters.{name}", words)
        for name, values in parameters.items()
        if (words := _wrong_key(spec, name) or _wrong_values(values))
    ]
    if len({_key(name) for name in parameters}) < len(parameters):
        found.append(Problem("parameters", "names one key of config twice; give all of its values at once"))
    size = math.prod(map(len, parameters.values()))
    if size > MAX_CHILDREN:
        words = f"make {size:,} jobs; an array has {MAX_CHILDREN:,} at most, so give fewer values"
        found.append(Problem("parameters", words))
    if at_most is not None and not 1 <= at_most <= MAX_CHILDREN:
        found.append(Problem("at_most", f"is {at_most}; it must be from 1 to {MAX_CHILDREN:,}"))
    return found


def values_of(config: Json, keys: Iterable[str]) -> Json:
    """The values that the parameters *keys* have in *config*; None for what is not there."""
    return {key: _part(config, key.split(".")) for key in keys}


def name_of(spec: JobSpec) -> str:
    """What the jobs of an array are called, without the number of each."""
    place = spec.array
    return spec.name.removesuffix(_number(place.index, place.size)) if place else spec.name


def _key(name: str) -> str:
    return name.removeprefix(_IN_CONFIG)


def _wrong_key(spec: JobSpec, name: str) -> str | None:
    parts = _key(name).split(".")
    if not all(parts) or len(name) > _MAX_NAME_CHARS:
        return "is no key of config; write it as learning_rate, or with dots as optimizer.lr"
    if name == _key(name) and parts[0] in {one.name for one in fields(JobSpec)}:
        return (
            f"is a field of the job, and all jobs of an array have the same; config.{name} is one of config"
        )
    above = spec.config
    for depth, part in enumerate(parts[:-1], start=1):
        inner = above.get(part, {})
        if not isinstance(inner, dict):
            return f"cannot be set: config.{'.'.join(parts[:depth])} has no parts"
        above = cast("Json", inner)
    return None


def _wrong_values(values: Sequence[Any]) -> str | None:
    if not values:
        return "has no values; give at least one"
    if len(values) > MAX_CHILDREN:
        return f"has {len(values):,} values; an array has {MAX_CHILDREN:,} jobs at most"
    twice = next((one for place, one in enumerate(values) if _is_among(one, values[:place])), _NO_PART)
    return None if twice is _NO_PART else f"has the value {str(twice)[:60]} twice; give it once"


def _is_among(value: Any, others: Sequence[Any]) -> bool:
    """`1` is neither `true` nor `1.0`."""
    return any(type(value) is type(other) and value == other for other in others)


def _name(name: str, index: int, size: int) -> str:
    """Those of one array stand in their order wherever names are sorted."""
    number = _number(index, size)
    return name[: _MAX_NAME_CHARS - len(number)] + number


def _number(index: int, size: int) -> str:
    return f"-{index:0{len(str(size))}}"


def _with(config: Json, values: Json) -> Json:
    changed = dict(config)
    for key, value in values.items():
        here, (*above, last) = changed, key.split(".")
        for part in above:
            here[part] = dict(here.get(part, {}))
            here = here[part]
        here[last] = value
    return changed


def _part(config: Json, path: Sequence[str]) -> Any:
    """None for what is not there: the config of a job that was read back may be anything."""
    here: Any = config
    for part in path:
        here = cast("Json", here).get(part) if isinstance(here, dict) else None
    return here


# Running one: only so many at once


def over_limit(
    ready: Iterable[tuple[JobId, ArrayPlace | None]], holding: Iterable[ArrayPlace | None]
) -> dict[JobId, Reason]:
    """Those of *ready*, in the order of their turn, that have to wait for others of their array.

    *holding*: the places of those that have nodes, or for whom nodes are kept.
    """
    held = Counter(place.id for place in holding if place)
    taken, waits = Counter(held), dict[JobId, Reason]()
    for job_id, place in ready:
        if place is None:
            continue
        if taken[place.id] >= place.at_most:
            waits[job_id] = _reason(place, held[place.id])
        else:
            taken[place.id] += 1
    return waits


def limited(queue: QueueOrder, running: Iterable[Job]) -> QueueOrder:
    """*queue*, in which those that have to wait for others of their array are paused.  For the policy `fifo`."""
    waits = over_limit(((job.id, job.spec.array) for job in queue.ready), (job.spec.array for job in running))
    if not waits:
        return queue
    ready = [job for job in queue.ready if job.id not in waits]
    return QueueOrder(ready=ready, paused={**queue.paused, **waits})


def _reason(place: ArrayPlace, held: int) -> Reason:
    if held >= place.at_most:
        now = f"{held} of {place.at_most} jobs of this array run; it may start when one of them ends"
    else:
        now = f"{held} of {place.at_most} jobs of this array run, and others of it are before this one"
    return Reason(code=ARRAY_LIMIT, message=now)


# Comparing


def best(metrics: Iterable[tuple[T, float | None]], metric_is: str) -> T | None:
    """Whose metric is least, or greatest; the first of equals, and none that has no number."""
    sign = -1.0 if metric_is == "max" else 1.0
    known = [(sign * value, one) for one, value in metrics if value is not None]
    return min(known, key=_value)[1] if known else None


def _value(one: tuple[float, Any]) -> float:
    return one[0]
