"""Ceiling of `keynote`: the transfer reducer on a dict of rows, an undo log, group commit, confirmed replies.

Nothing is validated, nobody subscribes, nobody is logged: what is left is what no server of this kind can avoid.
"""

import os
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from typing import NamedTuple

import trio

from bench.ceiling.wire import Connection, frame, serve

ROW = struct.Struct("<Iq")
ARGUMENTS = struct.Struct("<IIq")
U32 = struct.Struct("<I")
RECORD = struct.Struct("<IQIIQ")
RECORD_HEAD = struct.Struct("<II")
RESULT = struct.Struct("<BBIqBII")
REDUCER_RESULT = 6


class Account:
    __slots__ = ("balance", "id")

    def __init__(self, id: int, balance: int) -> None:
        self.id = id
        self.balance = balance


class Accounts:
    """A table: rows as bytes by primary key, an undo log."""

    __slots__ = ("log", "rows")

    def __init__(self) -> None:
        self.rows = {i: ROW.pack(i, 1_000_000_000) for i in range(100_000)}
        self.log: list[tuple[int, bytes, bytes]] = []

    def find(self, key: int) -> Account | None:
        row = self.rows.get(key)
        return None if row is None else Account(*ROW.unpack(row))

    def update(self, account: Account) -> None:
        key = account.id
        old = self.rows[key]
        new = ROW.pack(key, account.balance)
        self.log.append((key, old, new))
        self.rows[key] = new


class Context(NamedTuple):
    accounts: Accounts
    sender: bytes
    timestamp: int


def transfer(ctx: Context, from_: int, to: int, amount: int) -> None:
    if from_ == to or amount <= 0:
        raise ValueError
    source, target = ctx.accounts.find(from_), ctx.accounts.find(to)
    if source is None or target is None or source.balance < amount:
        raise ValueError
    source.balance -= amount
    target.balance += amount
    ctx.accounts.update(source)
    ctx.accounts.update(target)


class Server:
    """The database: calls in, replies out once the log is on the disk."""

    def __init__(self) -> None:
        self.accounts = Accounts()
        self.log: list[bytes] = []
        self.pending: list[tuple[Connection, bytes]] = []
        self.filled = trio.Event()
        self.file, _ = tempfile.mkstemp()
        self.reducers: dict[bytes, Callable[..., None]] = {b"transfer": transfer}

    def handle(self, connection: Connection, messages: list[bytes]) -> None:
        for message in messages:
            self.pending.append((connection, self.call(message)))
        if self.pending:
            self.filled.set()

    def call(self, message: bytes) -> bytes:
        (size,) = U32.unpack_from(message, 6)
        reducer = self.reducers[message[10 : 10 + size]]
        arguments = message[14 + size :]
        (request_id,) = U32.unpack_from(message, 1)
        log = self.accounts.log = []
        now = time.time_ns() // 1000
        try:
            reducer(Context(self.accounts, bytes(32), now), *ARGUMENTS.unpack(arguments))
            status = 0
        except ValueError:
            for key, old, _ in reversed(log):
                self.accounts.rows[key] = old
            status = 3
        if log:
            self.log.append(self.record(log, arguments))
        return frame(RESULT.pack(0, REDUCER_RESULT, request_id, now, status, 0, 0))

    def record(self, log: list[tuple[int, bytes, bytes]], arguments: bytes) -> bytes:
        deletes = b"".join([old for _, old, _ in log])
        inserts = b"".join([new for _, _, new in log])
        body = RECORD.pack(1, 7, len(log), len(log), 0) + arguments + deletes + inserts
        return RECORD_HEAD.pack(len(body), zlib.crc32(body)) + body

    async def make_durable(self) -> None:
        while True:
            if not self.pending:
                self.filled = trio.Event()
                await self.filled.wait()
            batch, self.pending = self.pending, []
            data = b"".join(self.log)
            self.log.clear()
            await trio.to_thread.run_sync(self.write, data)
            replies: dict[Connection, list[bytes]] = {}
            for connection, reply in batch:
                replies.setdefault(connection, []).append(reply)
            for connection, parts in replies.items():
                connection.write(b"".join(parts))

    def write(self, data: bytes) -> None:
        os.write(self.file, data)
        os.fdatasync(self.file)


async def main() -> None:
    server = Server()
    await serve(server.handle, beside=server.make_durable)


if __name__ == "__main__":
    trio.run(main)
