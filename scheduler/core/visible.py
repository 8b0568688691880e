"""Characters that cannot be seen, or that move others about, shown as what they are: `‹U+202E›`.

A name with U+202E in it reads backwards, and one with U+200B looks like another.  What people write with stays: letters
of every script, emoji with their joiners, and marks of direction where there is something to direct.
"""

from __future__ import annotations

import re
import unicodedata

_FLAG = "\U0001f3f4[\U000e0020-\U000e007e]{1,10}\U000e007f"
"""England's, say: a black flag, and its letters unseen behind it."""
_JOINERS = "\u200c\u200d"
_MARKS = "\u200e\u200f\u061c"
_CONTROLS = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
_UNSEEN = (
    "\u00ad\u180e\u200b-\u200f\u061c\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_IN_LOGS = re.compile(f"{_FLAG}|[{_UNSEEN}]")
_EVERYWHERE = re.compile(f"{_FLAG}|[{_UNSEEN}{_CONTROLS}]|\r(?!\n)")


def visible(text: str) -> str:
    """*text* itself where nothing in it hides.  Ends of lines and tabs are left."""
    return _shown(_EVERYWHERE, text)


def visible_log(text: str) -> str:
    """As `visible`, but for controls: whoever shows a log knows what `\\r` and the colours of a terminal mean."""
    return text if text.isascii() else _shown(_IN_LOGS, text)


def _shown(hiding: re.Pattern[str], text: str) -> str:
    directed = any(mark in text for mark in _MARKS) and _has_letters_from_the_right(text)
    return hiding.sub(lambda found: found[0] if _is_needed(found, directed) else _named(found[0]), text)


def _has_letters_from_the_right(text: str) -> bool:
    return any(unicodedata.bidirectional(one) in ("R", "AL") for one in text if one not in _MARKS)


def _named(letter: str) -> str:
    return f"‹U+{ord(letter):04X}›"


def _is_needed(found: re.Match[str], directed: bool) -> bool:
    """*directed*: the text has letters that run from right to left, and marks beside them mean something."""
    letter, at = found[0], found.start()
    if letter in _JOINERS:
        return at > 0 and not found.string[at - 1].isascii()
    return directed if letter in _MARKS else len(letter) > 1  # a flag
