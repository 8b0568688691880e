"""Cron expressions: the moments that they name in a time zone, and what is wrong with one that names none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

MAX_CHARS = 200
EXAMPLE = "`0 3 * * *` is 03:00 every day"
_FIELDS = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31, or L for the last, and one that a month of it has",
    "month": "1 to 12, or JAN to DEC",
    "day-of-week": "0 to 7 (0 and 7 are Sunday), or SUN to SAT",
}
"""What each takes, in their order.  The first one may be left out."""
_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)


def problem_of(cron: str) -> str | None:
    """What is wrong with it, which of its fields, and how to write it; None: nothing."""
    if len(cron) > MAX_CHARS:
        return f"is {len(cron)} characters long; at most {MAX_CHARS} are taken, as {EXAMPLE}"
    try:
        found = next(CronSim(cron, _SOME_DAY), None)
    except CronSimError as error:
        return _in_words(cron.split(), str(error).removeprefix("Bad "))
    return None if found else f"names no moment within the next 50 years; correct its days, as {EXAMPLE}"


def _in_words(parts: list[str], field: str) -> str:
    names = list(_FIELDS)[6 - len(parts) :] if len(parts) in (5, 6) else []
    if field not in names:
        wanted = ", ".join(list(_FIELDS)[1:])
        count = "1 field" if len(parts) == 1 else f"{len(parts)} fields"
        return f"has {count}; it takes five ({wanted}), or six with seconds before them, as {EXAMPLE}"
    given = parts[names.index(field)][:40]
    return f"its field {field} is {given!r}; it takes {_FIELDS[field]}, with * , - and /, as {EXAMPLE}"


def explained(cron: str) -> str:
    """In words, without the time zone: `At 03:00 every day`."""
    return CronSim(cron, _SOME_DAY).explain()


def next_after(cron: str, zone: tzinfo, moment: datetime) -> datetime | None:
    """The first moment after *moment*, in UTC; None: there is none within 50 years.

    As Debian's cron: a time that a change to summer time leaves out comes when that hour is over, and one that the
    change back has twice comes the first time.  An expression with `*` for minute or hour goes on by the clock.
    """
    local = moment.astimezone(zone)
    found = (one.astimezone(UTC) for one in CronSim(cron, local))
    return next((one for one in found if one > moment), None)


def newest_until(cron: str, zone: tzinfo, moment: datetime) -> datetime | None:
    """The last moment at or before *moment*, in UTC; None: there is none within 50 years."""
    local = (moment + timedelta(seconds=1)).replace(microsecond=0).astimezone(zone)
    found = (one.astimezone(UTC) for one in CronSim(cron, local, reverse=True))
    return next((one for one in found if one <= moment), None)
