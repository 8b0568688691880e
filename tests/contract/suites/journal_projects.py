"""What every journal promises about what projects may have, and about the notes of the policy."""

from __future__ import annotations

import asyncio

import pytest

from scheduler.core.contender import Share
from scheduler.errors import Superseded, Unstorable
from scheduler.ports import Journal
from scheduler.testing.builders import a_change
from tests.contract.suites.journal_store import Store

VISION = Share(weight=2.5, quota=8.0, limit=16.5)


class JournalProjects:
    """Part of `JournalContract`."""

    async def test_a_new_journal_knows_of_no_project_and_has_no_note(
        self, store: Store, journal: Journal
    ) -> None:
        assert (await journal.projects(), await journal.noted("ledger")) == ({}, None)

    async def test_what_was_set_for_a_project_survives_a_restart(self, store: Store) -> None:
        """S1: a quota that is forgotten by a restart is none."""
        async with store.open() as journal:
            await journal.set_project("vision é/1", VISION)
            await journal.set_project("speech", Share())
        async with store.open() as later:
            assert await later.projects() == {"speech": Share(), "vision é/1": VISION}

    async def test_a_share_is_replaced_and_forgotten(self, store: Store, journal: Journal) -> None:
        await journal.set_project("vision", Share(quota=1.0))
        await journal.set_project("vision", VISION)
        await journal.set_project("speech", VISION)
        assert await journal.projects() == {"vision": VISION, "speech": VISION}
        for _ in range(2):
            await journal.set_project("vision", None)
            assert await journal.projects() == {"speech": VISION}

    async def test_a_note_is_the_newest_one_also_after_a_restart(self, store: Store) -> None:
        """S3: a budget that begins anew with each restart bounds nothing."""
        async with store.open() as journal:
            await journal.note("ledger", {"losses": [1.5]})
            await journal.note("other", {})
            await journal.note("ledger", {"losses": [1.5, 2.5], "é": {"deep": None}})
        async with store.open() as later:
            assert await later.noted("ledger") == {"losses": [1.5, 2.5], "é": {"deep": None}}
            assert await later.noted("other") == {}

    async def test_notes_are_found_by_the_beginning_of_their_names_and_forgotten(self, store: Store) -> None:
        """S8: each recurring job is one, and one that was forgotten must not run again after a restart."""
        async with store.open() as journal:
            for name in ("recurring:b%", "recurring:a", "recurring", "other"):
                await journal.note(name, {"of": name})
            for _ in range(2):
                await journal.note("other", None)
        async with store.open() as later:
            assert list(await later.notes("recurring:")) == ["recurring:a", "recurring:b%"]
            assert (await later.notes("recurring:b%"))["recurring:b%"] == {"of": "recurring:b%"}
            assert (await later.notes("%"), await later.noted("other")) == ({}, None)

    async def test_a_note_is_what_it_was_when_it_was_given(self, store: Store, journal: Journal) -> None:
        """The policy goes on deciding while the disk is slow."""
        doc = {"losses": [1.5]}
        written = asyncio.ensure_future(journal.note("ledger", doc))
        await asyncio.sleep(0)
        doc["losses"].append(2.5)
        await written
        assert await journal.noted("ledger") == {"losses": [1.5]}

    async def test_what_cannot_be_read_back_is_refused_and_leaves_what_was(
        self, store: Store, journal: Journal
    ) -> None:
        await journal.note("ledger", {"losses": []})
        await journal.set_project("vision", VISION)
        with pytest.raises(Unstorable):
            await journal.note("ledger", {"losses": object()})
        with pytest.raises(Unstorable):
            await journal.set_project("vision", Share(weight=float("nan")))
        assert await journal.noted("ledger") == {"losses": []}
        assert await journal.projects() == {"vision": VISION}

    async def test_an_older_incarnation_sets_and_notes_nothing(self, store: Store) -> None:
        """A scheduler that was thought dead and wakes up must not undo what its successor was told."""
        async with store.open() as old:
            await old.set_project("vision", VISION)
            await old.note("ledger", {"life": 1})
            async with store.open() as new:
                for share in (Share(), None):
                    with pytest.raises(Superseded):
                        await old.set_project("vision", share)
                with pytest.raises(Superseded):
                    await old.note("ledger", {"life": 0})
                assert await new.projects() == {"vision": VISION}
                assert await new.noted("ledger") == {"life": 1}

    async def test_shares_notes_and_jobs_that_arrive_together_are_all_kept(
        self, store: Store, journal: Journal
    ) -> None:
        """One transaction may carry all of them; what is refused is the business of its own caller alone."""
        outcomes = await asyncio.gather(
            *(journal.set_project(f"project {number}", Share(quota=float(number))) for number in range(9)),
            *(journal.note(f"note {number}", {"number": number}) for number in range(9)),
            *(journal.commit([a_change()]) for _ in range(9)),
            journal.set_project("refused", Share(weight=float("nan"))),
            return_exceptions=True,
        )
        assert [type(one) for one in outcomes if one is not None] == [Unstorable]
        assert len(await journal.projects()) == len(store.look().jobs) == 9
        assert await journal.noted("note 8") == {"number": 8}
