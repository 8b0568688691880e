"""Each fault of the gateway does what it says, as supabase-py and httpx see it."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from postgrest.exceptions import APIError

from tests.conftest import wait_until
from tests.integration.notes import as_service, folder, insert, noted, running_stack, stack
from tests.stack import Fault, Stack
from tests.stack.faults import Faults

__all__ = ["folder", "running_stack", "stack"]


def test_refuse_is_a_refused_connection_and_the_port_comes_back(stack: Stack) -> None:
    stack.gateway.fault("refuse")
    with pytest.raises(httpx.ConnectError):
        insert(stack)
    stack.gateway.clear()
    assert insert(stack).status_code == 201


def test_a_refusal_of_one_path_leaves_the_others_alone(stack: Stack) -> None:
    stack.gateway.fault("refuse", path="rpc/whoami")
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{stack.url}/rest/v1/rpc/whoami", headers={"apikey": stack.service_key})
    assert insert(stack).status_code == 201


def test_hang_gives_no_answer(stack: Stack) -> None:
    stack.gateway.fault("hang")
    with pytest.raises(httpx.ReadTimeout):
        insert(stack, timeout_s=0.2)
    assert noted(stack) == []


async def test_hanging_requests_are_cut_when_the_fault_is_over(stack: Stack) -> None:
    stack.gateway.fault("hang")
    client = await as_service(stack)
    waiting = asyncio.create_task(client.table("notes").insert({"id": 1}).execute())
    while not stack.gateway.requests:
        await asyncio.sleep(0.01)
    stack.gateway.clear()
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await asyncio.wait_for(waiting, 10)


async def test_500_and_429_are_answers_and_change_nothing(stack: Stack) -> None:
    stack.gateway.fault("429", retry_after_s=7)
    answer = insert(stack)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")
    stack.gateway.fault("500")
    assert insert(stack).status_code == 500
    client = await as_service(stack)
    with pytest.raises(APIError, match="An unexpected error occurred"):
        await client.table("notes").insert({"id": 1}).execute()
    assert noted(stack) == []


def test_slow_is_late_but_done(stack: Stack) -> None:
    stack.gateway.fault("slow", delay_s=0.3)
    with pytest.raises(httpx.ReadTimeout):
        insert(stack, timeout_s=0.1)
    wait_until(lambda: noted(stack) == [1], within_s=5, what="the late request is done")


def test_reset_cuts_the_answer_to_what_was_done(stack: Stack) -> None:
    stack.gateway.fault("reset")
    with pytest.raises(httpx.TransportError):
        insert(stack)
    assert noted(stack) == [1]


async def test_twice_delivers_twice_and_answers_the_second(stack: Stack) -> None:
    stack.gateway.fault("twice", times=1)
    client = await as_service(stack)
    with pytest.raises(APIError, match="duplicate key"):
        await client.table("notes").insert({"id": 1}).execute()
    assert noted(stack) == [1]


async def test_lose_does_it_and_says_nothing(stack: Stack) -> None:
    stack.gateway.fault("lose", path="POST .*/notes", times=1)
    client = await as_service(stack)
    with pytest.raises(httpx.TransportError):
        await client.table("notes").insert({"id": 1}).execute()
    assert (await client.table("notes").select("id").execute()).data == [{"id": 1}]
    assert insert(stack, 2).status_code == 201, "once was asked for"


def test_a_mixture_is_the_same_for_the_same_seed() -> None:
    faults = (Fault(kind="500", probability=0.3), Fault(kind="lose", probability=0.2, path="rpc"))

    def drawn(seed: int, path: str) -> list[str | None]:
        source = Faults(faults, seed)
        return [fault and fault.kind for fault in (source.draw("POST", path) for _ in range(1000))]

    kinds = drawn(1, "/rest/v1/rpc/x")
    assert kinds == drawn(1, "/rest/v1/rpc/x") != drawn(2, "/rest/v1/rpc/x")
    assert 200 < kinds.count("500") < 400 and 120 < kinds.count("lose") < 280
    assert "lose" not in drawn(1, "/rest/v1/notes")


def test_a_mixture_lets_through_what_it_does_not_hit(stack: Stack) -> None:
    stack.gateway.mixture({"500": 0.4, "429": 0.3}, seed=3)
    statuses = {insert(stack, note).status_code for note in range(30)}
    assert statuses == {201, 429, 500}
    counted = [request.status for request in stack.gateway.requests]
    assert len(noted(stack)) == counted.count(201)


def test_a_fault_that_does_not_exist_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="no fault is called 'sulk'; there are refuse, hang"):
        Fault(kind="sulk")  # type: ignore[arg-type]


def test_requests_are_remembered_with_what_became_of_them(stack: Stack) -> None:
    before_s = time.time()
    insert(stack)
    stack.gateway.fault("lose")
    with pytest.raises(httpx.TransportError):
        insert(stack, 2)
    done, lost = stack.gateway.requests
    assert (done.method, done.path, done.status, done.fault) == ("POST", "/rest/v1/notes", 201, None)
    assert done.sent_bytes == len(b'{"id":1}') and before_s <= done.at_s <= time.time()
    assert (lost.status, lost.fault) == (None, "lose")
    stack.gateway.forget()
    assert stack.gateway.requests == []


async def test_a_body_of_ten_megabytes_passes_both_ways(stack: Stack) -> None:
    client = await as_service(stack)
    long = "x" * 10_000_000
    answer = await client.table("notes").insert({"id": 1, "said": long}).execute()
    assert answer.data == [{"id": 1, "owner": None, "said": long}]
    [request] = stack.gateway.requests
    assert request.sent_bytes > 10_000_000 < request.received_bytes
