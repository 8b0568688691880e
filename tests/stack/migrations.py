"""Applies `supabase/migrations/` as the Supabase CLI does, and empties the tables between tests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from psycopg import Connection, Error, sql

from tests.stack.errors import StackError

FOLDER = Path(__file__).resolve().parents[2] / "supabase" / "migrations"
NAME = re.compile(r"(?P<version>\d{14})_(?P<name>\w+)\.sql")
RECORD = "insert into supabase_migrations.schema_migrations (version, name, statements) values (%s, %s, %s)"


def apply(connection: Connection[Any], folder: Path) -> list[str]:
    """Apply, each in a transaction, those that are not recorded yet.  Returns their versions; safe to repeat.

    *connection* is one of role `postgres`, as in a hosted project.
    """
    connection.execute("create schema if not exists supabase_migrations")
    connection.execute(
        "create table if not exists supabase_migrations.schema_migrations"
        " (version text primary key, statements text[], name text)"
    )
    done = {row[0] for row in connection.execute("select version from supabase_migrations.schema_migrations")}
    missing = [path for path in sorted(folder.glob("*.sql")) if _parts(path)[0] not in done]
    return [_apply_one(connection, path) for path in missing]


def _apply_one(connection: Connection[Any], path: Path) -> str:
    version, name = _parts(path)
    try:
        with connection.transaction():
            connection.execute(path.read_bytes())
            connection.execute(RECORD, [version, name, [path.read_text()]])
    except Error as error:
        raise StackError(f"migration {path.name} was not applied: {error}") from error
    return version


def _parts(path: Path) -> tuple[str, str]:
    if (match := NAME.fullmatch(path.name)) is None:
        raise StackError(f"{path} is no migration: name it <14 digits>_<words>.sql")
    return match["version"], match["name"]


def keep_seeds(admin: Connection[Any]) -> None:
    """Remember the rows that the migrations themselves put in, for `empty`."""
    admin.execute("drop schema if exists stack_seeds cascade; create schema stack_seeds")
    for table in _tables(admin):
        name = sql.Identifier(table)
        if admin.execute(sql.SQL("select from public.{} limit 1").format(name)).fetchone() is not None:
            admin.execute(sql.SQL("create table stack_seeds.{0} as table public.{0}").format(name))


def empty(admin: Connection[Any]) -> None:
    """Every table as the migrations left it; no users."""
    names = [sql.Identifier("public", table) for table in _tables(admin)]
    seeded = admin.execute("select tablename from pg_tables where schemaname = 'stack_seeds'").fetchall()
    with admin.transaction():
        # Triggers and foreign keys must not see the seeds come back one table at a time.
        admin.execute("set local session_replication_role = replica")
        everything = sql.SQL(", ").join([*names, sql.Identifier("auth", "users")])
        admin.execute(sql.SQL("truncate {} restart identity cascade").format(everything))
        for (table,) in seeded:
            again = "insert into public.{0} overriding system value table stack_seeds.{0}"
            admin.execute(sql.SQL(again).format(sql.Identifier(table)))


def _tables(admin: Connection[Any]) -> list[str]:
    return [row[0] for row in admin.execute("select tablename from pg_tables where schemaname = 'public'")]
