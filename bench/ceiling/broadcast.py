"""Ceiling of `fanout`: a message in; one prebuilt frame out, to everybody or to one client, and a reply.

The first connection is the writer; `0` sends to all others, `1` + u32 to that one.
"""

import struct

import trio

from bench.ceiling.wire import Connection, frame, serve

U32 = struct.Struct("<I")
# As large as a v2 TransactionUpdate with one changed row of 12 or 16 bytes.
UPDATE = frame(bytes(96))
REPLY = frame(struct.pack("<BBIqBII", 0, 6, 0, 0, 0, 0, 0))


async def main() -> None:
    clients: list[Connection] = []

    def handle(connection: Connection, messages: list[bytes]) -> None:
        if connection is not clients[0]:
            return
        for message in messages:
            if message[0] == 0:
                for client in clients[1:]:
                    client.write(UPDATE)
            else:
                clients[1 + U32.unpack_from(message, 1)[0]].write(UPDATE)
            connection.write(REPLY)

    await serve(handle, connected=clients.append)


if __name__ == "__main__":
    trio.run(main)
