"""A small project to try the stack on: a few migrations, and clients of each role."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from supabase import AsyncClient, AsyncClientOptions, acreate_client

from tests.stack import Stack

TABLES = """
create table notes (id int primary key, owner uuid default auth.uid() references auth.users, said text);
alter table notes enable row level security;
create policy own on notes using (owner = auth.uid());
create table kinds (id int generated always as identity primary key, name text);
insert into kinds (name) values ('first'), ('second');
create function whoami() returns text language sql as 'select auth.role()';
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("migrations")
    (folder / "20260101000000_tables.sql").write_text(TABLES)
    (folder / "20260102000000_index.sql").write_text("create index on notes (owner)")
    return folder


@pytest.fixture(scope="module")
def running_stack(folder: Path) -> Iterator[Stack]:
    with Stack.start(folder=folder) as stack:
        yield stack


@pytest.fixture
def stack(running_stack: Stack) -> Stack:
    running_stack.reset()
    return running_stack


async def as_service(stack: Stack) -> AsyncClient:
    return await acreate_client(stack.url, stack.service_key)


async def as_user(stack: Stack, token: str) -> AsyncClient:
    bearer = {"Authorization": f"Bearer {token}"}
    return await acreate_client(stack.url, stack.anon_key, AsyncClientOptions(headers=bearer))


def insert(stack: Stack, note: int = 1, timeout_s: float = 10) -> httpx.Response:
    headers = {"apikey": stack.service_key, "Authorization": f"Bearer {stack.service_key}"}
    return httpx.post(f"{stack.url}/rest/v1/notes", json={"id": note}, headers=headers, timeout=timeout_s)


def noted(stack: Stack) -> list[int]:
    return [row["id"] for row in stack.sql("select id from notes order by id")]
