"""Events: what the protocols of 0.11 and older have in common, above the layout of messages.

Responsible for: who is told what (spec 03 sections 6 and 7), names of reducers, arguments in the forms of those
clients, rows merged by table, each told once, counted where a row may come from more than one place.
Not responsible for: the bytes and texts of messages (one dialect a file), requests (`requests`), words of refusals
(`texts`).

A client of that generation keeps its rows as a set: a row must come once and go once, however many queries or partners
of a join it has. Where that can be more than one, its dialect counts them. What is told to many is merged once and kept
in the update's cache under "legacy".
"""

import re
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from stdb.actors.long_calls import NO_REDUCER
from stdb.actors.requests import (
    CallProcedure,
    CallReducer,
    OneOffQuery,
    OneOffStatements,
    Subscribe,
    SubscribeBatch,
    Unsubscribe,
)
from stdb.actors.sink import OutcomeKind, ProcedureResult, ReducerOutcome
from stdb.errors import DecodeError
from stdb.net.outbox import Outbox
from stdb.net.protocols.dialect import ConnectionOptions, Dialect, Manners
from stdb.net.protocols.legacy import texts
from stdb.net.protocols.legacy.requests import Arguments
from stdb.net.protocols.legacy.translation import ArgumentForms, RowForms, argument_forms, row_forms
from stdb.net.protocols.rows import pieces_of
from stdb.sats import json
from stdb.schema.legacy import is_reserved, legacy_face
from stdb.schema.model import ModuleDef
from stdb.sql import OLD, RowShape
from stdb.subscriptions.fragment import ClientUpdate, Fragment, TransactionEvent

__all__ = ["Legacy", "TableRows", "ToldCall"]

_NO_ADDRESS = bytes(16)
_NO_ARGUMENTS = "[]"

_LISTED = re.compile(r'\s*SELECT\s+"?(\w+)"?\s*\.\s*\*\s+FROM\s+"?\w+"?\s*(?:WHERE\b|;|$)', re.IGNORECASE)
"""All columns of a table by its name, without a join."""
_Key: TypeAlias = tuple[str, RowForms]
"""A table, and what its rows look like: lists of columns make others of them."""


class ToldCall:
    """What is told of the call that a transaction came from."""

    __slots__ = (
        "_event",
        "_forms",
        "_text",
        "address",
        "caller",
        "duration_us",
        "energy",
        "reducer",
        "reducer_id",
        "request_id",
        "timestamp_us",
    )  # fmt: skip

    def __init__(
        self,
        event: TransactionEvent,
        reducer: str,
        reducer_id: int,
        forms: ArgumentForms | None,
        text: str | None = None,
    ) -> None:
        self._event = event
        self._forms = forms
        self._text = text
        self.caller = event.caller
        self.address = event.caller_connection_id or _NO_ADDRESS
        self.timestamp_us = event.timestamp_us
        self.reducer = reducer
        self.reducer_id = reducer_id
        self.request_id = event.request_id
        self.energy = event.energy
        self.duration_us = event.duration_us

    def data(self) -> bytes:
        """Return the arguments as BSATN."""
        return b"" if self._forms is None else self._forms.to_old(self._event.args)

    def array(self) -> str:
        """Return the arguments as a JSON array, whatever form they came in; of a refused call its own array."""
        if self._forms is None:
            return self._text or _NO_ARGUMENTS
        return self._forms.positional(self._event.args)

    def text(self) -> str:
        """Return the arguments as the caller wrote them in JSON, else as a JSON array."""
        if self._forms is None:
            return _NO_ARGUMENTS
        written = self._event.args_json
        return self._forms.positional(self._event.args) if written is None else written


class TableRows(NamedTuple):
    """What a client is told of one table. `source` is the fragment that holds these very rows, where it is one."""

    id: int
    name: str
    deletes: Sequence[bytes]
    inserts: Sequence[bytes]
    forms: RowForms
    source: Fragment | None
    is_listed: bool = False
    """The columns were asked for: by name, or as `table.*` without a join."""

    def pieces(self, rows: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        """Return some of these rows as those clients have them, in pieces, as `rows` says."""
        pieces, to_old = pieces_of(rows), self.forms.to_old
        return pieces if to_old is None else (list(map(to_old, piece)) for piece in pieces)

    def cached(self, key: str, encode: "Callable[[TableRows], bytes]") -> bytes:
        """Return what `encode` makes of these rows, once for everybody who sees them."""
        if self.source is None:
            return encode(self)
        encoded = self.source.cache.get(key)
        if encoded is None:
            encoded = self.source.cache[key] = encode(self)
        return encoded


class Legacy(Dialect):
    """One client of 0.11 or older."""

    __slots__ = ("_connection_id", "_counts", "_identity")
    CONFIRMED_BY_DEFAULT = False
    MANNERS = Manners(ping_seconds=60.0, cuts_bad_frames=True)
    language = OLD

    def __init__(self, outbox: Outbox, options: ConnectionOptions, definition: Callable[[], ModuleDef]) -> None:
        super().__init__(outbox, options, definition)
        self._identity = self._connection_id = b""
        self._counts: dict[_Key, Counter[bytes]] | None = None
        """How often the client's queries return each row of each table; None where none returns a row twice."""

    def close(self, code: int | None, reason: str) -> None:
        """Close as every dialect; who is refused by the module before the first message is told why."""
        super().close(1008 if code is None and not self._identity else code, reason)

    # ------------------------------------------------------------------ calls
    def initial_connection(self, identity: bytes, connection_id: bytes, token: str) -> None:
        """Queue the first message."""
        self._identity, self._connection_id = identity, connection_id
        self._append((0, self._identity_token(identity, connection_id, token)))

    def reducer_result(
        self, call: CallReducer, outcome: ReducerOutcome, event: TransactionEvent, update: ClientUpdate | None
    ) -> None:
        """Answer the caller: with its rows, were it none, or with why the call failed; then the request id is 0."""
        if outcome.kind == OutcomeKind.COMMITTED:
            self._answer_committed(event, update)
        elif outcome.kind == OutcomeKind.NOT_RUN:
            self._append((0, self._failed(self._refused(call, event), texts.of_refused_call(call, outcome))))
        else:
            told = self._told(event)
            told.request_id = 0
            out_of_time = outcome.kind == OutcomeKind.OUT_OF_TIME
            frame = self._out_of_energy(told) if out_of_time else self._failed(told, texts.of_failed_call(outcome))
            self._append((self._needs(event.needs), frame))

    def _answer_committed(self, event: TransactionEvent, update: ClientUpdate | None) -> None:
        if update is not None and self._counts is None:
            self.update(event, update)
            return
        tables = [] if update is None else self._counted(update)
        self._append((self._needs(event.needs), self._committed(self._told(event), tables)))

    def _told(self, event: TransactionEvent) -> ToldCall:
        """Return what is told of a transaction: reducers by their names of that time, other things without one."""
        definition, reducer_id, name = self._definition(), event.reducer_id, event.reducer_name
        if reducer_id >= len(definition.reducers) or definition.reducers[reducer_id].name != name:
            return ToldCall(event, name if is_reserved(name) else "", NO_REDUCER, None)
        forms = argument_forms(definition.reducers[reducer_id].params, definition.typespace)
        return ToldCall(event, legacy_face(definition).lifecycles.get(reducer_id, name), reducer_id, forms)

    def _refused(self, call: CallReducer, event: TransactionEvent) -> ToldCall:
        """Return what is told of a call that was not run: its name as the client said it, no arguments, no cost."""
        assert isinstance(call.args, Arguments)
        definition = self._definition()
        name = call.args.reducer
        reducer_id = definition.reducer_id(name)
        if is_reserved(name):
            lifecycles = legacy_face(definition).lifecycles
            reducer_id = next((i for i, reserved in lifecycles.items() if reserved == name), None)
        bare = TransactionEvent(event.caller, event.caller_connection_id, event.timestamp_us)
        return ToldCall(bare, name, NO_REDUCER if reducer_id is None else reducer_id, None, _array_of(call.args.text))

    def procedure_error(self, call: CallProcedure, text: str) -> None:
        """Refuse: those clients know no procedures, so none can have been called."""
        raise AssertionError(f"0.11 has no procedures (request {call.request_id})")

    def procedure_out_of_time(self, call: CallProcedure) -> None:
        """Refuse: as `procedure_error`."""
        raise AssertionError(f"0.11 has no procedures (request {call.request_id})")

    def procedure_result(self, call: CallProcedure, result: ProcedureResult, needs: int) -> None:
        """Refuse: as `procedure_error`."""
        raise AssertionError(f"0.11 has no procedures (request {call.request_id})")

    # ------------------------------------------------------------------ subscriptions
    def subscribe_applied(self, request: Subscribe, rows: Sequence[Fragment], needs: int, duration_us: int) -> None:
        """Answer a subscription with all its rows: one entry per table that has any, each row once."""
        is_counted = _may_repeat(request.queries, self._definition())
        self._counts = _counts_of(rows) if is_counted else None

        def encode() -> Iterator[bytes]:
            tables = [_initial(group, request.queries, is_counted=is_counted) for group in _groups(rows)]
            return self._subscribed(request.request_id, [table for table in tables if table.inserts], duration_us)

        self._queue_rows(needs, rows, encode)

    def subscription_error(self, request: Subscribe | Unsubscribe, text: str, duration_us: int) -> None:
        """Answer a subscription that failed; the one before stays."""
        event = TransactionEvent(self._identity, self._connection_id, time.time_ns() // 1000)
        told = ToldCall(event, "<none>", NO_REDUCER, None)
        self._append((0, self._failed(told, texts.of_subscription(text, self._definition()))))

    def subscribe_batch_applied(
        self, request: SubscribeBatch, results: Sequence[tuple[int, Sequence[Fragment] | str]], needs: int
    ) -> None:
        """Refuse: those clients replace their one set, so none can have asked."""
        raise AssertionError(f"0.11 has no SubscribeBatch (request {request.request_id})")

    def unsubscribe_applied(
        self, request: Unsubscribe, rows: Sequence[Fragment] | None, needs: int, duration_us: int
    ) -> None:
        """Refuse: as `subscribe_batch_applied`."""
        raise AssertionError(f"0.11 has no Unsubscribe (request {request.request_id})")

    def one_off_result(self, request: OneOffQuery, result: Fragment | str, needs: int, duration_us: int) -> None:
        """Refuse: their one-off queries are statements."""
        raise AssertionError(f"0.11 has no OneOffQuery of one query (request {request.request_id!r})")

    def one_off_results(
        self, request: OneOffStatements, results: Sequence[Fragment] | str, needs: int, duration_us: int
    ) -> None:
        """Answer statements with one table each, or with an error text."""
        if isinstance(results, str):
            text = texts.of_one_off(results, self._definition())
            self._append((0, self._frame(b"".join(self._one_off(request.request_id, text, (), duration_us)))))
            return
        self._queue_rows(
            needs, results, lambda: self._one_off(request.request_id, None, map(_result, results), duration_us)
        )

    # ------------------------------------------------------------------ updates
    def update(self, event: TransactionEvent, update: ClientUpdate) -> None:
        """Tell of a transaction that this client did not call, or of one that it called."""
        if self._counts is None:
            super().update(event, update)
        elif tables := self._counted(update):
            self._append((self._needs(event.needs), self._committed(self._told(event), tables)))

    def update_at_once(self, event: TransactionEvent, update: ClientUpdate, durable: int) -> bool:
        """Do what `update` and then `flush` do."""
        if self._counts is None:
            return super().update_at_once(event, update, durable)
        self.update(event, update)
        return self.outbox.flush(durable)

    def _update_frame(self, event: TransactionEvent, update: ClientUpdate) -> bytes:
        return self._committed(self._told(event), _merged(update))

    def _counted(self, update: ClientUpdate) -> list[TableRows]:
        """Count what an update brings and takes away; return the rows that came or went altogether."""
        assert self._counts is not None
        tables = []
        for group in _groups(fragment for one in update.sets for fragment in one.fragments):
            first = group[0]
            deletes, inserts = _count(self._counts.setdefault(_key(first), Counter()), group)
            if deletes or inserts:
                tables.append(TableRows(first.table_id, first.table_name, deletes, inserts, _forms(first), None))
        return tables

    # ------------------------------------------------------------------ messages
    @abstractmethod
    def _identity_token(self, identity: bytes, connection_id: bytes, token: str) -> bytes:
        """Return the frame of the first message."""

    @abstractmethod
    def _committed(self, told: ToldCall, tables: Sequence[TableRows]) -> bytes:
        """Return the frame of a transaction with its rows."""

    @abstractmethod
    def _failed(self, told: ToldCall, text: str) -> bytes:
        """Return the frame of a transaction that failed."""

    @abstractmethod
    def _out_of_energy(self, told: ToldCall) -> bytes:
        """Return the frame of a transaction that was stopped."""

    @abstractmethod
    def _subscribed(self, request_id: int, tables: Sequence[TableRows], duration_us: int) -> Iterator[bytes]:
        """Yield the answer to a subscription; rows in pieces, as `rows` says."""

    @abstractmethod
    def _one_off(
        self, message_id: bytes, error: str | None, tables: Iterable[TableRows], duration_us: int
    ) -> Iterator[bytes]:
        """Yield the answer to statements."""


def _forms(fragment: Fragment) -> RowForms:
    return row_forms(fragment.columns.row_type)


def _key(fragment: Fragment) -> _Key:
    return fragment.table_name, _forms(fragment)


def _groups(fragments: Iterable[Fragment]) -> Iterable[list[Fragment]]:
    """Return the fragments of each table and list of columns, in the order they first appear."""
    groups: dict[_Key, list[Fragment]] = {}
    for fragment in fragments:
        groups.setdefault(_key(fragment), []).append(fragment)
    return groups.values()


def _merged(update: ClientUpdate) -> list[TableRows]:
    """Return an update by table, each row once, kept with the update for all who see it."""
    tables: list[TableRows] | None = update.cache.get("legacy")
    if tables is None:
        groups = _groups(fragment for one in update.sets for fragment in one.fragments)
        tables = [table for group in groups if (table := _table(group)).deletes or table.inserts]
        update.cache["legacy"] = tables
    return tables


def _table(group: Sequence[Fragment]) -> TableRows:
    """Return the changes of one table: no row twice, none that comes and goes."""
    first = group[0]
    if len(group) == 1:
        return TableRows(first.table_id, first.table_name, first.deletes, first.inserts, _forms(first), first)
    deletes = dict.fromkeys(row for fragment in group for row in fragment.deletes)
    inserts = dict.fromkeys(row for fragment in group for row in fragment.inserts)
    for row in deletes.keys() & inserts.keys():
        del deletes[row], inserts[row]
    return TableRows(first.table_id, first.table_name, list(deletes), list(inserts), _forms(first), None)


def _initial(group: Sequence[Fragment], queries: Iterable[str], *, is_counted: bool) -> TableRows:
    """Return the rows of one table, each once; in steps, since there may be many (`rows`)."""
    first = group[0]
    rows: Sequence[bytes] = first.inserts
    if is_counted or len(group) > 1:
        distinct: dict[bytes, None] = {}
        for fragment in group:
            for piece in pieces_of(fragment.inserts):
                distinct.update(dict.fromkeys(piece))
        rows = list(distinct)
    named = (_LISTED.match(text) for text in queries)
    is_listed = isinstance(first.columns, RowShape) or any(found and found[1] == first.table_name for found in named)
    return TableRows(first.table_id, first.table_name, (), rows, _forms(first), None, is_listed)


def _result(fragment: Fragment) -> TableRows:
    """Return the rows of a statement as they are: they are no set."""
    return TableRows(fragment.table_id, fragment.table_name, (), fragment.inserts, _forms(fragment), None)


def _may_repeat(queries: Iterable[str], definition: ModuleDef) -> bool:
    """Tell whether queries may return a row more than once, or lose it while another still returns it.

    Joins do, rules for rows may be joins, and lists of columns make equal rows of different ones. A word too many in a
    text costs some memory, no row.
    """
    if definition.row_level_security:
        return True
    return any("join" in text.lower() or "*" not in text for text in queries)


def _counts_of(rows: Iterable[Fragment]) -> "dict[_Key, Counter[bytes]]":
    counts: dict[_Key, Counter[bytes]] = {}
    for fragment in rows:
        counter = counts.setdefault(_key(fragment), Counter())
        for piece in pieces_of(fragment.inserts):
            counter.update(piece)
    return counts


def _count(counts: "Counter[bytes]", group: Iterable[Fragment]) -> tuple[list[bytes], list[bytes]]:
    """Take changes into `counts`; return the rows whose count has reached or left zero: those that go, that come."""
    changed: Counter[bytes] = Counter()
    for fragment in group:
        changed.subtract(fragment.deletes)
        changed.update(fragment.inserts)
    deletes, inserts = [], []
    for row, step in changed.items():
        before = counts[row]
        after = before + step
        if after:
            counts[row] = after
        else:
            counts.pop(row, None)
        if after and not before:
            inserts.append(row)
        elif before and not after:
            deletes.append(row)
    return deletes, inserts


def _array_of(text: str | None) -> str | None:
    """Return the arguments of a refused call where they are a JSON array: the Python SDK fails at an empty one."""
    if text is None:
        return None
    try:
        return text.strip() if isinstance(json.parse(text), list) else None
    except DecodeError:
        return None
