"""Publishing: what is wrong with a module is told all at once, each with file, line and what to do."""

import re
from textwrap import dedent

import pytest

from stdb import client_visibility_filter
from stdb.errors import SchemaError
from stdb.schema import documents
from stdb.schema.model import IndexAlgorithm, Visibility
from stdb.schema.raw import RawRowLevelSecurity
from tests.python_module_harness import Running, load

HEAD = "import enum\nfrom typing import *\nfrom stdb import *\n"


def findings(source: str, head: str = HEAD) -> list[str]:
    """Return what publishing a source would say; its lines are counted from the first of `source`."""
    with pytest.raises(SchemaError) as caught:
        load({"chat.py": head.replace("\n", "; ") + dedent(source)})
    return [re.sub(r"(?<=chat.py:)\d+", lambda found: str(int(found[0]) - 1), error) for error in caught.value.errors]


COLUMNS = [
    ("tuple[int, str]", "tuple is no column type: name it: make a `@product` class"),
    ("tuple", "tuple is no column type: name it: make a `@product` class"),
    ("dict[str, int]", "dict is no column type: use a list of a `@product` class with a key and a value"),
    ("set[int]", "set is no column type: use a list, or a table of its own"),
    ("list", "list needs the type of its elements: write list[T]"),
    ("Any", "Any is no column type: a column has one type; a union of `@product` classes holds several"),
    ("Never", "Never is no column type: no row could have a value of it"),
    ("NoReturn", "NoReturn is no column type: no row could have a value of it"),
    ("None", "None alone is no column type: write T | None"),
    ("complex", "complex is no column type: make a `@product` class of two floats"),
    ("Literal['a']", "Literal is no column type: make an enum.Enum"),
    ("Plain", "Plain is no column type: put `@product` on the class, or use a type of stdb"),
    ("Empty", "Empty is an enum without members: no row could have a value of it"),
    ("A | B", "a union needs a name: write `Shape = A | B` at module level and use that name here"),
    ("A | int", "a union is one of `@product` classes; int is none"),
    ("int | str", "a union is one of `@product` classes; int, str is none"),
    ("Mixed", "Mixed has the variant int, which is no `@product` class"),
    ("second", "table(A, name='second') is a table, not a type: write A"),
    (
        "'Missing'",
        "the annotation 'Missing' cannot be resolved: name 'Missing' is not defined; import it at module level",
    ),
    ("'1 +'", "the annotation '1 +' cannot be resolved: invalid syntax (<string>, line 1)"),
    ("Callable[[int], int]", "Callable is no column type"),
    ("5", "5 is no column type"),
    ("Annotated[Plain, 1]", "typing.Annotated[PLAIN, 1] is no column type; write the type without Annotated"),
]


@pytest.mark.parametrize(("annotation", "text"), COLUMNS, ids=[case[0] for case in COLUMNS])
@pytest.mark.parametrize("wrapping", ["{}", "list[{}]", "{} | None"])
def test_an_annotation_that_is_no_column_type_says_what_to_write(annotation: str, text: str, wrapping: str) -> None:
    if wrapping != "{}" and (
        annotation in ("None", "5", "second") or (annotation[0] == "'" and wrapping.endswith("None"))
    ):
        return
    errors = findings(
        f"""
        class Plain: pass
        class Empty(enum.Enum): pass
        @product
        class A: x: int
        @product
        class B: x: int
        Mixed = sum_type("Mixed", A, int)
        second = table(A, name="second")
        @table
        class Bad:
            id: u32 = primary_key()
            it: {wrapping.format(annotation)}
        """
    )
    path = "Bad.it[]" if wrapping.startswith("list") else "Bad.it"
    text = text.replace("PLAIN", f"{errors[0].partition('[')[2].partition(', 1]')[0].rpartition('[')[2]}")
    assert f"chat.py:12: {path}: {text}" in errors


def test_a_mistake_inside_a_product_names_the_path() -> None:
    errors = findings(
        """
        @product
        class Inner:
            deep: list[tuple[int]]
        @product
        class Middle:
            inner: Inner | None
        @table
        class Outer:
            middle: Middle
        """
    )
    assert errors == ["chat.py:9: Outer.middle.inner.deep[]: tuple is no column type: name it: make a `@product` class"]


def test_recursive_types_are_refused_with_the_path() -> None:
    errors = findings(
        """
        @product
        class Node:
            children: "list[Node]"
        @product
        class Left:
            right: "Right | None"
        @product
        class Right:
            left: Left
        @table
        class Tree:
            root: Node
            left: Left
        """
    )
    assert errors == [
        "chat.py:12: Tree.root.children[]: recursive type Node -> Node: rows have a bounded depth; "
        "refer to another row by its key instead",
        "chat.py:13: Tree.left.right.left: recursive type Left -> Right -> Left: rows have a bounded depth; "
        "refer to another row by its key instead",
    ]


def test_every_mistake_is_reported_at_once() -> None:
    errors = findings(
        """
        @table
        class One:
            a: u32 = primary_key()
            b: u32 = primary_key()
            c: str = auto_inc()
            d: u8 = 300
            e: complex
        @table(name="one")
        class Two:
            a: u32
        @table(indexes=[Index("by_x", "x"), Index("no name", "a"), Index("nothing")], uniques=[Unique("y"), Unique()])
        class Three:
            a: u32
        @reducer
        def untyped(ctx, a): pass
        @reducer
        def untyped(ctx: ReducerContext, *rest: int, key: int) -> None: pass
        @reducer
        async def waits(ctx: ReducerContext) -> int: pass
        @reducer
        def yields(ctx: ReducerContext) -> None: yield
        @reducer
        def no_context() -> None: pass
        @init
        def first(ctx: ReducerContext, extra: int) -> None: pass
        @init
        def second(ctx: ReducerContext) -> None: pass
        """
    )
    assert set(errors) == {
        "chat.py:7: One.e: complex is no column type: make a `@product` class of two floats",
        "chat.py:8: two tables are called one; the other is at chat.py:1: rename one",
        "chat.py:11: Three: Index('by_x', 'x') names the column 'x'; there are a",
        "chat.py:11: Index('no name', 'a'): the name is no identifier",
        "chat.py:11: Three: Index('nothing') names no columns",
        "chat.py:11: Three: Unique('y') names the column 'y'; there are a",
        "chat.py:11: Three: Unique() names no columns",
        "chat.py:14: untyped(a): has no type: annotate it as a column, e.g. a: str",
        "chat.py:16: two reducers are called untyped; the other is at chat.py:14: rename one",
        "chat.py:16: untyped(rest): arguments of reducers have fixed places: no *, ** or keyword-only ones",
        "chat.py:16: untyped(key): arguments of reducers have fixed places: no *, ** or keyword-only ones",
        "chat.py:18: waits is async or a generator: a reducer runs to its end without waiting; "
        "what waits is a @procedure",
        "chat.py:18: waits returns nothing to its caller: annotate it -> None",
        "chat.py:20: yields is async or a generator: a reducer runs to its end without waiting",
        "chat.py:22: no_context takes no context: write def no_context(ctx: ReducerContext, …)",
        "chat.py:24: first: @init functions take the context alone",
        "chat.py:26: a second @init function; the first is at chat.py:24: merge them",
    }


def test_columns_that_do_not_fit_their_markers() -> None:
    errors = findings(
        """
        @table
        class One:
            a: u32 = primary_key()
            b: u32 = primary_key()
            c: str = auto_inc()
            d: u8 = 300
            e: str = index(kind="direct")
        @product
        class Two:
            a: u32 = unique()
        @table
        class Three:
            two: Two
        """
    )
    assert errors[:3] == [
        "chat.py:4: One has 2 primary keys (a, b): keep one, make the others unique()",
        "chat.py:5: One.c: auto_inc is for integer columns",
        "chat.py:6: One.d: the default 300 does not fit: $: 300 is out of range for u8 (0 to 255)",
    ]
    assert "chat.py:10: Two.a: markers are for the columns of tables; a product has defaults only" in errors


def test_findings_of_the_general_rules_have_a_place_too() -> None:
    (error,) = findings(
        """
        @table
        class Song:
            e: str = index(kind="direct")
        """
    )
    assert error.startswith("chat.py:1: ")
    assert "irect" in error


def test_two_types_of_one_name_are_refused() -> None:
    item = "from stdb import *\n@product\nclass Item:\n    {}: int\n@table\nclass {}:\n    item: Item\n"
    with pytest.raises(SchemaError) as caught:
        load(
            {
                "game/__init__.py": "from . import one, two\n",
                "game/one.py": item.format("x", "One"),
                "game/two.py": item.format("y", "Two"),
            }
        )
    assert caught.value.errors == [
        "game/two.py:2: two types are called Item: SDKs know types by their name; rename one class"
    ]


RULE_HINT = "; write a filter as SELECT t.* FROM t [JOIN …] [WHERE …], returning a public table of this module"
RULE_TABLES = """
    @table(public=True)
    class Message:
        sender: Identity
        room: int = index()
    @table
    class Member:
        who: Identity = index()
        room: int = index()
"""


@pytest.mark.parametrize(
    ("sql", "text"),
    [
        (
            "SELECT * FROM member",
            "Cannot define RLS rule on private table: member. "
            "Please make table public if you wish to restrict access using RLS.",
        ),
        ("SELECT * FROM letter", "no such table: `letter`. If the table exists, it may be marked private."),
        ("SELECT * FROM message WHERE author = :sender", "`author` is not in scope"),
        (
            "SELECT room FROM message",
            "Column projections are not supported in subscriptions; Subscriptions must return a table type",
        ),
        ("SELECT * FROM message LIMIT 1", "Unsupported: SELECT * FROM message LIMIT 1"),
        ("DELETE FROM message", "Unsupported: Non-SELECT queries"),
        ("", "Empty SQL query"),
        ("SELECT * FROM message WHERE " + "(" * 48, "sql parser error: recursion limit exceeded"),
    ],
)
def test_a_filter_that_is_no_rule_is_refused_at_its_line(sql: str, text: str) -> None:
    source = dedent(RULE_TABLES) + f"client_visibility_filter({sql!r})\n"
    assert findings(source) == [f"chat.py:9: failed to create row-level security: `{sql}`: {text}{RULE_HINT}"]


def test_filters_that_need_each_other_are_refused() -> None:
    source = """
        @table(public=True)
        class A:
            n: int
        @table(public=True)
        class B:
            n: int
        client_visibility_filter("SELECT a.* FROM a JOIN b")
        client_visibility_filter("SELECT b.* FROM b JOIN a")
    """
    errors = findings(source)
    assert [error.partition(": ")[0] for error in errors] == ["chat.py:7", "chat.py:8"]
    assert all("Discovered cyclic dependency when resolving RLS rules for table id `" in error for error in errors)


def test_a_filter_that_is_no_text_is_refused_at_its_line() -> None:
    text = "client_visibility_filter takes the SQL of a query as text, got 5"
    assert findings("\nclient_visibility_filter(5)") == [f"chat.py:1: {text}"]
    with pytest.raises(TypeError, match=text):
        client_visibility_filter(5)


def test_every_wrong_filter_is_told() -> None:
    source = dedent(RULE_TABLES) + "client_visibility_filter('x')\nclient_visibility_filter('SELECT * FROM message')\n"
    source += "client_visibility_filter('SELECT')\n"
    assert [error.partition(": ")[0] for error in findings(source)] == ["chat.py:9", "chat.py:11"]


def test_filters_are_rules_of_the_definition_in_their_order() -> None:
    rules = (
        "SELECT * FROM message WHERE sender = :sender",
        "SELECT m.* FROM member r JOIN message m ON r.room = m.room WHERE r.who = :sender",
        "SELECT * FROM message WHERE sender = :sender",
    )
    source = HEAD + dedent(RULE_TABLES) + "".join(f"client_visibility_filter({sql!r})\n" for sql in rules)
    definition = load(source).definition
    assert tuple(rule.sql for rule in definition.row_level_security) == rules
    for version in (9, 10):
        written = documents.to_json(definition, version=version)
        assert documents.from_json(written).row_level_security == tuple(map(RawRowLevelSecurity, rules))


def test_a_filter_declared_in_a_function_that_runs_later_is_none() -> None:
    source = """
        @table(public=True)
        class A:
            n: int
        @reducer
        def late(ctx: ReducerContext) -> None:
            client_visibility_filter("SELECT * FROM a")
    """
    running = Running(HEAD + dedent(source))
    running.call("late")
    assert running.module.definition.row_level_security == ()
    assert running.store.rules == {}


def test_annotations_may_be_text_and_know_the_module_whose_class_wrote_them() -> None:
    running = Running(
        {
            "game/__init__.py": """
                from __future__ import annotations
                from stdb import ReducerContext, reducer, table, u8
                from .base import Placed
                @table
                class Ship(Placed):
                    hp: u8
                    parent: "Placed2 | None" = None
                from game.base import Placed2
                @reducer
                def make(ctx: ReducerContext, hp: u8, at: Placed2) -> None:
                    ctx.db[Ship].insert(Ship(x=at.x, hp=hp, parent=at))
                """,
            "game/base.py": """
                from __future__ import annotations
                from stdb import product, f32 as number
                class Placed:
                    x: number
                @product
                class Placed2:
                    x: number
                """,
        }
    )
    running.call("make", 3, (1.5,))
    assert running.rows("ship") == [(1.5, 3, (1.5,))]


def test_names_on_the_wire() -> None:
    running = Running(
        """
        import enum
        from stdb import *
        class Kind(enum.Enum):
            camelCase = 1
            UPPER = 2
        @table
        class ChatMessage:
            messageId: u32 = primary_key()
            Kind2: Kind = Kind.UPPER
        @table(name="As_Given")
        class Vec3:
            x: u64 = index(kind="direct")
            y: u32 = index(kind="hash")
        @reducer
        def doIt(ctx: ReducerContext, someArg: int, *_) -> None: ...
        """.replace(", *_", "")
    )
    definition = running.module.definition
    message, vec = definition.tables
    assert (message.name, vec.name) == ("chat_message", "As_Given")
    assert [column.name for column in message.columns] == ["messageId", "Kind2"]
    assert [index.name for index in vec.indexes] == ["As_Given_x_idx_direct", "As_Given_y_idx_hash"]
    assert [index.algorithm for index in vec.indexes] == [IndexAlgorithm.DIRECT, IndexAlgorithm.HASH]
    (reducer,) = definition.reducers
    assert (reducer.name, [each.name for each in reducer.params.elements]) == ("doIt", ["someArg"])
    assert message.columns[1].default == b"\x01"


def test_reducers_may_have_another_name_and_be_private() -> None:
    definition = Running(
        """
        from stdb import *
        @reducer(name="say", private=True)
        def say_it(ctx: ReducerContext) -> None: ...
        @reducer()
        def open_it(ctx: ReducerContext) -> None: ...
        """
    ).module.definition
    assert [(each.name, each.visibility) for each in definition.reducers] == [
        ("say", Visibility.PRIVATE),
        ("open_it", Visibility.CLIENT_CALLABLE),
    ]


def test_arguments_of_every_kind_arrive_as_objects() -> None:
    running = Running(
        """
        import enum, uuid
        from datetime import datetime, timedelta
        from stdb import *
        class Colour(enum.Enum):
            RED = 1
            GREEN = 2
        @product
        class Circle:
            radius: float
        @product
        class Square:
            side: float
        Shape = Circle | Square
        @reducer
        def show(ctx: ReducerContext, who: Identity, when: datetime, shape: Shape | None, colours: list[Colour],
                 span: timedelta, id: uuid.UUID, numbers: list[u8]) -> None:
            print(who, when, shape, colours, span, id, numbers, sep="; ")
        """
    )
    running.call("show", bytes(32), 0, (1, (2.0,)), [(1, ()), (0, ())], 1_000_000, bytes(range(16)), b"\x01\x02")
    assert running.log.messages == [
        f"{'0' * 64}; 1970-01-01 00:00:00+00:00; Square(side=2.0); [<Colour.GREEN: 2>, <Colour.RED: 1>]; 0:00:01; "
        "0f0e0d0c-0b0a-0908-0706-050403020100; [1, 2]"
    ]
    running.log.clear()
    from stdb.errors import DecodeError

    with pytest.raises(DecodeError, match="an argument has no such value in Python"):
        running.call("show", bytes(32), 2**62, None, [], 0, bytes(16), b"")


def test_sum_types_are_named_unions_and_nothing_else() -> None:
    from stdb import product, sum_type

    @product
    class A:
        x: int

    named = sum_type("Named", A)
    assert repr(named) == "Named"
    with pytest.raises(TypeError, match=r"only \| None can follow"):
        named | int
    with pytest.raises(TypeError, match="Named is a union: make one of A"):
        named()
    for wrong in ((), (1,)):
        with pytest.raises(TypeError, match="takes the classes of its variants"):
            sum_type("Wrong", *wrong)  # type: ignore[arg-type]


def test_a_type_statement_names_a_union_or_stands_for_its_type() -> None:
    source = """
        from stdb import *
        class TypeAliasType:  # what `type Shape = A | B` makes from Python 3.12 on
            def __init__(self, name, value):
                self.__name__, self.__value__ = name, value
        @product
        class A:
            x: int
        @product
        class B:
            x: int
        @table
        class T:
            shape: TypeAliasType("Shape", A | B)
            number: TypeAliasType("Number", u8)
        """
    definition = load(source).definition
    assert {each.name for each in definition.types} == {"A", "B", "Shape", "T"}
    assert [str(column.type)[:6] for column in definition.tables[0].columns] == ["Sum(va", "Scalar"]


def test_decorators_on_what_they_are_not_for() -> None:
    errors = findings(
        """
        @reducer
        class NotAFunction: pass
        init(3)
        @product
        class Value:
            x: int
        table(Value)
        @table
        class Wrong(Value):
            y: int
        @reducer
        def nowhere(ctx: ReducerContext, it: Callable) -> None: pass
        """
    )
    assert [error.partition(", got")[0] for error in errors] == [
        "chat.py:1: a reducer is a plain function written with def",
        "chat.py:3: a reducer is a plain function written with def",
        "chat.py:7: table(Value): a second table of a row class needs a name of its own: name=…",
        "chat.py:8: Wrong inherits from Value, which is a table or product itself: "
        "move the common columns into a class without decorator",
        "chat.py:11: nowhere(it): Callable is no column type",
    ]
