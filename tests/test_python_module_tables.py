"""Tables inside a reducer: every operation, every column type, every error that spec 08 names."""

import re
from typing import Any

import pytest

from stdb.errors import ModuleFault, NoSuchIndex, NoSuchRow, ReducerError, UniqueViolation
from stdb.sats.types import (
    BOOL,
    BYTES,
    CONNECTION_ID,
    F32,
    F64,
    I64,
    IDENTITY,
    SCHEDULE_AT,
    STRING,
    TIME_DURATION,
    TIMESTAMP,
    U8,
    UUID,
    Array,
    Product,
    Sum,
    option,
)
from tests.python_module_harness import PROBE, Running, load

TYPES = """
import enum
import uuid
from datetime import UTC, datetime, timedelta
from stdb import *

class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"
    CRIMSON = "r"  # an alias is no member

@product
class Point:
    x: f32
    y: f32 = 0.5

@product
class Circle:
    centre: Point
    radius: float

@product
class Square:
    corner: Point
    colour: Colour

Shape = Circle | Square
Named = sum_type("Named", Circle, Point)

@table
class Thing:
    key: u32 = primary_key()
    flag: bool = False
    a_u8: u8 = 0
    a_u16: u16 = 0
    a_u64: u64 = 0
    a_u128: u128 = 0
    a_u256: u256 = 0
    a_i8: i8 = 0
    a_i16: i16 = 0
    a_i32: i32 = 0
    a_i64: i64 = 0
    a_i128: i128 = 0
    a_i256: i256 = 0
    whole: int = 0
    real: float = 0.0
    small: f32 = 0.0
    text: str = ""
    data: bytes = b""
    texts: list[str] = []
    bytes_listed: list[u8] = []
    points: list[Point] = []
    maybe: str | None = None
    maybe_texts: list[str] | None = None
    who: Identity = Identity.ZERO
    where: Address = Address.NONE
    also_where: ConnectionId = Address.NONE
    when: Timestamp = Timestamp(0)
    span: TimeDuration = TimeDuration()
    due: ScheduleAt = ScheduleAt.at(Timestamp(0))
    id: uuid.UUID = uuid.UUID(int=0)
    moment: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    delta: timedelta = timedelta()
    point: Point = Point(x=1.0)
    colour: Colour = Colour.RED
    shape: Shape = Square(corner=Point(x=1.0), colour=Colour.RED)
    maybe_shape: Shape | None = None
    named: Named = Point(x=0.25)
    maybe_named: Named | None = None
"""
CHANGED = """
    row = Thing(
        key=7, flag=True, a_u8=255, a_u16=65535, a_u64=2**64 - 1, a_u128=2**128 - 1, a_u256=2**256 - 1,
        a_i8=-128, a_i16=-2**15, a_i32=-2**31, a_i64=-2**63, a_i128=-2**127, a_i256=-2**255, whole=-5,
        real=0.1, small=0.25, text="héllo", data=b"\\x00\\xff", texts=["a", ""], bytes_listed=[1, 2],
        points=[Point(x=1.0, y=2.0)], maybe="yes", maybe_texts=["t"], who=ctx.sender, where=Address(bytes(range(16))),
        also_where=Address(bytes(16)), when=ctx.timestamp, span=TimeDuration(seconds=-1.5),
        due=ScheduleAt.every(timedelta(seconds=3)), id=uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"),
        moment=datetime(2026, 11, 27, 1, 2, 3, 456789, tzinfo=UTC), delta=timedelta(days=-1, microseconds=1),
        point=Point(x=-1.0), colour=Colour.GREEN, shape=Circle(centre=Point(x=0.0), radius=2.5),
        maybe_shape=Square(corner=Point(x=3.0), colour=Colour.GREEN), named=Circle(centre=Point(x=0.0), radius=1.0),
        maybe_named=Point(x=9.0),
    )
"""
ROOM = """
from stdb import *

@table(public=True, uniques=[Unique("room", "number")], 
    indexes=[Index("by_price", "price", "name"), Index("by_kind", "kind", "room", kind="hash")])
class Seat:
    id: u32 = primary_key(auto_inc=True)
    room: str
    number: u32
    name: str | None = unique(default=None)
    price: f32 = 1.0
    kind: str = index(kind="hash", default="plain")
    taken: bool = False

@table
class Note:
    text: str
    stars: u8 = 0

@table(event=True)
class Ping:
    text: str

old_seat = table(Seat, name="old_seat")
"""


SCAN = """
@reducer
def scan(ctx: ReducerContext) -> None:
    for n in (1, 2):
        list(ctx.db[Note].filter(Note.stars == 3))
    list(ctx.db[Note].filter(Note.stars == 4))
"""


def things() -> Running:
    return Running(TYPES + PROBE)


def rooms() -> Running:
    running = Running(ROOM + PROBE)
    running.said(
        """
        rows = [("a", 1, "x", 1.0), ("a", 2, None, 2.0), ("b", 1, "xy", 2.0), ("b", 2, "z", 3)]
        for room, number, name, price in rows:
            ctx.db[Seat].insert(Seat(room=room, number=number, name=name, price=price, taken=number == 1))
        """
    )
    return running


def fails(running: Running, source: str) -> BaseException:
    """Run code that must fail with an exception of its own and return that."""
    with pytest.raises(ModuleFault) as caught:
        running.said(source)
    assert caught.value.__cause__ is not None
    return caught.value.__cause__


def test_every_column_type_is_the_one_that_spec_08_says() -> None:
    (table,) = things().module.definition.tables
    found = {column.name: column.type for column in table.columns}
    plain = {
        **{"flag": BOOL, "a_u8": U8, "whole": I64, "real": F64, "small": F32, "text": STRING, "data": BYTES},
        **{
            "texts": Array(STRING),
            "bytes_listed": BYTES,
            "maybe": option(STRING),
            "maybe_texts": option(Array(STRING)),
        },
        **{"who": IDENTITY, "where": CONNECTION_ID, "also_where": CONNECTION_ID, "when": TIMESTAMP, "id": UUID},
        **{"span": TIME_DURATION, "due": SCHEDULE_AT, "moment": TIMESTAMP, "delta": TIME_DURATION},
    }
    assert {name: found[name] for name in plain} == plain
    assert isinstance(found["point"], Product)
    assert [element.name for element in found["point"].elements] == ["x", "y"]
    assert isinstance(found["colour"], Sum)
    assert [variant.name for variant in found["colour"].variants] == ["RED", "GREEN"]
    assert isinstance(found["shape"], Sum)
    assert [variant.name for variant in found["shape"].variants] == ["Circle", "Square"]
    assert found["maybe_shape"] == option(found["shape"])
    names = {type_.name for type_ in things().module.definition.types}
    assert names == {"Thing", "Colour", "Point", "Circle", "Square", "Shape", "Named"}


@pytest.mark.parametrize("source", ["row = Thing(key=7)", CHANGED.strip()])
def test_every_column_type_comes_back_as_it_was_stored(source: str) -> None:
    running = things()
    said = running.said(
        source + "\nstored = ctx.db[Thing].insert(row)\nout += [row == stored, repr(row) == repr(stored)]"
    )
    assert said == [True, True]
    assert running.said("row = ctx.db[Thing].get(7)\nout.append(ctx.db[Thing].update(row) == row)") is True
    (values,) = running.rows("thing")
    assert running.said("out.append(ctx.db[Thing].delete(ctx.db[Thing].get(7)))") == 1
    assert running.rows("thing") == []
    assert values[0] == 7


def test_an_f32_comes_back_rounded() -> None:
    assert things().said("out.append(ctx.db[Thing].insert(Thing(key=1, small=0.1)).small)") == pytest.approx(0.1)
    assert things().said("out.append(ctx.db[Thing].insert(Thing(key=1, small=0.1)).small)") != 0.1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("a_u8", "256"), ("a_u8", "-1"), ("a_i8", "128"), ("a_u256", "2**256"), ("a_i256", "2**255"),
        ("whole", "2**63"), ("whole", "'x'"), ("whole", "1.5"), ("text", "5"), ("text", "None"), ("data", "'x'"),
        ("maybe", "5"), ("who", "'abc'"), ("when", "5"), ("moment", "datetime(2020, 1, 1)"), ("colour", "'RED'"),
        ("shape", "Point(x=1.0)"), ("point", "(1.0, 2.0)"), ("texts", "[1]"), ("due", "Timestamp(1)"), ("id", "5"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_or_of_another_type_is_refused_by_column_and_value(column: str, value: str) -> None:
    error = fails(things(), f"ctx.db[Thing].insert(Thing(key=1, {column}={value}))")
    assert isinstance(error, ValueError | TypeError)
    assert column in str(error)


@pytest.mark.parametrize("value", ["'x'", "2", "None"])
def test_a_bool_takes_nothing_else_in_rows_of_fixed_size_either(value: str) -> None:
    running = Running("from stdb import *\n@table\nclass Flag:\n    id: u8 = primary_key()\n    on: bool\n" + PROBE)
    for operation in ("insert", "update"):
        assert "expected a bool" in str(fails(running, f"ctx.db[Flag].{operation}(Flag(id=1, on={value}))"))
    assert running.said("out.append(ctx.db[Flag].insert(Flag(id=1, on=True)).on)") is True


def test_insert_returns_the_stored_row_with_generated_columns() -> None:
    running = rooms()
    assert running.said(
        """
        seat = Seat(room="c", number=1, name="new")
        stored = ctx.db[Seat].insert(seat)
        out += [seat.id, stored.id, stored is seat, stored.price]
        """
    ) == [0, 5, False, 1.0]
    assert running.said("out.append(ctx.db[Seat].insert(Seat(room='d', number=1, name='d').replace(id=77)).id)") == 77


def test_a_unique_violation_names_table_column_and_value_and_the_call_goes_on() -> None:
    assert rooms().said(
        """
        try:
            ctx.db[Seat].insert(Seat(room="z", number=9, name="xy"))
        except UniqueViolation as error:
            out += [error.table, error.columns, error.value, len(ctx.db[Seat])]
        """
    ) == ["seat", ("name",), "(some = \"xy\")", 4]  # fmt: skip
    error = fails(rooms(), "ctx.db[Seat].insert(Seat(room='a', number=1, name='new'))")
    assert isinstance(error, UniqueViolation)
    assert error.columns == ("room", "number")


def test_try_insert_many_and_insert_or_update() -> None:
    assert rooms().said(
        """
        seats = ctx.db[Seat]
        out.append(seats.try_insert(Seat(room="a", number=1)))
        out.append(seats.try_insert(Seat(room="a", number=3, name="q")).number)
        out.append(seats.insert_many(Seat(room="m", number=n, name=str(n)) for n in range(3)))
        out.append(seats.insert_or_update(seats.get(1).replace(price=9.0)).price)
        out.append(seats.insert_or_update(Seat(room="new", number=1, name="nn")).id > 4)
        out.append(len(seats))
        """
    ) == [None, 3, 3, 9.0, True, 9]


def test_get_find_and_subscript() -> None:
    assert rooms().said(
        """
        seats = ctx.db[Seat]
        out.append(seats.get(1).name)
        out.append(seats.get(99))
        out.append(seats[2].number)
        out.append(seats.find(Seat.name == "xy").id)
        out.append(seats.find(Seat.name == "nobody"))
        out.append(seats.find((Seat.room == "b") & (Seat.number == 2)).id)
        out.append(seats.find((Seat.room == "b") & (Seat.number == 2) & (Seat.price > 5)))
        """
    ) == ["x", None, 2, 3, None, 4, None]
    assert isinstance(fails(rooms(), "ctx.db[Seat][99]"), KeyError)
    assert isinstance(fails(rooms(), "ctx.db[Seat].get('x')"), TypeError)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("ctx.db[Seat].find(Seat.price == 1.0)", "declare `price` unique() or primary_key()"),
        ("ctx.db[Seat].find((Seat.price == 1.0) & (Seat.taken == True))", "uniques=[Unique('price', 'taken')]"),
        ("ctx.db[Seat].find(Seat.id > 1)", "compare a unique column by =="),
        ("ctx.db[Note].get(1)", "needs a primary key: mark a column with primary_key()"),
        ("ctx.db[Note].update(Note(text='x'))", "needs a primary key"),
        ("ctx.db[Note].delete_key(1)", "needs a primary key"),
        ("ctx.db[Note].insert_or_update(Note(text='x'))", "needs a primary key"),
        ("ctx.db.note.stars.find(1)", "note.stars has no index: mark the column with index() or unique()"),
        ("ctx.db.seat.kind.filter()", "index seat_kind_idx_hash is over kind"),
        ("ctx.db.seat.room_number.find('a')", "find() on index seat_room_number_idx_btree takes 2 values, got 1"),
        ("ctx.db.seat.by_kind.filter('plain')", "is a hash index: give a value for each of its columns"),
    ],
)
def test_an_error_says_which_index_is_missing(source: str, wanted: str) -> None:
    error = fails(rooms(), source)
    assert isinstance(error, NoSuchIndex | TypeError)
    assert wanted in str(error)


def test_update_replaces_by_primary_key() -> None:
    running = rooms()
    assert running.said(
        """
        seat = ctx.db[Seat].get(1)
        seat.price = 0.1
        out.append(ctx.db[Seat].get(1).price)
        updated = ctx.db[Seat].update(seat)
        out += [updated.price == 0.1, abs(updated.price - 0.1) < 1e-6, ctx.db[Seat].get(1) == updated]
        """
    ) == [1.0, False, True, True]
    error = fails(running, "ctx.db[Seat].update(Seat(room='q', number=1).replace(id=99))")
    assert isinstance(error, NoSuchRow)
    assert isinstance(fails(running, "ctx.db[Seat].update(ctx.db[Seat].get(1).replace(name='xy'))"), UniqueViolation)


def test_delete_by_row_condition_and_key_and_clear() -> None:
    assert rooms().said(
        """
        seats = ctx.db[Seat]
        first = seats.get(1)
        out.append(seats.delete(first.replace(price=5.0)))
        out += [seats.delete(first), seats.delete(first)]
        out += [seats.delete(Seat.room == "b"), seats.delete_key(2), seats.delete_key(2), len(seats)]
        seats.insert(Seat(room="a", number=1))
        out += [seats.delete(Seat.taken), seats.clear(), len(seats)]
        """
    ) == [0, 1, 0, 2, 1, 0, 0, 0, 1, 0]
    for wrong in ("True", "5", "ctx.db[Note]", "Note(text='x')"):
        assert "takes a Seat or a condition" in str(fails(rooms(), f"ctx.db[Seat].delete({wrong})"))


def test_length_membership_and_iteration_over_the_state_at_the_start() -> None:
    assert rooms().said(
        """
        seats = ctx.db[Seat]
        out += [len(seats), seats.get(1) in seats, seats.get(1).replace(price=7.0) in seats, 5 in seats, bool(seats)]
        count = 0
        for seat in seats:
            seats.insert(seat.replace(id=0, room="copy" + seat.room, name=f"copy{seat.id}"))
            seats.delete_key(seat.id)
            count += 1
        out += [count, len(seats)]
        """
    ) == [4, True, False, False, True, 4, 4]


def test_filter_orders_and_limits() -> None:
    assert rooms().said(
        """
        def ids(*args, **options):
            return [seat.id for seat in ctx.db[Seat].filter(*args, **options)]
        out.append(sorted(ids()))
        out.append(ids(Seat.price >= 2.0, order_by=Seat.id))
        out.append(ids(order_by=desc(Seat.id), limit=2))
        out.append(ids(order_by=[desc(Seat.price), Seat.id]))
        out.append(ids(order_by=[Seat.price, desc(Seat.id)]))
        out.append(ids(order_by=Seat.name))
        out.append(ids(Seat.room == "a", limit=0))
        """
    ) == [[1, 2, 3, 4], [2, 3, 4], [4, 3], [4, 2, 3, 1], [1, 3, 2, 4], [1, 3, 4, 2], []]
    assert isinstance(fails(rooms(), "ctx.db[Seat].filter(order_by='id')"), TypeError)


def test_a_second_table_over_the_same_row_class() -> None:
    running = rooms()
    assert running.said(
        """
        ctx.db[old_seat].insert(ctx.db[Seat].get(3))
        out += [len(ctx.db[old_seat]), len(ctx.db[Seat]), ctx.db.old_seat.find(Seat.name == "xy").id, repr(old_seat)]
        """
    ) == [1, 4, 3, "table(Seat, name='old_seat')"]


def test_an_event_table_forgets_its_rows_and_its_delta_keeps_them() -> None:
    running = rooms()
    transaction = running.store.begin(1)
    running.run(transaction, "probe", running.encode("probe", ("ctx.db[Ping].insert(Ping(text='x'))",)))
    delta = transaction.commit()
    assert delta is not None
    assert [len(each.inserts) for each in delta.tables] == [1]
    assert running.rows("ping") == []


def test_the_spelling_of_other_sdks() -> None:
    assert rooms().said(
        """
        seats = ctx.db.seat
        out.append(seats is ctx.db[Seat])
        out += [seats.id.find(1).name, seats.name.find("xy").id, seats.name.find(None).id, seats.id.find(99)]
        seat = seats.id.find(4)
        seat.kind = "soft"
        out.append(seats.id.update(seat).kind)
        out += [[s.id for s in seats.kind.filter("soft")], sorted(s.id for s in seats.kind.filter("plain"))]
        out += [[s.id for s in seats.by_price.filter(2.0)], [s.id for s in seats.by_price.filter(2.0, "xy")]]
        out += [seats.room_number.find("b", 2).id, [each.id for each in seats.room_number.filter("b")]]
        out.append(seats.name.update(seats.name.find("xy").replace(price=8.0)).price)
        out += [seats.count(), len(list(seats.iter()))]
        out += [seats.kind.delete("soft"), seats.id.delete(1), seats.id.delete(1)]
        """
    ) == [True, "x", 3, 2, None, "soft", [4], [1, 2, 3], [3, 2], [3], 4, [3, 4], 8.0, 4, 4, 1, 1, 0]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "kind", "wanted"),
    [
        ("ctx.db.nothing", AttributeError, "the module has no table 'nothing'; it has note, old_seat, ping, seat"),
        ("ctx.db[str]", KeyError, "'str' is no table of this module"),
        ("ctx.db[product(type('P', (), {}))]", KeyError, "P is a @product, not a @table"),
        ("ctx.db.seat.nothing", AttributeError, "neither an operation nor a column 'nothing'"),
        ("ctx.db[Seat].insert(Note(text='x'))", TypeError, "insert() on table seat takes a Seat, got Note(text='x'"),
        ("ctx.db[Seat].insert(None)", TypeError, "takes a Seat, got None"),
        ("ctx.db[Seat].update(5)", TypeError, "update() on table seat takes a Seat, got 5"),
        ("ctx.db[Seat].query(Seat.id == 1)", Exception, "makes the result of a view: use filter"),
    ],
)
def test_mistakes_are_told(source: str, kind: type[Exception], wanted: str) -> None:
    error = fails(rooms(), source)
    assert isinstance(error, kind)
    assert wanted in str(error)


def test_errors_can_be_caught_by_the_module_and_leave_the_transaction_open() -> None:
    running = rooms()
    running.said(
        """
        for wrong in (lambda: ctx.db[Seat].insert(Seat(room="a", number=1)), lambda: ctx.db[Note].get(1),
                      lambda: ctx.db[Seat].update(Seat(room="q", number=1).replace(id=99))):
            try:
                wrong()
            except StdbError:
                ctx.db[Note].insert(Note(text=str(len(ctx.db[Note]))))
        """
    )
    assert [row[0] for row in running.rows("note")] == ["0", "1", "2"]


def test_databases_and_tables_show_their_names() -> None:
    said = rooms().said(
        "out += [repr(ctx.db), repr(ctx.db[Seat]), repr(Index('i', 'a')), hasattr(ctx.db[Seat], '__x__')]"
    )
    assert said == ["<Database: note, old_seat, ping, seat>", "<Table seat>", "Index('i', 'a')", False]


def test_sender_error_is_reducer_error() -> None:
    import stdb

    assert stdb.SenderError is ReducerError


def test_a_scan_of_many_rows_warns_once_per_call_site() -> None:
    running = rooms()
    many = "for n in range(10_001): ctx.db[Note].insert(Note(text=str(n)))"
    running.said(many)
    scanning = load(ROOM + SCAN)
    running.module = scanning
    scanning.attach(running.store, bytes(32), running.log)
    running.log.clear()
    running.call("scan")
    running.call("scan")
    assert [line["level"] for line in running.log] == ["Warn", "Warn"]
    assert "scan of all rows of note: no index serves Note.stars == 3" in running.log[0]["message"]
    assert len({(line["filename"], line["line"]) for line in running.log}) == 2


def test_hot_operations_do_what_the_plain_ones_do() -> None:
    """`accessors` generates get, update and insert; `table` has their plain twins."""
    from stdb.modules.python.table import Table

    running = rooms()
    transaction = running.store.begin(1)
    table: Any = running.module._bound.database.seat  # type: ignore[attr-defined]
    for key in (1, 2, 99):
        assert table.get(key) == Table.get(table, key)
    row = table.get(2)
    changed = row.replace(price=0.3, name="changed")
    assert table.update(changed) == Table.update(table, changed) == table.get(2)
    new = row.replace(id=0, room="new", name=None)
    one = table.insert(new)
    table.delete(one)
    assert Table.insert(table, new).replace(id=one.id) == one
    for operation in ("get", "update", "insert"):
        messages = []
        for owner in (type(table), Table):
            with pytest.raises(TypeError) as caught:
                getattr(owner, operation)(table, "wrong")
            messages.append(re.sub(r"\s+", " ", str(caught.value)))
        assert messages[0] == messages[1]
    transaction.rollback()
