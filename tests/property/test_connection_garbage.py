"""Whatever one client sends, it alone hears of it: its neighbour's calls, rows and connection are as without it."""

import logging
from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.test_actors_wire import QUERIES, Cache, expected
from tests.test_net_connection_chat import ChatClient, database
from tests.websocket_bytes import client_frame

CLOSE_CODES = {None, 1002, 1007, 1009, 1011, 1013}
PROTOCOLS = ["v1.json", "v1.bsatn", "v2.bsatn", "v3.bsatn"]
TEXTS = [
    *("{", "[]", "null", "[" * 10_000, '{"CallReducer":{}}', '{"CallReducer":["say","[1]",1,0]}', "\ud7ff"),
    '{"CallReducer":{"reducer":"say","args":"[\\"b\\"]","request_id":1,"flags":7}}',
    '{"OneOffQuery":{"message_id":"00","query_string":"SELECT * FROM \'"}}',
    '{"SubscribeMulti":{"query_strings":["SELECT * FROM nope"],"request_id":1,"query_id":{"id":1}}}',
]
GARBAGE = st.one_of(
    st.binary(min_size=1, max_size=60),  # no frames at all
    st.builds(client_frame, st.sampled_from([0x81, 0x82, 0x01, 0x80, 0x88, 0x89, 0x8A, 0xC2]), st.binary(max_size=130)),
    st.builds(lambda text: client_frame(0x81, text.encode()), st.sampled_from(TEXTS) | st.text(max_size=40)),
    st.builds(lambda body: client_frame(0x82, body, None), st.binary(max_size=10)),  # without a mask
)
CHANGES = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=3)
STEPS = st.lists(GARBAGE | CHANGES, min_size=1, max_size=6)


class Errors(logging.Handler):
    """What the server's own log says is wrong."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(self.format(record))


def misbehave(client: ChatClient, steps: list[Any]) -> None:
    """Send garbage, and good messages with some of their bytes changed."""
    for step in steps:
        if isinstance(step, bytes):
            client.send_bytes(step)
            continue
        for change in (client.call, client.subscribe):
            sent: list[bytes] = []
            client.send_bytes = sent.append  # type: ignore[method-assign,assignment]
            change(1, "say", "b") if change == client.call else client.subscribe(2, 3, QUERIES[0])
            del client.send_bytes  # type: ignore[method-assign]
            body = bytearray(b"".join(sent))
            for place, value in step:
                body[place % len(body)] = value
            client.send_bytes(bytes(body))


async def ending(client: ChatClient) -> int | None:
    """Return the code with which the server closed; None if it waits for more, or dropped the socket."""
    code = None
    with trio.move_on_after(5):
        while (frame := await client.frame()) is not None:
            if frame[0] == 0x88:
                code = int.from_bytes(frame[1][:2], "big") if frame[1] else None
    return code


async def play(protocol: str, other: str, steps: list[Any]) -> None:
    with trio.fail_after(3600):
        async with database() as (nursery, handle):
            bystander = Cache(ChatClient(nursery, handle, other, 1))
            bystander.asked[100] = QUERIES[0]
            bystander.client.subscribe(100, 1, QUERIES[0])
            bystander.client.call(101, "say", "before")
            await settled(bystander)
            troublemaker = ChatClient(nursery, handle, protocol, 2)
            try:
                misbehave(troublemaker, steps)
            except OSError:
                pass
            else:
                assert await ending(troublemaker) in CLOSE_CODES | set(range(3000, 5000)) | {1000, 1001, 1003}
            bystander.client.call(102, "say", "after")
            await settled(bystander)
            assert await expected(bystander) == +bystander.rows
            said = sum(b"before" in row or b"after" in row for row in map(as_bytes, (key[2] for key in bystander.rows)))
            assert said == 2
            troublemaker.close()
            await trio.testing.wait_all_tasks_blocked()
            assert handle.client_count == 1


async def settled(cache: Cache) -> None:
    cache.ask(QUERIES[0])
    await cache.until_answer()


def as_bytes(row: bytes | str) -> bytes:
    return row if isinstance(row, bytes) else row.encode()


@settings(max_examples=120, deadline=None)
@given(protocol=st.sampled_from(PROTOCOLS), other=st.sampled_from(PROTOCOLS), steps=STEPS)
def test_garbage_of_one_client_is_answered_to_it_and_disturbs_nobody(
    protocol: str, other: str, steps: list[Any]
) -> None:
    errors = Errors()
    logging.getLogger().addHandler(errors)
    try:
        trio.run(play, protocol, other, steps, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        logging.getLogger().removeHandler(errors)
    assert errors.told == []
