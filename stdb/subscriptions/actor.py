"""SubscriptionActor: what one client connection holds, and what it is told when that changes.

Responsible for: query sets, v1 Single, Multi and legacy subscriptions, their reference counts, their error texts,
initial and dropped rows.
Not responsible for: who sees what of a transaction (`registry`), the messages (`stdb.net.protocols`), when to call
(the DatabaseActor drives it inside its own turn, between two transactions; spec 06 section 5.4).

What reads rows is an evaluation in steps (`stdb.sql.work`): nothing may change the tables or this client's holdings
until it is through. It checks first, then reads, then registers: it raises QueryError, or is dropped half-way, and
changed nothing, or it does all it says. The text of a QueryError is what the client is told.

Source: spec 02 sections 6.3, 8.3, 10.4; spec 09 section 2.1; spec 06 section 3.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from stdb.errors import QueryError
from stdb.sats import bsatn
from stdb.sql import (
    PLAIN,
    QUERY_ROWS_MAX,
    Caller,
    Language,
    RowShape,
    check_row_limit,
    compile_reading,
    is_subscribe_to_all,
    quote_name,
    readable_names,
    work_of,
)
from stdb.sql.work import Steps, Work
from stdb.subscriptions.fragment import Fragment
from stdb.subscriptions.registry import COUNTED, LEGACY, HeldQuery

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stdb.subscriptions.registry import Registry

__all__ = ["EVENT_TABLE_TEXT", "SubscriptionActor"]

EVENT_TABLE_TEXT = (
    "Subscribing to event tables requires WebSocket v2. "
    "Please upgrade your client SDK and regenerate your module bindings."
)

_ENCODED_AT_ONCE = 4_096
"""Rows of a statement that are encoded before others may run."""
_SMALL_BYTES, _LOOKED_AT_EVERY = 512, 20
"""A batch is taken for one of small rows when each of these is small."""


class _Held(NamedTuple):
    """One subscription of this client. `label` is where the registry knows its queries."""

    label: int
    queries: "Sequence[HeldQuery]"


class SubscriptionActor:
    """The subscriptions of one client connection; nobody else decides what that client sees.

    `identity` and `connection_id` are little-endian bytes; `sink` is what the database actor tells the client through
    and means nothing here. `rows_max` bounds the rows that one join or one one-off query of the owner visits and
    returns, a tenth of it those of others; the initial rows of a single table are bounded by the registry's
    `initial_bytes_max` alone. `language` is what its queries are written in.
    """

    __slots__ = ("_counts", "_legacy", "_sets", "caller", "connection_id", "registry", "rows_max", "sink")

    def __init__(
        self,
        registry: "Registry",
        identity: bytes,
        connection_id: bytes = bytes(16),
        sink: Any = None,
        *,
        rows_max: int = QUERY_ROWS_MAX,
        language: Language = PLAIN,
    ) -> None:
        self.registry = registry
        self.caller = Caller(identity, identity == registry.owner, language)
        self.connection_id = connection_id
        self.sink = sink
        self.rows_max = rows_max
        self._sets: dict[int, _Held] = {}
        self._legacy: Sequence[HeldQuery] = ()
        self._counts: dict[HeldQuery, int] = {}

    # Query sets (v2, v3).

    def subscribe_set(self, query_set_id: int, texts: "Iterable[str]") -> Steps[list[Fragment]]:
        """Open a query set; return its initial rows as inserts, one fragment per query over a non-empty table.

        Raises:
            QueryError: A text that does not compile, an id in use, too many rows. Nothing is registered.
        """
        return self._subscribe_set(query_set_id, texts, self._room())

    def subscribe_batch(
        self, sets: "Iterable[tuple[int, Iterable[str]]]"
    ) -> Steps[list[tuple[int, list[Fragment] | str]]]:
        """Open several query sets; return per set its id and its rows, or the text of its error."""
        results: list[tuple[int, list[Fragment] | str]] = []
        room = self._room()
        for query_set_id, texts in sets:
            taken = room.taken
            try:
                rows = yield from self._subscribe_set(query_set_id, texts, room)
                results.append((query_set_id, rows))
            except QueryError as error:
                room.taken = taken
                results.append((query_set_id, str(error)))
                yield  # a view that failed may have had all of its time
        return results

    def unsubscribe_set(self, query_set_id: int, *, send_dropped_rows: bool = True) -> Steps[list[Fragment] | None]:
        """Close a query set; return its current rows as deletes (event tables not at all), None when not wanted.

        Raises:
            QueryError: No such set; or a join of it returns too many rows by now, then the set stays.
        """
        held = self._held(query_set_id)
        rows = (yield from self._dropped(held.queries)) if send_dropped_rows else None
        self._close(query_set_id, held)
        return rows

    # v1 Single and Multi: queries counted per connection.

    def subscribe_single(self, query_id: int, text: str) -> Steps[Fragment]:
        """Hold one query; return its rows as inserts, none when this connection holds the query already.

        Raises:
            QueryError: The text does not compile, reads an event table, an id in use, too many rows.
        """
        query = yield from self._find(text, text)
        self._refuse_events((query,))
        self._refuse_known(query_id)
        rows: list[bytes] = []
        if query not in self._counts:
            self._check_row_limit([query], f", executing: `{text}`")
            (rows,) = yield from self._rows([query], self._room())
        self._count(query_id, (query,))
        return query.fragment(rows, [])

    def subscribe_multi(self, query_id: int, texts: "Iterable[str]") -> Steps[list[Fragment]]:
        """Hold several queries; return the rows of those that this connection did not hold yet, as inserts.

        Raises:
            QueryError: As `subscribe_single`; one bad query fails all.
        """
        queries = yield from self._find_all(texts)
        self._refuse_events(queries)
        self._refuse_known(query_id)
        rows = yield from self._initial([query for query in queries if query not in self._counts], self._room())
        self._count(query_id, queries)
        return rows

    def unsubscribe_single(self, query_id: int) -> Steps[Fragment]:
        """End a subscription of one query; return its rows as deletes, none when another id still holds the query.

        Raises:
            QueryError: No such id; or it holds not exactly one query, or a join with too many rows (then it stays).
        """
        held = self._held(query_id)
        if len(held.queries) != 1:
            raise QueryError("Internal error")
        (query,) = held.queries
        rows: list[bytes] = []
        if not self._stays(query):
            (rows,) = yield from self._rows([query], self._room_to_drop([query]))
        self._close(query_id, held)
        return query.fragment([], rows)

    def unsubscribe_multi(self, query_id: int) -> Steps[list[Fragment]]:
        """End a subscription; return the rows of the queries that no other id holds, as deletes.

        Raises:
            QueryError: No such id; or a join returns too many rows by now, then the subscription stays.
        """
        held = self._held(query_id)
        rows = yield from self._dropped([query for query in held.queries if not self._stays(query)])
        self._close(query_id, held)
        return rows

    # The legacy set of v1.

    def replace_legacy(self, texts: "Iterable[str]") -> Steps[list[Fragment]]:
        """Replace the legacy set; return all rows of the new one as inserts.

        Raises:
            QueryError: A text that does not compile, too many rows. The old set stays in force.
        """
        queries = yield from self._find_all(texts)
        rows = yield from self._initial(queries, self._room())
        self._replace_legacy(queries)
        return rows

    # The rest.

    def one_off(self, text: str) -> Steps[Fragment]:
        """Evaluate one query now; return its rows as inserts.

        Raises:
            QueryError: The text does not compile, or reads more than `rows_max` rows.
        """
        plan = yield from self.registry.patiently(lambda: self.registry.one_off(text, self.caller))
        check_row_limit([plan], self.registry.datastore, self.caller)
        rows: list[bytes] = []
        for batch in plan.batches(work_of(self.caller, self.rows_max)):
            rows += batch
            yield
        schema = plan.table.schema
        return Fragment(schema.shown_id, schema.name, schema, rows, [], schema.definition.is_event)

    def one_off_statements(self, text: str) -> Steps[list[Fragment]]:
        """Evaluate any number of SELECTs of full SQL now; return the rows of each as inserts, a bag.

        Raises:
            QueryError: One does not compile or is no SELECT, or one reads more than `rows_max` rows.
        """
        datastore = self.registry.datastore
        try:
            statements = yield from self.registry.patiently(lambda: compile_reading(text, datastore, self.caller))
        except QueryError as error:
            raise QueryError(f"{error}, executing: `{text}`") from error
        check_row_limit(statements, datastore, self.caller)
        results = []
        for statement in statements:
            row_type, values, _ = yield from statement.steps(work_of(self.caller, self.rows_max))
            shape = RowShape(row_type, bsatn.codec(row_type))
            rows: list[bytes] = []
            for start in range(0, len(values), _ENCODED_AT_ONCE):
                rows += map(shape.codec.encode, values[start : start + _ENCODED_AT_ONCE])
                yield
            schema = statement.table.schema
            results.append(Fragment(schema.shown_id, schema.name, shape, rows, []))
        return results

    def close(self) -> None:
        """Let go of everything; the client is gone."""
        self._replace_legacy(())
        for query_id in list(self._sets):
            self._close(query_id, self._sets[query_id])

    def holdings(self) -> "list[tuple[int, Sequence[HeldQuery]]]":
        """Return each label and its queries in order, one entry per set: what this client sees."""
        counted = [(COUNTED, list(self._counts))] if self._counts else []
        sets = [(held.label, held.queries) for _, held in sorted(self._sets.items()) if held.label >= 0]
        return [(LEGACY, self._legacy), *counted, *sets]

    # Helpers.

    def _find(self, text: str, told: str) -> Steps[HeldQuery]:
        """Return the query of `text`; `told` is the text as an error repeats it."""
        if not text.strip():
            raise QueryError(f"SubscriptionError: Empty string, executing: `{told}`")
        try:
            return (yield from self.registry.patiently(lambda: self.registry.find(text, self.caller)))
        except QueryError as error:
            raise QueryError(f"{error}, executing: `{told}`") from error

    def _find_all(self, texts: "Iterable[str]") -> Steps[list[HeldQuery]]:
        """Return the distinct queries of a request in order; `SELECT * FROM *` stands for one per readable table.

        Each may run a view of a module, which may take as long as a reducer.
        """
        found: dict[str, HeldQuery] = {}
        for text in texts:
            trimmed = text.strip()
            for each in self._expand(trimmed):
                if each not in found:
                    found[each] = yield from self._find(each, each)
                    yield
        return list(found.values())

    def _expand(self, text: str) -> list[str]:
        if not is_subscribe_to_all(text):
            return [text]
        names = readable_names(self.registry.datastore, self.caller)
        return [f"SELECT * FROM {quote_name(name)}" for name in names]

    def _refuse_known(self, query_id: int) -> None:
        if query_id in self._sets:
            raise QueryError(
                f"Subscription with id QuerySetId {{ id: {query_id} }} already exists for client: {self._client()}"
            )

    def _refuse_events(self, queries: "Iterable[HeldQuery]") -> None:
        if any(query.plan.reads_events for query in queries):
            raise QueryError(EVENT_TABLE_TEXT)

    def _held(self, query_id: int) -> _Held:
        held = self._sets.get(query_id)
        if held is None:
            raise QueryError(f"Subscription not found: ({self._client()}, QuerySetId {{ id: {query_id} }})")
        return held

    def _client(self) -> str:
        identity, connection_id = self.caller.identity[::-1].hex(), self.connection_id[::-1].hex()
        return f"(Identity({identity}), ConnectionId({connection_id}))"

    def _subscribe_set(self, query_set_id: int, texts: "Iterable[str]", room: "_Room") -> Steps[list[Fragment]]:
        queries = yield from self._find_all(texts)
        self._refuse_known(query_set_id)
        rows = yield from self._initial(queries, room)
        self._sets[query_set_id] = _Held(query_set_id, queries)
        for query in queries:
            self.registry.hold(query, self, query_set_id)
        return rows

    def _replace_legacy(self, queries: "Sequence[HeldQuery]") -> None:
        wanted, before = set(queries), set(self._legacy)
        for query in queries:
            if query not in before:
                self.registry.hold(query, self, LEGACY)
        for query in self._legacy:
            if query not in wanted:
                self.registry.release(query, self, LEGACY)
        self._legacy = queries

    def _room(self) -> "_Room":
        """Return room for the rows of one answer."""
        return _Room(self.registry.initial_bytes_max)

    def _room_to_drop(self, queries: "Iterable[HeldQuery]") -> "_Room":
        """Return room for rows that leave: what a client may hold without bound (a table that grew) may leave so."""
        return self._room() if any(map(_is_join, queries)) else _Room(None)

    def _initial(self, queries: "Sequence[HeldQuery]", room: "_Room") -> Steps[list[Fragment]]:
        """Return the rows of queries as inserts; those over an empty table are left out (spec 02 section 6.3)."""
        self._check_row_limit(queries)
        queries = [query for query in queries if not query.plan.reads_empty_table]
        captured = yield from self._rows(queries, room)
        return [query.fragment(rows, []) for query, rows in zip(queries, captured, strict=True)]

    def _dropped(self, queries: "Iterable[HeldQuery]") -> Steps[list[Fragment]]:
        """Return the rows of queries as deletes; those over an empty table are left out."""
        queries = [query for query in queries if not query.plan.reads_empty_table]
        captured = yield from self._rows(queries, self._room_to_drop(queries))
        return [query.fragment([], rows) for query, rows in zip(queries, captured, strict=True)]

    def _rows(self, queries: "Sequence[HeldQuery]", room: "_Room") -> Steps[list[list[bytes]]]:
        """Return the rows of each query, references only.

        Raises:
            QueryError: All together are more bytes than there is room for, or a join visits too many rows.
        """
        captured: list[list[bytes]] = []
        for query in queries:
            rows: list[bytes] = []
            captured.append(rows)
            size: int | None = query.plan.table.schema.codec.fixed_size
            for batch in query.plan.batches(work_of(self.caller, self.rows_max) if _is_join(query) else Work()):
                rows += batch
                room.taken += _bytes_of(batch) if size is None else size * len(batch)
                if room.bytes_max is not None and room.taken > room.bytes_max:
                    raise room.refusal(queries, captured)
                yield
        return captured

    def _check_row_limit(self, queries: "Iterable[HeldQuery]", suffix: str = "") -> None:
        """Check what is not held by anybody yet; what is costs nothing more."""
        fresh = [query.plan for query in queries if not self.registry.is_held(query)]
        check_row_limit(fresh, self.registry.datastore, self.caller, suffix)

    def _count(self, query_id: int, queries: "Sequence[HeldQuery]") -> None:
        self._sets[query_id] = _Held(COUNTED, queries)
        for query in queries:
            count = self._counts.get(query, 0)
            if not count:
                self.registry.hold(query, self, COUNTED)
            self._counts[query] = count + 1

    def _stays(self, query: HeldQuery) -> bool:
        return self._counts[query] > 1

    def _close(self, query_id: int, held: _Held) -> None:
        del self._sets[query_id]
        for query in held.queries:
            if held.label == COUNTED:
                self._counts[query] -= 1
                if self._counts[query]:
                    continue
                del self._counts[query]
            self.registry.release(query, self, held.label)


class _Room:
    """How many bytes the rows of one answer have and may have; `bytes_max` None: as many as they are."""

    __slots__ = ("bytes_max", "taken")

    def __init__(self, bytes_max: int | None) -> None:
        self.bytes_max = bytes_max
        self.taken = 0

    def refusal(self, queries: "Sequence[HeldQuery]", captured: "Sequence[Sequence[bytes]]") -> QueryError:
        """Return what a client is told whose rows did not fit; the last of `captured` was not read to its end."""
        *whole, last = zip(queries, captured, strict=False)
        counts = [f"`{query.text}`: {len(rows)} rows" for query, rows in whole]
        counts.append(f"`{last[0].text}`: at least {len(last[1])} rows")
        return QueryError(
            f"The rows are more than {self.bytes_max} bytes; "
            f"subscribe to less at once or narrow the queries with WHERE ({', '.join(counts)})"
        )


def _bytes_of(batch: "Sequence[bytes]") -> int:
    """Return how many bytes some rows have: small ones are joined in a third of the time that counting takes."""
    looked_at = batch[::_LOOKED_AT_EVERY]
    if looked_at and max(map(len, looked_at)) <= _SMALL_BYTES:
        return len(b"".join(batch))
    return sum(map(len, batch))


def _is_join(query: HeldQuery) -> bool:
    """Tell whether a query may return more rows than there are in its table."""
    return len(query.plan.tables) > 1
