"""Views of a Python module: what they may read, what is noted of it, what they may return."""

import pytest

from stdb.errors import DecodeError, ModuleFault, ReducerError, ReducerTimeout, SchemaError, StdbError
from stdb.modules.protocol import ReadSet, ViewCall
from stdb.sats.types import STRING, U32, Array, Element, Product, Ref, option
from stdb.schema import documents, raw
from stdb.schema.validation import validate
from tests.python_module_harness import ALICE, BOB, Running, load

SOURCE = """
from stdb import *

@table(indexes=[Index("by_room", "room", "number"), Index("by_code", "code", kind="hash")], uniques=[Unique("x", "y")])
class Item:
    id: u64 = primary_key()
    owner: Identity = index()
    name: str = unique()
    room: str = ""
    number: u32 = 0
    code: u32 = 0
    x: u32 = 0
    y: u32 = 0
    note: str | None = None

old_item = table(Item, name="old_item")

@product
class Total:
    owner: Identity
    count: u32

@reducer
def add(ctx: ReducerContext, id: u64, owner: Identity, name: str, room: str) -> None:
    ctx.db[Item].insert(Item(id=id, owner=owner, name=name, room=room, number=u(id), x=u(id), y=u(id)))

def u(id):
    return id % 1000

@view(public=True)
def mine(ctx: ViewContext) -> list[Item]:
    return list(ctx.db[Item].filter(Item.owner == ctx.sender, order_by=Item.id))

@view(public=True, name="the_one")
def one(ctx: ViewContext) -> Item | None:
    return ctx.db[Item].get(7)

@view(public=True)
def asked(ctx: ViewContext) -> Query[Item]:
    return ctx.db[Item].query(Item.owner == ctx.sender)

@view
def totals(ctx: AnonymousViewContext) -> list[Total]:
    owners = sorted({item.owner for item in ctx.db[Item]})
    return [Total(owner=owner, count=sum(1 for _ in ctx.db[Item].filter(Item.owner == owner))) for owner in owners]

@view(public=True)
def in_room(ctx: AnonymousViewContext, room: str, least: u32) -> list[Item]:
    return list(ctx.db[Item].filter((Item.room == room) & (Item.number >= least), order_by=Item.id))

@view(primary_key="name")
def keyed(ctx: "AnonymousViewContext") -> "list[Item]":
    return list(ctx.db[Item])

probing = []

@view
def probe(ctx: ViewContext) -> list[Item]:
    out = []
    exec(probing[-1], {**globals(), "ctx": ctx, "out": out})
    return out[-1] if out else []
"""


@pytest.fixture
def running() -> Running:
    running = Running(SOURCE)
    running.call("add", 1, ALICE, "a", "hall")
    running.call("add", 7, BOB, "b", "hall")
    running.call("add", 3, ALICE, "c", "attic")
    return running


def ids(rows: list[tuple[object, ...]]) -> list[object]:
    return [row[0] for row in rows]


def probe(running: Running, source: str) -> ReadSet:
    (namespace,) = (each for each in running.module._version.namespaces().values() if "probing" in each)
    namespace["probing"].append(source)
    reads = ReadSet()
    running.view("probe", reads=reads)
    return reads


def keys(running: Running, reads: ReadSet) -> dict[str, set[object]]:
    names = {(t.schema.id, i.id): i.name for t in running.store.tables.values() for i in t.indexes}
    return {names[place]: found for place, found in reads.keys.items()}


def tables(running: Running, reads: ReadSet) -> set[str]:
    return {running.store.tables[each].schema.name for each in reads.tables}


# What they are


def test_views_are_defined_by_what_they_take_and_return() -> None:
    views = {view.name: view for view in load(SOURCE).definition.views}
    item = views["mine"].return_type.element  # type: ignore[union-attr]  # an array, as the next line says
    assert views["mine"].return_type == Array(item)
    assert views["the_one"].return_type == option(item)
    assert views["asked"].return_type == Product((Element("__query__", item),))
    assert isinstance(item, Ref)
    assert views["in_room"].params == Product((Element("room", STRING), Element("least", U32)))
    assert [(view.name, view.is_anonymous, view.index) for view in views.values()] == [
        ("mine", False, 0),
        ("the_one", False, 1),
        ("asked", False, 2),
        ("totals", True, 0),
        ("in_room", True, 1),
        ("keyed", True, 2),
        ("probe", False, 3),
    ]
    assert [name for name, view in views.items() if view.is_public] == ["mine", "the_one", "asked", "in_room"]


def test_a_query_has_the_primary_key_of_its_table_a_list_the_one_that_it_names() -> None:
    views = {view.name: view.primary_key for view in load(SOURCE).definition.views}
    assert views["asked"] == "id"
    assert views["mine"] is None
    assert views["keyed"] == "name"


@pytest.mark.parametrize("version", [9, 10])
def test_their_definition_goes_through_both_versions(version: int) -> None:
    definition = load(SOURCE).definition
    written = documents.to_raw_v9(definition) if version == 9 else documents.to_raw_v10(definition)
    again = validate(raw.decode(raw.encode(written)))
    kept = {view.name: (view.params, view.is_anonymous, view.index) for view in definition.views}
    assert {view.name: (view.params, view.is_anonymous, view.index) for view in again.views} == kept
    if version == 10:
        assert again.views == definition.views
    document = documents.to_json(definition, version=version)
    assert validate(documents.from_json(document)).views == again.views


# What they return


def test_a_list_an_option_and_a_query_become_rows(running: Running) -> None:
    assert ids(running.view("mine")) == [1, 3]
    assert ids(running.view("mine", sender=BOB)) == [7]
    assert ids(running.view("the_one")) == [7]
    assert sorted(ids(running.view("asked"))) == [1, 3]  # type: ignore[type-var]  # they are integers
    running.call("add", 9, BOB, "d", "attic")
    assert running.view("totals", sender=None) == [(ALICE, 2), (BOB, 2)]


def test_no_row_of_an_option_is_no_row() -> None:
    assert Running(SOURCE).view("the_one") == []


def test_parameters_come_as_they_were_declared(running: Running) -> None:
    assert ids(running.view("in_room", "hall", 0, sender=None)) == [1, 7]
    assert ids(running.view("in_room", "hall", 5, sender=None)) == [7]


def test_arguments_that_do_not_decode_run_nothing(running: Running) -> None:
    position = [view.name for view in running.module.definition.views].index("in_room")
    with pytest.raises(DecodeError):
        running.module.view(position)(ViewCall(None, b"\x05", ReadSet()))


def test_a_view_reads_what_a_reducer_has_written_before_it_commits(running: Running) -> None:
    transaction = running.store.begin(5)
    running.run(transaction, "add", running.encode("add", (4, ALICE, "e", "hall")))
    assert ids(running.view("mine")) == [1, 3, 4]
    transaction.rollback()
    assert ids(running.view("mine")) == [1, 3]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("out.append(None)", "view probe returns list[Item], got None"),
        ("out.append((1,))", "view probe returns list[Item], got (1,)"),
        ("out.append(row for row in ctx.db[Item])", "view probe returns list[Item], got <generator"),
        ("out.append(ctx.db[Item].query())", "view probe returns list[Item], got <Table item>.query()"),
        ("out.append([5])", "view probe returns rows of Item, got 5"),
        ("out.append([Total(owner=ctx.sender, count=1)])", "view probe returns rows of Item, got Total("),
        (
            "out.append([ctx.db[Item].get(1).replace(number=-1)])",
            "view probe returned a row that does not fit its type",
        ),
        ("out.append([ctx.db[Item].get(1).replace(name=None)])", "does not fit its type"),
    ],
)
def test_what_is_no_result_of_the_view_names_the_view(running: Running, source: str, text: str) -> None:
    with pytest.raises(ModuleFault) as caught:
        probe(running, source)
    assert text in (caught.value.report or "")
    line = SOURCE.splitlines().index("def probe(ctx: ViewContext) -> list[Item]:")  # counted from 0: its decorator
    assert (caught.value.filename, caught.value.line) == ("chat.py", line)


def test_wrong_results_of_the_other_forms_name_the_view() -> None:
    running = Running(
        """
        from stdb import *

        @table
        class Item:
            id: u64 = primary_key()

        @table
        class Other:
            id: u64 = primary_key()

        @view
        def option(ctx: ViewContext) -> Item | None:
            return [Item(id=1)]

        @view
        def query(ctx: ViewContext) -> Query[Item]:
            return ctx.db[Other].query()

        @view
        def rows(ctx: ViewContext) -> Query[Item]:
            return [Item(id=1)]
        """
    )
    for name, text in {
        "option": "view option returns Item | None, got [Item(id=1)]",
        "query": "view query returns Query[Item], got <Table other>.query()",
        "rows": "view rows returns Query[Item], got [Item(id=1)]",
    }.items():
        with pytest.raises(ModuleFault) as caught:
            running.view(name)
        assert text in (caught.value.report or "")


# What they may do


@pytest.mark.parametrize(
    "source",
    [
        "ctx.db[Item].insert(Item(id=9, owner=ctx.sender, name='x'))",
        "ctx.db[Item].try_insert(Item(id=9, owner=ctx.sender, name='x'))",
        "ctx.db[Item].insert_many([])",
        "ctx.db[Item].insert_or_update(Item(id=9, owner=ctx.sender, name='x'))",
        "ctx.db[Item].update(ctx.db[Item].get(1))",
        "ctx.db[Item].delete(Item.id == 1)",
        "ctx.db[Item].delete_key(1)",
        "ctx.db[old_item].clear()",
        "ctx.db.item.insert(None)",
        "ctx.db.item.id.update(None)",
        "ctx.db.item.id.delete(1)",
        "ctx.db.item.owner.delete(ctx.sender)",
    ],
)
def test_a_view_that_writes_is_told_that_it_only_reads(running: Running, source: str) -> None:
    before = running.rows("item")
    with pytest.raises(ModuleFault) as caught:
        probe(running, source)
    assert "a view only reads" in (caught.value.report or "")
    assert running.rows("item") == before


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("ctx.timestamp", "the context of a view has no attribute 'timestamp'"),
        ("ctx.db[Total]", "Total is a @product, not a @table"),
        ("ctx.db[int]", "'int' is no table of this module"),
        ("ctx.db.nothing", "the module has no table 'nothing'; it has item, old_item"),
        ("ctx.db[Item].note", "item.note has no index"),
        ("ctx.db[Item].nothing", "table item has neither an operation nor a column 'nothing'"),
        ("ctx.db[Item].id.nothing", "has no operation 'nothing'"),
        ("ctx.db[Item].by_code.filter()", "give one value for each"),
        ("ctx.db[Item].find(Item.note == 'x')", "needs a unique index"),
        ("ctx.db[Item].query('x')", "query() on table item: expected a condition"),
        ("ctx.db[Item].query(Item.id == 'x')", "Item.id is an integer"),
        ("ctx.db[Item][55]", "KeyError: 55"),
        ("ctx.db[Item].id.find(1, 2)", "takes 1 values, got 2"),
    ],
)
def test_mistakes_in_a_view_are_told(running: Running, source: str, text: str) -> None:
    with pytest.raises(ModuleFault) as caught:
        probe(running, source)
    assert text in (caught.value.report or "")


def test_an_anonymous_view_has_no_sender() -> None:
    running = Running(
        """
        from stdb import *

        @table
        class Item:
            id: u64 = primary_key()

        @view
        def f(ctx: AnonymousViewContext) -> list[Item]:
            return [ctx.sender]
        """
    )
    with pytest.raises(ModuleFault) as caught:
        running.view("f", sender=None)
    assert "an anonymous view has no sender: annotate its context as ViewContext" in (caught.value.report or "")
    assert (caught.value.filename, caught.value.line) == ("chat.py", 10)


def test_a_sender_error_of_a_view_is_its_text(running: Running) -> None:
    with pytest.raises(ReducerError, match=r"^not you$"):
        probe(running, "raise SenderError('not you')")


def test_tables_are_not_kept_for_later(running: Running) -> None:
    probe(running, "globals()['probing'].append(ctx.db[Item])")
    (namespace,) = (each for each in running.module._version.namespaces().values() if "probing" in each)
    kept = namespace["probing"].pop()
    with pytest.raises(StdbError, match=r"open during a view's run only"):
        kept.get(1)


def test_the_time_limit_stops_the_next_read_and_is_told_at_the_end(running: Running) -> None:
    reads = ReadSet()
    reads.expired = True
    with pytest.raises(ReducerTimeout, match=r"time limit"):
        running.view("mine", reads=reads)


def test_a_view_that_reads_nothing_after_its_time_does_not_count() -> None:
    running = Running(
        """
        from stdb import *

        @table
        class Item:
            id: u64 = primary_key()

        @view
        def f(ctx: AnonymousViewContext) -> list[Item]:
            return []
        """
    )
    reads = ReadSet()
    reads.expired = True
    with pytest.raises(ReducerTimeout):
        running.view("f", sender=None, reads=reads)


# What is noted


@pytest.mark.parametrize(
    ("source", "noted"),
    [
        ("ctx.db[Item].get(1)", {"item_id_idx_btree": {1}}),
        ("ctx.db[Item].get(99)", {"item_id_idx_btree": {99}}),
        ("ctx.db[Item][1]", {"item_id_idx_btree": {1}}),
        ("ctx.db[Item].find(Item.name == 'a')", {"item_name_idx_btree": {"a"}}),
        ("ctx.db[Item].find((Item.x == 1) & (Item.y == 2))", {"item_x_y_idx_btree": {(1, 2)}}),
        ("list(ctx.db[Item].filter(Item.code == 5))", {"item_code_idx_hash": {5}}),
        (
            "list(ctx.db[Item].filter((Item.number == 5) & (Item.room == 'x')))",
            {"item_room_number_idx_btree": {("x", 5)}},
        ),
        ("list(ctx.db[Item].filter((Item.code == 5) & (Item.note == 'x')))", {"item_code_idx_hash": {5}}),
        ("list(ctx.db[Item].filter(is_in(Item.id, [1, 5])))", {"item_id_idx_btree": {1, 5}}),
        (
            "list(ctx.db[Item].filter((Item.room == 'x') & is_in(Item.number, [1, 5])))",
            {"item_room_number_idx_btree": {("x", 1), ("x", 5)}},
        ),
        (
            "list(ctx.db[Item].filter((Item.id == 1) | (Item.name == 'x')))",
            {"item_id_idx_btree": {1}, "item_name_idx_btree": {"x"}},
        ),
        ("out.append(list(ctx.db[Item].query(Item.id == 5).rows()) * 0)", {"item_id_idx_btree": {5}}),
        ("ctx.db.item.id.find(4)", {"item_id_idx_btree": {4}}),
        ("list(ctx.db.item.by_room.filter('x', 4))", {"item_room_number_idx_btree": {("x", 4)}}),
        ("list(ctx.db.item.code.filter(4))", {"item_code_idx_hash": {4}}),
        ("ctx.db[Item].get(1), ctx.db[Item].get(2)", {"item_id_idx_btree": {1, 2}}),
        ("ctx.db[old_item].get(1)", {"old_item_id_idx_btree": {1}}),
        ("repr(ctx.db[Item]), bool(ctx.db[Item]), ctx.db[Item].explain(Item.id == 1), ctx.db[Item].explain()", {}),
        ("ctx.db[Item].query(Item.note == 'x')", {}),
    ],
)
def test_an_equality_on_an_index_notes_its_key(running: Running, source: str, noted: dict[str, set[object]]) -> None:
    reads = probe(running, source)
    assert tables(running, reads) == set()
    assert keys(running, reads) == noted


def test_keys_are_noted_in_the_form_of_the_index(running: Running) -> None:
    reads = ReadSet()
    running.view("mine", reads=reads)
    stored = running.store.table("item")
    index = next(index for index in stored.indexes if index.name == "item_owner_idx_btree")
    mine = {index.key_of(row) for row in stored.rows() if stored.schema.codec.decode_exact(row)[1] == ALICE}
    assert keys(running, reads) == {"item_owner_idx_btree": mine}


@pytest.mark.parametrize(
    "source",
    [
        "len(ctx.db[Item])",
        "ctx.db[Item].count()",
        "list(ctx.db[Item])",
        "iter(ctx.db[Item])",
        "list(ctx.db[Item].iter())",
        "list(ctx.db[Item].filter())",
        "list(ctx.db[Item].filter(Item.id > 3))",
        "list(ctx.db[Item].filter(Item.id != 3))",
        "list(ctx.db[Item].filter(Item.room == 'x'))",
        "list(ctx.db[Item].filter((Item.room == 'x') & (Item.number > 3)))",
        "list(ctx.db[Item].filter(Item.note == 'x'))",
        "list(ctx.db[Item].filter((Item.id == 3) | (Item.note == 'x')))",
        "list(ctx.db[Item].filter((Item.id == 3) | (Item.id > 7)))",
        "list(ctx.db[Item].filter(not_(Item.id == 3)))",
        "ctx.db[Item].get(1) in ctx.db[Item]",
        "list(ctx.db.item.by_room.filter('x'))",
        "ctx.db[Item].query(Item.note == 'x').rows()",
        "ctx.db[Item].query().rows()",
    ],
)
def test_everything_else_notes_the_whole_table(running: Running, source: str) -> None:
    assert tables(running, probe(running, source)) == {"item"}


def test_what_was_read_before_a_failure_is_noted(running: Running) -> None:
    reads = ReadSet()
    (namespace,) = (each for each in running.module._version.namespaces().values() if "probing" in each)
    namespace["probing"].append("ctx.db[Item].get(5); 1 / 0")
    with pytest.raises(ModuleFault):
        running.view("probe", reads=reads)
    assert keys(running, reads) == {"item_id_idx_btree": {5}}


# What is refused


def findings(source: str) -> list[str]:
    head = "from stdb import *\n@table\nclass Item:\n    id: u64 = primary_key()\n"
    with pytest.raises(SchemaError) as caught:
        load(head + source)
    return caught.value.errors


FORMS = "list[Row], Row | None or Query[Row], where Row is a @table or @product class"
CONTEXT = "annotate the context as ViewContext, or as AnonymousViewContext where all get the same rows"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("def f(ctx: ViewContext): ...", f"f: say what it returns: {FORMS}"),
        ("def f(ctx: ViewContext) -> list[int]: ...", f"f() -> list[int] is no result of a view: write {FORMS}"),
        ("def f(ctx: ViewContext) -> Item: ...", f"f() -> Item is no result of a view: write {FORMS}"),
        ("def f(ctx: ViewContext) -> None: ...", f"f() -> None is no result of a view: write {FORMS}"),
        ("def f(ctx: ViewContext) -> tuple[Item, ...]: ...", f"is no result of a view: write {FORMS}"),
        ("def f(ctx: ViewContext) -> 'list[Nothing]': ...", "the annotation 'list[Nothing]' cannot be resolved"),
        ("def f(ctx) -> list[Item]: ...", f"f(ctx): {CONTEXT}"),
        ("def f(ctx: ReducerContext) -> list[Item]: ...", f"f(ctx): {CONTEXT}"),
        ("def f() -> list[Item]: ...", "f takes no context: write def f(ctx: ViewContext, …)"),
        ("async def f(ctx: ViewContext) -> list[Item]: ...", "f is async or a generator: a view is a plain function"),
        ("def f(ctx: ViewContext) -> list[Item]: yield 1", "f is async or a generator: a view is a plain function"),
        ("def f(ctx: ViewContext, x: f32) -> list[Item]: ...", "f(x): a view takes no float"),
        ("def f(ctx: ViewContext, x: Item) -> list[Item]: ...", "f(x): the parameters of a view are given in SQL: use"),
        ("def f(ctx: ViewContext, x: list[int]) -> list[Item]: ...", "f(x): the parameters of a view are given"),
        (
            "def f(ctx: ViewContext, x: int | None) -> list[Item]: ...",
            "f(x): the parameters of a view are given in SQL",
        ),
        ("def f(ctx: ViewContext, *x: int) -> list[Item]: ...", "f(x): arguments of views have fixed places"),
        ("def f(ctx: ViewContext, x) -> list[Item]: ...", "f(x): has no type: annotate it as a column"),
        ("def item(ctx: ViewContext) -> list[Item]: ...", "the view item has the name of the table at chat.py:2"),
    ],
)
def test_a_view_that_cannot_be_is_refused_with_its_line(source: str, text: str) -> None:
    found = findings(f"@view\n{source}\n")
    assert len(found) == 1, found
    assert found[0].startswith("chat.py:5: ")
    assert text in found[0]


def test_a_key_that_cannot_be_is_refused() -> None:
    source = (
        "@view(primary_key='no')\ndef f(ctx: ViewContext) -> list[Item]: ...\n"
        "@view(primary_key='id')\ndef g(ctx: ViewContext, x: int) -> list[Item]: ...\n"
    )
    assert findings(source) == [
        "chat.py:5: f: primary_key='no' is no column of Item; there are id",
        "chat.py:7: g: a view with parameters has no primary key: remove primary_key=…",
    ]


def test_functions_of_all_kinds_share_their_names() -> None:
    source = (
        "@view\ndef f(ctx: ViewContext) -> list[Item]: ...\n"
        "@reducer(name='f')\ndef g(ctx: ReducerContext) -> None: ...\n"
        "@procedure(name='f')\nasync def h(ctx: ProcedureContext) -> None: ...\n"
    )
    assert sorted(findings(source)) == [
        "chat.py:5: two functions are called f; the other is at chat.py:7: rename one",
        "chat.py:9: two functions are called f; the other is at chat.py:7: rename one",
    ]


def test_what_is_no_function_is_refused() -> None:
    assert findings("f = view(len)\n") == [
        "chat.py:5: a view is a plain function written with def, got <built-in function len>"
    ]


def test_every_type_that_sql_can_give_is_a_parameter() -> None:
    source = """
        import uuid
        from stdb import *

        @table
        class Item:
            id: u64 = primary_key()

        @view
        def f(ctx: ViewContext, a: bool, b: i8, c: u256, d: str, e: bytes, f: Timestamp, g: Identity, h: Address,
              i: uuid.UUID) -> list[Item]:
            assert isinstance(f, Timestamp) and isinstance(g, Identity) and isinstance(i, uuid.UUID)
            return [Item(id=c)]
        """
    running = Running(source)
    args = (True, -1, 5, "x", b"y", 0, ALICE, bytes(16), bytes(16))
    assert running.view("f", *args) == [(5,)]
