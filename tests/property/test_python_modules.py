"""Python modules under chance: interrupted anywhere, asked anything, given any values and any archives."""

import math
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stdb.actors.deadline import SignalDeadline
from stdb.errors import ReducerTimeout, SchemaError
from stdb.modules.protocol import ReadSet
from stdb.modules.python.archive import pack, program_hash, unpack
from stdb.modules.python.ignore import select
from tests.python_module_harness import PROBE, Running

WORK = """
from stdb import *

@table(indexes=[Index("by_town", "town", "age")], uniques=[Unique("first", "last")])
class Person:
    id: u32 = primary_key(auto_inc=True)
    first: str
    last: str
    town: str | None = index(default=None)
    age: u8 = 0

@table
class Note:
    text: str
    score: f32 = 0.0

@table
class Account:
    id: u32 = primary_key()
    balance: i64 = 0

@reducer
def fill(ctx: ReducerContext) -> None:
    for n in range(20):
        ctx.db[Person].insert(Person(first=f"f{n}", last="x", town=f"t{n % 3}", age=n))
        ctx.db[Note].insert(Note(text=f"0{n}", score=0.1))
    ctx.db[Account].insert(Account(id=1, balance=5))

@reducer
def work(ctx: ReducerContext, stubborn: bool) -> None:
    people = ctx.db[Person]
    for turn in range(1000):
        try:
            person = people.insert(Person(first=f"f{turn % 7}", last=f"l{turn % 5}", town=f"t{turn % 3}"))
            person.age = turn % 50
            people.update(person)
            for each in people.filter((Person.town == "t1") & (Person.age > 3), order_by=desc(Person.age), limit=3):
                people.update(each.replace(town=None))
            people.delete(Person.age > 40)
            ctx.db.person.id.update(people.get(1).replace(age=turn % 9))
            people.delete_key(turn % 11)
        except (UniqueViolation, NoSuchRow, AttributeError):
            pass
        except BaseException:
            if not stubborn:
                raise
        ctx.db[Note].insert_many(Note(text=f"{turn}{n}") for n in range(3))
        ctx.db[Account].insert_or_update(Account(id=turn % 4, balance=turn))
        if turn % 13 == 12:
            ctx.db[Note].clear()
"""
INTERRUPTED = Running(WORK)
INTERRUPTED.call("fill")


class Interrupter:
    """Lets the time of a call run out at its n-th instruction, as the server's signal handler would."""

    def __init__(self, transaction: Any, instruction: int) -> None:
        self.left = instruction
        self.deadline = SignalDeadline(1.0)
        self.transaction = transaction

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        """Trace every instruction of every function; what it raises comes out of the interrupted frame."""
        frame.f_trace_opcodes = True
        if event == "opcode":
            self.left -= 1
            if self.left <= 0:
                self.transaction.expired = True
                if self.deadline._is_safe_to_raise(frame):
                    raise ReducerTimeout("interrupted")
        return self


@settings(max_examples=500, deadline=None)
@given(instruction=st.integers(1, 12_000), stubborn=st.booleans())
def test_a_reducer_interrupted_at_any_instruction_leaves_the_tables_as_they_were(
    instruction: int, stubborn: bool
) -> None:
    running = INTERRUPTED
    names = ("person", "note", "account")
    before = {name: running.rows(name) for name in names}
    assert [len(rows) for rows in before.values()] == [20, 20, 1]
    transaction = running.store.begin(0)
    previous = sys.gettrace()
    sys.settrace(Interrupter(transaction, instruction))
    try:
        with pytest.raises(ReducerTimeout):
            running.run(transaction, "work", bytes([stubborn]))
    finally:
        sys.settrace(previous)
    with pytest.raises(ReducerTimeout):
        transaction.commit()
    transaction.rollback()
    running.store.verify()
    assert {name: running.rows(name) for name in names} == before


# Queries

ASK = (
    """
from stdb import *

@table(indexes=[Index("by_b_c", "b", "c"), Index("by_hash", "c", "a", kind="hash")])
class Row:
    key: u32 = primary_key()
    a: i8
    b: str | None = index()
    c: float
    d: u8 | None
    e: bool
"""
    + PROBE
)
ROWS = st.lists(
    st.tuples(
        st.integers(-3, 3),
        st.none() | st.sampled_from(["", "a", "ab", "b", "\U0010ffff", "\ud7ff"]),
        st.sampled_from([-0.0, 0.0, 1.5, math.inf, -math.inf, math.nan]),
        st.none() | st.integers(0, 2),
        st.booleans(),
    ),
    max_size=12,
)
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "key": st.integers(-1, 12),
    "a": st.integers(-5, 300),
    "b": st.sampled_from(["", "a", "ab", "b", "c", "\U0010ffff"]),
    "c": st.sampled_from([0.0, -0.0, 1.5, math.inf]),
    "d": st.integers(0, 3),
}
OPTIONAL = ("b", "d")


@st.composite
def leaves(draw: st.DrawFn) -> tuple[str, str]:
    """Draw a condition: its source for the module, and the same in plain Python over a `row`."""
    name = draw(st.sampled_from([*COLUMNS, "e"]))
    if name == "e":
        return "Row.e", "row.e"
    value, other = draw(COLUMNS[name]), draw(COLUMNS[name])
    literal, second = (f"float('{each}')" if name == "c" else repr(each) for each in (value, other))
    guard = f"row.{name} is not None and " if name in OPTIONAL else ""
    kinds = ["==", "!=", "<", "<=", ">", ">=", "between", "in"]
    kinds += ["none"] if name in OPTIONAL else []
    kinds += ["starts"] if name == "b" else []
    match draw(st.sampled_from(kinds)):
        case "between":
            ordered = f"({guard}at_least(row.{name}, {literal}) and at_most(row.{name}, {second}))"
            return f"between(Row.{name}, {literal}, {second})", ordered
        case "in":
            return f"is_in(Row.{name}, [{literal}, {second}])", f"row.{name} in ({literal}, {second})"
        case "none":
            return f"is_none(Row.{name})", f"row.{name} is None"
        case "starts":
            return f"starts_with(Row.b, {literal})", f"({guard}row.b.startswith({literal}))"
        case ("==" | "!=") as sign:
            return f"(Row.{name} {sign} {literal})", f"(row.{name} {sign} {literal})"
        case sign:
            ordered = {"<": "not at_least", "<=": "at_most", ">": "not at_most", ">=": "at_least"}[sign]
            return f"(Row.{name} {sign} {literal})", f"({guard}{ordered}(row.{name}, {literal}))"


def joined(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
    """Draw conditions made of others."""
    both = st.tuples(inner, inner)
    return st.one_of(
        both.map(lambda pair: (f"({pair[0][0]} & {pair[1][0]})", f"({pair[0][1]} and {pair[1][1]})")),
        both.map(lambda pair: (f"({pair[0][0]} | {pair[1][0]})", f"({pair[0][1]} or {pair[1][1]})")),
        inner.map(lambda one: (f"not_({one[0]})", f"(not {one[1]})")),
    )


ASKED = Running(ASK)
SAID = """
for row in list(ctx.db[Row]):
    ctx.db[Row].delete(row)
for key, (a, b, c, d, e) in enumerate({rows}):
    ctx.db[Row].insert(Row(key=key, a=a, b=b, c=float(c), d=d, e=e))

# NaN is the greatest number in indexes and conditions alike
def at_least(x, y):
    return x != x or x >= y
def at_most(x, y):
    return x == x and x <= y

asked = [row.key for row in ctx.db[Row].filter({condition}, order_by=Row.key)]
plain = [row.key for row in ctx.db[Row].filter(order_by=Row.key) if {predicate}]
out += [asked, plain]
deleted = ctx.db[Row].delete({condition})
out += [deleted == len(plain), len(ctx.db[Row])]
"""


@settings(max_examples=300, deadline=None)
@given(rows=ROWS, condition=st.recursive(leaves(), joined, max_leaves=5))
def test_a_query_finds_what_plain_python_finds_whatever_index_it_takes(
    rows: list[tuple[Any, ...]], condition: tuple[str, str]
) -> None:
    listed = [(a, b, str(c), d, e) for a, b, c, d, e in rows]
    source = SAID.format(rows=listed, condition=condition[0], predicate=condition[1])
    asked, plain, deleted_all, left = ASKED.said(source)
    assert asked == plain
    assert deleted_all
    assert left == len(rows) - len(plain)


# Views

WATCHED = Running(
    ASK
    + """
conditions = [None]

@view
def look(ctx: ViewContext) -> list[Row]:
    return list(ctx.db[Row].filter(eval(conditions[0]), order_by=Row.key))

@view
def ask(ctx: ViewContext) -> Query[Row]:
    return ctx.db[Row].query(eval(conditions[0]))
"""
)
FILL = """
conditions[0] = {condition!r}
ctx.db[Row].clear()
for key, (a, b, c, d, e) in enumerate({rows}):
    ctx.db[Row].insert(Row(key=key, a=a, b=b, c=float(c), d=d, e=e))
out += [True]
"""
CHANGE = """
for key, row in {changes}:
    ctx.db[Row].delete_key(key)
    if row is not None:
        a, b, c, d, e = row
        ctx.db[Row].insert(Row(key=key, a=a, b=b, c=float(c), d=d, e=e))
out += [True]
"""


def sources(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return rows as they are written in a source."""
    return [(a, b, str(c), d, e) for a, b, c, d, e in rows]


@settings(max_examples=300, deadline=None)
@given(
    rows=ROWS,
    condition=st.recursive(leaves(), joined, max_leaves=4),
    keys=st.lists(st.integers(0, 12), max_size=3, unique=True),
    new=ROWS,
)
def test_a_view_whose_reads_did_not_change_has_not_changed(
    rows: list[tuple[Any, ...]], condition: tuple[str, str], keys: list[int], new: list[tuple[Any, ...]]
) -> None:
    running, stored = WATCHED, WATCHED.store.table("row")
    running.said(FILL.format(condition=condition[0], rows=sources(rows)))
    reads = ReadSet()
    before, old = running.view("look", reads=reads), set(stored.rows())
    changes = [(key, row) for key, row in zip(keys, [*sources(new), None, None, None], strict=False)]
    running.said(CHANGE.format(changes=changes))
    changed = old ^ set(stored.rows())
    is_stale = bool(changed) and stored.schema.id in reads.tables
    for index in stored.indexes:
        touched = {index.key_of(row) for row in changed}
        is_stale |= not touched.isdisjoint(reads.keys.get((stored.schema.id, index.id), ()))
    after = running.view("look")
    assert is_stale or repr(after) == repr(before)  # texts, as NaN equals nothing
    assert sorted(map(repr, running.view("ask"))) == sorted(map(repr, after))
    asked = running.said(f"out += [[row.key for row in ctx.db[Row].filter({condition[0]}, order_by=Row.key)]]")
    assert [row[0] for row in after] == asked


# Values

NUMBERS = Running(
    "from stdb import *\n@table\nclass Number:\n    key: u32 = primary_key()\n"
    + "".join(f"    {k}{s}_: {k}{s}\n" for k in "ui" for s in (8, 16, 32, 64, 128, 256))
    + "    f: float\n    s: str\n    data: bytes\n    many: list[i16 | None]\n"
    + PROBE
)


@settings(max_examples=200, deadline=None)
@given(
    numbers=st.tuples(
        *(st.integers(0, 2**size - 1) for size in (8, 16, 32, 64, 128, 256)),
        *(st.integers(-(2 ** (size - 1)), 2 ** (size - 1) - 1) for size in (8, 16, 32, 64, 128, 256)),
    ),
    real=st.floats(allow_nan=False),
    text=st.text(),
    data=st.binary(),
    many=st.lists(st.none() | st.integers(-(2**15), 2**15 - 1)),
)
def test_any_values_come_back(
    numbers: tuple[int, ...], real: float, text: str, data: bytes, many: list[int | None]
) -> None:
    names = [f"{kind}{size}_" for kind in "ui" for size in (8, 16, 32, 64, 128, 256)]
    values = dict(zip(names, numbers, strict=True)) | {"f": str(real), "s": text, "data": data, "many": many}
    said = NUMBERS.said(
        f"values = {values!r}\nvalues['f'] = float(values['f'])\nrow = Number(key=1, **values)\n"
        "ctx.db[Number].clear()\nstored = ctx.db[Number].insert(row)\n"
        "out += [stored == row, ctx.db[Number].get(1) == row, ctx.db[Number].update(row) == row, row in ctx.db[Number]]"
    )
    assert said == [True] * 4


# Archives

PATHS = st.lists(st.sampled_from(["a.py", "b", "ü", "deep", "x y", "tests"]), min_size=1, max_size=3).map("/".join)


@settings(max_examples=100, deadline=None)
@given(files=st.dictionaries(PATHS, st.binary(max_size=50), max_size=6))
def test_any_files_are_packed_and_unpacked(files: dict[str, bytes]) -> None:
    assert unpack(pack(files)) == select(files) == files
    assert program_hash(unpack(pack(files))) == program_hash(files)


ARCHIVE = pack({"game/__init__.py": b"from . import a\n" * 20, "game/a.py": b"x = 1\n", "game/b.bin": bytes(100)})


@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(ARCHIVE) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.none() | st.integers(0, len(ARCHIVE)),
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_damaged_archive_is_refused_or_read_and_nothing_else(changes: list[tuple[int, int]], cut: int | None) -> None:
    body = bytearray(ARCHIVE[:cut])
    for at, byte in changes:
        if at < len(body):
            body[at] = byte
    try:
        files = unpack(bytes(body))
    except SchemaError:
        return
    assert all(".." not in path.split("/") for path in files)


@settings(max_examples=200, deadline=None)
@given(body=st.binary(max_size=200), prefix=st.sampled_from([b"", b"PK\3\4", b"PK\1\2", b"PK\5\6"]))
def test_any_bytes_are_refused_as_an_archive(body: bytes, prefix: bytes) -> None:
    with pytest.raises(SchemaError):
        unpack(prefix + body)


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(st.text("ab*?[]!#\\/ -.", max_size=12), max_size=4))
@example(lines=["[?--]", "[a--b]", "[b-a]"])
def test_any_gitignore_can_be_read(lines: list[str]) -> None:
    files = {".gitignore": "\n".join(lines).encode(), "a": b"", "b/a": b"", "ab/ba/b": b""}
    assert set(select(files)) <= {"a", "b/a", "ab/ba/b"}
