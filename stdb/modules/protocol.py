"""What the database needs of a module, whatever language it was written in, and what a module needs of the database.

Responsible for: the Protocols `Module` and `ProcedureHost`, the values that pass between the two.
Not responsible for: loading (`python`, `wasm`), transactions (`datastore`), who may call (`actors`).

Source: spec 04 sections 3.7 and 5; spec 08, "Functions".
"""

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence
    from contextlib import AbstractContextManager

    from stdb.datastore.datastore import Datastore
    from stdb.datastore.table import TableSchema
    from stdb.datastore.transaction import Transaction
    from stdb.schema.model import ModuleDef

__all__ = [
    "FATAL",
    "HTTP_1_1",
    "Expiry",
    "HttpRequest",
    "HttpResponse",
    "LogLevel",
    "LogSink",
    "Migrating",
    "Migration",
    "MigrationCall",
    "Module",
    "ProcedureCall",
    "ProcedureHost",
    "Queueing",
    "ReadSet",
    "ReducerCall",
    "RouteCall",
    "Stranger",
    "Suspending",
    "ViewCall",
    "ViewSql",
]

T = TypeVar("T")
FATAL = "The instance encountered a fatal error."
"""What a caller learns when a module breaks, whatever language it is written in."""
HTTP_1_1 = 2
"""The number of HTTP/1.1 among versions: 0 is 0.9, 1 is 1.0, 3 is 2 and 4 is 3 (spec 04 section 3.7)."""


class ReducerCall(NamedTuple):
    """The circumstances of one call."""

    sender: bytes
    """Identity of the caller: 32 bytes, little-endian as on the wire."""
    connection_id: bytes | None
    """16 bytes, little-endian; None for the scheduler, `init` and other calls without a connection."""
    timestamp_us: int
    """Microseconds since 1970."""
    transaction: "Transaction"
    """The open transaction; the module only reads and writes through it."""
    credentials: str | None = None
    """JSON payload of the caller's token, exactly as presented."""


class ReadSet:
    """What one run of a view has read: it is stale as soon as a transaction changes any of it."""

    __slots__ = ("expired", "keys", "tables")

    def __init__(self) -> None:
        self.tables: set[int] = set()
        """Ids of tables of which more than single keys was read: they count as a whole."""
        self.keys: dict[tuple[int, int], set[Any]] = {}
        """The keys that were looked up, whether found or not, by (table id, index id); as `Index.key_of` returns."""
        self.expired = False
        """Set from outside when the time limit of the run has passed: its next read raises ReducerTimeout."""

    def add_key(self, table_id: int, index_id: int, key: Any) -> None:
        """Note the look-up of a key in an index, a value for each of its columns."""
        known = self.keys.get((table_id, index_id))
        if known is None:
            self.keys[table_id, index_id] = {key}
        else:
            known.add(key)


class ViewCall(NamedTuple):
    """The circumstances of one run of a view."""

    sender: bytes | None
    """Identity of who looks, as in `ReducerCall`; None for an anonymous view."""
    args: bytes
    """BSATN of the view's parameters."""
    reads: ReadSet
    """Where the run notes what it reads, also when it fails."""


class ViewSql(NamedTuple):
    """A view's result that is a query: its rows are what the owner of the database sees by it."""

    text: str
    """SQL of the one-off language; blank means no rows."""


class HttpRequest(NamedTuple):
    """An HTTP request: one of a client to a route, or one of a procedure to anybody."""

    method: str
    url: str
    """Absolute, with the query."""
    headers: tuple[tuple[str, bytes], ...] = ()
    """In their order; a name may come again."""
    body: bytes = b""
    version: int = HTTP_1_1
    timeout_us: int | None = None
    """How long a procedure waits for the whole response, in microseconds; None for the server's default."""


class HttpResponse(NamedTuple):
    """An HTTP response."""

    status: int
    headers: tuple[tuple[str, bytes], ...] = ()
    body: bytes = b""
    version: int = HTTP_1_1


class Expiry(Protocol):
    """What a time limit sets."""

    expired: bool


class ProcedureHost(Protocol):
    """What a running procedure may ask of its database."""

    cancelled: type[BaseException]
    """What is raised inside a procedure that is ended from outside; the module's entries let it pass as it is."""

    def now_us(self) -> int:
        """Return the time in microseconds since 1970."""

    def running(self) -> "AbstractContextManager[Expiry]":
        """Hold the time limit of a reducer over code of the procedure that runs from one wait to the next."""

    async def transact(self, run: "Callable[[ReducerCall], T]") -> T:
        """Call `run` in the database's own turn, within a transaction, and return its result once committed.

        For a caller that wants to be told of what is durable alone, it returns once that is durable.

        Raises:
            BaseException: Whatever `run` raised; the transaction is rolled back.
            ReducerError: It was not begun, or it was committed and takes too long to become durable; says which.
            ReducerTimeout: It ran too long.
        """

    async def transact_in_steps(self, run: "Callable[[ReducerCall], Generator[None, None, T]]") -> T:
        """Do as `transact` with what may come back early: then others run, its database is not served, and it goes on.

        It holds its time limit by itself. Where the procedure is ended meanwhile it is closed half-way.
        """

    async def pause(self) -> None:
        """Let others run, also those that pause like this."""

    async def sleep(self, seconds: float) -> None:
        """Wait; not at all for a time of zero or below."""

    async def http(self, request: HttpRequest) -> HttpResponse:
        """Send a request and return the response, whatever its status.

        Raises:
            HttpError: There is none; says why.
        """


class ProcedureCall(NamedTuple):
    """The circumstances of one call of a procedure; members as in `ReducerCall`."""

    sender: bytes
    connection_id: bytes | None
    timestamp_us: int
    credentials: str | None
    host: ProcedureHost


class Stranger(NamedTuple):
    """Somebody whom nobody knows."""

    identity: bytes
    """32 bytes, little-endian as on the wire."""
    claims: str
    """JSON payload of a token that says so."""


class RouteCall(NamedTuple):
    """The circumstances of one request to a route. Nobody is authenticated."""

    timestamp_us: int
    host: ProcedureHost
    stranger: "Callable[[], Stranger]"
    """Returns whom a module that wants a caller takes for the one who asks: a new identity for each request."""


class Migration(NamedTuple):
    """A function of a module that says what becomes of the rows of one table."""

    table: str
    function: str
    place: str
    """Where it stands, for people: `chat.py:40`."""


class MigrationCall(NamedTuple):
    """The circumstances of one migration."""

    transaction: "Transaction"
    """The open transaction, in which the database is updated."""
    limit: "Callable[[Expiry], AbstractContextManager[None]]"
    """Holds a time limit over a number of rows; sets `expired` when it has passed."""


@runtime_checkable
class Migrating(Protocol):
    """What a module has that knows what becomes of rows where the automatic rules do not."""

    migrations: tuple[Migration, ...]
    """One for each table at most."""

    def migrate(self, position: int, old: "TableSchema", rows: list[bytes], call: MigrationCall) -> None:
        """Give the rows of a table as it was to the migration at a position, and store what it makes of them.

        The module is attached; the table in its place, if there is one, is empty.

        Raises:
            ReducerError, ReducerTimeout, ModuleFault: It failed; the text is for the publisher and names the place.
        """


@runtime_checkable
class Suspending(Protocol):
    """What a module has whose functions can come back before they are through."""

    def reducer_steps(self, reducer_id: int) -> "Callable[[ReducerCall, bytes], Generator[None, None, None] | None]":
        """Return what starts a reducer, called as its entry is, and raising what that raises.

        It returns None when the reducer is through, else the rest, which is run step by step to its end, or closed.
        Until then the transaction stays open and the module is called for nothing else.
        """

    def view_steps(self, position: int) -> "Callable[[ViewCall], Generator[None, None, list[bytes] | ViewSql]]":
        """Return what runs a view in steps, to the result of its entry. It holds its time limit by itself."""


@runtime_checkable
class Queueing(Protocol):
    """What a module has that asks for calls of its own functions."""

    immediate: "Callable[[str, bytes], None] | None"
    """Takes the name of a function and BSATN of its arguments: it is called once, as soon as may be, by the database
    itself and whatever becomes of the transaction that asked for it. Set by the database; told of no failure."""


class LogLevel:
    """Levels of a module's log lines, as their wire names (spec 05 section 5.5)."""

    ERROR, WARN, INFO, DEBUG, TRACE, PANIC = "Error", "Warn", "Info", "Debug", "Trace", "Panic"


class LogSink(Protocol):
    """Takes the lines a module logs; the shell stores and streams them."""

    def write(
        self,
        level: str,
        message: str,
        *,
        target: str | None = None,
        filename: str | None = None,
        line: int | None = None,
        function: str | None = None,
        trace: "Sequence[str] | None" = None,
    ) -> None:
        """Append one line; `trace` names functions, innermost first, and belongs to panics."""


class Module(Protocol):
    """A loaded program. One instance belongs to one database and is called from one thread."""

    definition: "ModuleDef"
    program_hash: bytes
    """Keccak-256 of the program, 32 bytes in digest order."""

    def attach(self, datastore: "Datastore", database_identity: bytes, log: LogSink) -> None:
        """Bind to the tables of a database; called once before the first call and again after a schema change."""

    def reducer(self, reducer_id: int) -> "Callable[[ReducerCall, bytes], None]":
        """Return the entry of a reducer: called with the circumstances and the BSATN of the arguments.

        The entry returns None on success. It raises:
            DecodeError: The arguments do not decode (nothing was run).
            ReducerError: The module refused; its text goes to the caller.
            ReducerTimeout: The time limit passed.
            ModuleFault: Any other failure; its `__cause__` is the module's exception.
        """

    def view(self, position: int) -> "Callable[[ViewCall], list[bytes] | ViewSql]":
        """Return the entry of a view, by its position in `definition.views`.

        The entry returns the BSATN of the rows, each valid at the view's row type, or a query. It only reads the
        tables, within a transaction or outside. It raises what a reducer's entry does.
        """

    def procedure(self, procedure_id: int) -> "Callable[[ProcedureCall, bytes], Awaitable[bytes]]":
        """Return the entry of a procedure: called with the circumstances and the BSATN of the arguments.

        What it returns waits for nothing but the call's host and gives the BSATN of the result. It raises what a
        reducer's entry does, and `host.cancelled`.
        """

    def route(self, position: int) -> "Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]":
        """Return the handler of a route, by its position in `definition.http_routes`; otherwise as `procedure`."""
