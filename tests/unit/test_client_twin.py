"""The blocking client is made from the async one."""

from __future__ import annotations

import re
from typing import get_type_hints

import pytest

from scheduler.client import AsyncClient, AsyncJobHandle, Client, JobHandle
from scheduler.client.connection import SpecFields
from scheduler.client.specs import SPEC_FIELDS
from scheduler.client.twin import FOLDER, TWINS, blocking

PAIRS = [(AsyncClient, Client), (AsyncJobHandle, JobHandle)]


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize("name", TWINS)
def test_the_made_files_are_up_to_date(name: str) -> None:
    """Whoever changed the source forgot `python -m scheduler.client.twin`, or changed what is made."""
    assert (FOLDER / TWINS[name]).read_text() == blocking((FOLDER / name).read_text(), name)


@pytest.mark.parametrize("name", TWINS)
def test_nothing_is_awaited_in_what_is_made(name: str) -> None:
    made = (FOLDER / TWINS[name]).read_text().split('"""', 2)[2]
    assert re.findall(r"\b(async|await|Async\w+|asyncio|a(?:next|iter|close|read)\w*)\b", made) == []


@pytest.mark.parametrize(("awaited", "blocks"), PAIRS)
def test_both_have_the_same_methods_and_say_what_they_do(awaited: type, blocks: type) -> None:
    """A method without a docstring is one that an editor shows without a word."""
    assert public(awaited) == public(blocks)
    methods = [
        name for name in vars(awaited) if not name.startswith("_") and callable(getattr(awaited, name))
    ]
    assert len(methods) > 15
    assert [name for name in methods if not getattr(blocks, name).__doc__] == []


def test_the_keywords_of_a_submit_are_the_fields_of_a_spec() -> None:
    """An editor offers these; `code` is made from a function and is no keyword for people."""
    assert {*get_type_hints(SpecFields)} == {*SPEC_FIELDS} - {"code", "array"}
