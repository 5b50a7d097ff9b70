"""Frames: what a client may send, what it may not, and what the server writes."""

import pytest

from stdb.net.frames import (
    MESSAGE_BYTES_MAX,
    Close,
    FrameError,
    FrameReader,
    Ping,
    Pong,
    binary_frame,
    close_frame,
    ping_frame,
    pong_frame,
    text_frame,
    unmask,
)
from tests.websocket_bytes import client_frame, server_frames

SIZES = (0, 1, 3, 4, 125, 126, 127, 2047, 2048, 2049, 65535, 65536, 70001)


@pytest.mark.parametrize("size", SIZES)
def test_a_masked_binary_message_of_any_size_comes_out_as_it_went_in(size: int) -> None:
    payload = bytes(i * 7 & 0xFF for i in range(size))
    assert FrameReader().receive(client_frame(0x82, payload)) == [payload]


@pytest.mark.parametrize("size", SIZES)
def test_unmasking_is_xor_with_the_repeated_mask(size: int) -> None:
    payload = bytes(i * 5 & 0xFF for i in range(size))
    assert unmask(payload, b"\x01\x80\xff\x00") == bytes(b ^ b"\x01\x80\xff\x00"[i % 4] for i, b in enumerate(payload))


def test_many_frames_in_one_read_are_many_events_in_order() -> None:
    data = client_frame(0x82, b"a") + client_frame(0x81, "ß".encode()) + client_frame(0x89, b"p") + client_frame(0x8A)
    assert FrameReader().receive(data + client_frame(0x82)) == [b"a", "ß", Ping(b"p"), Pong(b""), b""]


def test_a_frame_cut_anywhere_waits_for_its_rest() -> None:
    data = client_frame(0x82, b"x" * 300) + client_frame(0x82, b"short")
    for cut in range(1, len(data)):
        reader = FrameReader()
        assert reader.receive(data[:cut]) + reader.receive(data[cut:]) == [b"x" * 300, b"short"]


def test_control_frames_may_come_between_fragments() -> None:
    data = client_frame(0x02, b"ab") + client_frame(0x89, b"mid") + client_frame(0x00, b"") + client_frame(0x80, b"cd")
    assert FrameReader().receive(data) == [Ping(b"mid"), b"abcd"]


def test_text_may_be_cut_inside_a_character() -> None:
    snowman = "☃".encode()
    data = client_frame(0x01, snowman[:1]) + client_frame(0x00, snowman[1:2]) + client_frame(0x80, snowman[2:])
    assert FrameReader().receive(data) == ["☃"]


REFUSED = {
    "unmasked": (client_frame(0x82, b"\0", mask=None), 1002),
    "unmasked, only its head": (b"\x82\x01", 1002),
    "rsv1": (client_frame(0xC2, b"\0"), 1002),
    "rsv2": (client_frame(0xA2, b"\0"), 1002),
    "rsv3": (client_frame(0x92, b"\0"), 1002),
    "opcode 3": (client_frame(0x83, b"\0"), 1002),
    "opcode 11": (client_frame(0x8B, b"\0"), 1002),
    "continuation without a start": (client_frame(0x80, b"\0"), 1002),
    "start before the end": (client_frame(0x02, b"a") + client_frame(0x82, b"b"), 1002),
    "long start before the end": (client_frame(0x02, b"a") + client_frame(0x82, b"b" * 200), 1002),
    "ping in fragments": (client_frame(0x09, b"a"), 1002),
    "ping of 126 bytes": (client_frame(0x89, b"x" * 126), 1002),
    "close of 126 bytes": (client_frame(0x88, b"\x03\xe8" + b"x" * 124), 1002),
    "close of one byte": (client_frame(0x88, b"\x03"), 1002),
    "text of no UTF-8": (client_frame(0x81, b"\xff\xfe"), 1007),
    "text with a surrogate": (client_frame(0x81, b"\xed\xa0\x80"), 1007),
    "text cut short": (client_frame(0x81, "☃".encode()[:2]), 1007),
    "fragmented text cut short": (client_frame(0x01, b"a") + client_frame(0x80, "☃".encode()[:2]), 1007),
    "fragmented text broken early": (client_frame(0x01, b"\xff"), 1007),
    "close reason of no UTF-8": (client_frame(0x88, b"\x03\xe8\xff"), 1007),
    "message too large": (
        client_frame(0x82, b"")[:1] + b"\xff" + (MESSAGE_BYTES_MAX + 1).to_bytes(8, "big") + bytes(4),
        1009,
    ),
    "size beyond all bounds": (b"\x82\xff" + b"\xff" * 8 + bytes(4), 1009),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_breaks_the_protocol_has_its_close_code_and_loses_nothing_before_it(name: str) -> None:
    data, code = REFUSED[name]
    with pytest.raises(FrameError) as caught:
        FrameReader().receive(client_frame(0x82, b"before") + data)
    assert caught.value.code == code
    assert caught.value.events == [b"before"]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535])
def test_close_codes_that_may_not_be_sent_are_refused(code: int) -> None:
    with pytest.raises(FrameError, match=r"^Protocol violation$") as caught:
        FrameReader().receive(client_frame(0x88, code.to_bytes(2, "big")))
    assert caught.value.code == 1002


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 1014, 3000, 4000, 4999])
def test_close_codes_that_may_be_sent_pass(code: int) -> None:
    assert FrameReader().receive(client_frame(0x88, code.to_bytes(2, "big") + b"bye")) == [Close(code, "bye")]


def test_an_empty_close_has_no_code() -> None:
    assert FrameReader().receive(client_frame(0x88)) == [Close(None, "")]


def test_nothing_after_a_close_is_read() -> None:
    reader = FrameReader()
    assert reader.receive(client_frame(0x88) + client_frame(0x82, b"late") + b"\xff\xff") == [Close(None, "")]
    assert reader.receive(client_frame(0x82, b"later")) == []


def test_a_message_of_exactly_the_limit_passes() -> None:
    data = client_frame(0x82, bytes(MESSAGE_BYTES_MAX), mask=bytes(4))
    (message,) = FrameReader().receive(data)
    assert len(message) == MESSAGE_BYTES_MAX


def test_fragments_add_up_to_the_limit() -> None:
    reader = FrameReader(message_bytes_max=10)
    assert reader.receive(client_frame(0x02, b"x" * 6) + client_frame(0x80, b"x" * 4)) == [b"x" * 10]
    assert reader.receive(client_frame(0x82, b"y" * 10)) == [b"y" * 10]
    with pytest.raises(FrameError) as caught:
        reader.receive(client_frame(0x02, b"x" * 6) + client_frame(0x80, b"x" * 5))
    assert caught.value.code == 1009


def test_a_control_frame_does_not_count_towards_a_message() -> None:
    data = client_frame(0x02, b"x" * 10) + client_frame(0x89, b"y" * 100) + client_frame(0x80)
    assert FrameReader(message_bytes_max=10).receive(data) == [Ping(b"y" * 100), b"x" * 10]


def test_a_large_message_in_small_reads_is_not_copied_again_and_again() -> None:
    data = client_frame(0x82, bytes(4_000_000), mask=bytes(4))
    reader = FrameReader()
    events = [event for start in range(0, len(data), 1000) for event in reader.receive(data[start : start + 1000])]
    assert [len(event) for event in events] == [4_000_000]


@pytest.mark.parametrize("size", SIZES)
def test_server_frames_are_whole_unmasked_and_as_short_as_can_be(size: int) -> None:
    payload = b"s" * size
    frame = binary_frame(payload)
    assert server_frames(frame) == [(0x82, payload)]
    assert len(frame) == size + (2 if size < 126 else 4 if size < 65536 else 10)
    assert server_frames(text_frame("t" * size)) == [(0x81, b"t" * size)]


def test_control_frames_of_the_server() -> None:
    assert server_frames(ping_frame()) == [(0x89, b"")]
    assert server_frames(pong_frame(b"hello")) == [(0x8A, b"hello")]
    assert server_frames(close_frame(1001, "module exited")) == [(0x88, b"\x03\xe9module exited")]
    assert server_frames(close_frame(None)) == [(0x88, b"")]


def test_a_close_reason_is_cut_to_123_bytes_between_characters() -> None:
    assert server_frames(close_frame(1011, "x" * 200)) == [(0x88, b"\x03\xf3" + b"x" * 123)]
    assert server_frames(close_frame(1011, "☃" * 100)) == [(0x88, b"\x03\xf3" + "☃".encode() * 41)]
    assert server_frames(close_frame(1011, "ab" + "☃" * 100)) == [(0x88, b"\x03\xf3ab" + "☃".encode() * 40)]
