"""Ceiling of `fanout`, `latency`, `subscriptions`, `world`: a message in, frames out to whom it names, a reply.

A message is its kind, what the kind needs, and a tail that is put at the end of the frames it causes:
    0 tail                      a frame to everybody who sent a 2
    1 index u32 tail            a frame to that client, counted from the second that connected
    2                           the sender is one of everybody; no reply
    3 count u16, indices u32 tail   a frame to each of these clients, counted from the first that connected
    4 count u32, size u32       an answer of so many rows of that size to the sender, put together anew; no reply
"""

import struct
from collections.abc import Sequence
from functools import lru_cache

import trio

from bench.ceiling.wire import Connection, frame, serve

U16 = struct.Struct("<H")
U32 = struct.Struct("<I")
COUNT_AND_SIZE = struct.Struct("<II")
BODY = bytes(84)
"""With a tail of 8 bytes or more: as large as a v2 TransactionUpdate with one changed row."""
REPLY = frame(struct.pack("<BBIqBII", 0, 6, 0, 0, 0, 0, 0))
EVERYBODY, ONE, JOIN, SOME, ANSWER = range(5)


def receivers(
    message: bytes, clients: list[Connection], everybody: list[Connection]
) -> tuple[Sequence[Connection], int]:
    """Return to whom a message goes and where its tail begins."""
    kind = message[0]
    if kind == EVERYBODY:
        return everybody, 1
    if kind == ONE:
        return (clients[1 + U32.unpack_from(message, 1)[0]],), 5
    (count,) = U16.unpack_from(message, 1)
    return [clients[index] for index in struct.unpack_from(f"<{count}I", message, 3)], 3 + 4 * count


@lru_cache(1)
def rows(count: int, size: int) -> list[bytes]:
    return [i.to_bytes(size, "little") for i in range(count)]


async def main() -> None:
    clients: list[Connection] = []
    everybody: list[Connection] = []

    def handle(connection: Connection, messages: list[bytes]) -> None:
        for message in messages:
            if message[0] == JOIN:
                everybody.append(connection)
                continue
            if message[0] == ANSWER:
                connection.write(frame(b"".join(rows(*COUNT_AND_SIZE.unpack_from(message, 1)))))
                continue
            named, tail = receivers(message, clients, everybody)
            if named:
                update = frame(BODY + message[tail:])
                for client in named:
                    client.write(update)
            connection.write(REPLY)

    await serve(handle, connected=clients.append)


if __name__ == "__main__":
    trio.run(main)
