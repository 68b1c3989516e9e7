"""`action_email`: send one message by SMTP, as text, HTML or both, with attachments."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from permaflow.errors import InputError, LimitError, PermaflowError
from permaflow.plan import Json
from permaflow.ports import Document
from permaflow.task import Done, Reject, TaskContext, TaskType, Verdict, failure
from stages.files import opened
from stages.merging import merge_html, merge_text

TEMPLATES = "email_template"
"""The object of the built-in records whose records are templates."""

MAX_ATTACHMENTS = 10_000_000

_local = re.compile(r"(?!.{65})[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_domain = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*))*")
_named = re.compile(r"([^<>]*)<([^<>]*)>\s*")


def _address(text: str) -> str:
    """One mailbox, `name@domain` or `Somebody <name@domain>`, with the domain in ASCII.

    Never more than one: a text that came in with an event must not name further recipients.
    """
    named = _named.fullmatch(text.strip())
    shown, mailbox = (
        (named[1].strip().strip('"'), named[2].strip()) if named else ("", text.strip())
    )
    local, at, domain = mailbox.rpartition("@")
    try:
        domain = domain.encode("idna").decode().lower()
    except UnicodeError:
        domain = ""
    if not (at and _local.fullmatch(local) and _domain.fullmatch(domain)):
        raise ValueError("this is not one e-mail address, `name@domain` or `Name <name@domain>`")
    if any(not c.isprintable() for c in shown):
        raise ValueError("the name of a recipient must not hold control characters")
    return str(Address(shown, local, domain))


def _several(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


EmailAddress = Annotated[str, Field(min_length=3, max_length=500), AfterValidator(_address)]
Addresses = Annotated[
    tuple[EmailAddress, ...],
    BeforeValidator(_several, json_schema_input_type=str | list[str]),
    Field(max_length=100),
]


class Attachment(BaseModel):
    """A file: `text`, `base64`, or the id of a stored `document`, which knows name and type."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f/\\]+$",
        description="The name of the file.",
    )
    content_type: str | None = Field(
        None, pattern=r"^[A-Za-z0-9.+-]{1,60}/[A-Za-z0-9.+-]{1,80}$", description="What it is."
    )
    text: str | None = Field(None, description="Its content, as text.")
    base64: str | None = Field(None, description="Its content, as bytes.")
    document: str | None = Field(None, description="The id of a document, as a report gives it.")

    @model_validator(mode="after")
    def _one_content(self) -> Attachment:
        if sum(each is not None for each in (self.text, self.base64, self.document)) != 1:
            raise ValueError("an attachment has one of text, base64 and document")
        if self.document is None and self.name is None:
            raise ValueError("an attachment needs a name")
        return self


class Config(BaseModel):
    """A message. `to`, `cc` and `bcc` are an address or a list of addresses.

    `subject`, `text` and `html` may hold merge fields, `[[customer.name]]`, whose values are in
    `merge`; in the HTML part they are escaped, so that a value can bring no markup. A template
    `{{…}}` is not escaped: in `html`, put what came from outside into `merge`.
    `template` is the id of a built-in record of the object `email_template` that holds `subject`,
    `text` and `html`; what the config has itself goes first.
    A recipient that the server refuses makes the step fail before anything is sent, unless
    `partial`: then the others get it, if there are any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    to: Addresses = Field(min_length=1, description="Who gets it.")
    cc: Addresses = Field((), description="Who gets a copy, and is seen.")
    bcc: Addresses = Field((), description="Who gets a copy, and is not seen.")
    reply_to: EmailAddress | None = Field(None, description="Where answers go.")
    sender_name: str | None = Field(
        None,
        max_length=200,
        description="The name beside the sender's address, which is a setting.",
    )
    subject: str | None = Field(None, max_length=2_000, description="The subject.")
    text: str | None = Field(None, description="The message as plain text.")
    html: str | None = Field(None, description="The message as HTML.")
    template: str | None = Field(
        None, min_length=1, max_length=200, description="The id of a stored template."
    )
    merge: dict[str, Json] = Field({}, description="The values of merge fields.")
    attachments: tuple[Attachment, ...] = Field((), max_length=20, description="Files.")
    partial: bool = Field(False, description="Send although some recipients are refused.")
    timeout_seconds: float = Field(30.0, gt=0, le=3600, description="For the whole exchange.")

    @model_validator(mode="after")
    def _has_content(self) -> Config:
        if self.template is None and (not self.subject or (self.text or self.html) is None):
            raise ValueError("a message has a template, or a subject with a text or html")
        return self


class Result(BaseModel):
    """`accepted` are the mailboxes that the server took it for; `refused` says why for others."""

    message_id: str
    accepted: list[str]
    refused: dict[str, str]


async def run(config: Config, ctx: TaskContext) -> Verdict:
    if ctx.mail is None:
        return Reject(
            "No mail server is set. Set PERMAFLOW_SMTP_URL and PERMAFLOW_SMTP_SENDER.",
            code="not_configured",
        )
    try:
        stored = await _stored(config, ctx)
        files = [
            await opened(each, each.name, f"/attachments/{index}", ctx)
            for index, each in enumerate(config.attachments)
        ]
        message = compose(config, stored, ctx.mail.sender, ctx.step_key, datetime.now(UTC), files)
        recipients = [parseaddr(each)[1] for each in (*config.to, *config.cc, *config.bcc)]
        refused = await ctx.mail.send(
            message,
            recipients,
            partial=config.partial,
            timeout=min(timedelta(seconds=config.timeout_seconds), ctx.timeout),
        )
    except PermaflowError as error:
        return failure(error)
    accepted = [each for each in dict.fromkeys(recipients) if each not in refused]
    return Done(
        {
            "message_id": str(message["Message-ID"]),
            "accepted": accepted,
            "refused": dict(refused),
        }
    )


async def _stored(config: Config, ctx: TaskContext) -> Mapping[str, Any]:
    """The texts of the template."""
    if config.template is None:
        return {}
    record = await ctx.records.get(TEMPLATES, config.template)
    if record is None:
        raise InputError(
            f"There is no template {config.template!r}: no record with this id in {TEMPLATES}.",
            pointer="/template",
        )
    texts: Mapping[str, Any] = record["data"]
    for name in ("subject", "text", "html"):
        if not isinstance(texts.get(name, ""), str | None):
            raise InputError(f"The {name} of the template {config.template!r} is no text.")
    return texts


def compose(
    config: Config,
    stored: Mapping[str, Any],
    sender: str,
    step_key: str,
    now: datetime,
    files: Sequence[Document] = (),
) -> EmailMessage:
    """The message. All attempts of a step give it the same Message-ID.

    Raises `InputError` for merge fields without a value, and for what cannot be sent.
    """
    subject = _given(config.subject, stored.get("subject"))
    text = _given(config.text, stored.get("text"))
    html = _given(config.html, stored.get("html"))
    if not subject or (text or html) is None:
        raise InputError(f"The template {config.template!r} lacks a subject, or a text and html.")
    shown, mailbox = parseaddr(sender)
    message = EmailMessage()
    message["Message-ID"] = message_id(step_key, mailbox)
    message["Date"] = format_datetime(now)
    message["From"] = _from(config.sender_name or shown, mailbox)
    _address_lines(message, config)
    # A subject is one line, whatever stands in the values.
    message["Subject"] = _one_line(merge_text(subject, config.merge))
    message["Auto-Submitted"] = "auto-generated"
    if text is not None:
        _set_text(message, merge_text(text, config.merge), "plain")
    if html is not None:
        rendered = merge_html(html, config.merge)
        if text is None:
            _set_text(message, rendered, "html")
        else:
            message.add_alternative(
                _sendable(rendered), subtype="html", cte="quoted-printable", charset="utf-8"
            )
    _attach(message, files)
    return message


def message_id(step_key: str, mailbox: str) -> str:
    digest = hashlib.sha256(step_key.encode()).hexdigest()[:40]
    return f"<{digest}@{mailbox.rpartition('@')[2]}>"


def _given(own: str | None, stored: Any) -> str | None:
    return own if own is not None else stored


def _from(shown: str, mailbox: str) -> Address:
    local, _, domain = mailbox.rpartition("@")
    return Address(_one_line(shown), local, domain)


def _address_lines(message: EmailMessage, config: Config) -> None:
    message["To"] = ", ".join(config.to)
    if config.cc:
        message["Cc"] = ", ".join(config.cc)
    if config.reply_to is not None:
        message["Reply-To"] = config.reply_to


def _set_text(message: EmailMessage, text: str, subtype: str) -> None:
    message.set_content(_sendable(text), subtype=subtype, cte="quoted-printable", charset="utf-8")


def _attach(message: EmailMessage, files: Sequence[Document]) -> None:
    total = sum(len(each.body) for each in files)
    if total > MAX_ATTACHMENTS:
        raise LimitError(f"The attachments have {total:,} bytes; {MAX_ATTACHMENTS:,} are sent.")
    for each in files:
        maintype, _, subtype = each.content_type.partition(";")[0].strip().partition("/")
        if maintype in ("message", "multipart"):
            raise InputError(f"{each.content_type} is no type of an attachment.")
        message.add_attachment(each.body, maintype=maintype, subtype=subtype, filename=each.name)


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in _sendable(text)).split())


def _sendable(text: str) -> str:
    """Without lone surrogates, which no charset has."""
    return text.encode(errors="replace").decode()


task_type = TaskType(
    name="action_email",
    stage="email",
    config=Config,
    result=Result,
    run=run,
    doc="Send an e-mail.",
    label="Send e-mail",
    category="Actions",
    icon="mail",
)
