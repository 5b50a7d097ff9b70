"""Statements: full SQL over HTTP, run in one database; changes commit the way reducers do.

Responsible for: what a statement may cost, the transaction of a change, the event its subscribers are told.
Not responsible for: the language (`stdb.sql`), connect and disconnect around a statement (`visits`), JSON.

A statement is an evaluation in steps. One that reads is given up when nobody waits for it any more; a change goes on to
its end, as a reducer does. Source: spec 06 section 4, spec 02 section 6.3, spec 05 section 1.3.24.
"""

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from stdb.actors.answers import SqlResult
from stdb.actors.pausing import while_wanted
from stdb.errors import QueryError, ReducerError
from stdb.sats.types import Product
from stdb.sql import (
    Caller,
    ChangeStatement,
    Language,
    SelectStatement,
    check_row_limit,
    compile_sql,
    compile_statements,
    work_of,
)
from stdb.sql.work import Steps, Work
from stdb.subscriptions.fragment import TransactionEvent

if TYPE_CHECKING:
    from stdb.datastore.datastore import Datastore
    from stdb.datastore.transaction import Delta, Transaction

__all__ = ["Statements"]

Result = TypeVar("Result")
_NO_COLUMNS = Product(())
_Statements: TypeAlias = list[SelectStatement | ChangeStatement]


class Statements:
    """Runs the SQL statements of one database. `publish` records what a transaction changed and tells its clients."""

    def __init__(
        self,
        datastore: "Datastore",
        owner: bytes,
        query_rows_max: int,
        now_us: Callable[[], int],
        publish: "Callable[[Delta, TransactionEvent], Any]",
    ) -> None:
        self._datastore = datastore
        self._owner = owner
        self._query_rows_max = query_rows_max
        self._now_us = now_us
        self._publish = publish

    def run(self, caller: bytes, text: str, is_wanted: Callable[[], bool]) -> Steps[SqlResult]:
        """Run one statement.

        Raises:
            QueryError: It is wrong, not for this caller, or costs too much; nothing was changed.
            UnwantedError: It reads, and nobody wants the result any more.
        """
        started = perf_counter()
        asking = Caller(caller, caller == self._owner)
        statement = yield from self._compiled(text, asking)
        work = work_of(asking, self._query_rows_max)
        if isinstance(statement, ChangeStatement):
            stats = yield from self._in_transaction(caller, lambda transaction: statement.steps(transaction, work))
            return SqlResult(_NO_COLUMNS, [], _micros_since(started), *stats)
        try:
            check_row_limit([statement], self._datastore, asking)
            row_type, rows, _ = yield from while_wanted(statement.steps(work), is_wanted)
        finally:
            self._sweep()
        return SqlResult(row_type, rows, _micros_since(started))

    def run_all(
        self, caller: bytes, text: str, language: Language, is_wanted: Callable[[], bool]
    ) -> Steps[list[SqlResult]]:
        """Run any number of statements, in one transaction where one changes something; return what the SELECTs read.

        Raises:
            QueryError: One is wrong, not for this caller, or they cost too much; nothing was changed.
            UnwantedError: All of them read, and nobody wants the results any more.
        """
        asking = Caller(caller, caller == self._owner, language)
        statements: _Statements = yield from self._patiently(lambda: compile_statements(text, self._datastore, asking))
        work = work_of(asking, self._query_rows_max)
        if any(isinstance(statement, ChangeStatement) for statement in statements):
            return (yield from self._in_transaction(caller, lambda open_: _all_steps(statements, open_, work)))
        try:
            reading = [statement for statement in statements if isinstance(statement, SelectStatement)]
            check_row_limit(reading, self._datastore, asking)
            return (yield from while_wanted(_all_steps(statements, None, work), is_wanted))
        finally:
            self._sweep()

    def _in_transaction(self, caller: bytes, steps: "Callable[[Transaction], Steps[Result]]") -> Steps[Result]:
        """Run changes in a transaction of their own, of which subscribers are told."""
        started = perf_counter()
        now_us = self._now_us()
        transaction = self._datastore.begin(now_us)
        try:
            result = yield from steps(transaction)
            delta = yield from transaction.commit_in_steps()
        except (QueryError, ReducerError) as error:
            transaction.rollback()
            raise QueryError(str(error)) from error
        yield  # to net, record and tell very many rows takes long, each for itself
        if delta is not None:
            needs, duration_us = self._datastore.next_offset, _micros_since(started)
            self._publish(delta, TransactionEvent(caller, None, now_us, needs=needs, duration_us=duration_us))
        return result

    def _compiled(self, text: str, asking: Caller) -> Steps[SelectStatement | ChangeStatement]:
        """Compile a statement; views that it is the first to read may pause."""
        return (yield from self._patiently(lambda: compile_sql(text, self._datastore, asking)))

    def _patiently(self, compiled: Callable[[], Result]) -> Steps[Result]:
        views = self._datastore.views
        if views is None:
            return compiled()
        return (yield from views.patiently(compiled))

    def _sweep(self) -> None:
        """Forget what the statement alone read of views."""
        if self._datastore.views is not None:
            self._datastore.views.sweep()


def _all_steps(statements: _Statements, transaction: "Transaction | None", work: Work) -> Steps[list[SqlResult]]:
    """Run statements in turn; return what the SELECTs read. Without a transaction none of them changes anything."""
    results = []
    for statement in statements:
        if isinstance(statement, SelectStatement):
            started = perf_counter()
            row_type, rows, _ = yield from statement.steps(work)
            results.append(SqlResult(row_type, rows, _micros_since(started)))
        else:
            assert transaction is not None, "somebody who changes something has a transaction"
            yield from statement.steps(transaction, work)
    return results


def _micros_since(started: float) -> int:
    return int((perf_counter() - started) * 1e6)
