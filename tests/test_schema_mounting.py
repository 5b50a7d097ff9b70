"""Submodules: what they declare has its place below their namespaces, in a module that is run."""

import json

import pytest

from stdb.datastore.datastore import Datastore
from stdb.datastore.memory_log import MemoryLog
from stdb.datastore.records import Context, encode
from stdb.datastore.recovery import recover
from stdb.errors import QueryError
from stdb.modules.protocol import ReadSet, ReducerCall, ViewCall
from stdb.modules.wasm.engine import engine
from stdb.modules.wasm.runtime import Runtime
from stdb.sats.types import U8, U64, UNIT, Array, Element, Product, Ref, Typespace
from stdb.schema import documents, migration, raw
from stdb.schema.model import IndexAlgorithm
from stdb.schema.raw import (
    NameKind,
    RawConstraint,
    RawExplicitName,
    RawIndex,
    RawModuleDefV10,
    RawProcedureV10,
    RawReducerV10,
    RawSubmodule,
    RawTableV10,
    RawTypeDef,
    RawTypeName,
    RawViewV10,
)
from stdb.schema.validation import validate
from stdb.sql import Caller, compile_one_off
from tests.test_wasm_module import World
from tests.wasm_guests import IDENTITY, NOW_US, RUNTIMES, module_text, wat

ROW = Product((Element("id", U64),))
PAIR = Product((Element("a", U8), Element("b", U8)))


def module(
    table: str, reducer: str, *submodules: RawSubmodule, names: tuple[RawExplicitName, ...] = ()
) -> RawModuleDefV10:
    """Return a module with a table, a reducer, a procedure and a view of each kind, with types of their own."""
    return RawModuleDefV10(
        typespace=Typespace((PAIR, ROW) if submodules else (ROW, PAIR)),
        types=(
            RawTypeDef(RawTypeName("Row"), 1 if submodules else 0),
            RawTypeDef(RawTypeName("Pair"), 0 if submodules else 1),
        ),
        tables=(
            RawTableV10(
                table,
                1 if submodules else 0,
                (0,),
                (RawIndex(f"{table}_id_idx_btree", "id", IndexAlgorithm.BTREE, (0,)),),
                (RawConstraint(None, (0,)),),
            ),
        ),
        reducers=(RawReducerV10(reducer, Product((Element("p", Ref(0 if submodules else 1)),))),),
        procedures=(RawProcedureV10(f"{reducer}Later", UNIT, Ref(0 if submodules else 1)),),
        views=(
            RawViewV10(f"{table}All", 0, True, True, UNIT, Array(Ref(1 if submodules else 0))),
            RawViewV10(f"{table}Mine", 0, True, False, UNIT, Array(Ref(1 if submodules else 0))),
        ),
        submodules=submodules,
        explicit_names=names,
    )


DEEP = RawSubmodule("sub", module("deep", "addDeep"))
WHOLE = module(
    "things", "add", RawSubmodule("myLib", module("things", "addThing", DEEP)), RawSubmodule("z", module("t", "r"))
)


def test_names_are_paths_and_numbers_go_down_before_they_go_on() -> None:
    whole = validate(WHOLE)
    assert [table.name for table in whole.tables] == ["things", "my_lib.things", "my_lib.sub.deep", "z.t"]
    assert [table.accessor for table in whole.tables] == ["things", "myLib.things", "myLib.sub.deep", "z.t"]
    assert [each.name for each in whole.reducers] == ["add", "my_lib.add_thing", "my_lib.sub.add_deep", "z.r"]
    assert [each.name for each in whole.procedures][1:3] == ["my_lib.add_thing_later", "my_lib.sub.add_deep_later"]
    assert [(view.name, view.is_anonymous, view.index) for view in whole.views if "all" in view.name] == [
        ("things_all", True, 0),
        ("my_lib.things_all", True, 1),
        ("my_lib.sub.deep_all", True, 2),
        ("z.t_all", True, 3),
    ]
    assert whole.reducer_id("my_lib.sub.add_deep") == 2
    (index,) = whole.tables[2].indexes
    assert (index.name, index.source_name) == ("my_lib.sub.deep_id_idx_btree", "myLib.sub.deep_id_idx_btree")
    assert whole.tables[2].uniques[0].name == "my_lib.sub.deep_id_key"
    for reducer in whole.reducers:
        (element,) = reducer.params.elements
        assert isinstance(element.type, Ref)
        assert whole.typespace.types[element.type.index] == PAIR
    for table in whole.tables:
        assert whole.typespace.types[table.type_ref] == ROW


def test_documents_show_the_module_as_it_was_written() -> None:
    whole = validate(WHOLE)
    again = validate(raw.decode(raw.encode(documents.to_raw_v10(whole))))
    for kind in ("tables", "reducers", "procedures", "views"):
        assert [each.name for each in getattr(again, kind)] == [each.name for each in getattr(whole, kind)]
    assert again.reducers == whole.reducers
    assert documents.to_json(again, 10) == documents.to_json(whole, 10)
    nine = documents.to_json(whole, 9)
    assert [table["name"] for table in nine["tables"]] == ["things"]
    assert "myLib" in json.dumps(documents.to_json(whole, 10))


def test_a_namespace_that_keeps_its_name_may_change_its_accessor() -> None:
    def with_namespace(accessor: str) -> RawModuleDefV10:
        pinned = (RawExplicitName(NameKind.NAMESPACE, accessor, "lib"),)
        return module("a", "b", RawSubmodule(accessor, module("t", "r")), names=pinned)

    plan = migration.plan_tables(validate(with_namespace("myLib")), validate(with_namespace("Library")))
    assert not plan.refusals
    assert not plan.breaks_clients
    assert plan.steps
    other = module("a", "b", RawSubmodule("other", module("t", "r")))
    plan = migration.plan_tables(validate(with_namespace("myLib")), validate(other))
    assert plan.breaks_clients or plan.refusals


# In a database

IMPORTS = """
  (import "spacetime_10.0" "table_id_from_name" (func $id (param i32 i32 i32) (result i32)))
  (import "spacetime_10.0" "datastore_insert_bsatn" (func $insert (param i32 i32 i32) (result i32)))"""
NAME = "my_lib.sub.deep"
MORE = f"""(data (i32.const 80000) "{NAME}")
  (func (export "__call_view_anon__") (param $view i32) (param $args i32) (param $sink i32) (result i32)
    (i32.store (i32.const 80100) (i32.const 1))
    (i64.store (i32.const 80104) (i64.extend_i32_u (local.get $view)))
    (i32.store (i32.const 32) (i32.const 12))
    (drop (call $write (local.get $sink) (i32.const 80100) (i32.const 32))) i32.const 0)"""
REDUCER = f"""(if (call $id (i32.const 80000) (i32.const {len(NAME)}) (i32.const 48)) (then unreachable))
  (i64.store (i32.const 80200) (i64.extend_i32_u (local.get 0))) (i32.store (i32.const 32) (i32.const 8))
  (if (call $insert (i32.load (i32.const 48)) (i32.const 80200) (i32.const 32)) (then unreachable)) i32.const 0"""


@pytest.fixture(params=RUNTIMES)
def world(request: pytest.FixtureRequest) -> World:
    runtime: Runtime = RUNTIMES[request.param](engine())
    return World(wat(module_text(REDUCER, MORE, IMPORTS, raw.encode(WHOLE))), runtime)


def ids(datastore: Datastore, text: str) -> list[int]:
    plan = compile_one_off(text, datastore, Caller(IDENTITY, is_owner=True))
    return sorted(int.from_bytes(row, "little") for row in plan.rows(100))


def test_functions_and_tables_of_submodules_are_run_and_asked(world: World) -> None:
    definition = world.module.definition
    for name in ("my_lib.sub.add_deep", "add", "z.r"):
        position = definition.reducer_id(name)
        assert position is not None
        transaction = world.datastore.begin(NOW_US)
        world.module.reducer(position)(ReducerCall(IDENTITY, None, NOW_US, transaction), b"\1\2")
        assert transaction.commit() is not None
    for text in (f"SELECT * FROM {NAME}", f'SELECT * FROM "{NAME}"', "SELECT * FROM myLib.sub.deep"):
        assert ids(world.datastore, text) == [0, 2, 3]
    assert ids(world.datastore, f"SELECT d.* FROM {NAME} d WHERE d.id = 2") == [2]
    with pytest.raises(QueryError):
        ids(world.datastore, "SELECT * FROM deep")
    place = next(i for i, view in enumerate(definition.views) if view.name == "z.t_all")
    assert world.module.view(place)(ViewCall(None, b"", ReadSet())) == [(3).to_bytes(8, "little")]


def test_tables_of_submodules_come_back_from_the_log() -> None:
    definition, datastore, log = validate(WHOLE), Datastore(), MemoryLog()
    transaction = datastore.begin(NOW_US)
    datastore.create_tables(definition)
    delta = transaction.commit()
    assert delta is not None
    log.append_nowait([encode(delta, Context("init", IDENTITY, None, NOW_US))])
    again = recover(log)
    for table in definition.tables:
        schema = again.table(table.name).schema
        assert schema.definition.accessor == table.accessor
        assert [index.name for index in schema.definition.indexes] == [index.name for index in table.indexes]
    assert not migration.plan_tables(definition, validate(WHOLE)).steps
