"""DatabaseHandle: what the front door holds of a database, valid over restarts of its actor.

Responsible for: attaching clients, awaited calls and queries, reading what is public about a database.
Not responsible for: serving (`database`), keeping the database running (`supervision`), publishing (`host`).
"""

from functools import partial
from typing import TYPE_CHECKING

import trio

from stdb.actors.answers import CallResult, ProcedureOutcome, SqlResult
from stdb.actors.attachment import Attachment
from stdb.actors.requests import Arguments
from stdb.actors.sink import Client, ClientSink
from stdb.actors.transfer import TableRows, find_table, put_rows, take_rows
from stdb.actors.visits import Asked, RouteResult
from stdb.datastore.environment import read_environment
from stdb.sql import Language

if TYPE_CHECKING:
    from stdb.actors.database import DatabaseActor
    from stdb.actors.supervision import Supervisor
    from stdb.datastore.table import TableSchema
    from stdb.modules.protocol import HttpRequest
    from stdb.schema.model import ModuleDef
    from stdb.storage.module_log import ModuleLog

__all__ = ["DatabaseHandle"]


class DatabaseHandle:
    """One database of a host."""

    def __init__(self, supervisor: "Supervisor", identity: bytes, owner: bytes, log: "ModuleLog") -> None:
        self._supervisor = supervisor
        self.identity = identity
        """32 bytes, little-endian."""
        self.owner = owner
        """Identity of who published it: 32 bytes, little-endian."""
        self.log = log
        """The module log."""

    async def ready(self) -> None:
        """Return once the database runs; launches it at once when it is not running yet.

        Raises:
            DatabaseUnavailable: It is down, or restarting after a failure; the text says why.
        """
        await self._supervisor.ready()

    async def wait_durable(self) -> None:
        """Return once everything that was committed so far is durable. Raises DatabaseUnavailable."""
        await self.ready()
        actor = self._actor
        await actor.answers.wait(lambda: (None, actor.datastore.next_offset))

    @property
    def definition(self) -> "ModuleDef":
        """The definition of the running module. Raises DatabaseUnavailable when none runs."""
        return self._actor.module.definition

    @property
    def program_hash(self) -> bytes:
        """Keccak-256 of the running program, in digest order. Raises DatabaseUnavailable when none runs."""
        return self._actor.module.program_hash

    @property
    def environment_names(self) -> list[str]:
        """The names of the environment variables that have a value, sorted. Raises as `definition`."""
        return sorted(read_environment(self._actor.datastore))

    @property
    def client_count(self) -> int:
        """How many clients are connected right now; 0 when the database does not run."""
        actor = self._supervisor.actor
        return 0 if actor is None else actor.client_count

    def attach(self, client: Client, sink: ClientSink, token: str, session_id: bytes | None = None) -> Attachment:
        """Connect a client; its requests may follow at once.

        The sink is told `initial_connection` first, or `close(None, text)` when the module refuses, or
        `close(4000, "session busy")` when `session_id` (16 bytes) is held by a living connection, which is cut.

        Raises:
            DatabaseUnavailable: It does not run; `await ready()` before.
        """
        return self._actor.attach(client, sink, token, session_id)

    async def wait_not_crowded(self) -> None:
        """Return at once unless too many requests wait (DESIGN decision 8); readers wait here."""
        await self._actor.wait_not_crowded()

    async def call(
        self, client: Client, function: str, args: bytes | str | Arguments, *, confirmed: bool = True
    ) -> CallResult | ProcedureOutcome:
        """Run a reducer or procedure between `client_connected` and `client_disconnected` (spec 05 section 1.3.21).

        Answers once the transactions are durable, unless `confirmed` is False. Cancelling cancels a procedure; of a
        reducer it only gives up the answer.

        Raises:
            ConnectRefused, NoSuchFunction, LifecycleCall, BadArguments, TooBusy: Nothing of the function was run.
            DatabaseUnavailable: The database is down or went down before the answer was safe.
        """
        await self.ready()
        actor, scope = self._actor, trio.CancelScope()
        try:
            asked = Asked(client, function, args, confirmed)
            return await actor.answers.wait_started(partial(actor.visits.call, asked, scope))
        finally:
            scope.cancel()

    def has_route(self, method: str, path: str) -> bool:
        """Tell whether the module has a handler for what follows `/route` in a path. Raises DatabaseUnavailable."""
        return self._actor.visits.find_route(method, path) is not None

    async def route(self, request: "HttpRequest", path: str) -> RouteResult:
        """Run the handler of a route and return what it answers, or how it failed, once all of it is durable.

        Cancelling cancels the handler; a transaction of it whose turn has come is run whole.

        Raises:
            NoSuchRoute, TooBusy: Nothing was run.
            DatabaseUnavailable: The database is down or went down before the answer was safe.
        """
        await self.ready()
        actor, scope = self._actor, trio.CancelScope()
        try:
            return await actor.answers.wait_started(partial(actor.visits.route, request, path, scope))
        finally:
            scope.cancel()

    async def sql(self, client: Client, text: str, *, confirmed: bool = True) -> SqlResult:
        """Run one SQL statement as `client`, between connect and disconnect (spec 05 section 1.3.24).

        Raises:
            QueryError: The statement is wrong, or this caller may not run it.
            ConnectRefused, DatabaseUnavailable: As for `call`.
        """
        await self.ready()
        actor = self._actor
        return await actor.answers.wait_long(partial(actor.visits.sql, client, text, confirmed))

    async def statements(self, caller: bytes, text: str, language: Language) -> list[SqlResult]:
        """Run any number of SQL statements in one transaction; return what its SELECTs read, once that is durable.

        Nobody connects for it (spec 03 section 7).

        Raises:
            QueryError: A statement is wrong, or this caller may not run it; nothing was changed.
            DatabaseUnavailable: As for `call`.
        """
        await self.ready()
        actor = self._actor
        return await actor.answers.wait_long(partial(actor.visits.statements, caller, text, language))

    async def table(self, name: str) -> "TableSchema":
        """Return a table that rows can be put into. Raises as `transfer.find_table`, and DatabaseUnavailable."""
        await self.ready()
        return find_table(self._actor.datastore, name, to_write=True).schema

    async def take_rows(self, table: str) -> TableRows:
        """Return all rows of a table at one moment, once that is durable. Raises as `transfer.take_rows`."""
        await self.ready()
        actor = self._actor
        return await actor.answers.wait_long(lambda is_wanted: take_rows(actor.datastore, table, is_wanted))

    async def put_rows(self, caller: bytes, schema: "TableSchema", rows: list[bytes]) -> int:
        """Insert rows in one transaction; return how many were new, once durable. Raises as `transfer.put_rows`."""
        await self.ready()
        actor = self._actor
        return await actor.answers.wait_long(lambda _is_wanted: put_rows(actor, caller, schema, rows))

    @property
    def _actor(self) -> "DatabaseActor":
        return self._supervisor.running_actor()
