"""For tests, ours and yours: fakes that keep the promises of the ports, a manual clock, builders."""

from scheduler.testing.builders import a_change, a_full_job, a_job, a_node, a_repair, a_spec, advanced
from scheduler.testing.clock import ManualClock
from scheduler.testing.memory import Crash, Disk, MemoryJournal
from scheduler.testing.memory_mirror import Database, MemoryMirror

__all__ = [
    "Crash",
    "Database",
    "Disk",
    "ManualClock",
    "MemoryJournal",
    "MemoryMirror",
    "a_change",
    "a_full_job",
    "a_job",
    "a_node",
    "a_repair",
    "a_spec",
    "advanced",
]
