from __future__ import annotations

import asyncio
from datetime import timedelta
from email.message import EmailMessage
from urllib.parse import quote

import pytest

from connectors.smtp import SmtpMail, parse_server
from permaflow.errors import (
    BusyError,
    ConnectorTimeoutError,
    RefusedError,
    SettingsError,
    UnreachableError,
    UntrustedPeerError,
)
from tests.fix_mail import PASSWORD, USER, PostOffice, PostOffices

SENDER = "Permaflow <flows@example.com>"


def letter(subject: str = "Hello") -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = SENDER
    message.set_content(".a line that begins with a dot\nand another\n")
    return message


def mail_to(post: PostOffice, scheme: str = "smtp", *, trusted: bool = True, **more) -> SmtpMail:
    login = f"{USER}:{quote(PASSWORD, safe='')}@" if more.pop("login", False) else ""
    server = parse_server(f"{scheme}://{login}127.0.0.1:{post.port}")
    return SmtpMail(server, SENDER, ca_file=post.ca_file if trusted else None, **more)


async def test_a_message_arrives_whole_with_the_configured_sender(post_office: PostOffices):
    async with post_office() as post, mail_to(post) as mail:
        assert await mail.send(letter(), ["ada@example.com", "bob@example.com"]) == {}

    [delivered] = post.delivered
    assert delivered.sender == "flows@example.com"
    assert delivered.recipients == ["ada@example.com", "bob@example.com"]
    assert delivered.message.get_content() == (".a line that begins with a dot\r\nand another\r\n")


async def test_messages_one_after_another_use_one_connection(post_office: PostOffices):
    async with post_office() as post, mail_to(post) as mail:
        for number in range(5):
            await mail.send(letter(str(number)), ["ada@example.com"])

    assert [each.message["subject"] for each in post.delivered] == list("01234")
    assert post.connections == 1


async def test_many_at_once_use_no_more_connections_than_allowed(post_office: PostOffices):
    async with post_office() as post, mail_to(post, connections=2) as mail:
        await asyncio.gather(*(mail.send(letter(), ["ada@example.com"]) for _ in range(20)))

    assert len(post.delivered) == 20
    assert post.connections <= 2


async def test_a_kept_connection_that_the_server_closed_is_replaced(post_office: PostOffices):
    async with post_office() as post, mail_to(post) as mail:
        await mail.send(letter(), ["ada@example.com"])
        post.hang_up()
        await mail.send(letter(), ["ada@example.com"])

    assert len(post.delivered) == 2
    assert post.connections == 2


@pytest.mark.parametrize(("scheme", "tls"), [("smtps", "tls"), ("smtp+starttls", "starttls")])
async def test_both_kinds_of_tls_carry_the_password(
    post_office: PostOffices, scheme: str, tls: str
):
    async with post_office(tls=tls, login=True) as post, mail_to(post, scheme, login=True) as mail:
        await mail.send(letter(), ["ada@example.com"])

    assert len(post.delivered) == 1


async def test_a_server_without_starttls_gets_nothing(post_office: PostOffices):
    async with post_office() as post, mail_to(post, "smtp+starttls") as mail:
        with pytest.raises(RefusedError):
            await mail.send(letter(), ["ada@example.com"])

    assert post.delivered == []


@pytest.mark.parametrize(("scheme", "tls"), [("smtps", "tls"), ("smtp+starttls", "starttls")])
async def test_a_server_that_nobody_vouches_for_gets_nothing(
    post_office: PostOffices, scheme: str, tls: str
):
    async with post_office(tls=tls) as post, mail_to(post, scheme, trusted=False) as mail:
        with pytest.raises(UntrustedPeerError):
            await mail.send(letter(), ["ada@example.com"])

    assert post.delivered == []


async def test_a_wrong_password_is_refused_and_told_to_nobody(post_office: PostOffices):
    async with post_office(tls="tls", login=True) as post:
        server = parse_server(f"smtps://{USER}:wrong-secret@127.0.0.1:{post.port}")
        async with SmtpMail(server, SENDER, ca_file=post.ca_file) as mail:
            with pytest.raises(RefusedError) as caught:
                await mail.send(letter(), ["ada@example.com"])

    assert "535" in str(caught.value)
    assert "wrong-secret" not in str(caught.value) + repr(server)


async def test_one_refused_recipient_keeps_the_message_from_all(post_office: PostOffices):
    async with post_office() as post, mail_to(post) as mail:
        post.recipients["nobody@example.com"] = "550 5.1.1 no such user"
        with pytest.raises(RefusedError, match=r"nobody@example\.com: 550 5\.1\.1 no such user"):
            await mail.send(letter(), ["ada@example.com", "nobody@example.com"])
        assert post.delivered == []
        await mail.send(letter(), ["ada@example.com"])

    assert post.connections == 1


async def test_a_partial_message_goes_to_the_others(post_office: PostOffices):
    async with post_office() as post, mail_to(post) as mail:
        post.recipients["nobody@example.com"] = "550 no such user"
        refused = await mail.send(letter(), ["ada@example.com", "nobody@example.com"], partial=True)
        with pytest.raises(RefusedError):
            await mail.send(letter(), ["nobody@example.com"], partial=True)

    assert refused == {"nobody@example.com": "550 no such user"}
    assert [each.recipients for each in post.delivered] == [["ada@example.com"]]


async def test_a_recipient_for_later_keeps_the_message_for_later(post_office: PostOffices):
    async with post_office() as post, mail_to(post) as mail:
        post.recipients["bob@example.com"] = "450 mailbox busy"
        with pytest.raises(BusyError):
            await mail.send(letter(), ["ada@example.com", "bob@example.com"], partial=True)

    assert post.delivered == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [("451 try again", BusyError), ("421 closing", BusyError), ("554 it is spam", RefusedError)],
)
async def test_an_answer_to_the_message_says_whether_to_try_again(
    post_office: PostOffices, answer: str, error: type[Exception]
):
    async with post_office() as post, mail_to(post) as mail:
        post.answers.append(answer)
        with pytest.raises(error, match=answer):
            await mail.send(letter(), ["ada@example.com"])
        await mail.send(letter(), ["ada@example.com"])

    assert len(post.delivered) == 1
    assert post.connections == (2 if answer.startswith("421") else 1)


async def test_a_refused_sender_is_an_error_of_the_message(post_office: PostOffices):
    async with post_office() as post, mail_to(post) as mail:
        post.senders["flows@example.com"] = "553 not yours"
        with pytest.raises(RefusedError, match="553 not yours"):
            await mail.send(letter(), ["ada@example.com"])


async def test_a_server_that_is_silent_is_given_up_with_its_connection(post_office: PostOffices):
    async with post_office() as post, mail_to(post, connections=1) as mail:
        post.silent = True
        with pytest.raises(ConnectorTimeoutError):
            await mail.send(letter(), ["ada@example.com"], timeout=timedelta(seconds=0.3))
        post.silent = False
        await mail.send(letter(), ["ada@example.com"])

    assert len(post.delivered) == 1
    assert post.connections == 2


async def test_a_server_that_is_not_there_may_come(post_office: PostOffices):
    async with post_office() as post:
        mail = mail_to(post)
    with pytest.raises(UnreachableError):
        await mail.send(letter(), ["ada@example.com"])


@pytest.mark.parametrize(
    "url",
    [
        "mail.example.com",
        "http://mail.example.com",
        "smtp://",
        "smtps://mail.example.com/path",
        "smtps://mail.example.com:port",
        "smtps://only-user@mail.example.com",
        "smtp://user:hunter2@mail.example.com",
    ],
)
def test_settings_that_are_wrong_are_refused_without_their_password(url: str):
    with pytest.raises(SettingsError) as caught:
        parse_server(url)
    assert "hunter2" not in str(caught.value)


def test_a_url_says_port_and_security():
    assert parse_server("smtps://mail.example.com").port == 465
    assert parse_server("smtp+starttls://a:b%2Fc@mail.example.com").password == "b/c"
    assert parse_server("smtp://mail.example.com:2525").port == 2525


@pytest.mark.parametrize("sender", ["", "Shop", "Shop <shop>", "grüße@example.com"])
def test_a_sender_is_needed(sender: str):
    with pytest.raises(SettingsError, match="PERMAFLOW_SMTP_SENDER"):
        SmtpMail(parse_server("smtp://mail.example.com"), sender)
