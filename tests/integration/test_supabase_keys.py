"""Projects as they are made now: keys that are no tokens, users' tokens signed asymmetrically, a strict gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from scheduler.adapters.supabase.mirror import SupabaseMirror
from scheduler.server import preflight
from scheduler.settings import Settings
from scheduler.testing import a_job
from tests.conftest import free_port
from tests.contract.suites.mirror_store import a_mirrored
from tests.stack.keys import Keys
from tests.stack.stack import Stack


@pytest.fixture(scope="module", params=["ES256", "RS256"])
def project(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with Stack.start(signing=request.param) as stack:
        yield stack


def ask(stack: Stack, method: str, path: str, **headers: str) -> httpx.Response:
    return httpx.request(method, f"{stack.url}/rest/v1/{path}", headers=headers, timeout=30)


def look(stack: Stack, tmp_path: Path, key: str) -> preflight.Check:
    settings = Settings(
        state_dir=tmp_path / "state",
        storage_path=tmp_path / "storage",
        port=free_port(),
        supabase_url=stack.url,
        supabase_key=key,
    )
    return next(check for check in preflight.run(settings) if check.name == "Supabase")


@pytest.mark.parametrize("key", ["secret_key", "service_key"])
def test_either_kind_of_secret_key_is_found_well(project: Stack, tmp_path: Path, key: str) -> None:
    """R8: what start-up finds is what the writes will find."""
    assert look(project, tmp_path, getattr(project, key)).ok


@pytest.mark.parametrize("key", ["secret_key", "service_key"])
async def test_states_are_written_with_either_kind_of_secret_key(project: Stack, key: str) -> None:
    """A key that is no token was sent as one as well, so that nothing was ever written to a project of today."""
    mirror = SupabaseMirror(project.url, getattr(project, key), f"cluster-{key}")
    job = a_job(id=str(uuid4()))  # type: ignore[arg-type]
    await mirror.claim(1)
    await mirror.apply([a_mirrored(job)])
    await mirror.close()
    assert project.sql("select status from training_jobs where id = %s", job.id) == [{"status": job.status}]


def test_the_gateway_is_strict(project: Stack) -> None:
    """Else the test above proves nothing: PostgREST itself refuses a bearer that is no token."""
    both = {"apikey": project.secret_key, "Authorization": f"Bearer {project.secret_key}"}
    assert ask(project, "GET", "training_jobs", **both).status_code == 401
    assert ask(project, "GET", "training_jobs", apikey=project.secret_key).status_code == 200
    assert ask(project, "GET", "training_jobs", apikey="sb_secret_another").status_code == 401


def test_the_publishable_key_is_told_before_anything_is_asked(project: Stack, tmp_path: Path) -> None:
    """Both keys stand on one page; the remedy names the one that is right."""
    found = look(project, tmp_path, project.publishable_key)
    assert not found.ok
    assert "is the publishable key" in found.detail
    assert "sb_secret_" in found.remedy
    assert project.publishable_key not in found.detail + found.remedy


def test_a_secret_key_of_nobody_gets_a_remedy_that_is_true(project: Stack, tmp_path: Path) -> None:
    found = look(project, tmp_path, "sb_secret_of_another_project")
    assert not found.ok
    assert "Invalid API key" in found.detail
    assert found.remedy.startswith(
        "set SCHEDULER_SUPABASE_KEY to a secret key of the project (sb_secret_...)"
    )


def test_users_whose_tokens_are_signed_asymmetrically_see_their_own_rows(project: Stack) -> None:
    """Row-level security reads the claims of a token that PostgREST verified by a public key."""
    ids = [str(uuid4()), str(uuid4())]
    tokens = [project.user_key(user_id) for user_id in ids]
    for token in tokens:
        headers = {
            "apikey": project.publishable_key,
            "Authorization": f"Bearer {token}",
            "Prefer": "return=minimal",
        }
        sent = {"name": "mine", "spec": {"loop": "sft"}}
        url = f"{project.url}/rest/v1/training_jobs"
        assert httpx.post(url, json=sent, headers=headers, timeout=30).status_code == 201
    for user_id, token in zip(ids, tokens, strict=True):
        signed = {"apikey": project.publishable_key, "Authorization": f"Bearer {token}"}
        rows = ask(project, "GET", "training_jobs?select=user_id", **signed).json()
        assert rows == [{"user_id": user_id}]
    of_another = Keys.new("ES256").token("authenticated", sub=ids[0], aud="authenticated")
    forged = {"apikey": project.publishable_key, "Authorization": f"Bearer {of_another}"}
    assert ask(project, "GET", "training_jobs", **forged).status_code == 401


SPEC = {"loop": "sft", "config": {"model": "a/b"}}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (SPEC, SPEC),
        (json.dumps(SPEC), SPEC),
        (json.dumps(json.dumps(SPEC)), SPEC),
        ("no JSON", "is a text that is no JSON"),
        ("[1]", "training_jobs_spec_is_object"),
        (json.dumps({"a": "\0"}), "is a text that is no JSON"),
        (json.dumps("x" * 1_000_001), ""),
    ],
)
def test_a_spec_that_is_written_as_text_is_the_object_in_it(
    fresh_stack: Stack, written: Any, kept: Any
) -> None:
    """B4: a front end that serializes twice was refused by the name of a constraint."""
    token = fresh_stack.user_key(str(uuid4()))
    headers = {
        "apikey": fresh_stack.anon_key,
        "Authorization": f"Bearer {token}",
        "Prefer": "return=representation",
    }
    url = f"{fresh_stack.url}/rest/v1/training_jobs"
    answer = httpx.post(url, json={"name": "mine", "spec": written}, headers=headers, timeout=30)
    if isinstance(kept, dict):
        assert answer.status_code == 201, answer.text
        assert answer.json()[0]["spec"] == kept
    else:
        assert answer.status_code in (400, 401, 403), answer.text
        assert kept in answer.text
