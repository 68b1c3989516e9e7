from datetime import UTC, datetime, timedelta

import pytest

from permaflow.errors import BlockedAddressError, ConnectorTimeoutError, InputError
from permaflow.errors import UnreachableError as Unreachable
from permaflow.task import Done, Reject, Retry
from permaflow.testing.task import Answer, ScriptedHttp, check_task_type, config_of, make_context
from stages.answers import retry_after
from stages.http import judge, task_type

KEY = make_context().step_key

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
JSON = {"content-type": "application/json; charset=utf-8"}


def config(**values):
    return config_of(task_type, **({"url": "https://api.example.com/orders"} | values))


async def ask(*answers, **values):
    http = ScriptedHttp(*answers or [Answer()])
    context = make_context(http=http, attempt=3)
    verdict = await task_type.run(config(**values), context)
    return verdict, http.asked


def judged(answer, **values):
    return judge(config(**values), answer, NOW)


def test_it_keeps_the_promises_of_a_task_type():
    check_task_type(
        task_type,
        sound={"url": "https://x.example", "expected_status": ["2xx", 404], "query": {"a": 1}},
        unsound={"url": "https://x.example", "method": "CONNECT"},
    )


async def test_the_answer_is_the_output():
    verdict, [asked] = await ask(Answer(201, JSON, b'{"id": 7}'), method="POST", body={"a": [1]})

    assert verdict == Done({"status": 201, "headers": JSON, "body": {"id": 7}})
    assert (asked.method, asked.url) == ("POST", "https://api.example.com/orders")
    assert asked.body == b'{"a":[1]}'
    assert asked.headers["Content-Type"] == "application/json"


async def test_all_attempts_of_a_step_send_the_same_idempotency_key():
    _, [asked] = await ask()

    assert asked.headers["Idempotency-Key"] == KEY
    assert asked.headers["Permaflow-Attempt"] == "3"


async def test_a_header_of_the_config_wins_whatever_its_case():
    _, [asked] = await ask(
        headers={"idempotency-key": "mine", "X-Count": 5, "X-Flag": True, "X-None": None}
    )

    assert asked.headers == {
        "idempotency-key": "mine",
        "Permaflow-Attempt": "3",
        "X-Count": "5",
        "X-Flag": "true",
    }


async def test_forms_and_texts_are_sent_as_such():
    _, [form] = await ask(method="POST", form={"a b": "ä&", "n": 1, "many": ["x", "y"], "no": None})
    _, [text] = await ask(method="PUT", text="grüße")

    assert form.body == b"a+b=%C3%A4%26&n=1&many=x&many=y"
    assert form.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert text.body == "grüße".encode()
    assert text.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://x.example/p", "https://x.example/p?q=a+b&n=1"),
        ("https://x.example/p?z=0", "https://x.example/p?z=0&q=a+b&n=1"),
        ("https://x.example/p#top", "https://x.example/p?q=a+b&n=1#top"),
    ],
)
async def test_query_parameters_join_those_of_the_url(url, expected):
    _, [asked] = await ask(url=url, query={"q": "a b", "n": 1, "none": None})

    assert asked.url == expected


async def test_the_shorter_timeout_counts():
    _, [asked] = await ask(timeout_seconds=5)
    assert asked.timeout == timedelta(seconds=5)
    _, [asked] = await ask(timeout_seconds=600)
    assert asked.timeout == timedelta(seconds=30)


def test_two_bodies_are_one_too_many():
    with pytest.raises(ValueError, match="one of body, form, text"):
        config(body={}, text="x")


async def test_a_body_that_is_not_json_is_rejected():
    verdict, asked = await ask(method="POST", body={"a": object()})

    assert isinstance(verdict, Reject)
    assert asked == []


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_what_may_pass_is_tried_again(status):
    verdict = judged(Answer(status, {}, b"busy"))

    assert isinstance(verdict, Retry)
    assert verdict.code == f"http_{status}"
    assert verdict.details == {"status": status, "headers": {}, "body": "busy"}


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 410, 422])
def test_what_will_not_pass_is_rejected(status):
    assert judged(Answer(status)).code == f"http_{status}"
    assert isinstance(judged(Answer(status)), Reject)


def test_the_config_says_what_is_expected_and_what_may_pass():
    assert isinstance(judged(Answer(404), expected_status=["2xx", 404]), Done)
    assert isinstance(judged(Answer(204), expected_status=200), Reject)
    assert isinstance(judged(Answer(409), retry_on="400-499"), Retry)
    assert isinstance(judged(Answer(503), retry_on=[]), Reject)


@pytest.mark.parametrize("bad", ["6xx", "20", 99, True, None, "200-", {}, [[200]]])
def test_a_status_has_three_spellings(bad):
    with pytest.raises(ValueError, match="a status is written"):
        config(expected_status=bad)


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({}, None),
        ({"retry-after": "7"}, timedelta(seconds=7)),
        ({"retry-after": "0.5"}, timedelta(seconds=0.5)),
        ({"retry-after": "999999"}, timedelta(hours=1)),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, timedelta(seconds=30)),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, timedelta(0)),
        ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, timedelta(hours=1)),
        ({"retry-after": "Thu, 99 Foo 2026 99:99:99 GMT"}, None),
        (
            {
                "retry-after": "Thu, 01 Jan 2026 15:00:30 GMT",
                "date": "Thu, 01 Jan 2026 15:00:00 GMT",
            },
            timedelta(seconds=30),
        ),
    ],
)
def test_the_wait_that_the_other_side_asks_for_is_honoured_and_capped(headers, after):
    assert retry_after(headers, NOW) == after
    assert judged(Answer(503, headers)).after == after


def test_cookies_do_not_travel_in_the_details_of_a_failure():
    verdict = judged(Answer(500, {"set-cookie": "s=1", "server": "x"}))

    assert verdict.details["headers"] == {"server": "x"}


@pytest.mark.parametrize(
    ("answer", "how", "body"),
    [
        (Answer(200, JSON, b'{"id":9007199254740993}'), "auto", {"id": 9007199254740993}),
        (Answer(200, JSON, b"[18446744073709551616]"), "auto", ["18446744073709551616"]),
        (Answer(200, {"content-type": "application/hal+json"}, b"[1]"), "auto", [1]),
        (Answer(200, {"content-type": "text/html"}, b"<p>"), "auto", "<p>"),
        (Answer(200, {"content-type": "text/html"}, b"[1]"), "json", [1]),
        (Answer(200, JSON, b"[1]"), "text", "[1]"),
        (Answer(204, {}, b""), "auto", None),
        (Answer(204, {}, b""), "json", None),
        (Answer(204, {}, b""), "text", ""),
        (Answer(200, {"content-type": "text/plain; charset=iso-8859-1"}, b"\xe4"), "auto", "ä"),
        (Answer(200, {"content-type": "text/plain; charset=punycode"}, b"a\xff"), "auto", "a�"),
        (Answer(200, {"content-type": "text/plain; charset=x;;="}, b"a"), "auto", "a"),
        (Answer(200, {}, b"a\0\xff"), "auto", "a��"),
    ],
)
def test_the_body_is_read_as_asked(answer, how, body):
    assert judged(answer, response=how).output["body"] == body


@pytest.mark.parametrize("body", [b"{", b"NaN", b'"\\u0000"', b"1e999", b"[" * 100 + b"]" * 100])
def test_a_body_that_nobody_can_carry_is_rejected(body):
    verdict = judged(Answer(200, JSON, body))

    assert isinstance(verdict, Reject)
    assert verdict.code == "bad_body"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ConnectorTimeoutError("slow"), Retry("slow", code="timeout")),
        (Unreachable("gone"), Retry("gone", code="connect")),
        (BlockedAddressError("no"), Reject("no", code="blocked_address")),
        (InputError("what"), Reject("what", code="invalid_input")),
    ],
)
async def test_trouble_on_the_way_is_a_verdict(error, verdict):
    assert (await ask(error))[0] == verdict
