"""A host inside a test: databases in memory, clients without sockets, virtual time.

Responsible for: `open_host`, `TestClient`.
Not responsible for: what a module is (`modules`), faults of the disk (`storage`), sockets (`server`).
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count

import trio

from stdb.actors.attachment import Attachment
from stdb.actors.deadline import Deadline
from stdb.actors.handle import DatabaseHandle
from stdb.actors.host import Host, HostSettings
from stdb.actors.outgoing import HttpSender
from stdb.actors.requests import CallReducer, Request, Subscribe, SubscriptionKind
from stdb.actors.sink import Client
from stdb.errors import SchemaError
from stdb.modules.protocol import Module
from stdb.testing.sinks import Applied, RecordingSink, Result
from stdb.testing.storage import MemoryStorage

__all__ = ["TestClient", "identity", "open_host", "virtual_now_us"]

EPOCH_US = 1_700_000_000_000_000


def virtual_now_us() -> int:
    """Return the clock of the running trio, as microseconds since 1970."""
    return EPOCH_US + int(trio.current_time() * 1e6)


def identity(number: int) -> bytes:
    """Return an identity to tell people apart by."""
    return number.to_bytes(32, "little")


@asynccontextmanager
async def open_host(
    programs: Mapping[bytes, Callable[[], Module]],
    storage: MemoryStorage | None = None,
    settings: HostSettings | None = None,
    *,
    deadline: Deadline | None = None,
    http: HttpSender | None = None,
) -> AsyncIterator[Host]:
    """Hold a host that knows these programs: their bytes, and what makes a module of them.

    `http` answers what procedures ask of other servers, such as a `stdb.testing.http.FakeHttp`.
    """

    def load(program: bytes) -> Module:
        if program not in programs:
            raise SchemaError([f"there is no program {program!r}"])
        return programs[program]()

    own = storage or MemoryStorage()
    try:
        async with Host.open(
            own, load, settings or HostSettings(), deadline=deadline, now_us=virtual_now_us, http=http
        ) as host:
            yield host
    finally:
        if storage is None:
            own.close()


class TestClient:
    """A connected client that can be driven step by step."""

    __test__ = False  # pytest: this is no test case

    def __init__(
        self,
        handle: DatabaseHandle,
        who: int | bytes = 1,
        connection: int = 0,
        *,
        confirmed: bool = False,
        session_id: bytes | None = None,
    ) -> None:
        self.handle = handle
        self.sink = RecordingSink(confirmed=confirmed)
        sender = who if isinstance(who, bytes) else identity(who)
        connection_id = (connection or next(_CONNECTIONS)).to_bytes(16, "little")
        self.client = Client(sender, connection_id, '{"sub":"test"}')
        self.attachment: Attachment = handle.attach(self.client, self.sink, "token", session_id)
        self._request_ids = count(1)

    def submit(self, *requests: Request) -> None:
        """Hand in requests."""
        self.attachment.submit_nowait(requests)

    def call_nowait(self, reducer: str, args: bytes | str = b"", *, notify_success: bool = True) -> int:
        """Call a reducer; return the request id."""
        request_id = next(self._request_ids)
        self.submit(CallReducer(request_id, reducer, args, notify_success))
        return request_id

    async def call(self, reducer: str, args: bytes | str = b"") -> Result:
        """Call a reducer and return how it ended."""
        request_id = self.call_nowait(reducer, args)
        seen = 0
        while True:
            for message in self.sink.received[seen:]:
                if isinstance(message, Result) and message.request_id == request_id:
                    return message
            seen = len(self.sink.received)
            await self.sink.wait_count(seen + 1)

    async def subscribe(self, query_set_id: int, *queries: str) -> Applied:
        """Open a query set and return its answer; anything else is an AssertionError."""
        request = Subscribe(SubscriptionKind.SET, next(self._request_ids), query_set_id, queries)
        self.submit(request)
        while True:
            for message in self.sink.received:
                if getattr(message, "request", None) is request:
                    assert isinstance(message, Applied), message
                    return message
            await self.sink.wait_count(len(self.sink.received) + 1)

    async def wait_for(self, kind: type, count: int) -> Sequence[object]:
        """Return the messages of one kind once there are so many."""
        while len(self.messages(kind)) < count:
            await self.sink.wait_count(len(self.sink.received) + 1)
        return self.messages(kind)

    async def leave(self) -> None:
        """Disconnect and return once the module knows."""
        self.attachment.detach_nowait()
        await self.attachment.wait_detached()

    def messages(self, kind: type) -> Sequence[object]:
        """Return what was received of one kind."""
        return [message for message in self.sink.received if isinstance(message, kind)]


_CONNECTIONS = count(1000)
