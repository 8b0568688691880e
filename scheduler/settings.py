"""Every number and path that can be set, read once from the environment.  Nothing else reads it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from scheduler.core.contender import Rules, rules_of
from scheduler.core.hangs import Limits
from scheduler.core.policy_choice import PolicyChoice, choice_of
from scheduler.core.reconcile import Policy
from scheduler.core.retry import RetryPolicy
from scheduler.errors import InvalidRequest, Problem

NOT_SENDABLE = (
    "a header can only carry visible ASCII characters: leave out spaces, line ends and letters with accents; "
    "`openssl rand -hex 32` makes a good one"
)


class NodeType(BaseModel):
    """A kind of node that the cluster's autoscaler may add."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cpus: float = Field(gt=0)
    gpus: float = Field(default=0, ge=0)
    max_nodes: int = Field(default=1, ge=1)
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """Those that its nodes will have in Ray, such as `{"ray.io/accelerator-type": "H100"}`."""


class Settings(BaseSettings):
    """Read with `Settings()`; each field is `SCHEDULER_` + its name in capitals.  Times are seconds."""

    model_config = SettingsConfigDict(env_prefix="SCHEDULER_", frozen=True, extra="ignore")

    cluster: str = Field(default="default", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")
    """Names this scheduler; two on one machine or one Supabase need two names."""
    state_dir: Path = Path("~/.scheduler/{cluster}/state")
    """The journal, the token of Ray, and what `up` left running."""
    storage_path: Path = Path("~/.scheduler/{cluster}/storage")
    """Runs and their logs; a folder that every node sees."""
    checkpoint_url: str | None = None
    """Where checkpoints are kept: a folder that every node sees, or what Ray Train takes as a storage path, such as
    `s3://bucket/folder`.  Default: the storage path."""
    data_roots: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders that specs may read models and data from, separated by `:`.
    Default: the storage path, the folder `up` was called in, the home folder, the temporary folder."""
    allowed_loops: Annotated[tuple[str, ...], NoDecode] = ()
    """Loops besides `sft` and `torch_ddp`, as patterns such as `mypkg.loops:*`, separated by commas."""
    allow_shipped_code: bool = False
    """Take train functions that are sent along with a job: whoever may submit can then run anything as this user."""
    node_types: dict[str, NodeType] = {}
    """What an autoscaler may add: `{"gpu": {"cpus": 32, "gpus": 8, "max_nodes": 4}}`."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    token: SecretStr | None = None
    """Bearer token of the API; required when `host` is not loopback."""
    trusted_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Names besides loopback under which people reach this server, as `trainer.example` or `trainer.example:8443`,
    separated by commas.  Without a token no other name is answered; and forms are taken from pages under these."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Pages of these origins may use the API, as `https://app.example`, separated by commas."""
    root_path: str = Field(default="", pattern=r"^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?$")
    """The path before ours where a proxy serves us below one, such as `/trainer`; it may take it away or leave it."""
    trust_proxy: bool = False
    """Believe `X-Forwarded-For`, `-Host` and `-Prefix`.  Only where every request comes through a proxy that sets them."""
    dashboard_url: str | None = Field(default=None, pattern=r"^https?://[^\s]+$")
    """Where people find the Ray dashboard, for links from the pages; `up` knows that of its own Ray."""
    supabase_url: str | None = None
    """As Supabase shows it, such as `https://abc.supabase.co`; without it the journal is the only store."""
    supabase_key: SecretStr | None = None
    """The key of the role `service_role`: only it may write states."""
    supabase_timeout_s: float = Field(default=10.0, gt=0)
    """How long one request may take before it counts as unanswered."""
    webhook_url: str | None = None
    """Told when the system recovered a job or failed it."""
    webhook_secret: SecretStr | None = None
    """Signs what is sent there, as Standard Webhooks describes it."""
    webhook_give_up_after_s: float = Field(default=259_200.0, gt=0)
    """A notice that the receiver refuses for so long, while it takes others, is not sent again before the next start."""

    policy: Literal["fair", "fifo"] = "fair"
    """Who starts: `fair`: shares of projects, then least left, with preemption; `fifo`: priority, then first in, first
    out.  See docs/policy.md."""
    policy_rules: Annotated[Rules, NoDecode] = Rules()
    """Rules of `fair` that are not the default, as `preempt=class,min_run_s=300`; what `scheduler policy try` takes as
    `--set`."""
    policy_shadow: Annotated[PolicyChoice | None, NoDecode] = None
    """A policy that is asked on each tick what it would do, and does nothing: rules as above, `fair` or `fifo`.
    `scheduler policy shadow` shows where it would have decided otherwise."""
    tick_every_s: float = Field(default=1.0, gt=0)
    """Placement runs at once when something changed, and at least this often."""
    observe_every_s: float = Field(default=1.0, gt=0)
    """How often progress is fetched from each run."""
    observe_timeout_s: float = Field(default=5.0, gt=0)
    liveness_every_s: float = Field(default=30.0, gt=0)
    """Each run that should be alive is checked this often."""
    max_clock_skew_s: float = Field(default=30.0, gt=0)
    """A node whose clock is further off than this is shown in `/health`; nothing is judged by it."""
    lost_after_s: float = Field(default=300.0, gt=0)
    """A run that could not be verified for so long is lost."""
    reconcile_every_s: float = Field(default=600.0, gt=0)
    """Registry, runs and database are compared this often."""
    stale_after_s: float = Field(default=600.0, gt=0)
    """An active row that no scheduler knows, and without a heartbeat or a touch for so long, is failed."""
    recover_queued: Policy = Policy.START
    """What becomes of waiting jobs found after an outage of more than `stale_after_s`, or only in the database:
    `start`, `hold` (a person starts them) or `fail`."""
    inbox_every_s: float = Field(default=2.0, gt=0)
    """Rows and requests that front ends wrote are looked for this often."""
    vouch_every_s: float = Field(default=10.0, gt=0)
    """Supabase hears this often that the scheduler is alive, and how far its runs are."""
    relay_batch: int = Field(default=1000, ge=1, le=10_000)
    """Changes sent to Supabase in one request."""
    relay_backoff_s: float = Field(default=1.0, gt=0)
    """Pause after the first failed write to Supabase or to the webhook; doubles each time, with jitter."""
    relay_backoff_max_s: float = Field(default=300.0, gt=0)
    overdue_after_s: float = Field(default=600.0, gt=0)
    """A job that is pending, or waits in the queue and is not held, for longer than this is shown as overdue."""
    list_budget_s: float = Field(default=2.0, gt=0)
    """How long a list, or a status, waits for the registry before it shows what the database has, unverified."""
    list_pause_s: float = Field(default=5.0, gt=0)
    """After one list waited in vain, the others do without the one that hangs; it is asked so often in the background."""
    stop_grace_s: float = Field(default=60.0, gt=0)
    """How long a run that was asked to pause, or is preempted, may take to save and stop before it is killed."""
    suspect_factor: float = Field(default=10.0, ge=1)
    """A run without a step for so many times its own usual step time is shown as suspect."""
    suspect_floor_s: float = Field(default=60.0, ge=0)
    """But never sooner than this."""
    hang_factor: float = Field(default=30.0, ge=1)
    """After so many times its usual step time it hangs: its stacks are kept, and `on_hang` says what follows."""
    hang_floor_s: float = Field(default=600.0, ge=0)
    start_limit_s: float = Field(default=3600.0, gt=0)
    """How long a run may take until its first steps; for loops that tell their steps."""
    on_hang: Literal["retry", "fail"] = "retry"
    """A run that hangs is ended and tried again from its last checkpoint, or its job fails."""
    preempted_keep_place: bool = True
    """A preempted job returns to its old place in the queue; else to the end."""
    max_repeats: int = Field(default=3, ge=1)
    """A job whose runs failed so often in the same way, before they saved anything, is not tried again."""
    max_losses: int = Field(default=3, ge=0)
    """Runs that the infrastructure may lose before the job fails."""
    retry_backoff_s: float = Field(default=1.0, ge=0)
    retry_backoff_max_s: float = Field(default=60.0, ge=0)
    set_aside_share: float = Field(default=0.1, ge=0, le=1)
    """Nodes on which runs of two different jobs were lost within an hour are set aside until a person lets them back:
    at most this part of all, but one may be; 0: none."""
    warm_runs: int = Field(default=1, ge=0, le=8)
    """Runs for which each node keeps prepared processes; 0 turns the pool off."""
    keep_days: float = Field(default=90.0, gt=0)
    """Days. Of jobs that ended longer ago the events but the last, and the evidence of attempts, are deleted, in journal and
    Supabase; the jobs themselves stay."""
    journal_reserve_bytes: int = Field(default=8_000_000, ge=0)
    """Kept free on the disk of the journal: when it is full, runs can still be cancelled, paused and ended."""
    finished_in_memory: int = Field(default=1000, ge=0)
    """Finished jobs kept in memory; older ones are read from the journal."""
    max_body_bytes: int = Field(default=8_000_000, ge=1000)
    body_timeout_s: float = Field(default=30.0, gt=0)
    """How long a body may take to arrive."""
    max_streams: int = Field(default=400, ge=1)
    """Live streams (changes, logs, open pages) at once, in all; one more is refused until one has ended."""
    max_streams_each: int = Field(default=250, ge=1)
    """The same for one user at one address."""

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for a process that is to have the same."""
        return {f"SCHEDULER_{name.upper()}": as_text(getattr(self, name)) for name in self.model_fields_set}

    @property
    def checkpoints_at(self) -> str:
        return self.checkpoint_url or str(self.storage_path)

    def limits(self) -> Limits:
        """When a run without steps is suspect, and when it hangs."""
        return Limits(
            suspect_factor=self.suspect_factor,
            hang_factor=self.hang_factor,
            suspect_floor_s=self.suspect_floor_s,
            hang_floor_s=self.hang_floor_s,
            start_s=self.start_limit_s,
        )

    def retries(self) -> RetryPolicy:
        return RetryPolicy(
            max_losses=self.max_losses,
            max_repeats=self.max_repeats,
            backoff_s=self.retry_backoff_s,
            backoff_max_s=self.retry_backoff_max_s,
            on_hang=self.on_hang,
            preempted_keep_place=self.preempted_keep_place,
        )

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return tuple(filter(None, value.split(":"))) if isinstance(value, str) else value

    @field_validator("allowed_loops", "trusted_hosts", "cors_origins", mode="before")
    @classmethod
    def _split_loops(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )

    @field_validator("policy_rules", mode="before")
    @classmethod
    def _split_rules(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return rules_of(part for part in value.split(",") if part.strip())
        except InvalidRequest as error:
            raise ValueError(error.message) from None

    @field_validator("policy_shadow", mode="before")
    @classmethod
    def _read_choice(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return choice_of(value) if value.strip() else None
        except InvalidRequest as error:
            raise ValueError(error.message) from None

    @field_validator("state_dir", "storage_path", mode="after")
    @classmethod
    def _absolute(cls, value: Path, info: ValidationInfo) -> Path:
        named = str(value).replace("{cluster}", info.data.get("cluster", "default"))
        try:
            return Path(named).expanduser().absolute()
        except RuntimeError:  # a container whose user has no name and no HOME
            raise ValueError(
                f"there is no home folder for {named!r} here; set it to an absolute path"
            ) from None

    @field_validator("cors_origins", mode="after")
    @classmethod
    def _exact_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [one for one in value if not re.fullmatch(r"https?://[^/*\s?#@]+", one)]:
            raise ValueError(
                f"{wrong[0]!r} is no origin; give each whole, as https://app.example, without a path or *"
            )
        return value

    @field_validator("root_path", mode="after")
    @classmethod
    def _apart_from_ours(cls, value: str) -> str:
        path = value.rstrip("/")
        if path.split("/")[1:2] in (["api"], ["training"], ["static"]):
            raise ValueError(
                f"{path} cannot be told from our own paths; let the proxy serve us below another one"
            )
        return path

    @field_validator("token", mode="after")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not is_sendable(value.get_secret_value()):
            raise ValueError(NOT_SENDABLE)
        return value

    @model_validator(mode="after")
    def _token_beyond_loopback(self) -> Settings:
        if not self.token and self.host not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError(
                f"host {self.host} is reachable from other machines: set SCHEDULER_TOKEN to a long random secret, "
                "or keep the default SCHEDULER_HOST=127.0.0.1"
            )
        return self


class ClientSettings(BaseSettings):
    """How a client finds its scheduler: `SCHEDULER_URL` and `SCHEDULER_TOKEN`."""

    model_config = SettingsConfigDict(
        env_prefix="SCHEDULER_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    url: str = "http://127.0.0.1:8000"
    token: SecretStr | None = None

    @classmethod
    def read(cls) -> ClientSettings:
        """Raises InvalidRequest naming the variable."""
        try:
            return cls()
        except ValidationError as error:
            found = error.errors(include_url=False)
            problems = (Problem(f"SCHEDULER_{str(one['loc'][0]).upper()}", one["msg"]) for one in found)
            raise InvalidRequest("the environment is not valid; correct it", tuple(problems)) from None


def is_sendable(token: str) -> bool:
    """Whether a header can carry it."""
    return re.fullmatch(r"[!-~]+", token) is not None


def as_text(value: object) -> str:
    match value:
        case None:
            return ""
        case SecretStr():
            return value.get_secret_value()
        case tuple():
            parts = [str(part) for part in value]
            return (":" if value and isinstance(value[0], Path) else ",").join(parts)
        case dict():
            return json.dumps({key: kind.model_dump() for key, kind in value.items()})
        case _:
            return str(value)
