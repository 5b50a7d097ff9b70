"""MaterialisedViews: the rows of a module's views for everybody who reads them, in line with every transaction.

Responsible for: running views, one table in memory for each caller and arguments (an *instance*), who holds it, what is
run again when rows change, failures.
Not responsible for: what a view reads (the module notes it), which changes concern that (`readers`), queries over the
rows (`stdb.sql`, to which an instance is a table), the catalogue (`stdb.datastore`).

Rules, where they are ours (spec 04 sections 5 and 12, spec 06 section 8):
* The rows of a view are a set: equal ones collapse. With a primary key no two may have one key, and an optional view
  has one row at most; else it failed.
* A view that fails when it is first read fails the query. Later it keeps its last rows, the log of the module says why,
  and the transaction commits; when it works again, its readers see the difference to the rows that they have.
* A view reads tables: no views, and no rows of event tables, which are over when it runs.
* A view that ran out of time when rows changed rests, for all who read it: for one transaction, then for two, for four,
  until it keeps its time again. All views together are given REFRESH_SECONDS_MAX in one transaction; those that have
  not had their turn then are the first in the next. So no view keeps reducers waiting for long.
* Views of a module that can be suspended (`stdb.modules.protocol.Suspending`) are run in steps, and while they pause so
  does the transaction that they follow, or the query that reads them: other databases go on.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from stdb.datastore.catalog import read_views
from stdb.datastore.delta import TableDelta
from stdb.datastore.table import VIEW_ID_FIRST, Table, TableSchema
from stdb.datastore.views import ViewShape, instance_table, view_shape
from stdb.errors import DecodeError, ModuleFault, QueryError, ReducerError, ReducerTimeout
from stdb.modules.protocol import Module, ReadSet, Suspending, ViewCall, ViewSql
from stdb.modules.readers import Readers
from stdb.schema.system_tables import ENVIRONMENT_TABLE_ID
from stdb.sql import Caller, QueryPlan, compile_one_off
from stdb.sql.plan import TablePlan
from stdb.sql.work import BATCH, Steps, Work, finish

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.index import Key

__all__ = [
    "ARGUMENTS_A_CALLER_MAX",
    "ARGUMENTS_MAX",
    "FAILURES_TOLD_MAX",
    "REFRESH_SECONDS_MAX",
    "VIEW_ROWS_MAX",
    "MaterialisedViews",
]

VIEW_ROWS_MAX = 1_000_000
"""Bound on the rows that a view's query visits and returns: it is evaluated without a pause."""
ARGUMENTS_A_CALLER_MAX = 1_000
"""How many instances of views with arguments there may be that one caller was the first to ask for."""
ARGUMENTS_MAX = 20_000
"""How many instances of views with arguments one database may have."""
REFRESH_SECONDS_MAX = 3.0
"""After so long no further view is run again in one transaction."""
FAILURES_TOLD_MAX = 5
"""Of so many of its instances a view that fails is told in one transaction; of the others, how many there are."""

_FAILURES = (DecodeError, ReducerError, ModuleFault, ReducerTimeout, QueryError)
_Run: TypeAlias = Callable[[ViewCall], Steps[list[bytes] | ViewSql]]
T = TypeVar("T")


class _Instance:
    """The rows of one view for one caller (None: for all) and arguments."""

    __slots__ = ("args", "asker", "holders", "reads", "run", "sender", "shape", "table")

    def __init__(
        self, shape: ViewShape, sender: bytes | None, args: bytes, run: _Run, table: Table, asker: bytes
    ) -> None:
        self.shape = shape
        self.asker = asker
        """Who asked for it first."""
        self.sender = sender
        self.args = args
        self.run = run
        self.table = table
        self.reads = ReadSet()
        """What the last run has read."""
        self.holders = 0


class _MissingError(Exception):
    """An instance that is asked for is not there yet."""

    def __init__(self, instance: _Instance) -> None:
        super().__init__()
        self.instance = instance


class _Rest:
    """How long a view that ran out of time is left alone, in transactions."""

    __slots__ = ("left", "length")

    def __init__(self) -> None:
        self.length = 1
        self.left = 1


class MaterialisedViews:
    """The views of one database, a `stdb.datastore.views.Views`. `install` gives it a module's.

    `owner` is the identity as whom views that are queries ask. `limit` holds the time limit of a run, which sets
    `expired`. `failed` is told the name of a view and what it raised, one of the errors of a module's entry or a
    QueryError; it logs that and returns the text for the caller. `clock` tells seconds, for REFRESH_SECONDS_MAX.
    """

    def __init__(
        self,
        datastore: "Datastore",
        owner: bytes,
        limit: Callable[[ReadSet], AbstractContextManager[None]],
        failed: Callable[[str, BaseException], str],
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._datastore = datastore
        self._owner = Caller(owner, is_owner=True)
        self._limit = limit
        self._failed = failed
        self._clock = clock
        self._shapes: dict[str, ViewShape] = {}
        self._by_accessor: dict[str, ViewShape] = {}
        self._runs: dict[str, _Run] = {}
        self._shown_ids: dict[str, int] = {}
        self._instances: dict[tuple[str, bytes | None, bytes], _Instance] = {}
        self._by_id: dict[int, _Instance] = {}
        self._loose: dict[_Instance, None] = {}
        """Instances that nobody holds."""
        self._late: dict[_Instance, None] = {}
        """Instances that would have been run again, had there been time."""
        self._rests: dict[str, _Rest] = {}
        """By the names of views."""
        self._failures: Counter[str] = Counter()
        """How many instances of a view have failed in this transaction."""
        self._askers: Counter[bytes] = Counter()
        """How many instances with arguments each caller was the first to ask for."""
        self._asked = 0
        """How many these are altogether."""
        self._readers: Readers[_Instance] = Readers(datastore.tables)
        self._next_id = VIEW_ID_FIRST
        self._is_running = False
        self._are_all_stale = False
        self._can_pause = False
        self._is_patient = False
        """Whoever asks for an instance that is not there is told so."""

    def install(self, module: Module) -> None:
        """Serve the views of a module from now on: it is attached, and its views are in the catalogue.

        Instances of views that are still the same are run again at the next commit, which has to be one that changes
        something; the others are forgotten, whoever holds them.
        """
        stored = {view.shape.name: view for view in read_views(self._datastore)}
        definition = module.definition
        self._shapes = {view.name: view_shape(view, definition) for view in definition.views}
        self._by_accessor = {shape.accessor: shape for shape in self._shapes.values()}
        self._can_pause = isinstance(module, Suspending)
        self._runs = {view.name: self._run_of(module, position) for position, view in enumerate(definition.views)}
        self._shown_ids = {name: stored[name].table_id for name in self._shapes}
        for instance in list(self._instances.values()):
            shape = self._shapes.get(instance.shape.name)
            if shape == instance.shape:
                instance.shape, instance.run = shape, self._runs[shape.name]
                instance.table.schema = self._schema(shape, instance.table.schema.id)
            else:
                self._forget(instance)
        self._are_all_stale = bool(self._instances)
        self._rests.clear()

    # What queries ask.

    def find(self, name: str) -> ViewShape | None:
        """See `Views.find`."""
        return self._shapes.get(name) or self._by_accessor.get(name)

    def shapes(self) -> Iterable[ViewShape]:
        """See `Views.shapes`."""
        return self._shapes.values()

    def instances(self) -> Iterable[Table]:
        """See `Views.instances`."""
        return [instance.table for instance in self._instances.values()]

    def instance(self, shape: ViewShape, sender: bytes, args: bytes) -> Table:
        """See `Views.instance`."""
        if self._is_running:
            raise QueryError(f"`{shape.name}` is a view; a view reads tables only")
        caller = None if shape.is_anonymous else sender
        instance = self._instances.get((shape.name, caller, args))
        if instance is None:
            if args:
                self._check_arguments(sender)
            table = Table(self._schema(shape, self._next_id), self._datastore.undo)
            instance = _Instance(shape, caller, args, self._runs[shape.name], table, sender)
            if self._is_patient:
                raise _MissingError(instance)
            finish(self._make(instance))
        return instance.table

    def patiently(self, work: Callable[[], T]) -> Steps[T]:
        """See `Views.patiently`."""
        while True:
            self._is_patient = self._can_pause
            try:
                return work()
            except _MissingError as missing:
                instance = missing.instance
            finally:
                self._is_patient = False
            yield from self._make(instance)

    def _make(self, instance: _Instance) -> Steps[None]:
        """Run a view for the first time. Raises QueryError."""
        name = instance.shape.name
        try:
            rows = yield from self._rows_of(instance)
        except _FAILURES as error:
            raise QueryError(self._failed(name, error)) from error
        self._next_id += 1
        self._remember(instance, rows)

    def _check_arguments(self, asker: bytes) -> None:
        """Check that one more instance with arguments may be made. Raises QueryError."""
        if self._askers[asker] >= ARGUMENTS_A_CALLER_MAX:
            raise QueryError(
                f"you read views with {ARGUMENTS_A_CALLER_MAX} different arguments already; unsubscribe from some first"
            )
        if self._asked >= ARGUMENTS_MAX:
            raise QueryError(
                f"views of this database are read with {ARGUMENTS_MAX} different arguments already; try again later"
            )

    def hold(self, table: Table) -> None:
        """See `Views.hold`."""
        if table.schema.is_view:
            instance = self._by_id[table.schema.id]
            instance.holders += 1
            self._loose.pop(instance, None)

    def release(self, table: Table) -> None:
        """See `Views.release`."""
        instance = self._by_id.get(table.schema.id)
        if instance is not None:  # else it was forgotten: its view is no more
            instance.holders -= 1
            if not instance.holders:
                self._loose[instance] = None

    def sweep(self) -> None:
        """See `Views.sweep`."""
        for instance in list(self._loose):
            self._forget(instance)

    # After a change of rows.

    def refresh(self, changed: "list[TableDelta]") -> Steps[list[TableDelta]]:
        """Run again what a transaction concerns, right before it is committed; return how its rows changed.

        See `Datastore.refresh_views`, where this is while there are instances.
        """
        self.sweep()
        late, self._late = self._late, {}
        stale: Iterable[_Instance]
        if self._are_all_stale:
            self._are_all_stale = False
            stale = list(self._instances.values())
        else:
            stale = self._readers.concerned(changed)
            if late:
                stale = dict.fromkeys((*late, *stale))
        for rest in self._rests.values():
            rest.left -= 1
        found = yield from self._renew_all(stale)
        found.sort(key=lambda delta: delta.table.schema.id)
        return found

    def _renew_all(self, stale: "Iterable[_Instance]") -> Steps[list[TableDelta]]:
        """Run these again, for as long as there is time; return how their rows changed."""
        found = []
        left = REFRESH_SECONDS_MAX
        is_over = False
        awake = [name for name, rest in self._rests.items() if rest.left < 0]
        for instance in stale:
            rest = self._rests.get(instance.shape.name)
            if is_over or (rest is not None and rest.left >= 0):
                self._late[instance] = None
                continue
            delta, seconds = yield from self._timed(self._renew(instance))
            if delta is not None:
                found.append(delta)
            left -= seconds
            is_over = left <= 0
            yield
        for name in awake:
            if self._rests[name].left < 0 and not is_over:  # it kept its time
                del self._rests[name]
        self._end_failures()
        return found

    def _timed(self, steps: Steps[T]) -> Steps[tuple[T, float]]:
        """Do these; return their result, and how many seconds they took without what others did meanwhile."""
        seconds, began = 0.0, self._clock()
        try:
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    return end.value, seconds + self._clock() - began
                seconds += self._clock() - began
                yield
                began = self._clock()
        finally:
            steps.close()

    def _tell(self, name: str, error: BaseException) -> None:
        """Log that a view failed again, unless that was told of enough of its instances."""
        self._failures[name] += 1
        if self._failures[name] <= FAILURES_TOLD_MAX:
            self._failed(name, error)

    def _end_failures(self) -> None:
        """Log how many failures were not told."""
        for name, count in self._failures.items():
            if count > FAILURES_TOLD_MAX:
                self._failed(name, QueryError(f"the view failed for {count - FAILURES_TOLD_MAX} more of its readers"))
        self._failures.clear()

    def _tire(self, name: str, error: ReducerTimeout) -> None:
        """Let a view rest that ran out of time, twice as long as the last time."""
        rest = self._rests.get(name)
        if rest is None:
            rest = self._rests[name] = _Rest()
        else:
            rest.length *= 2
            rest.left = rest.length
        text = f"{error or 'the view ran too long and was stopped'}; its rows stay as they are for now"
        self._failed(name, ReducerTimeout(text))

    def _renew(self, instance: _Instance) -> Steps[TableDelta | None]:
        before = instance.reads
        try:
            rows = yield from self._rows_of(instance)
        except ReducerTimeout as error:
            self._tire(instance.shape.name, error)
            rows = instance.table.stored
        except _FAILURES as error:
            self._tell(instance.shape.name, error)
            rows = instance.table.stored
        self._readers.remove(instance, before)
        self._readers.add(instance, instance.reads)
        return _replaced(instance.table, rows)

    # Running.

    def _run_of(self, module: Module, position: int) -> _Run:
        """Return what runs a view: in steps, or in one go under the time limit."""
        if isinstance(module, Suspending):
            return module.view_steps(position)
        run = module.view(position)

        def run_at_once(call: ViewCall) -> Steps[list[bytes] | ViewSql]:
            yield from ()
            with self._limit(call.reads):
                return run(call)

        return run_at_once

    def _rows_of(self, instance: _Instance) -> "Steps[dict[Key, bytes]]":
        """Run a view; return its rows by their places. What it read is noted in the instance, also when it fails.

        Raises:
            One of _FAILURES.
        """
        instance.reads = reads = ReadSet()
        shape = instance.shape
        self._is_running = True
        try:
            result = yield from instance.run(ViewCall(instance.sender, instance.args, reads))
            if reads.expired:
                raise ReducerTimeout(f"the time limit of view `{shape.name}` has passed")
            is_query = isinstance(result, ViewSql)
            rows = (yield from self._query(result.text, shape, reads)) if isinstance(result, ViewSql) else result
        finally:
            self._is_running = False
        # the crate 1.12 gives a query the type of an optional row, however many it finds
        return (yield from _by_place(rows, instance, shape.is_optional and not is_query))

    def _query(self, text: str, shape: ViewShape, reads: ReadSet) -> Steps[list[bytes]]:
        if not text.strip():
            return []
        plan = compile_one_off(text, self._datastore, self._owner)
        if any(table.schema.id == ENVIRONMENT_TABLE_ID for branch in plan.branches for table in branch.tables):
            raise QueryError(f"the query of view `{shape.name}` reads st_env: a view reads its environment by name")
        if plan.table.schema.row_type != shape.row_type:
            raise QueryError(f"the query of view `{shape.name}` returns rows of another type: {text}")
        _note(plan, reads)
        rows: list[bytes] = []
        for batch in plan.batches(Work(VIEW_ROWS_MAX)):
            rows += batch
            yield
        return rows

    # Instances.

    def _schema(self, shape: ViewShape, table_id: int) -> TableSchema:
        definition = instance_table(shape)
        ids = (table_id,) * len(definition.indexes)
        return TableSchema(table_id, definition, ids, ids, shown_id=self._shown_ids[shape.name])

    def _remember(self, instance: _Instance, rows: "dict[Key, bytes]") -> None:
        for row in rows.values():
            instance.table.put(row)
        self._instances[instance.shape.name, instance.sender, instance.args] = instance
        self._by_id[instance.table.schema.id] = instance
        self._loose[instance] = None
        if instance.args:
            self._askers[instance.asker] += 1
            self._asked += 1
        self._readers.add(instance, instance.reads)
        self._datastore.refresh_views = self.refresh

    def _forget(self, instance: _Instance) -> None:
        del self._instances[instance.shape.name, instance.sender, instance.args]
        del self._by_id[instance.table.schema.id]
        self._loose.pop(instance, None)
        self._late.pop(instance, None)
        if instance.args:
            self._asked -= 1
            self._askers[instance.asker] -= 1
            if not self._askers[instance.asker]:
                del self._askers[instance.asker]
        self._readers.remove(instance, instance.reads)
        if not self._instances:
            self._datastore.refresh_views = None


def _by_place(rows: list[bytes], instance: _Instance, is_one: bool) -> "Steps[dict[Key, bytes]]":
    """Return the rows that a view returned by their places in its table; `is_one`: it is one row at most.

    Raises:
        QueryError: Two rows have one key, or there are several where one was promised.
    """
    name = instance.shape.name
    key_of = instance.table.key_of
    found: dict[Key, bytes] = {}
    for number, row in enumerate(rows, 1):
        place = key_of(row)
        if found.setdefault(place, row) != row:
            raise QueryError(f"view `{name}` returned two rows with one primary key")
        if number % BATCH == 0:
            yield
    if is_one and len(found) > 1:
        raise QueryError(f"view `{name}` returned {len(found)} rows, its type says one at most")
    return found


def _replaced(table: Table, rows: "dict[Key, bytes]") -> TableDelta | None:
    """Make these the rows of an instance; return what changed, None when nothing. Nothing of it is ever undone."""
    before = table.stored
    deletes = [(place, row) for place, row in before.items() if rows.get(place) != row]
    inserts = [row for place, row in rows.items() if before.get(place) != row]
    if not deletes and not inserts:
        return None
    for place, row in deletes:
        table.take(place, row)
    for row in inserts:
        table.put(row)
    return TableDelta(table, inserts, [row for _, row in deletes])


def _note(plan: QueryPlan, reads: ReadSet) -> None:
    """Note what a query reads: the keys of an index, where these are all, else whole tables."""
    for branch in plan.branches:
        looked_up = branch.looked_up if isinstance(branch, TablePlan) else None
        if looked_up is None:
            reads.tables.update(table.schema.id for table in branch.tables)
        else:
            index, keys = looked_up
            for key in keys:
                reads.add_key(plan.table.schema.id, index.id, key)
