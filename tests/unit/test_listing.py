"""What the URL of a list says, and the small curves in its rows."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from scheduler.core.model import Status
from scheduler.errors import InvalidRequest
from scheduler.ports import Sort
from serve_app.pages.listing import ListQuery
from serve_app.pages.sparkline import HEIGHT, WIDTH, sparkline


def asked(query: str) -> ListQuery:
    return ListQuery.of(Request({"type": "http", "query_string": query.encode(), "headers": []}))


def test_a_url_says_which_jobs_and_in_which_order() -> None:
    query = asked("status=running,queued&user=ana&project=p&search=x&sort=-name").query()
    assert query.statuses == {Status.RUNNING, Status.QUEUED}
    assert (query.user, query.project, query.search, query.sort) == ("ana", "p", "x", Sort.NAME_DOWN)


def test_empty_fields_of_a_form_filter_nothing() -> None:
    """A browser sends every field of a form, also those that nobody filled in."""
    query = asked("user=&project=+&search=&status=").query()
    assert (query.user, query.project, query.search, query.statuses) == (None, None, None, frozenset())
    assert asked("user=&status=").url() == "/training"


@pytest.mark.parametrize(
    ("given", "field"),
    [("sort=x", "sort"), ("status=x", "status"), ("cursor=!", "cursor"), (f"user={'x' * 201}", "user")],
)
def test_what_cannot_be_answered_is_refused_by_the_name_of_its_field(given: str, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(given).query()
    assert [problem.field for problem in refused.value.problems] == [field]


def test_another_filter_or_order_begins_at_the_first_page() -> None:
    """A cursor belongs to one list: in another it would hide jobs."""
    listing = asked("cursor=abc&user=ana")
    assert listing.url(status="failed") == "/training?status=failed&user=ana"
    assert "cursor" not in listing.sorted_by("name", "name")
    assert "cursor=xyz" in listing.url(cursor="xyz")


def test_a_column_sorts_first_as_people_want_it_then_the_other_way_round() -> None:
    assert asked("").sorted_by("submitted", "-submitted") == "/training?sort=submitted"
    assert asked("sort=name").sorted_by("name", "name") == "/training?sort=-name"
    assert asked("sort=-name").sorted_by("name", "name") == "/training?sort=name"
    assert [asked("sort=-name").direction(name) for name in ("name", "user")] == ["descending", "none"]


def test_only_the_newest_of_all_is_the_top() -> None:
    """Elsewhere a new job does not belong above all others."""
    assert asked("status=running").is_top
    assert not asked("cursor=abc").is_top
    assert not asked("sort=name").is_top


def test_a_curve_goes_from_left_to_right_with_the_highest_value_at_the_top() -> None:
    line = sparkline([4.0, 1.0, 2.0])
    assert line is not None
    points = [tuple(map(float, point.split(","))) for point in line.points.split()]
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert min(points, key=lambda point: point[1]) == points[0]
    assert max(points, key=lambda point: point[1]) == points[1]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)
    assert line.words == "loss from 4 to 2, lowest 1"


@pytest.mark.parametrize("values", [[], [1.0], [float("nan"), 1.0, float("inf")]])
def test_one_point_is_no_curve(values: list[float]) -> None:
    assert sparkline(values) is None


def test_a_loss_that_stands_still_is_a_line_in_the_middle() -> None:
    line = sparkline([1.0, 1.0])
    assert line is not None
    assert {point.split(",")[1] for point in line.points.split()} == {str(HEIGHT // 2)}
