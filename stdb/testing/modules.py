"""A module made of plain functions: what the rest of stdb sees of a module, without the author's API.

Responsible for: `FunctionModule`, a `stdb.modules.protocol.Module`, and building its tables and functions.
Not responsible for: modules as authors write them (`stdb.modules.python`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

from stdb.datastore.datastore import Datastore
from stdb.datastore.table import Table
from stdb.errors import ModuleFault, ReducerError
from stdb.modules.protocol import (
    HttpRequest,
    HttpResponse,
    LogSink,
    ProcedureCall,
    ReadSet,
    ReducerCall,
    RouteCall,
    ViewCall,
    ViewSql,
)
from stdb.sats import bsatn
from stdb.sats.types import UNIT, AlgebraicType, Array, Element, Product, Ref, Typespace, option
from stdb.schema.model import (
    Access,
    ColumnDef,
    HttpRouteDef,
    IndexAlgorithm,
    IndexDef,
    Lifecycle,
    ModuleDef,
    ProcedureDef,
    ReducerDef,
    RowLevelSecurityDef,
    ScheduleDef,
    SequenceDef,
    TableDef,
    UniqueDef,
    ViewDef,
    Visibility,
)

__all__ = ["Context", "FunctionModule", "Reader", "procedure", "reducer", "table", "view"]


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


class Reader:
    """What a view of a FunctionModule gets: who looks, and tables by name, rows as tuples; notes what is read."""

    def __init__(self, sender: bytes | None, reads: ReadSet, datastore: Datastore) -> None:
        self.sender = sender
        self._reads = reads
        self._datastore = datastore

    def rows(self, name: str) -> list[tuple[Any, ...]]:
        """Return all rows."""
        stored = self._datastore.table(name)
        self._reads.tables.add(stored.schema.id)
        return [stored.schema.codec.decode_exact(row) for row in stored.rows()]

    def find(self, name: str, key: Any) -> tuple[Any, ...] | None:
        """Return the row with a primary key."""
        stored = self._datastore.table(name)
        index = stored.primary
        assert index is not None, f"{name} has no primary key"
        self._reads.add_key(stored.schema.id, index.id, key)
        row = index.find(key)
        return None if row is None else stored.schema.codec.decode_exact(row)


class _View:
    def __init__(
        self,
        run: Callable[..., Any],
        of: str,
        params: Mapping[str, AlgebraicType],
        optional: bool,
        options: dict[str, Any],
    ) -> None:
        self.run = run
        self.of = of
        self.params = _product(params)
        self.optional = optional
        self.options = options


def view(
    run: Callable[..., "list[tuple[Any, ...]] | ViewSql"],
    of: str,
    params: Mapping[str, AlgebraicType] | None = None,
    *,
    public: bool = True,
    anonymous: bool = False,
    primary_key: str | None = None,
    optional: bool = False,
) -> _View:
    """Return a view of rows like those of the table `of`: `run` is called with a Reader and the decoded parameters.

    An `optional` one declares that it has one row at most.
    """
    options = {"is_public": public, "is_anonymous": anonymous, "primary_key": primary_key}
    return _View(run, of, params or {}, optional, options)


class _Procedure:
    def __init__(
        self, run: Callable[..., Any], params: Mapping[str, AlgebraicType], returns: AlgebraicType, private: bool
    ) -> None:
        self.run = run
        self.params = _product(params)
        self.returns = returns
        self.visibility = Visibility.PRIVATE if private else Visibility.CLIENT_CALLABLE


def procedure(
    run: Callable[..., Awaitable[Any]],
    params: Mapping[str, AlgebraicType] | None = None,
    returns: AlgebraicType = UNIT,
    *,
    private: bool = False,
) -> _Procedure:
    """Return a procedure: `run`, an async function, is called with the ProcedureCall and the decoded arguments."""
    return _Procedure(run, params or {}, returns, private)


def _product(params: Mapping[str, AlgebraicType]) -> Product:
    return Product(tuple(Element(name, type_) for name, type_ in params.items()))


class _Reducer:
    def __init__(
        self, params: Mapping[str, AlgebraicType], lifecycle: Lifecycle | None, private: bool, run: Callable[..., None]
    ) -> None:
        self.params = _product(params)
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
    scheduled: str | None = None,
) -> TableDef:
    """Return a table, with an index and a unique constraint on its primary key if it has one.

    `scheduled` is the function that its rows call; the column with the time is called `scheduled_at`.
    """
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
        schedule=None
        if scheduled is None
        else ScheduleDef(f"{name}_sched", name, names.index("scheduled_at"), scheduled),
        access=Access.PUBLIC if public else Access.PRIVATE,
        is_event=event,
    )


class FunctionModule:
    """A module of these tables, functions and rules of row-level security. `program_hash` follows from `version`.

    A view is called with a Reader, a procedure with a ProcedureCall, both and the decoded arguments; a route, by
    (method, path), with a RouteCall and the request.
    """

    def __init__(
        self,
        tables: list[TableDef],
        reducers: Mapping[str, _Reducer],
        *,
        version: str = "1",
        rules: Sequence[str] = (),
        views: Mapping[str, _View] | None = None,
        procedures: Mapping[str, _Procedure] | None = None,
        routes: Mapping[tuple[str | None, str], Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]]
        | None = None,
    ) -> None:
        views, procedures, routes = views or {}, procedures or {}, routes or {}
        handlers = tuple(f"handler_{i}" for i in range(len(routes)))
        self.definition = ModuleDef(
            Typespace(tuple(each.row_type for each in tables)),
            tuple(tables),
            tuple(
                ReducerDef(name, name, each.params, each.lifecycle, each.visibility) for name, each in reducers.items()
            ),
            procedures=tuple(
                ProcedureDef(name, name, each.params, each.returns, each.visibility)
                for name, each in procedures.items()
            ),
            views=_view_definitions(views, [each.name for each in tables]),
            row_level_security=tuple(map(RowLevelSecurityDef, rules)),
            http_handlers=handlers,
            http_routes=tuple(
                HttpRouteDef(handler, method, path) for handler, (method, path) in zip(handlers, routes, strict=True)
            ),
        )
        self.program_hash = sha256(version.encode()).digest()
        self._reducers = list(reducers.values())
        self._views = list(views.values())
        self._procedures = list(procedures.values())
        self._routes = list(routes.values())
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

    def view(self, position: int) -> Callable[[ViewCall], list[bytes] | ViewSql]:
        """Return the entry of a view."""
        each = self._views[position]
        codec, datastore = bsatn.codec(each.params), self._datastore
        assert datastore is not None, "a module is attached before it is called"
        row_codec = datastore.table(each.of).schema.codec

        def run(call: ViewCall) -> list[bytes] | ViewSql:
            values, _ = codec.decode(call.args)
            try:
                found = each.run(Reader(call.sender, call.reads, datastore), *values)
            except ReducerError:
                raise
            except Exception as error:
                raise ModuleFault("The instance encountered a fatal error.") from error
            return found if isinstance(found, ViewSql) else [row_codec.encode(row) for row in found]

        return run

    def procedure(self, procedure_id: int) -> Callable[[ProcedureCall, bytes], Awaitable[bytes]]:
        """Return the entry of a procedure."""
        each = self._procedures[procedure_id]
        codec, returned = bsatn.codec(each.params), bsatn.codec(each.returns)

        async def run(call: ProcedureCall, args: bytes) -> bytes:
            values, _ = codec.decode(args)
            try:
                result: bytes = returned.encode(await each.run(call, *values))
            except ReducerError:
                raise
            except Exception as error:
                raise ModuleFault("The instance encountered a fatal error.") from error
            return result

        return run

    def route(self, position: int) -> Callable[[RouteCall, HttpRequest], Awaitable[HttpResponse]]:
        """Return the handler of a route."""
        return self._routes[position]


def _view_definitions(views: Mapping[str, _View], tables: list[str]) -> tuple[ViewDef, ...]:
    """Return the views, numbered by kind."""
    counts = {False: 0, True: 0}
    found = []
    for name, each in views.items():
        kind = each.options["is_anonymous"]
        row = Ref(tables.index(each.of))
        returned = option(row) if each.optional else Array(row)
        found.append(ViewDef(name, name, counts[kind], return_type=returned, params=each.params, **each.options))
        counts[kind] += 1
    return tuple(found)
