"""The parser, against every way in which a socket can cut its input."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.bus.protocol import (
    Parser,
    ProtocolError,
    header,
    header_block,
    pub,
    status_of,
)

Event = tuple[bytes, ...]

tokens = st.text("abcXYZ019$_-", min_size=1, max_size=8).map(str.encode)
subjects = st.lists(tokens, min_size=1, max_size=5).map(b".".join)
headers = st.dictionaries(
    st.sampled_from(["Nats_Msg_Id", "Status"]), st.text("ab: 1é", max_size=9), min_size=1
).map(lambda fields: header_block(**fields))
messages = st.tuples(
    subjects, st.one_of(st.just(b""), subjects), st.one_of(st.just(b""), headers), st.binary()
)
controls = st.sampled_from([(b"PING", b""), (b"PONG", b""), (b"INFO", b'{"a":1}')])
events: st.SearchStrategy[list[Event]] = st.lists(st.one_of(messages, controls), max_size=12)


def wire(event: Event) -> bytes:
    """As a server writes it, for subscription 7."""
    if len(event) == 2:
        return b" ".join(part for part in event if part) + b"\r\n"
    subject, reply, head, data = event
    words = [b"HMSG" if head else b"MSG", subject, b"7"]
    words += [reply] if reply else []
    words += [b"%d" % len(head)] if head else []
    words += [b"%d" % (len(head) + len(data))]
    return b" ".join(words) + b"\r\n" + head + data + b"\r\n"


def parsed(pieces: list[bytes]) -> list[Event]:
    seen: list[Event] = []
    parser = Parser({b"7": lambda *message: seen.append(message)}, lambda *it: seen.append(it))
    for piece in pieces:
        parser.feed(piece)
    return seen


@given(events, st.lists(st.integers(0, 2000), max_size=30))
def test_the_cuts_of_the_input_do_not_matter(sent: list[Event], cuts: list[int]) -> None:
    data = b"".join(map(wire, sent))
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    assert parsed(pieces) == sent


@given(events)
def test_the_input_may_arrive_byte_by_byte(sent: list[Event]) -> None:
    data = b"".join(map(wire, sent))
    assert parsed([data[i : i + 1] for i in range(len(data))]) == sent


def test_a_message_of_a_subscription_that_ended_is_skipped() -> None:
    assert parsed([b"MSG a 8 5\r\nhello\r\nMSG a 7 2\r\nhi\r\n"]) == [(b"a", b"", b"", b"hi")]


def test_a_large_message_in_many_pieces_is_joined_once() -> None:
    body = b"x" * 4_000_000
    data = b"MSG a 7 %d\r\n%b\r\n" % (len(body), body)
    pieces = [data[i : i + 1000] for i in range(0, len(data), 1000)]
    assert parsed(pieces) == [(b"a", b"", b"", body)]


def test_a_line_that_never_ends_is_refused() -> None:
    with pytest.raises(ProtocolError):
        parsed([b"x" * 100_000])


def test_a_publish_says_how_long_its_parts_are() -> None:
    assert pub(b"a", b"hello", b"r") == b"PUB a r 5\r\nhello\r\n"
    head = header_block(Nats_Msg_Id="k")
    assert pub(b"a", b"hi", b"", head) == b"HPUB a  %d %d\r\n%bhi\r\n" % (
        len(head),
        len(head) + 2,
        head,
    )


def test_a_header_cannot_smuggle_in_a_command() -> None:
    with pytest.raises(ValueError, match="line end"):
        header_block(Nats_Msg_Id="k\r\n\r\nPUB pf.step.http.x 0")


def test_a_status_is_told_from_data() -> None:
    expired = b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 12\r\n\r\n"
    assert status_of(expired) == (408, "Request Timeout")
    assert header(expired, "nats-pending-messages") == "12"
    assert header(expired, "Nats-Pending") == ""
    assert status_of(header_block(Nats_Msg_Id="k")) == (0, "")
