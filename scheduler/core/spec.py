"""What a user submits: the fields of a job, their limits, and what is said of them in schemas."""

from __future__ import annotations

from dataclasses import MISSING, field, fields, replace
from dataclasses import Field as DataclassField
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AwareDatetime, BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass as validated

Json = dict[str, Any]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Label = Annotated[str, Field(max_length=200)]


def restore(self: Any, state: list[Any]) -> None:
    """`__setstate__` of a frozen dataclass with slots, whose pickled state is its values in the order of its fields.

    A run of an earlier release hands over fewer: new fields stand at the end, and have their defaults then.
    """
    for number, one in enumerate(fields(self)):
        value = state[number] if number < len(state) else _default(one)
        object.__setattr__(self, one.name, value)


def _default(one: DataclassField[Any]) -> Any:
    return one.default if one.default_factory is MISSING else one.default_factory()


def _is_none(value: object) -> bool:
    return value is None


def _is_empty(value: object) -> bool:
    return not value


_LabelKey = Annotated[str, Field(min_length=1, max_length=317)]
_MAX_VALUE_CHARS = 63
_LabelValue = Annotated[str, Field(min_length=1, max_length=_MAX_VALUE_CHARS)]
_LabelValues = Annotated[list[_LabelValue], Field(min_length=1, max_length=64)]


def _labels(given: object) -> object:
    """Each value as it stands, or several in their order, each once; so equal wishes are equal."""
    if not isinstance(given, dict):
        raise ValueError(f"{given!r:.60} names no labels; write them as {{gpu: H100}}")
    found: dict[object, object] = {}
    for key, value in cast("dict[object, object]", given).items():
        values = cast("list[object]", value) if isinstance(value, list) else [value]
        for one in values:
            if not isinstance(one, str) or not 0 < len(one) <= _MAX_VALUE_CHARS:
                text = "" if isinstance(one, str) else ", in quotes where it would be a number else"
                raise ValueError(
                    f"{key}: {one!r:.60} is no value of a label; give text of 1 to {_MAX_VALUE_CHARS} characters{text}"
                )
        if not values:
            raise ValueError(
                f"{key}: the list is empty; name the values of which any will do, or leave it out"
            )
        values = sorted(cast("set[str]", set(values)))
        found[key] = values[0] if len(values) == 1 else values
    return found


@validated(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Gang:
    """What a job needs, all at once or not at all."""

    num_ranks: Annotated[
        int,
        Field(
            ge=1, le=4096, strict=True, description="Ranks (Ray Train workers) that start and stop together."
        ),
    ] = 1
    min_ranks: Annotated[
        int | None,
        Field(
            ge=1,
            le=4096,
            strict=True,
            description="With max_ranks, instead of num_ranks: each start takes as many ranks as there is room for, "
            "from min_ranks to max_ranks.",
        ),
    ] = None
    max_ranks: Annotated[
        int | None, Field(ge=1, le=4096, strict=True, description="See min_ranks; both or neither.")
    ] = None
    cpus_per_rank: Annotated[float, Field(gt=0, le=4096, description="CPU cores for each rank.")] = 1.0
    gpus_per_rank: Annotated[
        float,
        Field(
            ge=0,
            le=1024,
            description="GPUs for each rank: a whole number, or a fraction below 1 to share one.",
        ),
    ] = 0.0
    on: Annotated[
        dict[_LabelKey, _LabelValue | _LabelValues],
        BeforeValidator(_labels),
        Field(
            max_length=16,
            exclude_if=_is_empty,
            description="Only on nodes with these labels: a value for each, or a list of which any will do.  `gpu` is the "
            'kind of GPU, as Ray calls it (`ray.io/accelerator-type`): `{"gpu": "H100"}`.',
        ),
    ] = field(default_factory=dict[str, str | list[str]], hash=False)

    __setstate__ = restore

    def __post_init__(self) -> None:
        if self.gpus_per_rank > 1 and self.gpus_per_rank != int(self.gpus_per_rank):
            raise ValueError(
                f"gpus_per_rank={self.gpus_per_rank} is neither a whole number nor a fraction below 1; "
                "ask for whole GPUs, or for less than one"
            )
        if (self.min_ranks is None) != (self.max_ranks is None):
            raise ValueError("min_ranks and max_ranks belong together; give both, or num_ranks alone")
        if self.min_ranks and self.max_ranks and self.min_ranks > self.max_ranks:
            raise ValueError(f"min_ranks={self.min_ranks} is more than max_ranks={self.max_ranks}")
        if self.max_ranks and self.num_ranks != 1:
            raise ValueError(f"num_ranks={self.num_ranks} beside min_ranks and max_ranks; leave it out")

    @property
    def where(self) -> str:
        """The labels in words, such as `gpu=A100 or H100, zone=a`; equal for equal ones."""
        each = ((key, [value] if isinstance(value, str) else value) for key, value in sorted(self.on.items()))
        return ", ".join(f"{key}={' or '.join(values)}" for key, values in each)

    @property
    def fewest(self) -> int:
        """Ranks without which it does not start."""
        return self.min_ranks or self.num_ranks

    @property
    def most(self) -> int:
        """Ranks beyond which it takes no more."""
        return self.max_ranks or self.num_ranks

    def __str__(self) -> str:
        count = f"{self.fewest} to {self.most}" if self.fewest < self.most else f"{self.most}"
        ranks = "1 rank" if self.most == 1 else f"{count} ranks at once"
        gpus = f" and {self.gpus_per_rank:g} GPU" if self.gpus_per_rank else ""
        where = f" on {self.where}" if self.on else ""
        return f"{ranks} with {self.cpus_per_rank:g} CPU{gpus}" + (" each" if self.most > 1 else "") + where


@validated(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class CheckpointPolicy:
    """Which checkpoints of a job are kept; the others are deleted as newer ones become complete."""

    keep_last: Annotated[int, Field(ge=1, le=1000, strict=True, description="The newest so many.")] = 3
    keep_best: Annotated[
        int, Field(ge=0, le=1000, strict=True, description="And the best so many, by `best_metric`.")
    ] = 0
    best_metric: Annotated[Name, Field(description="A metric that the loop reports with a checkpoint.")] = (
        "loss"
    )
    best_is: Annotated[Literal["min", "max"], Field(description="Whether less or more of it is better.")] = (
        "min"
    )


@validated(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class After:
    """Another job, and how it must have ended before this one may start."""

    job: Annotated[str, Field(min_length=1, max_length=200, description="The id of a job that is there.")]
    on: Annotated[
        Literal["completed", "failed", "ended"],
        Field(description="How it must have ended; `ended`: however it did."),
    ] = "completed"


def _after(given: object) -> object:
    """`JOB` and `JOB:failed` are short for the same in two fields."""
    if not isinstance(given, str):
        return given
    job, _, on = given.partition(":")
    return {"job": job, "on": on} if on else {"job": job}


MAX_CHILDREN = 1000
"""Jobs of one array."""


@validated(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class ArrayPlace:
    """Which job of which array one is.  Made by the scheduler; the values of the parameters stand in `config`."""

    id: Annotated[str, Field(min_length=1, max_length=200, description="The array.")]
    index: Annotated[int, Field(ge=1, le=MAX_CHILDREN, strict=True, description="From 1 to `size`.")]
    size: Annotated[int, Field(ge=1, le=MAX_CHILDREN, strict=True, description="Jobs of the array.")]
    at_most: Annotated[int, Field(ge=1, le=MAX_CHILDREN, strict=True, description="So many run at once.")]
    keys: Annotated[
        list[Name], Field(max_length=20, description="The parameters: dotted keys of `config`.")
    ] = field(default_factory=list[str])
    metric: Annotated[Name, Field(description="What the best job of the array is found by.")] = "loss"
    metric_is: Annotated[
        Literal["min", "max"], Field(description="Whether less or more of it is better.")
    ] = "min"


SHIPPED = "shipped:"
"""The `loop` of a job whose function was sent along is this and the function's name."""
MAX_CODE_CHARS = 128_000
SOURCE = "__source__"
"""The attribute of a function that was sent along in which its source is, at the line numbers of its file."""


@validated(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class ShippedCode:
    """A train function that was sent along with its job."""

    pickle: Annotated[
        str,
        Field(
            max_length=MAX_CODE_CHARS,
            description="The function, by cloudpickle, in base64.  Empty in answers: it is long, and no text.",
        ),
    ]
    python: Annotated[
        str,
        Field(pattern=r"^\d+\.\d+$", description="Which Python wrote it, as `3.11`; no other can read it."),
    ]


@validated(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class JobSpec:
    """What a user submits.  The same fields in JSON, YAML and as keyword arguments."""

    loop: Annotated[
        str,
        Field(
            min_length=1,
            max_length=300,
            description="`sft`, `torch_ddp`, or a loop of your own as `module:function`.",
        ),
    ]
    name: Annotated[Name, Field(description="For people; need not be unique.")] = "job"
    config: Annotated[
        Json, Field(description="Handed to the loop; its schema is at GET /api/training/loops.")
    ] = field(default_factory=dict[str, Any])
    resources: Gang = field(default_factory=Gang)
    priority: Annotated[int, Field(ge=-1000, le=1000, strict=True, description="Higher starts first.")] = 0
    user: Annotated[Label, Field(description="Who submits.")] = ""
    project: Annotated[Label, Field(description="What it is for.")] = ""
    max_failures: Annotated[
        int,
        Field(ge=0, le=100, strict=True, description="How often the loop itself may fail and be retried."),
    ] = 0
    max_runtime_s: Annotated[
        float | None,
        Field(
            gt=0,
            description="Longest time one run may take, in seconds; then it saves and ends. Null for no limit.",
        ),
    ] = None
    hang_after_s: Annotated[
        float | None,
        Field(
            gt=0,
            description="A run without a step for so many seconds hangs; null: judged by its own usual step time.",
        ),
    ] = None
    checkpoints: CheckpointPolicy = field(default_factory=CheckpointPolicy)
    labels: Annotated[dict[Label, Label], Field(max_length=64, description="Free key-value pairs.")] = field(
        default_factory=dict[str, str]
    )
    code: Annotated[
        ShippedCode | None,
        Field(
            exclude_if=_is_none,
            description="The train function itself, where it is none that the cluster can import; the Python client "
            "makes it.  `loop` is then `shipped:` and a name.",
        ),
    ] = None
    after: Annotated[
        list[Annotated[After, BeforeValidator(_after)]],
        Field(
            max_length=100,
            exclude_if=_is_empty,
            description="Jobs that must have ended before this one starts: an id, `id:failed` or `id:ended`, or both "
            "fields.  When one ends otherwise, this job fails.",
        ),
    ] = field(default_factory=list[After])
    start_after: Annotated[
        AwareDatetime | None,
        Field(
            exclude_if=_is_none,
            description="Not started before this moment, with its time zone: `2027-01-31T03:00:00Z`.",
        ),
    ] = None
    preemptible: Annotated[
        bool,
        Field(
            exclude_if=bool,
            strict=True,
            description="False: never preempted for another job, and started only within the quota of its project "
            "(policy `fair`).",
        ),
    ] = True
    array: Annotated[
        ArrayPlace | None,
        Field(
            exclude_if=_is_none,
            description="In answers: its place in an array.  Not for a submit; POST /api/training/arrays makes arrays.",
        ),
    ] = None

    deadline: Annotated[
        AwareDatetime | None,
        Field(
            exclude_if=_is_none,
            description="Wanted by this moment, with its time zone: once there is only just time enough left, the job goes "
            "next within the share of its project (policy `fair`).",
        ),
    ] = None

    __setstate__ = restore


def compact(spec: JobSpec) -> JobSpec:
    """The same spec, sharing its keys, short words and gang with all other specs: half the memory of a queued job.

    A spec that came through Ray was unpickled and shares nothing.
    """
    return replace(
        spec,
        loop=_one(spec.loop),
        user=_one(spec.user),
        project=_one(spec.project),
        config=_sharing(spec.config),
        labels=_sharing(spec.labels),
        resources=_one(spec.resources),
    )


_T = TypeVar("_T", str, Gang)
_SHORT = 40


@lru_cache(maxsize=16_384)
def _one(value: _T) -> _T:
    return value


def _sharing(value: Any) -> Any:
    match value:
        case str():
            return _one(value) if len(value) <= _SHORT else value
        case dict():
            items = cast("Json", value).items()
            return {_one(key): _sharing(inner) for key, inner in items}
        case list():
            return [_sharing(inner) for inner in cast("list[Any]", value)]
        case _:
            return value


SPEC: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
