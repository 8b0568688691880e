"""The durable truth: one SQLite file that holds every job, its history, and what the mirror has not taken yet."""

from scheduler.journal.sqlite import SqliteJournal

__all__ = ["SqliteJournal"]
