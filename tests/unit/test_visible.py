"""What cannot be seen is shown as what it is, and what people write with stays as it is."""

from __future__ import annotations

import sys
import time
import unicodedata

import pytest

from scheduler.core.visible import visible, visible_log


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("invoice\u202egpj.exe", "invoice‹U+202E›gpj.exe"),
        ("pay\u200bment", "pay‹U+200B›ment"),
        ("pay\u200dment", "pay‹U+200D›ment"),
        ("\u2066a\u2069", "‹U+2066›a‹U+2069›"),
        ("a\u200fb", "a‹U+200F›b"),
        ("\ufeffa\u00adb\u2060c\u3164d", "‹U+FEFF›a‹U+00AD›b‹U+2060›c‹U+3164›d"),
        ("a\x1b[2Jb\x07\x85", "a‹U+001B›[2Jb‹U+0007›‹U+0085›"),
        ("a\rb\r\nc\td", "a‹U+000D›b\r\nc\td"),
        ("tag\U000e0041", "tag‹U+E0041›"),
        ("half \ud83d", "half ‹U+D83D›"),
    ],
)
def test_what_hides_is_named(text: str, shown: str) -> None:
    """D: such a name reads as another one, and a list of them can be turned round."""
    assert visible(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "plain", "größer", "模型", "שלום \u200fעולם", "مرحبا", "می\u200cخواهم", "क्\u200dष", "👩\u200d🔬 run", "👍🏽",
        "🏳️\u200d🌈",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "a\u00a0b", "e\u0301", "ﷺ", "line\nline\ttab",
    ],
)  # fmt: skip
def test_what_people_write_stays(text: str) -> None:
    assert visible(text) is text or visible(text) == text


def test_no_character_that_turns_text_round_is_left_alone() -> None:
    """Each that Unicode has, and not only those that somebody thought of."""
    turning = [chr(one) for one in range(sys.maxunicode + 1) if unicodedata.bidirectional(chr(one)) in
               ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")]  # fmt: skip
    assert len(turning) == 9
    for letter in turning:
        assert visible(f"שלום{letter}a") == f"שלום‹U+{ord(letter):04X}›a"
        assert visible_log(f"a{letter}") == f"a‹U+{ord(letter):04X}›"


def test_a_log_keeps_what_a_terminal_understands() -> None:
    assert visible_log("\x1b[31mred\x1b[0m 1%\r2%\u202e") == "\x1b[31mred\x1b[0m 1%\r2%‹U+202E›"


def test_no_text_takes_long() -> None:
    began_s = time.process_time()
    visible("\u200fa" * 100_000)
    assert time.process_time() - began_s < 2
