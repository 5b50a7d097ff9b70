"""Definitions of 0.11: the probe module as the real 0.11.1 took it, names as that gave them, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stdb.actors.answers import SqlResult
from stdb.datastore.catalog import read_schemas
from stdb.datastore.datastore import Datastore
from stdb.errors import DecodeError, SchemaError
from stdb.net.routes_call import sql_document
from stdb.sats import json as sats_json
from stdb.sats import meta
from stdb.sats.profiles import OLD_ADDRESS, OLD_IDENTITY, OLD_SCHEDULE_AT
from stdb.sats.types import BYTES, STRING, U8, U32, U64, Array, Element, Map, Product, Ref, Typespace, option
from stdb.schema import documents, raw_v8
from stdb.schema import raw as raw_module
from stdb.schema.model import Access, IndexAlgorithm, Lifecycle, ModuleDef
from stdb.schema.raw import (
    RawColumnV8,
    RawConstraintV8,
    RawIndexV8,
    RawModuleDefV8,
    RawModuleDefV9,
    RawReducerV8,
    RawSequenceV8,
    RawTableV8,
    RawTypeAliasV8,
)
from stdb.schema.validation import validate

PROBE = json.loads((Path(__file__).parent / "vectors" / "legacy" / "probe_module.json").read_text())
DEFINITION = bytes.fromhex(PROBE["definition_hex"]["0.11 (RawModuleDef, tag 0 = V8)"])


def probe() -> RawModuleDefV8:
    """Return the probe module's definition."""
    raw = raw_module.decode(DEFINITION, is_0_11=True)
    assert isinstance(raw, RawModuleDefV8)
    return raw


def table(name: str = "t", *columns: Any, **more: Any) -> RawTableV8:
    """Return a table whose row type is the first of the typespace."""
    shown = tuple(RawColumnV8(column, type_) for column, type_ in columns)
    parts: dict[str, Any] = {"indexes": (), "constraints": (), "sequences": (), "table_type": "user"}
    parts |= {"access": "public", "scheduled": None, "product_type_ref": 0}
    return RawTableV8(name, shown, **(parts | more))


def module(*tables: RawTableV8, **more: Any) -> RawModuleDefV8:
    """Return a module of tables with the columns of the first."""
    row = Product(tuple(Element(column.name, column.type) for column in tables[0].columns))
    return RawModuleDefV8(Typespace((row,)), tables, **more)


def findings(raw: RawModuleDefV8) -> list[str]:
    """Return what is wrong."""
    with pytest.raises(SchemaError) as caught:
        validate(raw)
    return caught.value.errors


def test_the_probe_module_survives_bytes() -> None:
    assert raw_module.encode(probe()) == DEFINITION


def test_a_truncated_definition_is_refused_at_every_length() -> None:
    for size in range(1, len(DEFINITION), 7):
        with pytest.raises(DecodeError):
            raw_module.decode(DEFINITION[:size], is_0_11=True)


def test_the_tables_of_the_probe_module() -> None:
    definition = validate(probe())
    assert definition.is_0_11
    assert not definition.abi_is_v10
    for name, recorded in PROBE["tables"].items():
        found = definition.table(name.removesuffix(" (0.11 only)"))
        assert found is not None
        assert [column.name for column in found.columns] == [column for column, _ in recorded["columns"]]
        assert (found.access is Access.PRIVATE) == (recorded.get("access") == "private")
    kinds = definition.table("Kinds")
    assert kinds is not None
    assert [column.type for column in kinds.columns[-2:]] == [OLD_IDENTITY, OLD_ADDRESS]
    user = definition.table("User")
    assert user is not None
    assert user.columns[0].type == Product((Element("__identity_bytes", BYTES),))


def test_names_that_nobody_gave_are_those_of_the_real_server() -> None:
    definition = validate(probe())
    item, timer = definition.table("Item"), definition.table("Timer")
    assert item is not None
    assert timer is not None
    assert {index.name for index in item.indexes} == {"idx_Item_id_primary_key_auto_unique", "item_owner"}
    assert [unique.name for unique in item.uniques] == ["ct_Item_id_primary_key_auto"]
    assert [sequence.name for sequence in item.sequences] == ["seq_Item_id_primary_key_auto"]
    assert [sequence.name for sequence in timer.sequences] == ["seq_Timer_scheduled_id_primary_key_auto"]
    assert timer.columns[1].type == OLD_SCHEDULE_AT
    assert timer.schedule is not None
    assert (timer.schedule.function, timer.schedule.at_column) == ("on_timer", 1)


def test_a_constraint_that_says_unique_is_not_said_so_twice() -> None:
    one = RawConstraintV8("ct_t_a_unique", 5, (0,))
    two = RawConstraintV8("ct_t_b_indexed", 1, (1,))
    definition = validate(module(table("t", ("a", U32), ("b", U32), constraints=(one, two))))
    assert [index.name for index in definition.tables[0].indexes] == ["idx_t_a_unique", "idx_t_b_indexed_non_unique"]


def test_reducers_are_known_by_their_names() -> None:
    definition = validate(probe())
    events = {reducer.name: reducer.lifecycle for reducer in definition.reducers if reducer.lifecycle is not None}
    assert events == {
        "__init__": Lifecycle.INIT,
        "__identity_connected__": Lifecycle.ON_CONNECT,
        "__identity_disconnected__": Lifecycle.ON_DISCONNECT,
    }
    assert [reducer.name for reducer in definition.reducers] == [each["name"] for each in PROBE["reducers"]]
    assert definition.update_reducer == 20
    assert definition.is_reserved("__update__")
    assert not definition.is_reserved("nop")


@pytest.mark.parametrize(
    ("reducer", "text"),
    [
        (
            RawReducerV8("__foo__"),
            "reducers with double-underscores at the start and end of their names are not allowed",
        ),
        (
            RawReducerV8("__update__", Product((Element("x", U32),))),
            'lifecycle reducer "__update__" has invalid signature',
        ),
        (RawReducerV8("__init__", Product((Element("x", U32),))), None),
        (RawReducerV8("__migrate__"), None),
        (RawReducerV8("__foo"), None),
    ],
)
def test_reserved_names(reducer: RawReducerV8, text: str | None) -> None:
    assert raw_v8.name_refusal(RawModuleDefV8(reducers=(reducer,))) == text


def test_names_and_types_are_free() -> None:
    inner = Product((Element("x", U32), Element(None, option(STRING))))
    odd = module(
        table("select *", ("a b", inner), ("m", Map(STRING, U8)), ("", Array(inner))),
        reducers=(RawReducerV8("do it", Product((Element(None, inner),))),),
        types=(RawTypeAliasV8("a.b::C", 0),),
    )
    definition = validate(odd)
    assert definition.tables[0].name == "select *"
    assert [(type_.scope, type_.name) for type_ in definition.types] == [(("a", "b"), "C")]


def test_a_unique_index_is_a_constraint() -> None:
    index = RawIndexV8("by_both", True, IndexAlgorithm.BTREE, (0, 1))
    definition = validate(module(table("t", ("a", U32), ("b", U32), indexes=(index,))))
    assert [(unique.name, unique.columns) for unique in definition.tables[0].uniques] == [("ct_t_a_b_unique", (0, 1))]


def test_indexes_of_two_tables_may_have_one_name() -> None:
    index = RawIndexV8("by_owner", False, IndexAlgorithm.BTREE, (0,))
    both = [table(name, ("a", U32), indexes=(index,)) for name in ("t", "u")]
    definition = validate(module(*both))
    assert [each.indexes[0].name for each in definition.tables] == ["by_owner", "u_by_owner"]


def test_an_index_that_is_there_is_not_made_again() -> None:
    index = RawIndexV8("mine", False, IndexAlgorithm.BTREE, (0,))
    indexed = RawConstraintV8("ct_t_a_indexed", 1, (0,))
    definition = validate(module(table("t", ("a", U32), indexes=(index,), constraints=(indexed,))))
    assert [each.name for each in definition.tables[0].indexes] == ["mine"]


def test_one_sequence_for_a_column_that_says_so_twice() -> None:
    constraint, sequence = RawConstraintV8("ct_t_a_auto_inc", 2, (0,)), RawSequenceV8("seq_t_a", 0)
    definition = validate(module(table("t", ("a", U32), constraints=(constraint,), sequences=(sequence,))))
    assert [each.name for each in definition.tables[0].sequences] == ["seq_t_a"]


def test_columns_that_lie_are_refused() -> None:
    raw = module(table("t", ("a", U32)))
    lying = replace(raw, typespace=Typespace((Product((Element("a", U64),)),)))
    assert findings(lying) == ["table `t`: its columns are not those of its row type &0"]
    nowhere = replace(raw, tables=(table("t", ("a", U32), product_type_ref=7),))
    assert findings(nowhere) == ["Table t has invalid product_type_ref &7"]


def test_a_schedule_needs_its_columns_and_its_reducer() -> None:
    raw = module(
        table("t", ("a", U32), scheduled="go"), reducers=(RawReducerV8("go", Product((Element("row", Ref(0)),))),)
    )
    (text,) = findings(raw)
    assert text.startswith("A scheduled table must have columns")
    assert any("does not exist" in text for text in findings(replace(raw, reducers=())))


def test_two_reducers_of_one_name_are_refused() -> None:
    assert findings(RawModuleDefV8(reducers=(RawReducerV8("a"), RawReducerV8("a")))) == [
        "Name a is used for multiple reducers, procedures and/or views"
    ]


def test_documents_show_what_clients_may_know() -> None:
    definition: ModuleDef = validate(probe())
    for version in (9, 10):
        text = json.dumps(documents.to_json(definition, version))
        assert "__update__" not in text
        assert "__identity_connected__" in text
    shown = raw_v8.to_json(probe())
    assert shown["tables"][0]["schema"]["table_name"] == "User"
    assert shown["reducers"][0] == {"name": "__init__", "args": []}


@pytest.mark.parametrize("version", [9, 10])
def test_later_clients_can_check_what_they_are_shown(version: int) -> None:
    shown = validate(documents.from_json(documents.to_json(validate(probe()), version)))
    names = {each.type_ref: each.name for each in shown.types}
    user = shown.table("User") if version == 9 else next(each for each in shown.tables if each.accessor == "User")
    assert user is not None
    row = shown.typespace.types[user.type_ref]
    assert isinstance(row, Product)
    (reference, *_) = (element.type for element in row.elements)
    assert isinstance(reference, Ref)
    assert names[reference.index] == "IdentityBytes"
    assert version == 10 or user.columns[0].type == OLD_IDENTITY
    assert {"Color", "Shape", "Point", "User", "AddressBytes", "TimeOrInterval"} <= set(names.values())


def test_types_that_later_clients_cannot_name_get_names() -> None:
    inner = Product((Element("x", U32), Element(None, option(Array(Product((Element("y", U8),)))))))
    columns = (("a", inner), ("b", Array(inner)), ("m", Map(STRING, inner)), ("Type1", option(OLD_IDENTITY)))
    odd = module(
        table("t", *columns),
        reducers=(RawReducerV8("r", Product((Element(None, inner), Element("s", Ref(0))))),),
        types=(RawTypeAliasV8("Vec<u8>", 0),),
    )
    definition = validate(odd)
    shown = validate(documents.from_json(documents.to_json(definition, 9)))
    assert [each.name for each in shown.types].count("t") == 0
    assert shown.tables[0].columns[0].type == Product(
        (Element("x", U32), Element("field_1", option(Array(Product((Element("y", U8),))))))
    )
    assert [element.name for element in shown.reducers[0].params.elements] == ["field_0", "s"]


def test_maps_are_shown_as_arrays_of_pairs() -> None:
    type_ = Map(STRING, U8)
    raw = module(table("t", ("m", type_)), reducers=(RawReducerV8("r", Product((Element("m", type_),))),))
    definition = validate(raw)
    assert definition.tables[0].columns[0].type == type_
    shown = json.dumps(documents.to_json(definition, 9))
    assert "Map" not in shown
    assert shown.count('"key"') == 1
    datastore = Datastore()
    datastore.begin(0)
    datastore.create_tables(definition)
    table_id = datastore.table("t").schema.id
    assert read_schemas(datastore, [table_id])[table_id][0].definition.columns[0].type == type_


def test_sql_answers_later_clients_with_pairs_for_a_map() -> None:
    row_type = Product((Element("m", Map(STRING, U8)), Element("n", option(Map(U8, BYTES)))))
    result = SqlResult(row_type, [([("a", 1), ("b", 2)], None), ([], [(3, b"x")])], 5)
    (answer,) = json.loads(b"".join(sql_document(result)))
    assert answer["rows"] == [[[["a", 1], ["b", 2]], [1, []]], [[], [0, [[3, "78"]]]]]
    shown = Product(
        tuple(
            Element(each["name"]["some"], meta.type_from_json(each["algebraic_type"]))
            for each in answer["schema"]["elements"]
        )
    )
    rows = [sats_json.decode(shown, row) for row in answer["rows"]]
    assert rows == [([("a", 1), ("b", 2)], None), ([], [(3, b"x")])]


def test_the_spelling_of_later_hosts_is_read_too() -> None:
    later = raw_module.decode(b"\0" + bytes(16))
    assert later == RawModuleDefV9()
    assert not validate(later).is_0_11
