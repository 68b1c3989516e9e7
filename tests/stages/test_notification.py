from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from connectors.http_transport import GuardedHttp
from permaflow.errors import InputError, NotFoundError, StoreError
from permaflow.task import Done, Reject, Retry
from permaflow.testing.task import Answer, check_task_type, config_of, make_context
from stages.notification import judge, slack, task_type
from tests.connectors.sites import Site, answer

PAYLOAD = {"title": "Approved", "description": "See <https://x|here> & there."}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Desk:
    """Keeps whom it was to tell what, or fails."""

    def __init__(self, error=None):
        self.told = []
        self._error = error

    async def add(self, users, notice, *, key):
        if self._error is not None:
            raise self._error
        self.told.append((users, notice.title, key))
        return len(users)


class Vault:
    """Secrets by name."""

    def __init__(self, **secrets):
        self._secrets = secrets

    async def get(self, name):
        if name not in self._secrets:
            raise NotFoundError(f"There is no secret {name!r}.")
        return self._secrets[name]


async def tell(desk, attempt=1, **config):
    context = make_context(notifications=desk, attempt=attempt)
    return await task_type.run(config_of(task_type, payload=PAYLOAD, **config), context)


async def post(site, channel="slack", *, path="/hook", timeout=None, secrets=None, **config):
    """Through the transport that reaches no private address, but this one."""
    async with GuardedHttp(allow=[site.permit]) as http:
        more = {"timeout": timeout} if timeout else {}
        context = make_context(http=http, secrets=secrets or Vault(), **more)
        given = {"channel": channel, "webhook": site.url + path, "payload": PAYLOAD} | config
        return await task_type.run(config_of(task_type, **given), context)


def test_it_keeps_the_promises_of_a_task_type():
    sound = {"recipient": "ada@example.com", "payload": PAYLOAD}
    check_task_type(task_type, sound=sound, unsound={"payload": PAYLOAD})
    check_task_type(
        task_type,
        sound={"channel": "slack", "webhook": {"secret": "s"}, "payload": PAYLOAD},
        unsound={"channel": "slack", "recipient": "ada", "payload": PAYLOAD},
    )


@pytest.mark.parametrize(
    "more",
    [
        {"recipient": []},
        {"recipient": "ada", "webhook": "https://x.example"},
        {"channel": "teams"},
        {"channel": "pager", "recipient": "ada"},
        {"recipient": "ada", "payload": {"description": "x"}},
        {"recipient": "ada", "payload": {"title": "x", "link": "javascript:alert(1)"}},
    ],
)
def test_configs_that_mean_nothing_are_refused(more):
    with pytest.raises(ValueError):
        config_of(task_type, **({"payload": PAYLOAD} | more))


async def test_all_attempts_tell_users_under_the_key_of_the_step():
    desk = Desk()
    verdict = await tell(desk, recipient=["ada", "bob", "ada"])
    await tell(desk, attempt=2, recipient=["ada", "bob"])

    assert verdict == Done({"channel": "user", "recipients": ["ada", "bob"], "delivered": 2})
    key = make_context().step_key
    assert desk.told == [(["ada", "bob"], "Approved", key)] * 2


@pytest.mark.parametrize(
    ("error", "kind"), [(StoreError("not now"), Retry), (InputError("no name"), Reject)]
)
async def test_what_the_store_says_decides_whether_to_try_again(error, kind):
    assert isinstance(await tell(Desk(error), recipient="ada"), kind)


async def test_slack_gets_text_and_blocks_in_which_nothing_is_markup():
    async with Site(lambda seen: answer(body=b"ok")) as site:
        verdict = await post(site)

    assert verdict == Done({"channel": "slack", "recipients": [], "delivered": 1})
    [seen] = site.seen
    assert (seen.method, seen.path) == ("POST", "/hook")
    assert seen.headers["content-type"].startswith("application/json")
    escaped = "See &lt;https://x|here&gt; &amp; there."
    assert json.loads(seen.body) == {
        "text": "Approved",
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": "Approved"}},
            {"type": "section", "text": {"type": "mrkdwn", "text": escaped}},
        ],
    }


def test_slack_gets_no_more_than_it_takes():
    config = config_of(
        task_type,
        recipient="x",
        payload={"title": "t" * 500, "description": "&" * 4_000, "link": "https://x.example/a|b"},
    )
    header, section, link = slack(config.payload)["blocks"]
    assert len(header["text"]["text"]) == 150
    assert len(section["text"]["text"]) == 3_000
    assert link["text"]["text"] == "<https://x.example/a%7Cb>"


async def test_teams_gets_an_adaptive_card():
    async with Site(lambda seen: answer(202)) as site:
        verdict = await post(
            site, "teams", payload={"title": "T", "description": "D", "link": "https://x.example"}
        )

    assert verdict == Done({"channel": "teams", "recipients": [], "delivered": 1})
    [attachment] = json.loads(site.seen[0].body)["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], [each["text"] for each in card["body"]]) == ("AdaptiveCard", ["T", "D"])
    assert card["actions"][0]["url"] == "https://x.example"


async def test_a_card_that_teams_would_not_take_is_not_sent():
    async with Site() as site:
        verdict = await post(site, "teams", payload={"title": "T", "description": "😀" * 10_000})

    assert isinstance(verdict, Reject)
    assert site.seen == []


async def test_the_address_may_be_a_secret():
    async with Site(lambda seen: answer(body=b"ok")) as site:
        secrets = Vault(sales=f"{site.url}/services/T0/B0/abcdef")
        done = await post(site, webhook={"secret": "sales"}, secrets=secrets)
        missing = await post(site, webhook={"secret": "other"}, secrets=secrets)

    assert isinstance(done, Done)
    assert [seen.path for seen in site.seen] == ["/services/T0/B0/abcdef"]
    assert isinstance(missing, Reject)
    assert missing.code == "not_found"


async def test_a_webhook_that_asks_to_wait_is_tried_again_then():
    async with Site(lambda seen: answer(429, {"Retry-After": "30"})) as site:
        verdict = await post(site)

    assert isinstance(verdict, Retry)
    assert (verdict.code, verdict.after) == ("http_429", timedelta(seconds=30))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [(403, b"action_prohibited", Reject), (410, b"channel_is_archived", Reject), (500, b"", Retry)],
)
async def test_a_refusal_of_slack_says_whether_to_try_again(status, body, kind):
    async with Site(lambda seen: answer(status, body=body)) as site:
        verdict = await post(site)

    assert isinstance(verdict, kind)
    assert verdict.details["body"] == body.decode()


def test_teams_says_in_words_that_it_failed():
    busy = Answer(
        200,
        {},
        b"Webhook message delivery failed with error: Microsoft Teams endpoint "
        b"returned HTTP error 429 with ContextId x",
    )
    failed = Answer(200, {}, b"Webhook message delivery failed with error: HTTP error 400")
    assert judge("teams", busy, NOW).code == "http_429"
    assert judge("teams", failed, NOW).code == "teams_failed"
    assert isinstance(judge("teams", Answer(200, {}, b"1"), NOW), Done)


async def test_a_webhook_that_does_not_answer_is_tried_again():
    async with Site(lambda seen: None) as site:
        verdict = await post(site, timeout=timedelta(seconds=0.2))

    assert isinstance(verdict, Retry)
    assert verdict.code == "timeout"


async def test_no_private_address_is_told_anything():
    async with Site() as site, GuardedHttp() as http:
        context = make_context(http=http)
        given = {"channel": "slack", "webhook": site.url, "payload": PAYLOAD}
        verdict = await task_type.run(config_of(task_type, **given), context)

    assert isinstance(verdict, Reject)
    assert site.seen == []
