"""How every mirror writes: changes with their history, signs of life, and who may write at all."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from scheduler.adapters.supabase.row_codec import attempt_of
from scheduler.core.model import ATTEMPT, JOB, SPEC, Fence, JobId, Json, Reason, Status
from scheduler.core.reconcile import Row
from scheduler.errors import MirrorRefused, Superseded
from scheduler.ports import Mirror
from scheduler.testing.attempts import LOST, a_full_attempt, admitted, an_attempt, run_lost, telling
from scheduler.testing.builders import a_full_job, a_job, advanced
from scheduler.testing.clock import NOON
from tests.contract.suites.mirror_store import ELSEWHERE, MirrorStore, a_mirrored, a_sign, committed


class MirrorWrites:
    """Part of `MirrorContract`."""

    # A change, and its history

    @pytest.mark.parametrize("status", Status)
    async def test_what_was_applied_is_read_again(
        self, store: MirrorStore, mirror: Mirror, status: Status
    ) -> None:
        """R2: a lost journal is rebuilt from these rows, to the last field; only NUL is more than Postgres can hold."""
        job = a_full_job(status)
        await mirror.apply([a_mirrored(job, queue_position=3)])
        (row,) = (await mirror.rows([job.id])).rows
        kept = JOB.validate_json(JOB.dump_json(job).replace(b"\\u0000", "\N{REPLACEMENT CHARACTER}".encode()))
        assert row == Row(
            id=job.id,
            status=status,
            version=1,
            name=kept.spec.name,
            spec=kept.raw_spec,
            job=kept,
            reason=kept.reason,
            progress=None if status is Status.RUNNING else kept.progress,
            attempt=job.attempt,
            queue_position=3,
            created_at=job.created_at,
            queued_at=job.queued_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            updated_at=row.updated_at,
            verified_at=job.updated_at,
        )

    async def test_text_that_only_looks_like_nul_is_kept(self, store: MirrorStore, mirror: Mirror) -> None:
        """Else a traceback about NUL would be told wrong."""
        texts = ["\\u0000", "\\\\u0000", "\\\0", "\0\0", "\\\\\0\\u0000"]
        job = a_job("failed", progress={"said": texts})
        await mirror.apply([a_mirrored(job)])
        (row,) = (await mirror.rows([job.id])).rows
        assert row.progress == {"said": [text.replace("\0", "\N{REPLACEMENT CHARACTER}") for text in texts]}

    async def test_numbers_that_json_does_not_know_do_not_keep_a_row_out(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """R6: a loss that is not a number is common, and so is a counter beyond 64 bits."""
        job = a_job("failed", progress={"loss": float("nan"), "lr": float("-inf"), "tokens": 10**30})
        await mirror.apply([a_mirrored(job)])
        (row,) = (await mirror.rows([job.id])).rows
        assert row.progress == {"loss": None, "lr": None, "tokens": 10**30}

    async def test_a_spec_is_shown_as_it_was_written(self, store: MirrorStore, mirror: Mirror) -> None:
        """P2: whoever wrote one that is none must recognise it next to the reason why it failed."""
        good, bad = a_job(), a_job("failed", raw_spec={"loop": 7, "oops": []})
        await mirror.apply([a_mirrored(good), a_mirrored(bad)])
        rows = {row.id: row for row in (await mirror.rows([good.id, bad.id])).rows}
        assert rows[good.id].spec == SPEC.dump_python(good.spec, mode="json")
        assert (rows[bad.id].spec, rows[bad.id].job) == ({"loop": 7, "oops": []}, bad)

    async def test_an_older_version_changes_nothing(self, store: MirrorStore, mirror: Mirror) -> None:
        """R6: the newest state of a job wins, in whatever order the writes arrive."""
        old = a_job("running")
        new = advanced(old, status=Status.FAILED)
        await mirror.apply([a_mirrored(new, old)])
        before = store.row(old.id), store.events(old.id)
        await mirror.apply([a_mirrored(old)])
        assert (store.row(old.id), store.events(old.id)) == before

    async def test_the_same_version_again_is_the_same(self, store: MirrorStore, mirror: Mirror) -> None:
        """R6: a write whose answer was lost is repeated."""
        change = a_mirrored(a_job("failed"), queue_position=4)
        await mirror.apply([change])
        before = store.row(change.job.id), store.events(change.job.id)
        await mirror.apply([change])
        assert _untouched(store.row(change.job.id)) == _untouched(before[0])
        assert store.events(change.job.id) == before[1]

    async def test_the_same_version_puts_right_what_was_set_by_hand(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """P1: a row set to `running` by hand is known for what it is, and mirrored again."""
        job = a_job("failed")
        await mirror.apply([a_mirrored(job)])
        store.set(job.id, status="running")
        await mirror.apply([a_mirrored(job)])
        assert _said(store.row(job.id)) == ("failed", 1)

    async def test_a_forced_write_wins_over_a_newer_version(self, store: MirrorStore, mirror: Mirror) -> None:
        """A version that no scheduler wrote would keep the truth out for ever."""
        job = a_job("failed")
        await mirror.apply([a_mirrored(job)])
        store.set(job.id, status="running", version=99)
        await mirror.apply([a_mirrored(job)])
        assert _said(store.row(job.id)) == ("running", 99)
        await mirror.apply([a_mirrored(job)], forced=True)
        assert _said(store.row(job.id)) == ("failed", 1)

    async def test_events_are_added_once_and_never_dropped(self, store: MirrorStore, mirror: Mirror) -> None:
        """Every move is recorded: one that arrives late, and one whose row says something newer already."""
        steps = [a_job("queued")]
        for status in (Status.RUNNING, Status.QUEUED, Status.CANCELLED):
            steps.append(advanced(steps[-1], status=status))
        whole = a_mirrored(steps[-1], *steps[:-1])
        await mirror.apply([replace(whole, events=whole.events[2:])])
        await mirror.apply([a_mirrored(steps[1], steps[0])])
        await mirror.apply([whole])
        seen = [
            (event["version"], event["from_status"], event["to_status"])
            for event in store.events(whole.job.id)
        ]
        assert seen == [
            (1, None, "queued"),
            (2, "queued", "running"),
            (3, "running", "queued"),
            (4, "queued", "cancelled"),
        ]

    async def test_an_event_says_what_the_journal_says(self, store: MirrorStore, mirror: Mirror) -> None:
        """Front ends show this history and know no other."""
        change = a_mirrored(a_job())
        await mirror.apply([change])
        (event,) = store.events(change.job.id)
        (told,) = change.events
        assert (event["kind"], event["by"], event["reason"]["message"]) == (
            told.kind,
            told.by,
            told.reason.message,
        )

    async def test_a_job_that_was_adopted_takes_its_row_over(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """R4: the row of the front end becomes the job's; whose it is stays."""
        user_id = str(uuid4())
        job_id = store.insert_pending({"loop": "sft"}, user_id=user_id)
        store.request(job_id, "cancel")
        await mirror.apply([a_mirrored(a_job(id=job_id))])
        row = store.row(job_id)
        assert row is not None
        assert (row["status"], row["user_id"], row["requested_action"]) == ("queued", user_id, "cancel")

    async def test_one_bad_job_keeps_the_whole_batch_out(self, store: MirrorStore, mirror: Mirror) -> None:
        """Whoever looks for the bad one by halves must know that nothing of a refused half is in."""
        good, bad = a_job(), a_job(id=JobId("no-uuid"))
        with pytest.raises(MirrorRefused):
            await mirror.apply([a_mirrored(good), a_mirrored(bad)])
        assert (store.row(good.id), store.events(good.id)) == (None, [])

    async def test_a_job_may_be_in_a_batch_once(self, store: MirrorStore, mirror: Mirror) -> None:
        """Which of two states is the newer one is not for the database to guess."""
        job = a_job()
        with pytest.raises(MirrorRefused):
            await mirror.apply([a_mirrored(advanced(job), job), a_mirrored(job)])
        assert store.row(job.id) is None

    async def test_an_attempt_starts_without_the_progress_of_the_one_before(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """What the attempt before said is no word of this one; what this one said is not forgotten at the next change."""
        first = a_job("running")
        await mirror.apply([a_mirrored(first)])
        await mirror.vouch([a_sign(first)])
        stopping = advanced(first, progress=None)
        await mirror.apply([a_mirrored(stopping, first)])
        assert (store.row(first.id) or {})["progress"] == {"step": 5}
        second = advanced(stopping, fence=Fence(2), progress={"step": 4})
        await mirror.apply([a_mirrored(second, first, stopping)])
        assert (store.row(first.id) or {})["progress"] is None

    # Attempts

    async def test_each_run_is_a_row_from_its_start_to_its_end(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        start = admitted(a_job())
        end = run_lost(start.job)
        again = admitted(end.job)
        told = []
        for change in (start, end, again):
            await mirror.apply([committed(change)])
            told.append([attempt_of(row) for row in store.attempts(change.job.id)])
        first, ended, second = (change.event.attempt for change in (start, end, again))
        assert told == [[first], [ended], [ended, second]]
        row = store.attempts(start.job.id)[0]
        assert (row["ending"], row["cause"], row["reason"]["message"], row["steps_lost"], row["nodes"]) == (
            "lost",
            "infrastructure",
            LOST.reason.message,
            2,
            [["node-1", 2], ["node-2", 1]],
        )

    async def test_an_attempt_is_kept_to_the_last_field(self, store: MirrorStore, mirror: Mirror) -> None:
        """Only NUL is more than Postgres can hold; a step beyond 64 bits keeps no job out."""
        job, run = a_job("running"), a_full_attempt()
        await mirror.apply([committed(telling(run, job))])
        hole = "\N{REPLACEMENT CHARACTER}".encode()
        kept = ATTEMPT.validate_json(ATTEMPT.dump_json(run).replace(b"\\u0000", hole))
        assert [attempt_of(row) for row in store.attempts(job.id)] == [kept]

    async def test_a_run_that_began_and_ended_between_two_relays_is_one_row(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """After an outage the whole history of many jobs arrives at once."""
        lives = []
        for _ in range(2):
            start = admitted(a_job())
            end = run_lost(start.job)
            lives.append((start, end, admitted(end.job)))
        await mirror.apply([committed(*life) for life in lives])
        for start, end, again in lives:
            told = [attempt_of(row) for row in store.attempts(start.job.id)]
            assert told == [end.event.attempt, again.event.attempt]

    async def test_the_start_of_a_run_that_arrives_late_does_not_undo_its_end(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        start = admitted(a_job())
        end = run_lost(start.job)
        await mirror.apply([committed(end)])
        before = store.attempts(start.job.id)
        await mirror.apply([committed(start)])
        await mirror.apply([committed(end)])
        assert store.attempts(start.job.id) == before
        assert attempt_of(before[0]).ended_at is not None

    async def test_a_forced_write_puts_the_attempt_over_a_newer_one(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """A job that was set back by force counts on from its old version: its run must still be able to end."""
        job = a_job("running")
        newer = advanced(job, seconds=5, version=9)
        await mirror.apply([committed(telling(an_attempt(last_step=9), newer, job))])
        truth = telling(an_attempt(last_step=1), job)
        await mirror.apply([committed(truth)])
        assert [row["last_step"] for row in store.attempts(job.id)] == [9]
        await mirror.apply([committed(truth)], forced=True)
        assert [row["last_step"] for row in store.attempts(job.id)] == [1]

    async def test_a_refused_batch_leaves_no_attempt(self, store: MirrorStore, mirror: Mirror) -> None:
        good = admitted(a_job())
        with pytest.raises(MirrorRefused):
            await mirror.apply([committed(good), a_mirrored(a_job(id=JobId("no-uuid")))])
        assert store.attempts(good.job.id) == []

    # Two clusters, two lives

    async def test_a_row_of_another_cluster_is_left_alone(self, store: MirrorStore, mirror: Mirror) -> None:
        """Two clusters on one Supabase touch only their own rows, even when an id is in both."""
        job = a_job("running")
        await mirror.apply([committed(telling(an_attempt(), job))])
        store.request(job.id, "cancel")
        before = store.row(job.id), store.events(job.id), store.attempts(job.id)
        theirs = advanced(job, status=Status.FAILED)
        async with store.open(ELSEWHERE) as other:
            await other.claim(1)
            await other.apply([a_mirrored(theirs, job)], forced=True)
            await other.apply([committed(telling(an_attempt(last_step=1), theirs, job))], forced=True)
            await other.apply([committed(telling(an_attempt(2), theirs, job))])
            await other.vouch([a_sign(job)])
            await other.answer(job.id, "cancel", None)
        assert (store.row(job.id), store.events(job.id), store.attempts(job.id)) == before

    async def test_a_claim_is_above_every_earlier_one(self, store: MirrorStore) -> None:
        """A number that is given out twice tells nobody apart; one that is asked for is not undercut."""
        async with store.open() as first, store.open() as second, store.open(ELSEWHERE) as other:
            assert [await first.claim(1), await second.claim(1), await first.claim(7)] == [1, 2, 7]
            assert [await second.claim(3), await other.claim(1)] == [8, 1]

    @pytest.mark.parametrize("write", ["apply", "forced", "vouch", "answer"])
    async def test_an_older_incarnation_changes_nothing(
        self, store: MirrorStore, mirror: Mirror, write: str
    ) -> None:
        """A scheduler that was thought dead and wakes up must not undo what its successor did."""
        job, other = a_job("running"), a_job()
        await mirror.apply([committed(telling(an_attempt(), job))])
        store.request(job.id, "cancel")
        after = advanced(job, status=Status.FAILED)
        ended = telling(an_attempt(last_step=1), after, job)
        async with store.open() as newer:
            await newer.claim(1)
            before = store.row(job.id), store.events(job.id), store.attempts(job.id)
            with pytest.raises(Superseded, match=r"\b2\b.*\b1\b"):
                match write:
                    case "vouch":
                        await mirror.vouch([a_sign(job)])
                    case "answer":
                        await mirror.answer(job.id, "cancel", None)
                    case _:
                        await mirror.apply([committed(ended), a_mirrored(other)], forced=write == "forced")
            seen = store.row(job.id), store.events(job.id), store.attempts(job.id)
            assert (seen, store.row(other.id)) == (before, None)
            assert (await newer.rows([job.id])).vouched_at is None
            await newer.apply([a_mirrored(after, job)])
            assert _said(store.row(job.id)) == ("failed", 2)

    # Signs of life

    async def test_a_sign_shows_what_moved(self, store: MirrorStore, mirror: Mirror) -> None:
        """`running` is backed by what the run said last, and when; a waiting job knows why it waits."""
        running, queued = a_job("running"), a_job()
        await mirror.apply([a_mirrored(running), a_mirrored(queued, queue_position=9)])
        waits = Reason(code="blocked", message="needs 2 ranks at once, 1 is free")
        await mirror.vouch(
            [a_sign(running), a_sign(queued, reason=waits, progress=None, queue_position=1, verified_at=None)]
        )
        rows = {row.id: row for row in (await mirror.rows([running.id, queued.id])).rows}
        assert (rows[running.id].progress, rows[running.id].verified_at) == ({"step": 5}, NOON)
        assert (rows[queued.id].reason, rows[queued.id].queue_position) == (waits, 1)
        assert [rows[job.id].job for job in (running, queued)] == [running, queued]

    async def test_a_sign_of_another_version_changes_nothing(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """A sign that was sent before the run ended may arrive after it."""
        running = a_job("running")
        ended = advanced(running, status=Status.COMPLETED, progress={"step": 9})
        await mirror.apply([a_mirrored(ended, running)])
        before = store.row(running.id)
        await mirror.vouch([a_sign(running), a_sign(advanced(ended)), a_sign(a_job())])
        assert store.row(running.id) == before

    async def test_a_sign_that_cannot_be_written_spoils_no_other(
        self, store: MirrorStore, mirror: Mirror
    ) -> None:
        """A loop may say anything: not a number, half a character, an object."""
        jobs = [a_job("running"), a_job("running")]
        await mirror.apply([a_mirrored(job) for job in jobs])
        said = {"loss": float("nan"), "text": "\ud83d\0 \U0001f680", "big": 10**40, 7: {"deep": [object()]}}
        await mirror.vouch([a_sign(jobs[0], progress=said), a_sign(jobs[1])])
        rows = {row.id: row for row in (await mirror.rows([job.id for job in jobs])).rows}
        first, second = (rows[job.id].progress for job in jobs)
        assert first is not None and first.pop("7")["deep"][0].startswith("<object object")
        assert first.pop("big") in (1e40, 10**40)  # as a float, or as the decimal that PostgreSQL makes of it
        kept = {"loss": None, "text": "\\ud83d\\x00 \U0001f680"}
        assert [first, second] == [kept, {"step": 5}]

    async def test_a_vouch_is_seen_by_the_next_life(self, store: MirrorStore, mirror: Mirror) -> None:
        """R2: the age of a job that waited for hours under a living scheduler counts from here."""
        assert (await mirror.rows([])).vouched_at is None
        await mirror.vouch([])
        async with store.open() as newer, store.open(ELSEWHERE) as other:
            await newer.claim(1)
            seen = await newer.rows([])
            assert seen.vouched_at is not None
            assert seen.vouched_at <= seen.read_at
            assert (await other.rows([])).vouched_at is None


def _said(row: Json | None) -> tuple[str, int]:
    assert row is not None
    return row["status"], row["version"]


def _untouched(row: Json | None) -> Json:
    assert row is not None
    return {name: value for name, value in row.items() if name != "updated_at"}
