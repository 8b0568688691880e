"""What every document of the API is, and what all of them share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Document(BaseModel):
    """Frozen.  A client ignores fields it does not know, so that it can talk to a newer server.

    A server sends every field, also one that has its default: clients in other languages may rely on it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_serialization_defaults_required=True)


class ProblemField(Document):
    field: str
    message: str


class ReasonDocument(Document):
    code: str = Field(description="A stable word for programs.")
    message: str = Field(description="A sentence for people.")
    detail: str | None = Field(default=None, description="What was seen, such as a traceback.")


class DoubtNotice(Document):
    """The data of the event `doubt`: the registry does not answer; the stream goes on when it does."""

    message: str | None = Field(default=None, description="What is wrong; null: it answers again.")


class ProblemDocument(Document):
    """RFC 9457 (application/problem+json): what was wrong, which field, what to do."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemField] = Field(default_factory=list[ProblemField])
