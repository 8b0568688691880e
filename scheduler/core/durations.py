"""Durations in words, once for sentences and once for tables."""

from __future__ import annotations


def span(seconds: float) -> str:
    """One unit, for a sentence: "12 s", "6 min", "2.5 h", "3 days".  What is below zero is "0 s"."""
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.0f} days"


def fine_span(seconds: float) -> str:
    """As `span`, with two digits where that is less than 10 s: "0.05 s"."""
    if seconds < 0.01:
        return "less than 0.01 s"
    return f"{seconds:.2g} s" if seconds < 9.95 else span(seconds)


def exact_span(seconds: float) -> str:
    """To the second, or to the minute from an hour on, for a table: "12 s", "6 min 03 s", "2 h 30 min"."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
