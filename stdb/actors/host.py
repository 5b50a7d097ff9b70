"""Host: the directory of databases of one server, their launch, publishing, deletion and shutdown.

Responsible for: who runs and who may change what; the life of every database of one server.
Not responsible for: serving a database (`database`), keeping one alive (`supervision`), HTTP (`stdb.net`).

Rules: spec 05 sections 1.1 and 1.3.12 to 1.3.26, spec 07 sections 5 and 6, DESIGN decisions 10 and 13.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, Protocol

import trio

from stdb.actors.deadline import Deadline, NoDeadline
from stdb.actors.handle import DatabaseHandle
from stdb.actors.refusals import NoSuchDatabase
from stdb.datastore.log import Log
from stdb.storage.control import Control
from stdb.storage.module_log import ModuleLog

__all__ = ["Host", "HostSettings", "PublishResult", "Storage"]


class Storage(Protocol):
    """Where a host keeps things: a data directory, or memory."""

    control: Control

    def open_log(self, identity: bytes) -> Log:
        """Open or make the durable log of a database; may block, so it is called in a thread."""

    def module_log(self, identity: bytes) -> ModuleLog:
        """Return the module log of a database."""

    def delete_database(self, identity: bytes) -> None:
        """Remove what belongs to a database, if anything; its log is closed. May block."""


class HostSettings(NamedTuple):
    """What a server may choose about its databases."""

    operator: bytes | None = None
    """Identity that may publish Python code and grant it; None: every caller may (tests)."""
    sql: str = "public"
    """Who may run SQL over HTTP: `public` or `owner` (DESIGN decision 14)."""
    reducer_seconds_max: float = 1.0
    initial_bytes_max: int = 256 * 1024 * 1024
    """Rows of one initial answer; above it the subscription is an error."""
    query_rows_max: int = 10_000_000
    """Rows one query of the owner may visit or produce; a tenth for others."""


class PublishResult(NamedTuple):
    """What a publish did. `operation` is `created` or `updated`; `name` as the publisher gave it."""

    identity: bytes
    name: str | None
    operation: str


class Host:
    """All databases of one server; `async with Host.open(storage) as host`."""

    def __init__(self, storage: Storage, settings: HostSettings, nursery: trio.Nursery) -> None:
        self.control = storage.control
        self.settings = settings

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        storage: Storage,
        settings: HostSettings = HostSettings(),
        *,
        deadline: Deadline | None = None,
        now_us: Callable[[], int] | None = None,
    ) -> AsyncIterator["Host"]:
        """Hold a running host; its databases launch one after another in the background.

        Leaving the block normally is a clean shutdown: `client_disconnected` for every client, all of it durable,
        clients closed with 1001. Cancelling it is as safe as a crash.
        """
        async with trio.open_nursery() as nursery:
            yield cls(storage, settings, nursery)

    def database(self, identity: bytes) -> DatabaseHandle:
        """Return the database with this identity. Raises NoSuchDatabase."""

    def databases(self) -> list[DatabaseHandle]:
        """Return all databases, oldest first."""

    async def publish(
        self,
        caller: bytes,
        program: bytes,
        *,
        name: str | None = None,
        identity: bytes | None = None,
        host_type: str = "Python",
        clear: bool = False,
    ) -> PublishResult:
        """Create a database with this program, or update the one that `name` or `identity` leads to.

        Answers once it is durable.

        Raises:
            NotAuthorized: Not the owner, no grant for Python code, or locked (`clear`).
            NotYourDatabaseError, NameNotYoursError (`stdb.storage.control`): The name or identity is another's.
            NoSuchDatabase: `identity` was never allocated here.
            PublishFailed: The program does not load or its `init` failed.
            UpdateRejected: The stored tables cannot become the new ones.
            DatabaseUnavailable: The database that is to be updated is down and stays so.
        """

    async def reset(self, caller: bytes, identity: bytes, program: bytes | None = None) -> PublishResult:
        """Drop all data and start again from `program`, or from the initial one. Raises as `publish`."""

    async def delete(self, caller: bytes, identity: bytes) -> None:
        """Delete a database; its clients are closed with 1001. Nothing happens when there is none.

        Raises:
            NotAuthorized: Not the owner, or locked.
        """

    async def restart(self, caller: bytes, identity: bytes) -> None:
        """Launch a database again that stays down, and wait for it. Raises NotAuthorized, DatabaseUnavailable."""

    def set_locked(self, caller: bytes, identity: bytes, locked: bool) -> None:
        """Lock a database against deletion and reset, or unlock it. Raises NotAuthorized, NoSuchDatabase."""

    def check_owner(self, caller: bytes, identity: bytes, action: str) -> None:
        """Raise NotAuthorized unless `caller` owns the database; `action` as in spec 05 section 1.1."""
