"""Some forty shells in which people call `scheduler up` once more, beside a job whose processes must not change."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.second_up import ALL, Living, Shell, living

pytestmark = [pytest.mark.ray, pytest.mark.long]


@pytest.fixture(scope="module")
def it() -> Iterator[Living]:
    with living() as found:
        yield found


@pytest.mark.parametrize("shell", ALL, ids=str)
def test_a_second_up_leaves_the_run_alone(it: Living, shell: Shell) -> None:
    """B3"""
    shell.meet(it)
