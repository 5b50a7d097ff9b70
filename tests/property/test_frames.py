"""Frames: any script of a client, in any fragments, masks and reads, comes out as it was meant; garbage is refused."""

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.net.frames import Close, FrameError, FrameReader, Ping, Pong
from tests.websocket_bytes import client_frame

masks = st.binary(min_size=4, max_size=4)
payloads = st.binary(max_size=40) | st.binary(min_size=120, max_size=130) | st.binary(min_size=2040, max_size=2060)
controls = st.builds(Ping, st.binary(max_size=125)) | st.builds(Pong, st.binary(max_size=125))


@st.composite
def messages(draw: st.DrawFn) -> tuple[list[Any], bytes]:
    """Draw one message, its fragments and the control frames between them: the events and the bytes."""
    message = draw(payloads | st.text(max_size=60))
    encoded = message.encode() if isinstance(message, str) else message
    cuts = sorted(draw(st.lists(st.integers(0, len(encoded)), max_size=3)))
    parts = [encoded[start:end] for start, end in zip([0, *cuts], [*cuts, len(encoded)], strict=True)]
    events: list[Any] = []
    data = b""
    for place, part in enumerate(parts):
        if place:
            between = draw(st.lists(controls, max_size=1))
            events += between
            data += b"".join(control_frame(event, draw(masks)) for event in between)
        opcode = 0 if place else 1 if isinstance(message, str) else 2
        data += client_frame((0x80 if place == len(parts) - 1 else 0) | opcode, part, draw(masks))
    return [*events, message], data


def control_frame(event: Ping | Pong, mask: bytes) -> bytes:
    return client_frame(0x89 if type(event) is Ping else 0x8A, event.payload, mask)


def read_in_chunks(data: bytes, cuts: list[int]) -> list[Any]:
    reader = FrameReader()
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    events: list[Any] = []
    for start, end in pairwise(edges):
        events += reader.receive(data[start:end])
    return events


@settings(max_examples=150, deadline=None)
@given(st.lists(messages(), max_size=5), st.lists(st.integers(0, 100_000), max_size=6), st.booleans())
def test_any_script_in_any_chunks_comes_out_in_order(
    script: list[tuple[list[Any], bytes]], cuts: list[int], closes: bool
) -> None:
    events = [event for one, _ in script for event in one]
    data = b"".join(frames for _, frames in script)
    if closes:
        events.append(Close(4000, "app"))
        data += client_frame(0x88, b"\x0f\xa0app") + b"\xff\x00 never read"
    assert read_in_chunks(data, cuts) == events


@settings(max_examples=150, deadline=None)
@given(st.lists(messages(), min_size=1, max_size=3), st.data())
def test_a_damaged_byte_is_another_message_or_a_clean_refusal_however_it_is_cut(
    script: list[tuple[list[Any], bytes]], data: st.DataObject
) -> None:
    good = bytearray(b"".join(frames for _, frames in script))
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cuts = data.draw(st.lists(st.integers(0, 100_000), max_size=4))
    assert outcome(bytes(good), cuts) == outcome(bytes(good), [])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_any_bytes_at_all_are_events_or_a_clean_refusal(garbage: bytes, cuts: list[int]) -> None:
    events, code = outcome(garbage, cuts)
    assert (events, code) == outcome(garbage, [])
    assert code in (None, 1002, 1007, 1009)


def outcome(data: bytes, cuts: list[int]) -> tuple[list[Any], int | None]:
    """Return the events of `data` read in chunks and the close code of its refusal, if any."""
    reader = FrameReader()
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    events: list[Any] = []
    for start, end in pairwise(edges):
        try:
            events += reader.receive(data[start:end])
        except FrameError as error:
            return events + error.events, error.code
    return events, None
