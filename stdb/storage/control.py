"""The control store: which databases there are, who owns them, what they are called, who may do what.

Responsible for: `control.sqlite` (DESIGN decision 5): databases, their retention, names and their owners, grants;
mail addresses and energy of identities, which clients of 0.11 ask for.
Not responsible for: what is in a database (`log`), HTTP answers (`stdb.net`), starting databases (`actors`).

Rules of ownership: spec 05 sections 1.3.12 to 1.3.18, sentences marked "we:". Identities are 32 bytes, little-endian
as on the wire; the file holds them as 64 hex digits in the usual notation, so that plain tools can read it.

Names are compared without case. What belongs to an identity is the part of a name before the first slash, its top: the
names of today have no slash, those of 0.11 may (spec 03 section 8.1).

Every change is one transaction with synchronous=FULL; it blocks for one disk sync, so an event loop runs it in a
thread. Reads are answered from an immutable picture in memory and never block.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from stdb.errors import StdbError, StorageError
from stdb.storage.retention import DEFAULT_RETENTION, Retention, parse_retention

__all__ = [
    "PUBLISH_PYTHON",
    "Control",
    "Database",
    "NameInUseError",
    "NameNotYoursError",
    "NotYourDatabaseError",
]

PUBLISH_PYTHON = "publish-python"
"""The grant to publish Python code, which runs in the server's process (DESIGN decision 10)."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS databases (
    identity TEXT PRIMARY KEY, address TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, host_type TEXT NOT NULL,
    program_hash TEXT NOT NULL, locked INTEGER NOT NULL DEFAULT 0, created_us INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0, retention TEXT NOT NULL DEFAULT 'hours=24') STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS programs (hash TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS names (
    name TEXT PRIMARY KEY, identity TEXT NOT NULL REFERENCES databases(identity), position INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS name_owners (name TEXT PRIMARY KEY, owner TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS grants (
    identity TEXT NOT NULL, permission TEXT NOT NULL, PRIMARY KEY (identity, permission)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS emails (identity TEXT PRIMARY KEY, email TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS balances (identity TEXT PRIMARY KEY, balance TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""
BALANCE_MIN, BALANCE_MAX = -(2**127), 2**127 - 1


class NotYourDatabaseError(StdbError):
    """The database belongs to somebody else; `identity` says which."""

    def __init__(self, identity: bytes) -> None:
        super().__init__(f"database {_hex(identity)} belongs to another identity")
        self.identity = identity


class NameNotYoursError(StdbError):
    """The name was registered by somebody else and stays theirs; `name` says which."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the name {name} belongs to another identity")
        self.name = name


class NameInUseError(StdbError):
    """The name already leads to a database; `name` says which."""

    def __init__(self, name: str) -> None:
        super().__init__(f"record with the name {name} already exists")
        self.name = name


class Database(NamedTuple):
    """One database as the control store knows it."""

    identity: bytes
    address: bytes
    """16 random bytes made at creation, never zero: its name in the 0.x generations (spec 03 section 13)."""
    owner: bytes
    host_type: str
    """`Python` or `Wasm`."""
    program_hash: bytes
    """Keccak-256 of the program of the creation or the last reset, 32 bytes in digest order."""
    created_us: int
    locked: bool = False
    retention: Retention = DEFAULT_RETENTION
    """Which records are kept behind the stored rows."""


class _Picture(NamedTuple):
    """All of the store but the programs, as of the last commit."""

    databases: MappingProxyType[bytes, Database]
    deleted: MappingProxyType[bytes, Database]
    names: MappingProxyType[str, bytes]
    names_of: MappingProxyType[bytes, tuple[str, ...]]
    name_owners: MappingProxyType[str, bytes]
    grants: MappingProxyType[bytes, frozenset[str]]
    addresses: MappingProxyType[bytes, bytes]
    emails: MappingProxyType[bytes, str]
    balances: MappingProxyType[bytes, int]


class Control:
    """The control store of one server. Thread-safe; changes block for a disk sync, reads never block."""

    def __init__(self, path: str = ":memory:") -> None:
        """Open or make the store at `path`; without one it lives in memory, for tests.

        Raises:
            StorageError: The file cannot be read or written.
        """
        self._path = path
        self._lock = threading.Lock()
        self._connection = _open(path)
        with _storage_errors(path):
            self._picture = _read(self._connection)

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        with self._lock:
            self._connection.close()

    # ------------------------------------------------------------------ reading
    def database(self, identity: bytes) -> Database | None:
        """Return the database with this identity, or None when there is none (or it was deleted)."""
        return self._picture.databases.get(identity)

    def databases(self) -> list[Database]:
        """Return all databases, oldest first."""
        return sorted(self._picture.databases.values(), key=lambda database: (database.created_us, database.identity))

    def databases_of(self, owner: bytes) -> list[bytes]:
        """Return the identities of the databases that `owner` owns, oldest first."""
        return [database.identity for database in self.databases() if database.owner == owner]

    def deleted(self, identity: bytes) -> Database | None:
        """Return what is left of a deleted database: identity, address and last owner; None if there was none."""
        return self._picture.deleted.get(identity)

    def resolve(self, name: str) -> bytes | None:
        """Return the identity that a name leads to, also that of a deleted database; None for an unknown name."""
        return self._picture.names.get(name.lower())

    def resolve_address(self, address: bytes) -> bytes | None:
        """Return the identity of the database, living or deleted, that has this address (16 bytes as stored)."""
        return self._picture.addresses.get(address)

    def names(self, identity: bytes) -> tuple[str, ...]:
        """Return the names of a database, in the order of their registration."""
        return self._picture.names_of.get(identity, ())

    def name_owner(self, name: str) -> bytes | None:
        """Return who registered the top of this name first; one freed by its database stays theirs."""
        return self._picture.name_owners.get(_top(name))

    def email(self, identity: bytes) -> str | None:
        """Return the mail address of an identity."""
        return self._picture.emails.get(identity)

    def identities_of(self, email: str) -> list[bytes]:
        """Return the identities that gave this mail address."""
        return sorted(identity for identity, known in self._picture.emails.items() if known == email)

    def balance(self, identity: bytes) -> int:
        """Return the energy of an identity, a 128-bit integer; nothing is ever taken off."""
        return self._picture.balances.get(identity, 0)

    def check_create(self, owner: bytes, identity: bytes, name: str | None) -> None:
        """Raise what `create` would raise, before the work of loading a program is done.

        Raises:
            NotYourDatabaseError: The identity is that of a database, living or deleted, of another owner.
            NameNotYoursError: The name was registered by another identity.
            NameInUseError: The name leads to another database.
        """
        previous = self.database(identity) or self.deleted(identity)
        if previous is not None and previous.owner != owner:
            raise NotYourDatabaseError(identity)
        if name is None or self.resolve(name) == identity:
            return
        if self.name_owner(name) not in (None, owner):
            raise NameNotYoursError(name)
        if self.resolve(name) is not None:
            raise NameInUseError(name)

    def program(self, program_hash: bytes) -> bytes | None:
        """Return the bytes of an initial program by its hash; blocks for a read of the file."""
        with self._lock, _storage_errors(self._path):
            row = self._connection.execute(
                "SELECT bytes FROM programs WHERE hash = ?", (program_hash.hex(),)
            ).fetchone()
        return None if row is None else bytes(row[0])

    def grants(self, identity: bytes) -> frozenset[str]:
        """Return what an identity was granted."""
        return self._picture.grants.get(identity, frozenset())

    def all_grants(self) -> list[tuple[bytes, str]]:
        """Return every (identity, permission) that was granted, sorted."""
        return sorted((identity, item) for identity, items in self._picture.grants.items() for item in items)

    # ------------------------------------------------------------------ changing
    def create(self, database: Database, program: bytes, name: str | None = None) -> None:
        """Store a new database, its initial program and, when given, its name; revive a deleted one of this owner.

        Raises:
            NotYourDatabaseError, NameNotYoursError, NameInUseError: See `check_create`; nothing was stored.
        """
        with self._change() as connection:
            assert self.database(database.identity) is None, "a living database is updated or reset, never created"
            self.check_create(database.owner, database.identity, name)
            _store_program(connection, database.program_hash, program)
            connection.execute(
                "INSERT OR REPLACE INTO databases VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?)",
                (
                    _hex(database.identity), _hex(database.address), _hex(database.owner), database.host_type,
                    database.program_hash.hex(), database.locked, database.created_us, str(database.retention),
                ),
            )  # fmt: skip
            if name is not None and self.resolve(name) is None:
                _add_name(connection, name, database.identity, database.owner)

    def replace_program(self, identity: bytes, host_type: str, program_hash: bytes, program: bytes) -> None:
        """Store the program that a clear or reset started the database from; identity, names, owner stay."""
        with self._change() as connection:
            _store_program(connection, program_hash, program)
            connection.execute(
                "UPDATE databases SET host_type = ?, program_hash = ? WHERE identity = ?",
                (host_type, program_hash.hex(), _hex(identity)),
            )
            _drop_unused_programs(connection)

    def delete(self, identity: bytes) -> None:
        """Forget a database but for its identity, address, names and owner, who alone may bring it back."""
        with self._change() as connection:
            connection.execute("UPDATE databases SET deleted = 1, locked = 0 WHERE identity = ?", (_hex(identity),))
            _drop_unused_programs(connection)

    def set_locked(self, identity: bytes, locked: bool) -> None:
        """Set or clear the lock that keeps a database from being deleted or reset."""
        with self._change() as connection:
            connection.execute("UPDATE databases SET locked = ? WHERE identity = ?", (locked, _hex(identity)))

    def set_retention(self, identity: bytes, retention: Retention) -> None:
        """Set which records of a database are kept behind the stored rows; its log follows within seconds."""
        with self._change() as connection:
            connection.execute(
                "UPDATE databases SET retention = ? WHERE identity = ?", (str(retention), _hex(identity))
            )

    def add_name(self, name: str, identity: bytes, caller: bytes) -> None:
        """Register one more name for a database of the caller.

        Raises:
            NotYourDatabaseError: The database is not the caller's.
            NameNotYoursError: The name is another identity's.
            NameInUseError: The name already leads somewhere, be it here.
        """
        with self._change() as connection:
            self._check_owner(identity, caller)
            if self.resolve(name) is not None:
                raise NameInUseError(name)
            self._check_names((name,), caller)
            _add_name(connection, name, identity, caller)

    def set_names(self, identity: bytes, names: Sequence[str], caller: bytes) -> None:
        """Replace all names of a database of the caller; names it has may be kept, duplicates count once.

        Raises:
            NotYourDatabaseError: The database is not the caller's.
            NameNotYoursError: A name of the list is another identity's.
            NameInUseError: A name of the list leads to another database.
        """
        with self._change() as connection:
            self._check_owner(identity, caller)
            self._check_names(names, caller)
            for name in names:
                if self.resolve(name) not in (None, identity):
                    raise NameInUseError(name)
            connection.execute("DELETE FROM names WHERE identity = ?", (_hex(identity),))
            for name in dict.fromkeys(names):
                _add_name(connection, name, identity, caller)

    def register_top(self, name: str, caller: bytes) -> bool:
        """Make the top of a name the caller's; False when it is already.

        Raises:
            NameNotYoursError: It is another identity's.
        """
        with self._change() as connection:
            if (owner := self.name_owner(name)) is not None:
                if owner != caller:
                    raise NameNotYoursError(name)
                return False
            _own_top(connection, name, caller)
            return True

    def set_email(self, identity: bytes, email: str) -> None:
        """Store the mail address of an identity; it takes the place of an earlier one."""
        with self._change() as connection:
            connection.execute("INSERT OR REPLACE INTO emails VALUES (?, ?)", (_hex(identity), email))

    def add_balance(self, identity: bytes, amount: int) -> int:
        """Add to the energy of an identity and return what it has; it stays within 128 bits."""
        with self._change() as connection:
            balance = min(max(self.balance(identity) + amount, BALANCE_MIN), BALANCE_MAX)
            connection.execute("INSERT OR REPLACE INTO balances VALUES (?, ?)", (_hex(identity), str(balance)))
        return balance

    def grant(self, identity: bytes, permission: str) -> None:
        """Give an identity a permission; giving it twice changes nothing."""
        with self._change() as connection:
            connection.execute("INSERT OR IGNORE INTO grants VALUES (?, ?)", (_hex(identity), permission))

    def revoke(self, identity: bytes, permission: str) -> None:
        """Take a permission from an identity; taking what it does not have changes nothing."""
        with self._change() as connection:
            connection.execute("DELETE FROM grants WHERE identity = ? AND permission = ?", (_hex(identity), permission))

    # ------------------------------------------------------------------ inside
    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """Hold one transaction; after its commit the picture shows it, after an exception nothing happened."""
        with self._lock, _storage_errors(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                picture = _read(self._connection)
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.rollback()
                raise
            self._picture = picture

    def _check_owner(self, identity: bytes, caller: bytes) -> None:
        database = self.database(identity)
        if database is None or database.owner != caller:
            raise NotYourDatabaseError(identity)

    def _check_names(self, names: Sequence[str], caller: bytes) -> None:
        for name in names:
            if self.name_owner(name) not in (None, caller):
                raise NameNotYoursError(name)


def _hex(identity: bytes) -> str:
    """Write an identity or address as people know it: most significant byte first."""
    return identity[::-1].hex()


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text)[::-1]


@contextmanager
def _storage_errors(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(f"control store {path}: {error}") from error


def _open(path: str) -> sqlite3.Connection:
    with _storage_errors(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;")
            connection.executescript(_SCHEMA)
            _add_retention(connection)
        except sqlite3.Error:
            connection.close()
            raise
    return connection


def _add_retention(connection: sqlite3.Connection) -> None:
    """Bring a store up to date that was made before databases had a retention."""
    columns = [column[1] for column in connection.execute("PRAGMA table_info(databases)")]
    if "retention" not in columns:
        connection.execute(f"ALTER TABLE databases ADD COLUMN retention TEXT NOT NULL DEFAULT '{DEFAULT_RETENTION}'")


def _retention(text: str) -> Retention:
    try:
        return parse_retention(text)
    except ValueError as error:
        raise sqlite3.DatabaseError(str(error)) from error


def _read(connection: sqlite3.Connection) -> _Picture:
    databases: dict[bytes, Database] = {}
    deleted: dict[bytes, Database] = {}
    for identity, address, owner, host_type, program, locked, created_us, gone, retention in connection.execute(
        "SELECT identity, address, owner, host_type, program_hash, locked, created_us, deleted, retention"
        " FROM databases"
    ):
        (deleted if gone else databases)[_unhex(identity)] = Database(
            _unhex(identity),
            _unhex(address),
            _unhex(owner),
            host_type,
            bytes.fromhex(program),
            created_us,
            bool(locked),
            _retention(retention),
        )
    names: dict[str, bytes] = {}
    names_of: dict[bytes, tuple[str, ...]] = {}
    for name, text in connection.execute("SELECT name, identity FROM names ORDER BY position"):
        names[name.lower()] = identity = _unhex(text)
        names_of[identity] = (*names_of.get(identity, ()), name)
    owners = {name: _unhex(owner) for name, owner in connection.execute("SELECT name, owner FROM name_owners")}
    grants: dict[bytes, frozenset[str]] = {}
    for text, permission in connection.execute("SELECT identity, permission FROM grants"):
        grants[_unhex(text)] = grants.get(_unhex(text), frozenset()) | {permission}
    addresses = {known.address: known.identity for known in (*deleted.values(), *databases.values())}
    emails = {_unhex(identity): email for identity, email in connection.execute("SELECT identity, email FROM emails")}
    balances = {_unhex(identity): int(text) for identity, text in connection.execute("SELECT * FROM balances")}
    parts = (databases, deleted, names, names_of, owners, grants, addresses, emails, balances)
    return _Picture(*map(MappingProxyType, parts))  # type: ignore[arg-type]  # map loses each element's own type


def _store_program(connection: sqlite3.Connection, program_hash: bytes, program: bytes) -> None:
    connection.execute("INSERT OR IGNORE INTO programs VALUES (?, ?)", (program_hash.hex(), program))


def _drop_unused_programs(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM programs WHERE hash NOT IN (SELECT program_hash FROM databases WHERE NOT deleted)")


def _add_name(connection: sqlite3.Connection, name: str, identity: bytes, owner: bytes) -> None:
    connection.execute(
        "INSERT INTO names VALUES (?, ?, (SELECT coalesce(max(position), 0) + 1 FROM names))", (name, _hex(identity))
    )
    _own_top(connection, name, owner)


def _own_top(connection: sqlite3.Connection, name: str, owner: bytes) -> None:
    connection.execute("INSERT OR IGNORE INTO name_owners VALUES (?, ?)", (_top(name), _hex(owner)))


def _top(name: str) -> str:
    """Return the part of a name that belongs to an identity."""
    return name.partition("/")[0].lower()
