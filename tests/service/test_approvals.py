"""Approvals on the whole engine: who is asked, who decides, and what the run makes of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from pipeline.bus.subjects import TIMER
from pipeline.ids import question_id
from pipeline.store import answers, approvals, runs
from pipeline.store.database import Connection
from pipeline.store.journal import Append, Journal
from tests.fix_approvals import APPROVALS, GROUPS, Gate, Town, gate
from tests.fix_engine import graph, task
from tests.fix_store import execute

pytestmark = pytest.mark.service

LATE_ANSWER = b"""
    insert into permaflow.answer (question_id, org_id, run_id, scope, node, attempt, at)
    values (%s, %s, %s, '', 'ask', 1, now() - interval '1 minute')"""
FORM = {
    "type": "object",
    "properties": {"amount": {"type": "integer", "maximum": 100}},
    "required": ["amount"],
}


async def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# --- deciding ---


async def test_an_approval_lets_the_run_go_on_with_what_was_decided(town: Town) -> None:
    asked = await town.asked({"id": 7}, title="Order {{trigger.id}}", assignees=["ana"])
    shown = await asked.view("ana")
    assert (shown["status"], shown["title"], shown["waiting_for"]) == (
        "pending",
        "Order 7",
        ["ana"],
    )
    await asked.approve("ana", data={"seen": True}, comment="fine")
    port, output = await asked.output()
    assert port == "approved"
    assert (output["decision"], output["by"], output["comment"]) == ("approved", "ana", "fine")
    assert output["data"] == {"seen": True}
    assert [(d["user"], d["decision"]) for d in output["decisions"]] == [("ana", "approved")]
    assert (await asked.end()).status == "completed"
    assert (await asked.view())["closed_by"] == "ana"


async def test_a_rejection_fails_the_step_if_nothing_follows_it(town: Town) -> None:
    asked = await town.asked(assignees=["ana"])
    await asked.reject("ana", comment="too dear")
    run = await asked.end()
    assert run.status == "failed"
    assert b'"rejected"' in (run.error or b"")
    assert b"too dear" in (run.error or b"")


async def test_a_rejection_goes_its_own_way_if_there_is_one(town: Town) -> None:
    edges = ("ask>yes", "ask:rejected>no")
    asked = await town.run(gate({"assignees": ["ana"]}, edges=edges))
    await asked.reject("ana")
    assert (await asked.output())[0] == "rejected"
    assert [node for _, _, node, _ in town.engine.attempts] == ["no"]


async def test_a_second_response_is_refused(town: Town) -> None:
    asked = await town.asked(assignees=["ana", "bob"], quorum="all")
    await asked.approve("ana")
    assert await code_of(await asked.respond("ana", "reject")) == (409, "wrong_state")
    await asked.approve("bob")
    late = await asked.respond("bob", "approve")
    assert await code_of(late) == (409, "wrong_state")
    assert "approved by bob already" in late.json()["detail"]


async def test_only_those_who_are_asked_may_see_and_decide(town: Town) -> None:
    asked = await town.asked(assignees=["ana"])
    carl = await town.person("carl")
    assert (await carl.get(f"{APPROVALS}/{asked.id}")).status_code == 404
    assert (await asked.respond("carl", "approve")).status_code == 404
    admin = await town.admin()
    body = {"decision": "approve", "user": "carl"}
    answer = await admin.post(f"{APPROVALS}/{asked.id}/respond", json=body)
    assert await code_of(answer) == (403, "forbidden")


async def test_without_assignees_anybody_with_the_right_decides(town: Town) -> None:
    asked = await town.asked()
    reader = await town.person("dora", "approvals:read")
    refused = await reader.post(f"{APPROVALS}/{asked.id}/respond", json={"decision": "approve"})
    assert await code_of(refused) == (403, "missing_scope")
    await asked.approve("dora")
    assert (await asked.end()).status == "completed"


async def test_the_form_must_be_filled_in_to_approve_and_not_to_reject(town: Town) -> None:
    asked = await town.asked(assignees=["ana", "bob"], form=FORM, veto=False)
    answer = await asked.respond("ana", "approve", data={"amount": 101})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/data/amount"
    assert (await asked.respond("ana", "approve")).status_code == 422
    await asked.reject("bob")
    await asked.approve("ana", data={"amount": 5})
    assert (await asked.output())[1]["data"] == {"amount": 5}


async def test_a_form_that_is_large_comes_to_the_run_by_reference(town: Town) -> None:
    asked = await town.asked(assignees=["ana"])
    await asked.approve("ana", data={"text": "x" * 60_000})
    assert (await asked.end()).status == "completed"
    admin = await town.admin()
    steps = (await admin.get(f"/workflows/v1/runs/{asked.run_id}/steps")).json()["data"]
    (step,) = [each for each in steps if each["node"] == "ask"]
    value = (await admin.get(step["output"]["$ref"])).json()
    assert value["data"] == {"text": "x" * 60_000}


# --- quorum, groups, delegation ---


async def test_two_of_three_are_enough(town: Town) -> None:
    asked = await town.asked(assignees=["ana", "bob", "carl"], quorum={"at_least": 2})
    await asked.approve("ana")
    await asked.reject("bob")
    assert (await asked.view())["waiting_for"] == ["carl"]
    await asked.approve("carl")
    _, output = await asked.output()
    assert [each["decision"] for each in output["decisions"]] == [
        "approved",
        "rejected",
        "approved",
    ]


async def test_a_veto_ends_it_at_once(town: Town) -> None:
    people = ["ana", "bob", "carl"]
    asked = await town.asked(assignees=people, quorum={"at_least": 2}, veto=True)
    await asked.approve("ana")
    await asked.reject("bob")
    assert (await asked.end()).status == "failed"


async def test_the_members_of_a_group_are_asked_as_they_are_when_they_answer(town: Town) -> None:
    await town.group("finance", "ana", "bob")
    asked = await town.asked(assignees=["group:finance"], quorum="all")
    await town.group("finance", "bob", "carl")
    assert (await asked.view())["waiting_for"] == ["bob", "carl"]
    assert (await asked.respond("ana", "approve")).status_code == 404
    await asked.approve("bob")
    await asked.approve("carl")
    assert (await asked.end()).status == "completed"


async def test_one_who_is_asked_may_hand_over_where_that_is_allowed(town: Town) -> None:
    asked = await town.asked(assignees=["ana", "bob"], quorum="all", delegation=True)
    ana = await town.person("ana")
    path = f"{APPROVALS}/{asked.id}/delegate"
    assert (await ana.post(path, json={"to": "bob"})).status_code == 409
    assert (await ana.post(path, json={"to": "carl", "comment": "away"})).status_code == 200
    assert await code_of(await asked.respond("ana", "approve")) == (403, "forbidden")
    assert (await asked.view())["waiting_for"] == ["bob", "carl"]
    await asked.approve("bob")
    await asked.approve("carl")
    assert (await asked.end()).status == "completed"
    assert [each["kind"] for each in (await asked.view())["events"]] == [
        "delegate",
        "approve",
        "approve",
    ]


async def test_handing_over_is_refused_where_it_is_not_allowed(town: Town) -> None:
    asked = await town.asked(assignees=["ana"])
    ana = await town.person("ana")
    answer = await ana.post(f"{APPROVALS}/{asked.id}/delegate", json={"to": "carl"})
    assert await code_of(answer) == (403, "forbidden")


async def test_who_started_the_run_may_not_decide_unless_that_is_allowed(town: Town) -> None:
    for allowed, expected in ((False, 403), (True, 200)):
        config = {"assignees": ["ana", "bob"], "self_approval": allowed}
        workflow = await town.engine.workflow(gate(config))
        ana = await town.person("ana")
        forged = {"workflow_id": str(workflow), "requested_by": "bob"}
        assert (await ana.post("/workflows/v1/runs", json=forged)).status_code == 403
        started = await ana.post("/workflows/v1/runs", json={"workflow_id": str(workflow)})
        assert started.status_code == 202, started.text
        asked = await waiting(town, started.json()["id"])
        mine = (await ana.get(f"{APPROVALS}/pending")).json()["data"]
        assert (str(asked.id) in {each["id"] for each in mine}) is allowed
        assert (await asked.respond("ana", "approve")).status_code == expected


async def test_a_key_without_a_user_may_not_decide_about_the_run_that_it_started(
    town: Town,
) -> None:
    for allowed, expected in ((False, 403), (True, 200)):
        workflow = await town.engine.workflow(gate({"self_approval": allowed}))
        nobody = await town.person("")
        started = await nobody.post("/workflows/v1/runs", json={"workflow_id": str(workflow)})
        asked = await waiting(town, started.json()["id"])
        assert (await asked.respond("", "approve")).status_code == expected


async def test_a_decision_is_not_taken_over_to_a_rerun_with_other_data(town: Town) -> None:
    asked = await town.asked({"amount": 10}, assignees=["ana"])
    await asked.approve("ana")
    assert (await asked.end()).status == "completed"
    bob = await town.person("bob")
    path = f"/workflows/v1/runs/{asked.run_id}/rerun"
    other = {"from": "yes", "input": {"amount": 1_000}}
    assert await code_of(await bob.post(path, json=other)) == (409, "wrong_state")
    for fine in ({"from": "yes"}, {"from": "ask", "input": {"amount": 1_000}}):
        assert (await bob.post(path, json=fine)).status_code == 202


async def test_what_people_decided_in_a_sub_workflow_is_not_taken_over_either(town: Town) -> None:
    """Neither from the run itself nor from one that has taken it over before."""
    engine = town.engine
    child = str(await engine.workflow(gate({"assignees": ["ana"]})))
    node = {"id": "sub", "type": "meta_subworkflow", "config": {"workflow_id": child}}
    middle = str(await engine.workflow(graph(node, edges=("t>sub",))))
    document = graph(
        {**node, "config": {"workflow_id": middle, "input": {"n": "{{trigger.n}}"}}},
        task("pay"),
        edges=("t>sub", "sub>pay"),
    )
    (top,) = await engine.start(await engine.workflow(document), {"n": 1})
    admin = await town.admin()
    asked = await pending_below(town, top)
    await asked.approve("ana")
    assert (await engine.until(top)).status == "completed"
    run_id: str = str(top)
    for _ in range(2):
        path = f"/workflows/v1/runs/{run_id}/rerun"
        refused = await admin.post(path, json={"from": "pay", "input": {"n": 1_000}})
        assert await code_of(refused) == (409, "wrong_state")
        assert "People decided in `sub`" in refused.json()["detail"]
        again = await admin.post(path, json={"from": "pay"})
        assert again.status_code == 202
        run_id = again.json()["id"]
        assert (await engine.until(UUID(run_id))).status == "completed"
    other = {"from": "sub", "input": {"n": 1_000}}
    assert (await admin.post(path, json=other)).status_code == 202
    # Nobody knows any more what was asked below the first run.
    await execute(engine.database, "delete from permaflow.run where id = %s", (top,))
    await execute(engine.database, "delete from permaflow.journal where run_id = %s", (top,))
    path = f"/workflows/v1/runs/{run_id}/rerun"
    refused = await admin.post(path, json={"from": "pay", "input": {"n": 1_000}})
    assert await code_of(refused) == (409, "wrong_state")


async def test_a_sub_workflow_without_approvals_is_taken_over_with_other_data(town: Town) -> None:
    engine = town.engine
    child = str(await engine.workflow(graph(task("a"), edges=("t>a",))))
    node = {"id": "sub", "type": "meta_subworkflow", "config": {"workflow_id": child}}
    document = graph(node, task("pay"), edges=("t>sub", "sub>pay"))
    (top,) = await engine.start(await engine.workflow(document), {"n": 1})
    assert (await engine.until(top)).status == "completed"
    other = {"from": "pay", "input": {"n": 1_000}}
    admin = await town.admin()
    answer = await admin.post(f"/workflows/v1/runs/{top}/rerun", json=other)
    assert answer.status_code == 202


async def pending_below(town: Town, top: UUID) -> Gate:
    """The approval of a run that another was started for, two below this one."""
    middle = await child_of(town, top)
    bottom = await child_of(town, middle)
    return await waiting(town, str(bottom))


async def child_of(town: Town, run_id: UUID) -> UUID:
    await town.engine.until(run_id, "waiting")
    wanted = runs.RunFilter(parent_id=run_id)
    (found,) = await town.engine.database.run(runs.find, town.engine.org, wanted, limit=2)
    return found.id


async def waiting(town: Town, run_id: str) -> Gate:
    found = UUID(run_id)
    await town.engine.until(found, "waiting")
    return Gate(town, found, question_id(found, "", "ask", 1))


async def test_the_requester_that_the_workflow_names_may_not_decide(town: Town) -> None:
    asked = await town.asked(
        {"owner": "ana"}, assignees=["ana", "bob"], requester="{{trigger.owner}}", delegation=True
    )
    assert await code_of(await asked.respond("ana", "approve")) == (403, "forbidden")
    bob = await town.person("bob")
    answer = await bob.post(f"{APPROVALS}/{asked.id}/delegate", json={"to": "ana"})
    assert await code_of(answer) == (403, "forbidden")
    await asked.approve("bob")


async def test_assignees_that_come_to_nothing_fail_the_step_instead_of_asking_everybody(
    town: Town,
) -> None:
    for value in ([], "", None, [5]):
        document = gate({"assignees": "{{trigger.who}}"})
        run, _ = await town.engine.finished(document, {"who": value})
        assert run.status == "failed", value
        assert b"`assignees`" in (run.error or b"")


# --- time ---


@pytest.mark.parametrize(
    ("action", "port", "status"),
    [
        ("approve", "approved", "completed"),
        ("reject", "rejected", "completed"),
        ("branch", "timed_out", "completed"),
        ("fail", None, "failed"),
        (None, "timed_out", "completed"),
    ],
)
async def test_a_timeout_does_what_the_document_says(
    town: Town, action: str | None, port: str | None, status: str
) -> None:
    edges = ["ask>yes", "ask:rejected>no"]
    if action in ("branch", None):
        edges.append("ask:timed_out>late")
    config: dict[str, Any] = {"assignees": ["ana"], "timeout_seconds": 0.3}
    if action is not None:
        config["on_timeout"] = action
    asked = await town.run(gate(config, edges=tuple(edges)))
    found, output = await asked.output()
    assert (found, (await asked.end()).status) == (port, status)
    if output is not None:
        assert (output["decision"], output["timed_out"]) == (port, True)
    assert (await asked.view())["status"] == "timed_out"
    assert await code_of(await asked.respond("ana", "approve")) == (409, "wrong_state")


async def test_a_reminder_and_an_escalation_happen_once_each(town: Town) -> None:
    asked = await town.asked(
        assignees=["ana"],
        reminder={"after": 0.2, "every": 60, "at_most": 3},
        escalation=[{"after": 0.4, "assignees": ["boss", "group:finance"]}],
        timeout_seconds=1.5,
        on_timeout="approve",
    )
    await asked.end()
    shown = await asked.view()
    assert [each["kind"] for each in shown["events"]] == ["remind", "escalate"]
    assert shown["assignees"] == ["ana", "boss", "group:finance"]


async def notices(town: Town, name: str) -> list[tuple[str, str]]:
    """Title and kind of what a person was told, oldest first."""
    admin = await town.admin()
    found = await admin.get("/notifications/v1", params={"user": name})
    assert found.status_code == 200, found.text
    return [(each["title"], each["data"]["kind"]) for each in reversed(found.json()["data"])]


async def told(town: Town, name: str, count: int) -> list[tuple[str, str]]:
    """The same, once there are so many of them."""
    rung = asyncio.Event()
    stop = await town.engine.bus.listen("pf.notice.*", lambda _subject, _data: rung.set())
    try:
        async with asyncio.timeout(20):
            while len(found := await notices(town, name)) < count:
                await rung.wait()
                rung.clear()
            return found
    finally:
        await stop()


async def test_those_who_are_asked_are_told_and_reminded_and_nobody_else(town: Town) -> None:
    await town.group("finance", "bob", "eve")
    asked = await town.asked(
        {"who": "eve"},
        title="Order 7",
        assignees=["ana", "group:finance"],
        requester="{{trigger.who}}",
        quorum="all",
        delegation=True,
        reminder={"after": 1.0},
    )
    assert await told(town, "bob", 1) == [("Order 7", "asked")]
    await asked.approve("bob")
    assert await told(town, "ana", 2) == [("Order 7", "asked"), ("Order 7", "reminder")]
    assert await notices(town, "bob") == [("Order 7", "asked")]
    assert await notices(town, "eve") == []
    ana = await town.person("ana")
    path = f"{APPROVALS}/{asked.id}/delegate"
    assert (await ana.post(path, json={"to": "carl"})).status_code == 200
    assert await told(town, "carl", 1) == [("Order 7", "asked")]
    assert len(await notices(town, "ana")) == 2


AGO = """
    with moved as (
      update permaflow.timer
      set due_at = due_at - %(span)s::interval, held_at = held_at - %(span)s::interval
      where run_id = %(run)s
    )
    update permaflow.approval
    set asked_at = asked_at - %(span)s::interval, held_at = held_at - %(span)s::interval,
      next_at = next_at - %(span)s::interval, expires_at = expires_at - %(span)s::interval
    where run_id = %(run)s"""
TIMES = """
    select asked_at + held_for + interval '1 hour' - next_at, expires_at - clock_timestamp()
    from permaflow.approval where run_id = %(run)s"""


async def later(town: Town, asked: Gate, span: str) -> None:
    """Lets so much time pass for a run and its approval."""
    await execute(town.engine.database, AGO, {"span": span, "run": asked.run_id})
    town.engine.bus.ring(TIMER, b"0")


async def test_no_time_of_an_approval_counts_while_its_run_is_paused(town: Town) -> None:
    asked = await town.asked(
        assignees=["ana", "bob"],
        quorum="all",
        delegation=True,
        reminder={"after": "1h", "every": "1h"},
        escalation=[{"after": "2h", "assignees": ["boss"]}],
        timeout_seconds=3 * 3_600,
    )
    assert len(await told(town, "ana", 1)) == 1
    path, admin = f"/workflows/v1/runs/{asked.run_id}", await town.admin()
    assert (await admin.post(f"{path}/pause")).status_code == 200
    await later(town, asked, "30 hours")
    ana = await town.person("ana")
    handed = await ana.post(f"{APPROVALS}/{asked.id}/delegate", json={"to": "carl"})
    assert handed.status_code == 200
    assert (await town.engine.database.run(approvals.tend)).count == 0
    assert await notices(town, "carl") == []
    await asked.approve("bob")
    assert (await admin.post(f"{path}/resume")).status_code == 200
    assert [kind for _, kind in await told(town, "carl", 1)] == ["asked"]
    ((off, left),) = await execute(town.engine.database, TIMES, {"run": asked.run_id})
    assert off == timedelta(0), "the first reminder is due an hour after it was asked"
    assert timedelta(hours=2.5) < left <= timedelta(hours=3)
    assert [each["kind"] for each in (await asked.view())["events"]] == ["delegate", "approve"]
    await later(town, asked, "61 minutes")
    assert [kind for _, kind in await told(town, "carl", 2)] == ["asked", "reminder"]
    await later(town, asked, "61 minutes")
    assert [kind for _, kind in await told(town, "boss", 1)] == ["asked"]
    await later(town, asked, "61 minutes")
    assert (await asked.end()).status == "failed"
    assert (await asked.view())["status"] == "timed_out"


async def test_an_approval_whose_time_passed_during_a_pause_is_withdrawn_with_its_run(
    town: Town,
) -> None:
    asked = await town.asked(assignees=["ana"], timeout_seconds=3_600)
    admin = await town.admin()
    assert (await admin.post(f"/workflows/v1/runs/{asked.run_id}/pause")).status_code == 200
    await later(town, asked, "2 hours")
    await town.engine.cancel(asked.run_id)
    assert (await asked.end()).status == "cancelled"
    assert (await asked.view())["status"] == "withdrawn"


# --- the end of the run ---


async def test_a_cancelled_run_withdraws_its_approval(town: Town) -> None:
    asked = await town.asked(assignees=["ana"])
    await town.engine.cancel(asked.run_id)
    assert (await asked.end()).status == "cancelled"
    assert (await asked.view())["status"] == "withdrawn"
    assert await code_of(await asked.respond("ana", "approve")) == (409, "wrong_state")
    assert (await (await town.person("ana")).get(f"{APPROVALS}/pending")).json()["data"] == []


async def test_a_run_that_is_ended_from_outside_withdraws_its_approval(town: Town) -> None:
    """The engine gives runs up that it cannot take up again; nobody decides about them."""
    asked = await town.asked(assignees=["ana"])
    rows = await town.engine.database.run(runs.journal, town.engine.org, asked.run_id)
    seq = rows[-1].seq + 1
    connect = psycopg.AsyncConnection.connect
    journal = Journal(lambda: connect(town.engine.settings.database_url, autocommit=True))
    gone = Append(
        runs=[asked.run_id],
        seqs=[seq],
        orgs=[town.engine.org],
        entries=['[["finished","failed","quarantined","x",""]]'],
        finished=[(asked.run_id, "failed", '{"code": "quarantined"}')],
        abandoned=[asked.run_id],
    )
    await journal.commit(gone)
    await journal.close()
    assert (await asked.view())["status"] == "withdrawn"
    assert await code_of(await asked.respond("ana", "approve")) == (409, "wrong_state")


async def test_an_answer_to_a_run_that_is_over_is_not_told_for_ever(town: Town) -> None:
    asked = await town.asked(assignees=["ana"])
    await town.engine.cancel(asked.run_id)
    await asked.end()

    async def late(connection: Connection) -> int:
        values = (asked.id, town.engine.org, asked.run_id)
        await connection.execute(LATE_ANSWER, values)
        return await answers.forget(connection, timedelta(seconds=2))

    assert await town.engine.database.run(late) == 1
    assert await town.engine.database.run(answers.overdue, timedelta(0)) == []


# --- lists ---


async def test_pending_approvals_are_those_that_wait_for_me(town: Town) -> None:
    await town.group("finance", "carl")
    to_ana = await town.asked(assignees=["ana"])
    to_both = await town.asked(assignees=["ana", "bob"], quorum="all")
    to_group = await town.asked(assignees=["group:finance"])
    to_all = await town.asked()

    async def mine(name: str) -> set[str]:
        found = await (await town.person(name)).get(f"{APPROVALS}/pending")
        return {each["id"] for each in found.json()["data"]}

    assert await mine("ana") == {str(to_ana.id), str(to_both.id), str(to_all.id)}
    assert await mine("carl") == {str(to_group.id), str(to_all.id)}
    await to_both.approve("ana")
    assert await mine("ana") == {str(to_ana.id), str(to_all.id)}
    admin = await town.admin()
    everything = (await admin.get(f"{APPROVALS}/pending")).json()["data"]
    assert len(everything) == 4
    of_bob = (await admin.get(f"{APPROVALS}/pending", params={"user": "bob"})).json()["data"]
    assert {each["id"] for each in of_bob} == {str(to_both.id), str(to_all.id)}
    refused = await (await town.person("bob")).get(f"{APPROVALS}/pending", params={"user": "ana"})
    assert await code_of(refused) == (403, "forbidden")


async def test_a_list_goes_on_page_by_page(town: Town) -> None:
    made = {str((await town.asked(assignees=["ana"])).id) for _ in range(3)}
    ana, found, path = await town.person("ana"), set(), f"{APPROVALS}/pending?limit=2"
    for _ in range(2):
        page = (await ana.get(path)).json()
        found |= {each["id"] for each in page["data"]}
        path = f"{APPROVALS}/pending?limit=2&cursor={page['next_cursor']}"
    assert found == made


async def test_a_step_and_the_stream_lead_to_the_approval(town: Town) -> None:
    asked = await town.asked(assignees=["ana"])
    admin = await town.admin()
    steps = (await admin.get(f"/workflows/v1/runs/{asked.run_id}/steps")).json()["data"]
    (step,) = [each for each in steps if each["node"] == "ask"]
    assert step["status"] == "waiting"
    assert step["approval"] == {"id": str(asked.id), "href": f"{APPROVALS}/{asked.id}"}
    assert (await admin.get(step["approval"]["href"])).json()["id"] == str(asked.id)
    await asked.approve("ana")
    await asked.end()
    stream = await admin.get(f"/workflows/v1/runs/{asked.run_id}/stream")
    assert f'"approval":{{"id":"{asked.id}"' in stream.text


async def test_groups_are_put_shown_and_removed(town: Town) -> None:
    admin = await town.admin()
    made = await admin.put(f"{GROUPS}/finance", json={"members": ["bob", "ana", "bob"]})
    assert (made.status_code, made.json()["members"]) == (201, ["ana", "bob"])
    assert (await admin.put(f"{GROUPS}/finance", json={"members": ["carl"]})).status_code == 200
    listed = (await admin.get(GROUPS)).json()["data"]
    assert [(each["name"], each["members"]) for each in listed] == [("finance", ["carl"])]
    ana = await town.person("ana")
    refused = await ana.put(f"{GROUPS}/finance", json={"members": ["ana"]})
    assert await code_of(refused) == (403, "missing_scope")
    assert (await admin.delete(f"{GROUPS}/finance")).status_code == 204
    assert (await admin.get(f"{GROUPS}/finance")).status_code == 404
