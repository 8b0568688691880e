"""The durable truth: one SQLite file with every job, its history, and what the mirror has not taken yet."""

from scheduler.adapters.journal.sqlite import SqliteJournal

__all__ = ["SqliteJournal"]
