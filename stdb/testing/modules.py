"""A module made of plain functions: what the rest of stdb sees of a module, without the author's API.

Responsible for: `FunctionModule`, a `stdb.modules.protocol.Module`, and building its tables.
Not responsible for: modules as authors write them (`stdb.modules.python`).
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from stdb.datastore.datastore import Datastore
from stdb.datastore.table import Table
from stdb.errors import ModuleFault, ReducerError
from stdb.modules.protocol import LogSink, ReducerCall
from stdb.sats import bsatn
from stdb.sats.types import AlgebraicType, Element, Product, Typespace
from stdb.schema.model import (
    Access,
    ColumnDef,
    IndexAlgorithm,
    IndexDef,
    Lifecycle,
    ModuleDef,
    ReducerDef,
    RowLevelSecurityDef,
    SequenceDef,
    TableDef,
    UniqueDef,
    Visibility,
)

__all__ = ["Context", "FunctionModule", "reducer", "table"]


class Context:
    """What a reducer of a FunctionModule gets: the call and tables by name, rows as tuples."""

    def __init__(self, call: ReducerCall, datastore: Datastore, log: LogSink) -> None:
        self.call = call
        self.log = log
        self._datastore = datastore

    def insert(self, name: str, *values: Any) -> tuple[Any, ...]:
        """Insert a row; return it as stored."""
        stored = self._table(name)
        codec = stored.schema.codec
        row: tuple[Any, ...] = codec.decode_exact(self.call.transaction.insert(stored, codec.encode(values)))
        return row

    def delete(self, name: str, *values: Any) -> bool:
        """Delete a row by its value; tell whether it was there."""
        stored = self._table(name)
        return self.call.transaction.delete(stored, stored.schema.codec.encode(values))

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        """Return all rows."""
        stored = self._table(name)
        return [stored.schema.codec.decode_exact(row) for row in stored.rows()]

    def _table(self, name: str) -> Table:
        return self._datastore.table(name)


class _Reducer:
    def __init__(
        self, params: Mapping[str, AlgebraicType], lifecycle: Lifecycle | None, private: bool, run: Callable[..., None]
    ) -> None:
        self.params = Product(tuple(Element(name, type_) for name, type_ in params.items()))
        self.lifecycle = lifecycle
        self.visibility = Visibility.PRIVATE if private or lifecycle else Visibility.CLIENT_CALLABLE
        self.run = run


def reducer(
    run: Callable[..., None],
    params: Mapping[str, AlgebraicType] | None = None,
    *,
    lifecycle: Lifecycle | None = None,
    private: bool = False,
) -> _Reducer:
    """Return a reducer: `run` is called with a Context and the decoded arguments."""
    return _Reducer(params or {}, lifecycle, private, run)


def table(
    name: str,
    columns: Mapping[str, AlgebraicType],
    *,
    primary_key: str | None = None,
    auto_inc: bool = False,
    public: bool = True,
    event: bool = False,
) -> TableDef:
    """Return a table, with an index and a unique constraint on its primary key if it has one."""
    names = list(columns)
    key = None if primary_key is None else names.index(primary_key)
    return TableDef(
        name,
        name,
        0,
        tuple(ColumnDef(column, column, type_) for column, type_ in columns.items()),
        primary_key=key,
        indexes=()
        if key is None
        else (IndexDef(f"{name}_{primary_key}_idx_btree", primary_key, IndexAlgorithm.BTREE, (key,)),),
        uniques=() if key is None else (UniqueDef(f"{name}_{primary_key}_key", (key,)),),
        sequences=(SequenceDef(f"{name}_{primary_key}_seq", key),) if auto_inc and key is not None else (),
        access=Access.PUBLIC if public else Access.PRIVATE,
        is_event=event,
    )


class FunctionModule:
    """A module of these tables, reducers and rules of row-level security. `program_hash` follows from `version`."""

    def __init__(
        self,
        tables: list[TableDef],
        reducers: Mapping[str, _Reducer],
        *,
        version: str = "1",
        rules: Sequence[str] = (),
    ) -> None:
        self.definition = ModuleDef(
            Typespace(tuple(each.row_type for each in tables)),
            tuple(tables),
            tuple(
                ReducerDef(name, name, each.params, each.lifecycle, each.visibility) for name, each in reducers.items()
            ),
            row_level_security=tuple(map(RowLevelSecurityDef, rules)),
        )
        self.program_hash = sha256(version.encode()).digest()
        self._reducers = list(reducers.values())
        self._datastore: Datastore | None = None
        self._log: LogSink | None = None

    def attach(self, datastore: Datastore, database_identity: bytes, log: LogSink) -> None:
        """Bind to the tables of a database."""
        self._datastore, self._log = datastore, log

    def reducer(self, reducer_id: int) -> Callable[[ReducerCall, bytes], None]:
        """Return the entry of a reducer."""
        each = self._reducers[reducer_id]
        codec = bsatn.codec(each.params)
        datastore, log = self._datastore, self._log
        assert datastore is not None, "a module is attached before it is called"
        assert log is not None

        def run(call: ReducerCall, args: bytes) -> None:
            values, _ = codec.decode(args)
            try:
                each.run(Context(call, datastore, log), *values)
            except ReducerError:
                raise
            except Exception as error:
                raise ModuleFault("The instance encountered a fatal error.") from error

        return run
