"""Looking: what a test sees of a host and of its clients between two calls, without waiting.

Responsible for: what hosts for async functions and for plain ones have in common, and so have their clients.
Not responsible for: whatever waits (`async_host`, `test_host`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, overload

from stdb.modules.python.reader import Query
from stdb.modules.python.tables import TableHandle
from stdb.sats.special import Identity, Timestamp
from stdb.testing.caches import Update
from stdb.testing.clients import Connection, Token
from stdb.testing.keeping import save
from stdb.testing.running import DATABASE, OWNER, LogLine, Running
from stdb.testing.tables import TableView

__all__ = ["LookedAtClient", "LookedAtHost"]

R = TypeVar("R")


class LookedAtClient:
    """Who a client is, and what its subscriptions hold. `digest` has it take in what has arrived."""

    def __init__(self, connection: Connection, digest: Callable[[], None]) -> None:
        self._connection = connection
        self._digest = digest

    @property
    def identity(self) -> Identity:
        """Who it is: `ctx.sender` of its calls."""
        return self._connection.token.identity

    @property
    def updates(self) -> list[Update]:
        """The transactions that its subscriptions have seen, oldest first."""
        self._digest()
        return self._connection.updates

    @property
    def closed(self) -> str | None:
        """Why the connection ended; None while it lives."""
        self._digest()
        end = self._connection.closed
        return None if end is None else end.reason or "closed"

    @overload
    def rows(self, table: Callable[..., list[R]]) -> list[R]: ...
    @overload
    def rows(self, table: Callable[..., Query[R]]) -> list[R]: ...
    @overload
    def rows(self, table: Callable[..., R | None] | TableHandle[R]) -> list[R]: ...
    @overload
    def rows(self, table: str) -> list[Any]: ...
    def rows(self, table: Any) -> list[Any]:
        """Return the rows of a table (or view) that this client's subscriptions hold."""
        self._digest()
        return self._connection.cache.rows(table)

    def on_insert(self, table: Callable[..., R], callback: Callable[[R], object]) -> None:
        """Call back for every row that comes into the cache."""
        self._connection.cache.on_insert(table, callback)

    def on_delete(self, table: Callable[..., R], callback: Callable[[R], object]) -> None:
        """Call back for every row that leaves the cache."""
        self._connection.cache.on_delete(table, callback)

    def on_update(self, table: Callable[..., R], callback: Callable[[R, R], object]) -> None:
        """Call back with the old and the new row where one takes the place of another of its primary key."""
        self._connection.cache.on_update(table, callback)


class LookedAtHost(ABC):
    """The tables, the log and the time of a database, and who is who there."""

    __test__ = False  # pytest: this is no test case

    @abstractmethod
    def _look(self) -> Running:
        """Return the database. Raises StdbError when the host was closed."""

    def identity(self, name: str) -> Identity:
        """Return who `connect(name)` is."""
        return Token.of(name, None).identity

    @property
    def owner(self) -> Identity:
        """Who published the database: `connect("owner")`, who may call private functions."""
        return OWNER

    @property
    def database_identity(self) -> Identity:
        """Which database it is."""
        return DATABASE

    def __getitem__(self, table: Callable[..., R] | TableHandle[R]) -> TableView[R]:
        """Return the rows of a table, private ones too: `host[User].get(identity)`. Raises KeyError."""
        return TableView(lambda: self._look().binding(table))

    def table(self, name: str) -> TableView[Any]:
        """Return the rows of a table by name. Raises KeyError."""
        return TableView(lambda: self._look().binding(name))

    @property
    def log(self) -> list[LogLine]:
        """What the module printed and logged, and how its calls failed."""
        return self._look().log()

    @property
    def now(self) -> Timestamp:
        """The time; a call that has just ended began then."""
        return Timestamp(self._look().time.now_us())

    def save(self, directory: str | Path) -> Path:
        """Write the database as a data directory, which `python -m stdb serve --data-dir` opens; return its path."""
        return save(self._look(), Path(directory))
