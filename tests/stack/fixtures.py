"""One stack for the whole test session, emptied for each test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stack.stack import Stack


@pytest.fixture(scope="session")
def supabase_stack() -> Iterator[Stack]:
    """The shared stack, in the state in which the last test left it."""
    with Stack.start() as stack:
        yield stack


@pytest.fixture
def fresh_stack(supabase_stack: Stack) -> Stack:
    """The shared stack, as new."""
    supabase_stack.reset()
    return supabase_stack
