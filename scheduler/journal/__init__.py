"""The durable truth: one SQLite file with every job, its history, and what the mirror has not taken yet."""

from scheduler.journal.sqlite import SqliteJournal

__all__ = ["SqliteJournal"]
