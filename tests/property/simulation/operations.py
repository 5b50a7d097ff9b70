"""Operations: what the reducers of a simulated module do, done to the database and to the model at once.

Responsible for: `Writer`, which compares after every step; the reducers `work`, `ring` and those of connections.
Not responsible for: what the host does around them (`probes`), who calls them (`script`).

A reducer follows from its arguments and the rows it finds, so that the committed calls can be run once more, one by
one, on the model alone (I7): then a Writer has no database behind it and is told the values that sequences gave.
"""

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

from stdb.datastore.datastore import Datastore
from stdb.datastore.index import UniqueIndex
from stdb.datastore.transaction import Transaction
from stdb.errors import NoSuchRow, ReducerError, UniqueViolation
from stdb.schema.model import IndexAlgorithm
from tests.property.simulation.invariants import Checks
from tests.property.simulation.model import Shape
from tests.property.simulation.world import World

__all__ = ["REDUCERS", "Call", "Generated", "Writer"]


class Call(NamedTuple):
    """Who calls, and when."""

    sender: bytes
    connection: int
    now_us: int


class Generated:
    """Every value that a sequence ever gave, and how many transactions there were then."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks
        self._given: dict[str, dict[int, int]] = {}

    def note(self, table: str, value: int, next_offset: int) -> None:
        """Note a value; it must be new."""
        given = self._given.setdefault(table, {})
        self._checks.holds("I12", value not in given, f"{table} was given {value} twice")
        given[value] = next_offset

    def forget(self, recovered: int) -> None:
        """Forget what was given behind the last transaction that is still there.

        That went to transactions which a crash lost, or which rolled back with nothing committed after them: nobody can
        know it any more, and the block it came from is in no record.
        """
        for given in self._given.values():
            for value in [value for value, offset in given.items() if offset >= recovered]:
                del given[value]

    def clear(self) -> None:
        """Begin again: the database was reset."""
        self._given.clear()


class Writer:
    """One transaction of a reducer, on the model and, with `transaction`, on the database."""

    def __init__(
        self,
        world: World,
        checks: Checks,
        call: Call,
        state: dict[str, set[bytes]],
        generated: Iterator[int] | None = None,
        note: Callable[[str, int], None] | None = None,
        real: tuple[Transaction, Datastore] | None = None,
    ) -> None:
        self.world = world
        self.call = call
        self.state = state
        """The rows as they must be now; of event tables, those of this transaction."""
        self.given: list[int] = []
        """What sequences gave, in order."""
        self._checks = checks
        self._generated = generated
        self._note = note
        self._real = real

    # ------------------------------------------------------------------ changes
    def insert(self, name: str, values: Sequence[Any]) -> bytes | None:
        """Insert a row; None when a unique constraint refuses it."""
        shape, rows = self.world.shapes[name], self.state[name]
        row = self._filled(shape, list(values))
        is_there, is_refused = row in rows, row not in rows and shape.conflicts(rows, row)
        stored = self._on_database(
            lambda transaction, table: transaction.insert(table, shape.encode(values)),
            name,
            None if is_refused else row,
        )
        self._checks.holds(
            "I8", (stored is None) == is_refused, lambda: f"{name}: {shape.decode(row)} refused: {stored}"
        )
        if is_refused:
            self.compare("I5", name)
            return None
        self._checks.equal("I14" if self.is_generating(shape, values) else "I13", stored, row, f"a row of {name}")
        rows.add(row)
        if is_there:
            self.compare("I9", name)
        return row

    def delete(self, name: str, row: bytes) -> bool:
        """Delete a row; tell whether it was there."""
        was_there = row in self.state[name]
        self.state[name].discard(row)
        deleted = self._on_database(lambda transaction, table: transaction.delete(table, row), name, was_there)
        self._checks.equal("I1", deleted, was_there, f"delete from {name}")
        return was_there

    def update(self, name: str, columns: tuple[int, ...], row: bytes) -> bool:
        """Replace the row with the key of a unique constraint; tell whether that was possible."""
        shape, rows = self.world.shapes[name], self.state[name]
        old = next((each for each in rows if shape.key(columns, each) == shape.key(columns, row)), None)
        is_possible = old is not None and not shape.conflicts(rows - {old}, row)
        stored = self._on_database(
            lambda transaction, table: transaction.update(table, table.index_on(columns), row),
            name,
            row if is_possible else None,
        )
        self._checks.equal("I5", stored, row if is_possible else None, f"update of {name}")
        if old is not None and is_possible:
            rows.discard(old)
            rows.add(row)
        else:
            self.compare("I5", name)
        return is_possible

    def delete_by_key(self, name: str, columns: tuple[int, ...], like: bytes) -> None:
        """Delete every row that has the same in some indexed columns as another."""
        shape, rows = self.world.shapes[name], self.state[name]
        doomed = {row for row in rows if shape.key(columns, row) == shape.key(columns, like)}
        rows -= doomed

        def change(transaction: Transaction, table: Any) -> int:
            index = table.index_on(columns)
            return transaction.delete_by_key(table, index, index.key_of(like))

        self._checks.equal("I1", self._on_database(change, name, len(doomed)), len(doomed), f"delete by key of {name}")

    def clear(self, name: str) -> None:
        """Delete every row."""
        count = len(self.state[name])
        self.state[name].clear()
        cleared = self._on_database(lambda transaction, table: transaction.clear(table), name, count)
        self._checks.equal("I1", cleared, count, f"clear of {name}")

    # ------------------------------------------------------------------ looking
    def compare(self, invariant: str, name: str) -> None:
        """Check that the database sees what the model does: by scan, by count."""
        if self._real is not None:
            table, rows = self._real[1].table(name), self.state[name]
            found = set(table.rows())
            self._checks.holds(invariant, found == rows, lambda: self._difference(name, found))
            self._checks.equal("I1", len(table), len(rows), f"count of {name}")
            self._checks.holds("I8", self.world.shapes[name].is_consistent(rows), f"{name} holds a key twice")

    def look_up(self, name: str, like: bytes) -> None:
        """Check every index with the key of a row, there or not: points and ranges."""
        if self._real is None:
            return
        shape, rows, table = self.world.shapes[name], self.state[name], self._real[1].table(name)
        for index in table.indexes:
            key, columns = index.key_of(like), index.definition.columns
            expected = {row for row in rows if shape.key(columns, row) == shape.key(columns, like)}
            self._checks.equal("I1", set(index.find_all(key)), expected, f"{name} by {index.name}")
            if isinstance(index, UniqueIndex):
                self._checks.holds("I8", len(index.find_all(key)) <= 1, f"{name} by {index.name}")
            if index.definition.algorithm is not IndexAlgorithm.HASH and len(columns) == 1:
                above = {row for row in rows if index.key_of(row) >= key}
                self._checks.equal("I1", set(index.scan((), (key, True), None)), above, f"{name} from {key}")

    def is_generating(self, shape: Shape, values: Sequence[Any]) -> bool:
        """Tell whether a sequence gives a column of these values."""
        return any(values[sequence.column] == 0 for sequence in shape.definition.sequences)

    # ------------------------------------------------------------------ inside
    def _filled(self, shape: Shape, values: list[Any]) -> bytes:
        for place, sequence in enumerate(shape.definition.sequences):
            if values[sequence.column] == 0:
                if self._real is not None:
                    value = self._real[1].table(shape.name).sequences[place].position[0]
                    assert self._note is not None
                    self._note(shape.name, value)
                else:
                    assert self._generated is not None
                    value = next(self._generated)
                self.given.append(value)
                values[sequence.column] = value
        return shape.encode(values)

    def _on_database(self, change: Callable[[Transaction, Any], Any], name: str, otherwise: Any) -> Any:
        """Do it to the database; without one return what the model says."""
        if self._real is None:
            return otherwise
        transaction, datastore = self._real
        try:
            return change(transaction, datastore.table(name))
        except UniqueViolation:
            return None
        except NoSuchRow:
            return None

    def _difference(self, name: str, found: set[bytes]) -> str:
        decode, rows = self.world.shapes[name].decode, self.state[name]
        more, less = [decode(row) for row in found - rows], [decode(row) for row in rows - found]
        return f"{name}: unexpected {more}, missing {less}"


class _CaughtError(Exception):
    """A mistake inside a reducer, which the reducer catches."""


# ---------------------------------------------------------------------- what one step of `work` may be
def _some_row(writer: Writer, random: Random, shape: Shape) -> bytes:
    """Return a row that is there, or, now and then, one that perhaps is not."""
    rows = sorted(writer.state[shape.name])
    if rows and random.random() < 0.8:
        return random.choice(rows)
    return _drawn(writer, random, shape)


def _drawn(writer: Writer, random: Random, shape: Shape) -> bytes:
    """Return a row in which no sequence has to fill anything."""
    values = writer.world.draw_row(random, shape)
    for sequence in shape.definition.sequences:
        values[sequence.column] = values[sequence.column] or random.choice((1, 2, 5))
    return shape.encode(values)


def _insert(writer: Writer, random: Random, shape: Shape) -> None:
    for _ in range(random.randint(1, 3)):
        writer.insert(shape.name, writer.world.draw_row(random, shape))


def _delete(writer: Writer, random: Random, shape: Shape) -> None:
    writer.delete(shape.name, _some_row(writer, random, shape))


def _update(writer: Writer, random: Random, shape: Shape) -> None:
    if not shape.uniques:
        return
    columns = random.choice(shape.uniques)
    new = list(shape.decode(_drawn(writer, random, shape)))
    old = shape.decode(_some_row(writer, random, shape))
    for column in columns:
        new[column] = old[column]
    writer.update(shape.name, columns, shape.encode(new))


def _there_and_back(writer: Writer, random: Random, shape: Shape) -> None:
    row = _some_row(writer, random, shape)
    if not writer.delete(shape.name, row):
        return
    if shape.uniques and random.random() < 0.5:
        other = list(shape.decode(_drawn(writer, random, shape)))
        for column in shape.uniques[0]:
            other[column] = shape.decode(row)[column]
        writer.insert(shape.name, shape.decode(row))
        if writer.update(shape.name, shape.uniques[0], shape.encode(other)):
            writer.update(shape.name, shape.uniques[0], row)
    else:
        writer.insert(shape.name, shape.decode(row))


def _insert_twice(writer: Writer, random: Random, shape: Shape) -> None:
    row = _drawn(writer, random, shape)
    if writer.insert(shape.name, shape.decode(row)) is not None:
        writer.insert(shape.name, shape.decode(row))
        if random.random() < 0.3:
            writer.delete(shape.name, row)
            writer.compare("I9", shape.name)


def _delete_by_key(writer: Writer, random: Random, shape: Shape) -> None:
    index = random.choice(shape.definition.indexes)
    writer.delete_by_key(shape.name, index.columns, _some_row(writer, random, shape))


def _look(writer: Writer, random: Random, shape: Shape) -> None:
    writer.compare("I1", shape.name)
    writer.look_up(shape.name, _some_row(writer, random, shape))


def _clear(writer: Writer, random: Random, shape: Shape) -> None:
    if random.random() < 0.3:
        writer.clear(shape.name)


def _flash(writer: Writer, random: Random, _: Shape) -> None:
    writer.insert("flash", [random.randrange(4)])


def _set_alarm(writer: Writer, random: Random, _: Shape) -> None:
    is_interval = random.random() < 0.2
    if is_interval and len(writer.state["alarm"]) > 3:
        return
    when = (
        (0, random.randint(1_000_000, 6_000_000))
        if is_interval
        else (1, writer.call.now_us + random.randint(-5, 200_000))
    )
    mode = random.choice((0, 0, 0, 0, 1, 2))
    writer.insert("alarm", [0, when, random.randrange(1000), mode])


def _cancel_alarm(writer: Writer, random: Random, _: Shape) -> None:
    rows = sorted(writer.state["alarm"])
    if rows:
        writer.delete("alarm", random.choice(rows))


def _caught(writer: Writer, random: Random, shape: Shape) -> None:
    try:
        _insert(writer, random, shape)
        _delete(writer, random, shape)
        raise _CaughtError
    except _CaughtError:
        writer.compare("I6", shape.name)


_STEPS = (
    *(_insert,) * 7, *(_delete,) * 2, *(_update,) * 3, _there_and_back, _insert_twice, _delete_by_key, _look, _look,
    _clear, _flash, _set_alarm, _set_alarm, _cancel_alarm, _caught,
)  # fmt: skip


# ---------------------------------------------------------------------- the reducers
def work(writer: Writer, plan: int, tag: int) -> Iterator[None]:
    """Do some steps, which follow from `plan`; perhaps fail at the end, or in the middle."""
    random = Random(f"work {plan}")
    writer.insert("journal", [0, writer.call.sender, tag])
    for _ in range(random.randint(1, 6)):
        yield
        random.choice(_STEPS)(writer, random, random.choice(writer.world.drawn))
        if random.random() < 0.03:
            raise ReducerError("refused")
        if random.random() < 0.02:
            raise ZeroDivisionError


def note(writer: Writer, _plan: int, tag: int) -> Iterator[None]:
    """Leave one row."""
    writer.insert("journal", [0, writer.call.sender, tag])
    yield


def idle(_writer: Writer, _plan: int, _tag: int) -> Iterator[None]:
    """Change nothing."""
    yield


def ring(writer: Writer, alarm: tuple[int, tuple[int, int], int, int]) -> Iterator[None]:
    """Leave a trace of an alarm, or fail as it says; the host takes out the row of one that is due once."""
    alarm_id, (is_once, _), tag, mode = alarm
    row = writer.world.shapes["alarm"].encode(alarm)
    writer._checks.holds("I22", row in writer.state["alarm"], f"alarm {alarm_id} rings though its row is gone")
    if is_once:
        rung = {writer.world.shapes["rung"].decode(each)[1] for each in writer.state["rung"]}
        writer._checks.holds("I22", alarm_id not in rung, f"alarm {alarm_id} rings a second time")
    writer.insert("rung", [0, alarm_id, tag, writer.call.now_us])
    yield
    if mode == 1:
        raise ReducerError("this alarm refuses")
    if mode == 2:
        raise ZeroDivisionError
    if is_once:
        writer.state["alarm"].discard(row)


def connected(writer: Writer) -> Iterator[None]:
    """Note who comes; some are refused."""
    writer.insert("presence", [0, writer.call.sender, writer.call.connection, 0])
    yield
    if writer.call.connection % 7 == 3:
        raise ReducerError("you are banned")


def disconnected(writer: Writer) -> Iterator[None]:
    """Note who goes; for some this fails, and their rows go all the same."""
    writer.insert("presence", [0, writer.call.sender, writer.call.connection, 1])
    yield
    if writer.call.connection % 5 == 4:
        raise ReducerError("not now")


def init(writer: Writer) -> Iterator[None]:
    """Put in the first rows."""
    random = Random("init")
    for shape in writer.world.drawn:
        _insert(writer, random, shape)
        yield


REDUCERS: dict[str, Callable[..., Iterator[None]]] = {
    each.__name__: each for each in (init, connected, disconnected, ring, work, note, idle)
}
"""Every reducer of the module by its name; a transaction may pause wherever one yields."""
