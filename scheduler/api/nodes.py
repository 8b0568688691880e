"""The nodes: what each has, what was lost on it, and whether it is set aside."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from scheduler.api.base import Document


class NodeLossDocument(Document):
    """A run that was lost on a node."""

    job_id: str
    job: str = Field(description="The name of the job.")
    at: datetime
    why: str = Field(description="A sentence for people.")


class SetAsideDocument(Document):
    """Nothing new starts on the node until a person lets it back; what runs there goes on."""

    at: datetime
    by: str = Field(description="Who did it; `scheduler` where it did so by itself.")
    why: str
    losses: list[NodeLossDocument] = Field(description="What spoke against it then.")


class NodeDocument(Document):
    """A node, alive or set aside."""

    node_id: str = Field(description="Ray's; empty while the node is away.")
    name: str
    cpus: float
    gpus: float
    labels: dict[str, str] = Field(description="As Ray has them; what `resources.on` asks for.")
    draining: bool
    set_aside: SetAsideDocument | None = Field(description="Null: jobs may start on it.")
    lost: list[NodeLossDocument] = Field(description="Runs that were lost on it within the last hour.")


class NodeList(Document):
    """Live nodes, and those that are set aside, by name."""

    nodes: list[NodeDocument]
