"""A policy with its rules, in the words of a setting: `fifo`, `fair`, or rules of `fair` such as `preempt=class`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from scheduler.core.contender import Rules, rules_of


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChoice:
    name: Literal["fair", "fifo"] = "fair"
    rules: Rules = field(default_factory=Rules)
    """Of `fair`; `fifo` has none."""

    def __str__(self) -> str:
        """As `choice_of` reads it."""
        rules = str(self.rules)
        return f"fair:{rules}" if self.name == "fair" and rules else self.name


def choice_of(text: str) -> PolicyChoice:
    """Raises InvalidRequest naming the rule that is none."""
    words = text.strip()
    if words == "fifo":
        return PolicyChoice(name="fifo")
    rules = "" if words == "fair" else words.removeprefix("fair:")
    return PolicyChoice(rules=rules_of(part for part in rules.split(",") if part.strip()))
