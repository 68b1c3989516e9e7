from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP, default

import pytest

from connectors.smtp import SmtpMail, parse_server
from permaflow.errors import InputError, NotFoundError
from permaflow.ports import Document
from permaflow.task import Done, Reject, Retry
from permaflow.testing.task import check_task_type, config_of, make_context
from stages.email import compose, task_type
from tests.fix_mail import PostOffice, PostOffices

SENDER = "Shop <shop@example.com>"
SOUND = {"to": "ada@example.com", "subject": "Hello", "text": "Hi"}
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
KEY = make_context().step_key


def mail_to(post: PostOffice) -> SmtpMail:
    return SmtpMail(parse_server(f"smtp://127.0.0.1:{post.port}"), SENDER)


async def send(mail, *, context=None, **config):
    given = make_context(mail=mail, **(context or {}))
    return await task_type.run(config_of(task_type, **(SOUND | config)), given)


def composed(stored=None, **config) -> EmailMessage:
    """What a receiver reads."""
    parsed = config_of(task_type, **(SOUND | config))
    raw = compose(parsed, stored or {}, SENDER, KEY, NOW).as_bytes(policy=SMTP)
    message = message_from_bytes(raw, policy=default)
    assert isinstance(message, EmailMessage)
    return message


def test_it_keeps_the_promises_of_a_task_type():
    check_task_type(task_type, sound=SOUND, unsound={**SOUND, "to": []})
    check_task_type(
        task_type, sound={"to": "a@b.example", "template": "welcome"}, unsound={"to": "a@b.example"}
    )


async def test_a_message_goes_to_everybody_and_the_output_says_to_whom(post_office: PostOffices):
    async with post_office() as post, mail_to(post) as mail:
        verdict = await send(
            mail, to=["Ada <ada@example.com>"], cc="bob@example.com", bcc="eve@example.com"
        )

    [delivered] = post.delivered
    assert delivered.recipients == ["ada@example.com", "bob@example.com", "eve@example.com"]
    assert b"eve" not in delivered.raw
    assert verdict == Done(
        {
            "message_id": delivered.message["message-id"],
            "accepted": ["ada@example.com", "bob@example.com", "eve@example.com"],
            "refused": {},
        }
    )


async def test_all_attempts_of_a_step_send_the_same_message_id(post_office: PostOffices):
    async with post_office() as post, mail_to(post) as mail:
        await send(mail, context={"attempt": 1})
        await send(mail, context={"attempt": 2})
        done = await send(mail, context={"node": "other"})

    first, second, other = [each.message["message-id"] for each in post.delivered]
    assert first == second != other
    assert isinstance(done, Done)
    assert type(done.output["message_id"]) is str
    assert first.endswith("@example.com>")


async def test_what_the_server_refuses_for_good_fails_for_good(post_office: PostOffices):
    async with post_office() as post, mail_to(post) as mail:
        post.recipients["ada@example.com"] = "550 no such user"
        verdict = await send(mail)

    assert isinstance(verdict, Reject)
    assert "550 no such user" in verdict.message


async def test_what_the_server_cannot_take_now_is_tried_again(post_office: PostOffices):
    async with post_office() as post, mail_to(post) as mail:
        post.answers.append("451 later")
        verdict = await send(mail)

    assert isinstance(verdict, Retry)
    assert verdict.code == "busy"


async def test_a_server_that_does_not_answer_in_time_is_tried_again(post_office: PostOffices):
    async with post_office() as post, mail_to(post) as mail:
        post.silent = True
        verdict = await send(mail, context={"timeout": timedelta(seconds=0.2)})

    assert isinstance(verdict, Retry)
    assert verdict.code == "timeout"


async def test_without_a_mail_server_the_step_is_rejected_with_the_setting():
    verdict = await send(None)

    assert isinstance(verdict, Reject)
    assert "PERMAFLOW_SMTP_URL" in verdict.message


async def test_some_recipients_are_enough_if_the_config_says_so(post_office: PostOffices):
    async with post_office() as post, mail_to(post) as mail:
        post.recipients["bob@example.com"] = "550 no such user"
        verdict = await send(mail, to=["ada@example.com", "bob@example.com"], partial=True)

    assert isinstance(verdict, Done)
    assert verdict.output["accepted"] == ["ada@example.com"]
    assert verdict.output["refused"] == {"bob@example.com": "550 no such user"}


def test_text_and_html_are_alternatives_of_one_message():
    message = composed(text="Grüße", html="<p>Grüße</p>")

    assert message.get_content_type() == "multipart/alternative"
    text, html = message.iter_parts()
    assert text.get_content().strip() == "Grüße"
    assert html.get_content_type() == "text/html"
    assert html.get_content().strip() == "<p>Grüße</p>"


def test_values_bring_no_markup_into_html_and_stay_as_they_are_in_text():
    values = {"customer": {"name": '<img src=x onerror="a">&'}, "total": 5, "paid": True}
    message = composed(
        text="[[customer.name]] [[total]] [[ paid ]]",
        html='<a title="[[customer.name]]">[[customer.name]]</a>',
        merge=values,
    )

    text, html = [part.get_content().strip() for part in message.iter_parts()]
    escaped = "&lt;img src=x onerror=&quot;a&quot;&gt;&amp;"
    assert text == '<img src=x onerror="a">& 5 true'
    assert html == f'<a title="{escaped}">{escaped}</a>'


def test_a_value_that_looks_like_a_field_is_no_field():
    message = composed(text="[[a]]", merge={"a": "[[b]]", "b": "no"})
    assert message.get_content().strip() == "[[b]]"


def test_every_field_without_a_value_is_named():
    with pytest.raises(InputError, match=r"\[\[a\]\], \[\[b\.c\]\]"):
        composed(text="[[a]] [[b.c]] [[d]]", merge={"b": {}, "d": None})


def test_a_subject_is_one_line_whatever_its_values_hold():
    message = composed(subject="Order [[id]]", merge={"id": "7\r\nBcc: eve@example.com\x0b!"})

    assert message["subject"] == "Order 7 Bcc: eve@example.com !"
    assert message["bcc"] is None


@pytest.mark.parametrize(
    "address",
    [
        "ada@example.com, eve@example.com",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com\nSubject: x",
        "Ada\r\nBcc: eve@example.com <ada@example.com>",
        "<ada@example.com>, <eve@example.com>",
        "ada@example.com> RCPT TO:<eve@example.com",
        "ada @example.com",
        "ada@",
        "@example.com",
        "ada@exa mple.com",
        "a" * 65 + "@example.com",
        "ada",
        "",
    ],
)
@pytest.mark.parametrize("member", ["to", "cc", "bcc", "reply_to"])
def test_a_text_names_one_mailbox_or_is_refused(member: str, address: str):
    with pytest.raises(ValueError):
        config_of(task_type, **(SOUND | {member: address}))


def test_names_and_domains_in_any_script_are_sent_in_ascii():
    message = composed(to='"Müller, Jürgen" <j.mueller@bücher.example>', sender_name="Büro, Süd")

    [to] = message["to"].addresses
    assert (to.display_name, to.addr_spec) == ("Müller, Jürgen", "j.mueller@xn--bcher-kva.example")
    assert message["from"].addresses[0].display_name == "Büro, Süd"
    assert message["from"].addresses[0].addr_spec == "shop@example.com"


def test_a_stored_template_gives_what_the_config_does_not():
    stored = {"subject": "Hello [[name]]", "text": "Hi [[name]]", "html": "<b>[[name]]</b>"}
    message = composed(stored, subject=None, text="Own", template="t", merge={"name": "Ada & Co"})

    text, html = [part.get_content().strip() for part in message.iter_parts()]
    assert (message["subject"], text, html) == ("Hello Ada & Co", "Own", "<b>Ada &amp; Co</b>")


async def test_templates_are_records(post_office: PostOffices):
    class Stored:
        async def get(self, object_name, record_id):
            if (object_name, record_id) == ("email_template", "welcome"):
                return {"data": {"subject": "Welcome [[name]]", "text": "Hi"}}
            return None

    async with post_office() as post, mail_to(post) as mail:
        context = make_context(mail=mail, records=Stored())
        config = {"to": "ada@example.com", "template": "welcome", "merge": {"name": "Ada"}}
        done = await task_type.run(config_of(task_type, **config), context)
        missing = await task_type.run(
            config_of(task_type, **config | {"template": "nothing"}), context
        )

    assert isinstance(done, Done)
    assert post.delivered[0].message["subject"] == "Welcome Ada"
    assert isinstance(missing, Reject)
    assert "'nothing'" in missing.message


class Shelf:
    """Documents by their ids."""

    async def get(self, document_id):
        if document_id != "d1":
            raise NotFoundError(f"There is no document {document_id}.")
        return Document("report.csv", "text/csv; charset=utf-8", b"a;b\r\n")


async def test_files_travel_with_the_message(post_office: PostOffices):
    raw = bytes(range(256))
    files = [
        {"name": "bericht ü.csv", "content_type": "text/csv", "text": "ä,b\n"},
        {"name": "raw.bin", "base64": base64.b64encode(raw).decode()},
        {"document": "d1"},
    ]
    async with post_office() as post, mail_to(post) as mail:
        context = {"documents": Shelf()}
        done = await send(mail, html="<p>See the file</p>", attachments=files, context=context)

    assert isinstance(done, Done)
    first, second, third = post.delivered[0].message.iter_attachments()
    assert (first.get_filename(), first.get_content_type()) == ("bericht ü.csv", "text/csv")
    assert first.get_payload(decode=True) == "ä,b\n".encode()
    assert second.get_payload(decode=True) == raw
    assert (third.get_filename(), third.get_payload(decode=True)) == ("report.csv", b"a;b\r\n")


@pytest.mark.parametrize(
    "attachment",
    [
        {"name": "a", "text": "x", "base64": "eA=="},
        {"name": "a"},
        {"text": "x"},
        {"name": "../a", "text": "x"},
        {"name": "a\r\nX: y", "text": "x"},
        {"name": "a", "text": "x", "content_type": "text/plain\r\nX: y"},
    ],
)
def test_attachments_that_mean_nothing_are_refused(attachment):
    with pytest.raises(ValueError):
        config_of(task_type, **SOUND, attachments=[attachment])


@pytest.mark.parametrize(
    "attachment",
    [
        {"name": "a", "base64": "nonsense!"},
        {"name": "a", "text": "x", "content_type": "message/rfc822"},
        {"name": "a", "text": "x" * 10_000_001},
        {"document": "d2"},
    ],
)
async def test_attachments_that_cannot_be_sent_reject_the_step(
    post_office: PostOffices, attachment
):
    async with post_office() as post, mail_to(post) as mail:
        verdict = await send(mail, attachments=[attachment], context={"documents": Shelf()})

    assert isinstance(verdict, Reject)
    assert post.delivered == []
