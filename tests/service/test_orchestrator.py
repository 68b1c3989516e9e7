"""One batch of an orchestrator at a time: what is written, sent again, acked and put aside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from uuid import UUID

import orjson
import psycopg
import pytest

from permaflow.errors import BusUnavailableError, ConflictError, NotFoundError
from permaflow.plan import Json
from permaflow.task import TaskType
from pipeline import builtins
from pipeline import orchestrator as orchestrator_module
from pipeline.bus.jetstream import connect
from pipeline.bus.port import Channel
from pipeline.core.entries import Finished, Succeeded
from pipeline.ids import new_id
from pipeline.orchestrator import Orchestrator
from pipeline.programs import Programs
from pipeline.settings import load_settings
from pipeline.store import leases, orgs, payloads, runs, versions
from pipeline.store.database import Database
from pipeline.store.journal import Append, Journal, Told
from pipeline.store.leases import HeldStep
from pipeline.store.payloads import Payload
from pipeline.wire import (
    Dispatch,
    Event,
    Inbox,
    StepDone,
    StepParked,
    TimerDue,
    Wake,
    decode_dispatches,
    encode,
)
from tests.fix_engine import Engine, Script, graph, task

CHAIN = graph(task("a"), task("b"), edges=["t>a", "a>b"])
FORK = graph(task("a"), task("b"), task("c"), edges=["t>a", "t>b", "a>c"])
DELAYED = graph(
    {"id": "pause", "type": "logic_delay", "config": {"duration": 3600}},
    task("a"),
    edges=["t>pause", "pause>a"],
)


async def until(check: Callable[[], bool]) -> None:
    while not check():  # noqa: ASYNC110 - what others hold, and no one tells of
        await asyncio.sleep(0.01)


class Letter:
    """A message in the hand of the test, which sees what becomes of it."""

    def __init__(self, *events: Event, deliveries: int = 1) -> None:
        self.subject = "pf.inbox.0.test"
        self.data = encode(Inbox(list(events)))
        self.deliveries = deliveries
        self.again = deliveries > 1
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def ack(self) -> None:
        self.end.set_result("ack")

    def nak(self, delay: timedelta) -> None:
        self.end.set_result("nak")

    def term(self) -> None:
        self.end.set_result("term")

    def hold(self) -> None: ...

    def keep(self) -> None: ...


class Desk(Engine):
    """Orchestrators that read no queue, and nobody else."""

    missing: frozenset[str] = frozenset()
    journals: list[Journal]
    sent: list[tuple[str, bytes]]

    def listen_in(self) -> None:
        """Note what is sent; it is sent all the same."""
        self.journals, self.sent = [], []
        send = self.bus.send

        def noted(subject: str, data: bytes, key: str | None = None) -> asyncio.Future[None]:
            self.sent.append((subject, data))
            return send(subject, data, key)

        self.bus.send = noted  # type: ignore[method-assign]

    def orchestrator(self) -> Orchestrator:
        async def document(workflow_id: UUID, version: int) -> Json:
            found = await self.database.run(versions.document, workflow_id, version)
            return orjson.loads(found.document)

        def type_of(name: str) -> TaskType:
            if name in self.missing:
                raise NotFoundError(f"There is no task type {name}.")
            return self.types.get(name)

        url = self.settings.database_url
        journal = Journal(lambda: psycopg.AsyncConnection.connect(url, autocommit=True))
        self.journals.append(journal)
        programs = Programs(document, self.types, self.settings.limits)
        return Orchestrator(self.bus, journal, programs, type_of, self.settings, print)

    async def new(self, document: Json) -> UUID:
        (run_id,) = await self.start(await self.workflow(document))
        return run_id

    async def tell(self, orchestrator: Orchestrator, *letters: Letter) -> list[str]:
        """Hand letters over as one batch; what became of each."""
        await orchestrator.handle(letters)
        async with asyncio.timeout(10):
            return [await letter.end for letter in letters]

    def dispatched(self) -> list[Dispatch]:
        """What has been sent to runners since this was asked last."""
        sent, self.sent = self.sent, []
        return [
            step
            for subject, data in sent
            if subject.startswith("pf.step.")
            for step in decode_dispatches(data).steps
        ]

    async def status(self, run_id: UUID) -> str:
        return (await self.database.run(runs.get, self.org, run_id)).status

    async def sql(self, statement: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        async with self.database.connection() as connection:
            cursor = await connection.execute(statement, values)
            return await cursor.fetchall() if cursor.description else []


@pytest.fixture
async def desk(database_url: str, nats_url: str) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        settings = load_settings(database_url=database_url, nats_url=nats_url)
        database = await stack.enter_async_context(Database(database_url, size=4))
        bus = await connect(nats_url, name="test")
        stack.push_async_callback(bus.close)
        types = builtins.task_types(settings)
        org = await database.run(orgs.ensure)
        desk = Desk(settings, database, bus, org.id, types)
        desk.listen_in()
        for name in ("test_script", "test_other"):
            types.add(TaskType(name, "code", Script, Script, desk.run_task))
        yield desk
        for journal in desk.journals:
            await journal.close()


async def test_a_run_whose_task_type_went_away_is_put_aside_alone(desk: Desk) -> None:
    other = {"id": "a", "type": "test_other", "config": {}}
    bad, good = await desk.new(graph(other, edges=["t>a"])), await desk.new(CHAIN)
    desk.missing = frozenset({"test_other"})
    ends = await desk.tell(desk.orchestrator(), Letter(Wake(bad)), Letter(Wake(good)))
    assert ends == ["ack", "ack"]
    assert await desk.status(bad) == "failed"
    assert [(step.run_id, step.node) for step in desk.dispatched()] == [(good, "a")]


async def test_what_the_store_refuses_of_one_run_does_not_stop_the_others(desk: Desk) -> None:
    await desk.sql(
        "create function refuse() returns trigger language plpgsql as"
        " $$ begin raise 'no' using errcode = '22023'; end $$"
    )
    await desk.sql(
        "create trigger refuse before insert on permaflow.journal for each row"
        " when (new.entries::text like '%%parked%%') execute function refuse()"
    )
    orchestrator = desk.orchestrator()
    bad, good = await desk.new(CHAIN), await desk.new(CHAIN)
    await desk.tell(orchestrator, Letter(Wake(bad)), Letter(Wake(good)))
    ends = await desk.tell(
        orchestrator, Letter(StepParked(bad, "", "a", 1, 60)), Letter(StepDone(good, "", "a", 1))
    )
    assert ends == ["ack", "ack"]
    assert await desk.status(bad) == "failed"
    assert (good, "b") in [(step.run_id, step.node) for step in desk.dispatched()]


async def test_a_run_that_conflicts_for_ever_does_not_stop_the_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    orchestrator = desk.orchestrator()
    contested, good = await desk.new(CHAIN), await desk.new(CHAIN)
    (journal,) = desk.journals
    commit = journal.commit

    async def outrun(append: Append) -> Told:
        if contested in append.runs:
            raise ConflictError("Somebody else was faster.")
        return await commit(append)

    monkeypatch.setattr(journal, "commit", outrun)
    letters = Letter(Wake(contested)), Letter(Wake(contested), Wake(good)), Letter(Wake(good))
    assert await desk.tell(orchestrator, *letters) == ["nak", "nak", "ack"]
    assert [(step.run_id, step.node) for step in desk.dispatched()] == [(good, "a")]
    monkeypatch.undo()
    again = Letter(Wake(contested), deliveries=2), Letter(Wake(contested), Wake(good), deliveries=2)
    assert await desk.tell(orchestrator, *again) == ["ack", "ack"]
    assert {(step.run_id, step.node) for step in desk.dispatched()} >= {(contested, "a")}


@pytest.mark.parametrize("row", ['[["teleported","","a"]]', '[["started","t",1,2,3]]'])
async def test_a_run_that_a_newer_engine_has_advanced_waits_for_one(desk: Desk, row: str) -> None:
    newer, good = await desk.new(CHAIN), await desk.new(CHAIN)
    await desk.sql(
        "insert into permaflow.journal (run_id, seq, org_id, entries) values (%s, 1, %s, %s)",
        [newer, desk.org, row],
    )
    ends = await desk.tell(desk.orchestrator(), Letter(Wake(newer)), Letter(Wake(good)))
    assert ends == ["nak", "ack"]
    assert await desk.status(newer) == "running"
    assert [step.run_id for step in desk.dispatched()] == [good]


async def test_a_run_whose_journal_makes_no_sense_is_put_aside_alone(desk: Desk) -> None:
    broken, good = await desk.new(CHAIN), await desk.new(CHAIN)
    await desk.sql(
        "insert into permaflow.journal (run_id, seq, org_id, entries) values (%s, 1, %s, %s)",
        [broken, desk.org, '[["succeeded","nowhere","a",1]]'],
    )
    ends = await desk.tell(desk.orchestrator(), Letter(Wake(broken)), Letter(Wake(good)))
    assert ends == ["ack", "ack"]
    assert (await desk.status(broken), await desk.status(good)) == ("failed", "running")


async def test_a_nudge_reaches_a_run_that_others_have_advanced_meanwhile(desk: Desk) -> None:
    here, there = desk.orchestrator(), desk.orchestrator()
    run_id = await desk.new(DELAYED)
    await desk.tell(here, Letter(Wake(run_id)))
    ((key,),) = await desk.sql("select key from permaflow.timer where run_id = %s", [run_id])
    await desk.tell(there, Letter(TimerDue(run_id, str(key))))
    assert [step.node for step in desk.dispatched()] == ["a"]
    await desk.tell(here, Letter(Wake(run_id, 7, 2)))
    assert [(step.node, step.nudge) for step in desk.dispatched()] == [("a", 7)]


async def test_a_runner_that_still_holds_an_earlier_attempt_does_not_hold_this_one(
    desk: Desk,
) -> None:
    orchestrator = desk.orchestrator()
    run_id = await desk.new(CHAIN)
    await desk.tell(orchestrator, Letter(Wake(run_id)))
    await desk.tell(orchestrator, Letter(StepParked(run_id, "", "a", 1, 0.0)))
    ((key,),) = await desk.sql("select key from permaflow.timer where run_id = %s", [run_id])
    await desk.tell(orchestrator, Letter(TimerDue(run_id, str(key))))
    assert [step.attempt for step in desk.dispatched()] == [1, 2]
    for attempt, sent_again in ((1, [2]), (2, [])):
        held = HeldStep(run_id, "/a", attempt, desk.org, timedelta(minutes=1))
        await desk.database.run(leases.renew, "runner", [held], timedelta(minutes=1))
        await desk.tell(orchestrator, Letter(Wake(run_id, 7, 3)))
        assert [step.attempt for step in desk.dispatched()] == sent_again


async def test_a_nudge_that_comes_late_sends_nothing(desk: Desk) -> None:
    orchestrator = desk.orchestrator()
    run_id = await desk.new(CHAIN)
    await desk.tell(orchestrator, Letter(Wake(run_id)))
    await desk.tell(orchestrator, Letter(StepDone(run_id, "", "a", 1)))
    assert [step.node for step in desk.dispatched()] == ["a", "b"]
    await desk.tell(orchestrator, Letter(Wake(run_id, 7, 1)))
    assert desk.dispatched() == []


async def test_a_conflict_of_one_run_does_not_swallow_the_nudge_of_another(desk: Desk) -> None:
    here, there = desk.orchestrator(), desk.orchestrator()
    silent, contested = await desk.new(CHAIN), await desk.new(CHAIN)
    await desk.tell(here, Letter(Wake(silent)), Letter(Wake(contested)))
    await desk.tell(there, Letter(StepDone(contested, "", "a", 1)))
    desk.dispatched()
    await desk.tell(here, Letter(StepDone(contested, "", "a", 1)), Letter(Wake(silent, 7, 1)))
    assert [(step.run_id, step.nudge) for step in desk.dispatched()] == [(silent, 7)]


async def test_a_redelivered_message_that_was_never_handled_sends_only_what_follows(
    desk: Desk,
) -> None:
    orchestrator = desk.orchestrator()
    run_id = await desk.new(FORK)
    await desk.tell(orchestrator, Letter(Wake(run_id)))
    assert sorted(step.node for step in desk.dispatched()) == ["a", "b"]
    await desk.tell(orchestrator, Letter(StepDone(run_id, "", "a", 1), deliveries=2))
    assert [step.node for step in desk.dispatched()] == ["c"]


async def test_a_redelivered_message_that_was_handled_sends_again_what_is_out(desk: Desk) -> None:
    run_id = await desk.new(CHAIN)
    await desk.tell(desk.orchestrator(), Letter(Wake(run_id)))
    await desk.tell(desk.orchestrator(), Letter(Wake(run_id), deliveries=2))
    assert [step.node for step in desk.dispatched()] == ["a", "a"]
    done = StepDone(run_id, "", "a", 1)
    await desk.tell(desk.orchestrator(), Letter(done))
    await desk.tell(desk.orchestrator(), Letter(done, deliveries=2))
    assert [step.node for step in desk.dispatched()] == ["b", "b"]


async def test_a_large_config_that_is_sent_again_is_stored_again(desk: Desk) -> None:
    run_id = await desk.new(graph(task("a", output="x" * 300_000), edges=["t>a"]))
    orchestrator = desk.orchestrator()
    await desk.tell(orchestrator, Letter(Wake(run_id)))
    await desk.tell(orchestrator, Letter(Wake(run_id, 7, 1)))
    refs = [step.config_ref for step in desk.dispatched()]
    assert len(refs) == 2
    stored = await desk.sql("select id from permaflow.payload where run_id = %s", [run_id])
    assert {ref for (ref,) in stored} == set(refs)


async def test_a_result_whose_value_is_gone_is_none(desk: Desk) -> None:
    run_id = await desk.new(CHAIN)
    orchestrator = desk.orchestrator()
    await desk.tell(orchestrator, Letter(Wake(run_id)))
    await desk.tell(orchestrator, Letter(StepDone(run_id, "", "a", 1, output_ref=UUID(int=9))))
    assert not [e for e in await desk.entries(run_id) if isinstance(e, Succeeded) and e.attempt]
    await desk.tell(orchestrator, Letter(Wake(run_id, 7, 1)))
    assert [(step.node, step.nudge) for step in desk.dispatched()] == [("a", 0), ("a", 7)]


async def test_large_values_are_not_all_held_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator_module, "MOST_VALUE_BYTES", 100_000)
    orchestrator = desk.orchestrator()
    (journal,) = desk.journals
    held: list[int] = []
    load = journal.payloads

    async def noted(refs: Iterable[UUID]) -> dict[UUID, bytes]:
        found = await load(refs)
        held.append(sum(map(len, found.values())))
        return found

    monkeypatch.setattr(journal, "payloads", noted)
    workflow_id = await desk.workflow(CHAIN)
    run_ids = await desk.start(workflow_id, count=5)
    await desk.tell(orchestrator, *map(Letter, map(Wake, run_ids)))
    desk.dispatched()
    values = {run_id: Payload(new_id(), desk.org, b'"%b"' % (b"x" * 40_000)) for run_id in run_ids}
    await desk.database.run(payloads.put, list(values.values()))
    letters = [
        Letter(StepDone(run_id, "", "a", 1, output_ref=value.id))
        for run_id, value in values.items()
    ]
    assert await desk.tell(orchestrator, *letters) == ["ack"] * 5
    assert [step.node for step in desk.dispatched()] == ["b"] * 5
    assert held == [80_004, 80_004, 40_002]


async def test_timers_of_runs_that_have_ended_are_cleared_when_they_fire(desk: Desk) -> None:
    ended, gone = await desk.new(CHAIN), UUID(int=7)
    await desk.sql(
        "update permaflow.run set status = 'failed', finished_at = now() where id = %s", [ended]
    )
    for run_id in (ended, gone):
        await desk.sql(
            "insert into permaflow.timer (run_id, key, org_id, due_at) values (%s, 'x', %s, now())",
            [run_id, desk.org],
        )
    await desk.tell(desk.orchestrator(), Letter(TimerDue(ended, "x"), TimerDue(gone, "x")))
    assert await desk.sql("select 1 from permaflow.timer") == []


@pytest.mark.parametrize("error", [BusUnavailableError, AttributeError])
async def test_partitions_that_could_not_be_taken_are_taken_later(
    desk: Desk, error: type[Exception]
) -> None:
    tried = asyncio.Event()

    async def failing(_channel: Channel) -> None:
        tried.set()
        raise error

    orchestrator = desk.orchestrator()
    running = asyncio.create_task(orchestrator.run())
    async with asyncio.timeout(15):
        await until(lambda: len(orchestrator.held) == 16)
        desk.bus.ring("pf.member.orchestrator", b"+another")
        await until(lambda: len(orchestrator.held) < 16)
        ensure, desk.bus.ensure = desk.bus.ensure, failing  # type: ignore[method-assign]
        desk.bus.ring("pf.member.orchestrator", b"-another")
        await tried.wait()
        desk.bus.ensure = ensure  # type: ignore[method-assign]
        await until(lambda: len(orchestrator.held) == 16)
        await orchestrator.stop()
        await running


async def test_an_ended_run_is_not_ended_again(desk: Desk) -> None:
    run_id = await desk.new(CHAIN)
    orchestrator = desk.orchestrator()
    await desk.tell(orchestrator, Letter(Wake(run_id)))
    for node in ("a", "b", "b", "a"):
        await desk.tell(orchestrator, Letter(StepDone(run_id, "", node, 1)))
    ends = [entry for entry in await desk.entries(run_id) if isinstance(entry, Finished)]
    assert [end.status for end in ends] == ["completed"]
