"""Every rule for module definitions, first as recorded from the real server, then our own."""

import time
from dataclasses import replace
from typing import Any

import pytest

from stdb.errors import SchemaError
from stdb.sats.types import (
    F32,
    IDENTITY,
    SCHEDULE_AT,
    STRING,
    U8,
    U32,
    U64,
    UNIT,
    AlgebraicType,
    Array,
    Element,
    Map,
    Product,
    Ref,
    Sum,
    Typespace,
    option,
)
from stdb.schema import raw as raw_module
from stdb.schema.model import CasePolicy, IndexAlgorithm, Lifecycle, ModuleDef, Visibility
from stdb.schema.raw import (
    NameKind,
    RawColumnDefault,
    RawColumnDefaultV9,
    RawExplicitName,
    RawIndex,
    RawLifecycleReducer,
    RawModuleDefV9,
    RawModuleDefV10,
    RawProcedureV10,
    RawReducerV9,
    RawReducerV10,
    RawScheduleV10,
    RawSequence,
    RawTableV9,
    RawTypeDef,
    RawTypeName,
    RawViewPrimaryKey,
    RawViewV10,
)
from stdb.schema.validation import format_errors, validate
from tests.schema_samples import module, outcome, plain_table, product, table, vector

# What stdb says where the reference accepts, or dies (spec 04 section 4.5, "we:"; spec 01 section 2).
OURS = {
    "row with two equal column names": ["table `t` has more than one column `a`"],
    "recursive row": ["table `t` column `a` has the recursive type &0; a row cannot contain itself"],
    "dup params": ["reducer `r` has more than one parameter `x`"],
    "index no columns": ["table `t`: def `t__idx_btree` has no columns"],
    "default twice": ["table `t` column `id` has more than one default value"],
    "lifecycle with params": ["lifecycle reducer `c` for event OnConnect must not have parameters"],
    "system table type": ["table `t` is declared a system table; a module may declare user tables only"],
    "sum with 256 variants": [
        "table `t` column `a`: sum type has 256 variants, at most 255 are possible",
        "error at typespace ref `&1`: sum type has 256 variants, at most 255 are possible",
    ],
    "sum with 257 variants": [
        "table `t` column `a`: sum type has 257 variants, at most 255 are possible",
        "error at typespace ref `&1`: sum type has 257 variants, at most 255 are possible",
    ],
}
# The definition is sound; the rule's SQL is refused by the one who publishes.
SQL_CASES = {"rls bad sql", "rls unknown table", "rls projection"}
# Recorded without the bytes; rebuilt below.
WITHOUT_BYTES = {"5000 columns", "fixed part 70 KB"}


def _recorded() -> list[Any]:
    cases = vector("72_validation")["cases"] + vector("74_identifiers")["cases"]
    return [
        pytest.param(case, id=case.get("case") or f"{case['kind']} {case.get('name', '')!r}")
        for case in cases
        if case.get("case") not in WITHOUT_BYTES
    ]


@pytest.mark.parametrize("case", _recorded())
def test_a_recorded_definition_gets_the_recorded_answer(case: dict[str, Any]) -> None:
    definition = raw_module.decode(bytes.fromhex(case["definition_hex"]))
    name = case.get("case")
    if name in OURS:
        assert outcome(definition) == OURS[name]
    elif case["status"] == 200 or name in SQL_CASES:
        assert isinstance(validate(definition), ModuleDef)
    else:
        with pytest.raises(SchemaError) as caught:
            validate(definition)
        assert format_errors(caught.value) == case["body"]


def test_every_recorded_case_is_accounted_for() -> None:
    cases = vector("72_validation")["cases"]
    assert len(cases) == 103
    assert {case["case"] for case in cases if "definition_hex" not in case} == WITHOUT_BYTES
    assert {case["case"] for case in cases if "bug" in case} | {"row with two equal column names"} == set(OURS)


def test_five_thousand_columns_are_accepted() -> None:
    row = Product(tuple(Element(f"c{i}", U32) for i in range(5000)))
    definition = validate(module(row, tables=(plain_table(),)))
    assert len(definition.tables[0].columns) == 5000


def test_a_fixed_part_of_seventy_kilobytes_is_accepted() -> None:
    row = Product(tuple(Element(f"c{i}", IDENTITY) for i in range(2200)))
    assert len(validate(module(row, tables=(plain_table(),))).tables[0].columns) == 2200


# ---- names ----


def _snake(**changes: Any) -> RawModuleDefV10:
    return module(product(userId=U64, Name2=STRING), case_policy=None, **changes)


def test_names_become_canonical_and_keep_what_the_author_wrote() -> None:
    definition = validate(_snake(tables=(table("MyTable2"),), reducers=(RawReducerV10("doIt", product(argOne=U8)),)))
    (found,) = definition.tables
    assert (found.name, found.accessor) == ("my_table_2", "MyTable2")
    assert [(column.name, column.accessor) for column in found.columns] == [("user_id", "userId"), ("name_2", "Name2")]
    assert found.indexes[0].name == "my_table_2_user_id_idx_btree"
    assert (found.indexes[0].accessor, found.indexes[0].source_name) == ("id", "MyTable2_id_idx_btree")
    assert found.uniques[0].name == "my_table_2_user_id_key"
    (reducer,) = definition.reducers
    assert (reducer.name, reducer.accessor) == ("do_it", "doIt")
    assert reducer.params == product(argOne=U8)
    assert definition.typespace.types[0] == product(user_id=U64, name_2=STRING)


def test_an_explicit_name_wins_over_the_case_policy() -> None:
    explicit = (
        RawExplicitName(NameKind.TABLE, "t", "Weird_Name"),
        RawExplicitName(NameKind.INDEX, "t_id_idx_btree", "byId"),
    )
    (found,) = validate(_snake(explicit_names=explicit)).tables
    assert (found.name, found.indexes[0].name) == ("Weird_Name", "byId")


def test_an_index_takes_its_canonical_name_and_the_name_it_was_given() -> None:
    second = plain_table("other_idx")
    first = table("t", indexes=(RawIndex("other_idx", None, IndexAlgorithm.BTREE, (0,)),))
    assert outcome(module(tables=(first, second))) == ["name `other_idx` is used for multiple entities"]


def test_two_columns_that_become_equal_are_refused() -> None:
    raw = module(product(userId=U8, user_id=U8), tables=(plain_table(),), case_policy=None)
    assert outcome(raw) == ["table `t` has more than one column `user_id`"]


def test_a_name_that_becomes_empty_is_refused() -> None:
    raw = module(product(_=U8), tables=(plain_table(),), case_policy=None)
    assert "module contains invalid identifier: Empty identifiers are forbidden." in outcome(raw)  # type: ignore[operator]


def test_a_system_prefix_counts_after_conversion() -> None:
    assert outcome(_snake(tables=(plain_table("stFoo"),))) == ["Table name is reserved for system use: st_foo"]
    assert isinstance(outcome(module(tables=(plain_table("ST_foo"),))), ModuleDef)
    view = _view(Array(Ref(0)), source_name="stFoo")
    assert outcome(_snake(views=(view,))) == ["View name is reserved for system use: st_foo"]


def test_v9_names_are_kept_as_given() -> None:
    raw = RawModuleDefV9(
        typespace=Typespace((product(userId=U64),)),
        tables=(RawTableV9("MyTable", 0, indexes=(RawIndex("anIndex", "x", IndexAlgorithm.HASH, (0,)),)),),
        reducers=(RawReducerV9("DoIt"),),
    )
    definition = validate(raw)
    assert (definition.tables[0].name, definition.tables[0].indexes[0].name) == ("MyTable", "anIndex")
    assert definition.tables[0].columns[0].name == "userId"
    assert not definition.abi_is_v10


def test_a_v9_default_of_an_unknown_table_is_refused() -> None:
    raw = RawModuleDefV9(misc_exports=(RawColumnDefaultV9("zz", 0, b"\0"),))
    assert outcome(raw) == ["Table zz not found"]


# ---- tables ----


def test_all_findings_are_told_at_once_and_sorted() -> None:
    bad = table("t", primary_key=(7,), indexes=(), default_values=(RawColumnDefault(1, b"\xff\0\0\0"),))
    found = outcome(module(tables=(bad, plain_table("st_x"), plain_table("a b"))))
    assert isinstance(found, list)
    assert len(found) == 5
    assert found[0].startswith("module contains invalid identifier: Identifier `a b`")
    assert found[1].startswith("Failed to deserialize default value for table t column 1: ")
    assert found[1:] == sorted(found[1:])


def test_a_default_is_kept_without_the_bytes_behind_it() -> None:
    raw = module(tables=(table(default_values=(RawColumnDefault(0, bytes(11)),)),))
    assert validate(raw).tables[0].columns[0].default == bytes(8)


def test_an_index_without_a_source_name_is_refused_in_v10() -> None:
    raw = module(tables=(table(indexes=(RawIndex(None, None, IndexAlgorithm.BTREE, (0,)),)),))
    assert outcome(raw) == ["table `t` index `t_id_idx_btree` has no source name; every index needs one"]


def test_a_unique_constraint_may_lean_on_an_index_in_other_order() -> None:
    index = RawIndex("i", None, IndexAlgorithm.BTREE, (1, 0))
    unique = replace(table().constraints[0], columns=(0, 1))
    raw = module(tables=(plain_table(indexes=(index,), constraints=(unique,)),))
    assert validate(raw).tables[0].uniques[0].name == "t_id_v_key"


def test_a_direct_index_takes_a_payload_free_enum() -> None:
    color = Sum((Element("red", UNIT), Element("blue", UNIT)))
    index = RawIndex("i", None, IndexAlgorithm.DIRECT, (0,))
    raw = module(product(c=Ref(1)), color, tables=(plain_table(indexes=(index,)),))
    assert validate(raw).tables[0].columns[0].type == color


def test_sequence_options_are_kept_when_they_make_sense() -> None:
    given = RawSequence(None, 0, start=5, min_value=2, max_value=9, increment=-2)
    (sequence,) = validate(module(tables=(plain_table(sequences=(given,)),))).tables[0].sequences
    assert (sequence.name, sequence.start, sequence.increment) == ("t_id_seq", 5, -2)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            RawSequence(None, 0, start=1, min_value=2),
            "expected min_value <= start <= max_value, found 2, 1, None",
        ),
        (RawSequence(None, 0, increment=0), "the increment must not be 0"),
    ],
)
def test_senseless_sequence_options_are_refused(given: RawSequence, text: str) -> None:
    found = outcome(module(tables=(plain_table(sequences=(given,)),)))
    assert found == [f"table `t` column `id` sequence `t_id_seq`: {text}"]


def test_columns_have_their_refs_filled_in() -> None:
    inner = product(x=U8)
    raw = module(product(a=Array(Ref(1)), b=option(Ref(1))), inner, tables=(plain_table(),))
    (found,) = validate(raw).tables
    assert [column.type for column in found.columns] == [Array(inner), option(inner)]


# ---- types ----


def test_a_ref_past_the_typespace_is_refused_wherever_it_stands() -> None:
    raw = module(product(id=U64, v=STRING), product(x=Array(Ref(77))))
    found = outcome(raw)
    assert found == ["error at typespace ref `&1`: invalid type ref &77: the typespace has 2 types"]
    reducer = RawReducerV10("r", product(x=Ref(5)))
    found = outcome(module(reducers=(reducer,)))
    assert found == ["error at reducer `r` argument 0 (`x`): invalid type ref &5: the typespace has 1 types"]


def test_recursion_through_several_types_is_refused_in_rows_and_allowed_in_arguments() -> None:
    tree = product(children=Array(Ref(2)))
    node = product(child=option(Ref(1)))
    reducer = RawReducerV10("r", product(x=Ref(1)))
    assert isinstance(outcome(module(product(id=U64, v=STRING), tree, node, reducers=(reducer,))), ModuleDef)
    found = outcome(module(product(id=U64, v=Ref(1)), tree, node))
    assert found == ["table `t` column `v` has the recursive type &1; a row cannot contain itself"]


def test_a_circle_of_bare_refs_is_refused_where_it_is_used() -> None:
    raw = module(product(id=U64, v=STRING), types=(), reducers=(RawReducerV10("r", product(x=Ref(1))),))
    raw = replace(raw, typespace=Typespace((*raw.typespace.types, Ref(2), Ref(1))))
    found = outcome(raw)
    assert isinstance(found, list)
    assert "leads back to itself" in found[0]


def test_equal_names_inside_a_type_are_refused() -> None:
    twice = Sum((Element("a", UNIT), Element("a", UNIT)))
    found = outcome(module(product(id=U64, v=STRING), twice))
    assert found == ["error at typespace ref `&1`: type has 2 elements named `a`"]


def _doubling(levels: int) -> list[AlgebraicType]:
    """Return types of which each holds the next twice: the first has 2**levels leaves."""
    return [product(a=Ref(i + 2), b=Ref(i + 2)) for i in range(levels)] + [product(x=U8)]


def test_a_type_that_explodes_when_spelled_out_is_refused_at_once() -> None:
    begin = time.monotonic()
    found = outcome(module(product(id=U64, v=Ref(1)), *_doubling(100)))
    assert isinstance(found, list)
    assert found == ["table `t` column `v` makes the row too large: more than 65536 parts or 128 levels"]
    assert time.monotonic() - begin < 2


def test_a_long_chain_of_types_is_refused_without_a_crash() -> None:
    chain = [product(next=Ref(i + 2)) for i in range(5_000)] + [product(x=U8)]
    begin = time.monotonic()
    found = outcome(module(product(id=U64, v=Ref(1)), *chain))
    assert found == ["table `t` column `v` makes the row too large: more than 65536 parts or 128 levels"]
    assert time.monotonic() - begin < 5


def test_many_findings_are_counted_instead_of_told() -> None:
    tables = tuple(plain_table(f"t{i}", is_system=True) for i in range(700))
    found = outcome(module(tables=tables))
    assert isinstance(found, list)
    assert len(found) == 501
    assert found[-1] == "… and 200 more errors"


# ---- functions ----


def _scheduled(**changes: Any) -> RawModuleDefV10:
    base = module(
        product(id=U64, at=SCHEDULE_AT),
        reducers=(RawReducerV10("f", product(arg=Ref(0))),),
        schedules=(RawScheduleV10(None, "t", 1, "f"),),
    )
    return replace(base, **changes)


def test_a_schedule_is_kept_with_its_table_and_hides_its_function() -> None:
    definition = validate(_scheduled())
    schedule = definition.tables[0].schedule
    assert schedule is not None
    assert (schedule.name, schedule.at_column, schedule.function) == ("t_sched", 1, "f")
    assert definition.reducers[0].visibility is Visibility.PRIVATE


def test_a_schedule_may_call_a_procedure() -> None:
    procedure = RawProcedureV10("f", product(arg=Ref(0)), UNIT)
    definition = validate(_scheduled(reducers=(), procedures=(procedure,)))
    assert definition.procedures[0].visibility is Visibility.PRIVATE


def test_a_scheduled_procedure_with_other_parameters_is_refused() -> None:
    procedure = RawProcedureV10("f", product(arg=U8), UNIT)
    found = outcome(_scheduled(reducers=(), procedures=(procedure,)))
    assert found == ["Scheduled procedure f expected to have type (0: &0), but has type (arg: U8)"]


def test_lifecycle_reducers_are_found_by_event_and_hidden() -> None:
    reducers = (RawReducerV10("a"), RawReducerV10("start"), RawReducerV10("leave"))
    events = (RawLifecycleReducer(Lifecycle.INIT, "start"), RawLifecycleReducer(Lifecycle.ON_DISCONNECT, "leave"))
    definition = validate(module(reducers=reducers, lifecycle_reducers=events))
    assert definition.lifecycle(Lifecycle.INIT) == 1
    assert definition.lifecycle(Lifecycle.ON_DISCONNECT) == 2
    assert definition.lifecycle(Lifecycle.ON_CONNECT) is None
    assert [reducer.visibility for reducer in definition.reducers] == [
        Visibility.CLIENT_CALLABLE,
        Visibility.PRIVATE,
        Visibility.PRIVATE,
    ]


def test_everything_is_callable_in_v9() -> None:
    raw = RawModuleDefV9(reducers=(RawReducerV9("init", UNIT, Lifecycle.INIT), RawReducerV9("r")))
    definition = validate(raw)
    assert definition.lifecycle(Lifecycle.INIT) == 0
    assert {reducer.visibility for reducer in definition.reducers} == {Visibility.CLIENT_CALLABLE}


def test_tables_and_reducers_are_looked_up_by_canonical_name() -> None:
    procedure = RawProcedureV10("doP", UNIT, UNIT)
    definition = validate(_snake(reducers=(RawReducerV10("a"), RawReducerV10("doIt")), procedures=(procedure,)))
    assert definition.table("t") is definition.tables[0]
    assert definition.reducer_id("do_it") == 1
    assert definition.procedure_id("do_p") == 0
    assert definition.reducer_id("doIt") is None
    assert definition.table("zz") is None


def _view(return_type: AlgebraicType, **changes: Any) -> RawViewV10:
    return replace(RawViewV10("v", 0, True, True, UNIT, return_type), **changes)


def test_a_query_view_inherits_the_key_of_its_table() -> None:
    query = Product((Element("__query__", Ref(0)),))
    assert validate(module(views=(_view(query),))).views[0].primary_key == "id"
    two = (table(), plain_table("u"))
    assert validate(module(views=(_view(query),), tables=two)).views[0].primary_key is None
    with_params = _view(query, params=product(x=U8))
    assert validate(module(views=(with_params,))).views[0].primary_key is None
    assert validate(module(views=(_view(Array(Ref(0))),))).views[0].primary_key is None


def test_a_view_key_is_given_by_source_name_and_kept_canonical() -> None:
    keys = (RawViewPrimaryKey("v", ("userId",)),)
    definition = validate(_snake(views=(_view(option(Ref(0))),), view_primary_keys=keys))
    assert definition.views[0].primary_key == "user_id"


@pytest.mark.parametrize(
    ("view", "keys", "text"),
    [
        (
            _view(Array(Ref(0)), params=product(x=U8)),
            (RawViewPrimaryKey("v", ("id",)),),
            "View v has parameters and cannot have a primary key",
        ),
        (
            _view(Array(Ref(0)), params=product(x=F32)),
            (),
            "View v has a float parameter `x`, which views can't take yet",
        ),
        (_view(Array(Ref(0))), (RawViewPrimaryKey("w", ("id",)),), "View w not found for its primary key"),
        (
            _view(Array(Ref(0))),
            (RawViewPrimaryKey("v", ("id",)), RawViewPrimaryKey("v", ("v",))),
            "View v has more than one primary key entry",
        ),
        (_view(option(Ref(9))), (), "View v has invalid return type "),
        (_view(Array(Ref(0)), source_name="st_table"), (), "View name is reserved for system use: st_table"),
    ],
)
def test_views_that_cannot_be_are_refused(view: RawViewV10, keys: tuple[RawViewPrimaryKey, ...], text: str) -> None:
    found = outcome(module(views=(view,), view_primary_keys=keys))
    assert isinstance(found, list)
    assert any(error.startswith(text) for error in found)


def test_type_names_are_unique_with_their_scope() -> None:
    names = (RawTypeName("A", ("x",)), RawTypeName("A", ("y",)))
    raw = module(product(id=U64, v=STRING), product(q=U8), types=tuple(map(RawTypeDef, names, (0, 1))))
    assert isinstance(outcome(raw), ModuleDef)
    twice = replace(raw, types=tuple(RawTypeDef(names[0], ref) for ref in (0, 1)))
    assert outcome(twice) == ["name `x::A` is used for multiple types"]


def test_the_case_policy_is_remembered() -> None:
    assert validate(module()).case_policy is CasePolicy.NONE
    assert validate(_snake()).case_policy is CasePolicy.SNAKE_CASE


# ---- definitions that ask for much ----


def test_tables_that_share_a_huge_row_are_refused_at_once() -> None:
    row = Product(tuple(Element(f"c{i}", U8) for i in range(3000)))
    found = outcome(module(row, tables=tuple(plain_table(f"t{i}") for i in range(100))))
    assert found == ["the tables have 300000 columns altogether, at most 262144 are possible"]


def test_too_many_types_are_refused() -> None:
    raw = module(types=(), tables=(), typespace=Typespace((U8,) * 65_537))
    assert outcome(raw) == ["the module has 65537 types, at most 65536 are possible"]


def test_derived_names_do_not_grow_without_bound() -> None:
    row = Product((Element("c" * 100_000, U8),))
    index = RawIndex("i", None, IndexAlgorithm.BTREE, (0,) * 60_000)
    found = outcome(module(row, tables=(plain_table(indexes=(index,)),)))
    assert found == ["the names of indexes and constraints have more than 16777216 characters altogether"]


def test_a_very_long_name_is_cut_in_the_finding() -> None:
    found = outcome(module(tables=(plain_table("a b" + "c" * 100_000),)))
    assert isinstance(found, list)
    assert max(map(len, found)) < 5000


def test_rows_of_many_types_are_bounded_together() -> None:
    wide = Product(tuple(Element(f"c{i}", Ref(0)) for i in range(200)))
    rows = [Product((*wide.elements, Element(f"d{i}", U8))) for i in range(24)]
    leaf = Product(tuple(Element(f"e{i}", U8) for i in range(250)))
    tables = tuple(plain_table(f"t{i}", product_type_ref=i + 1) for i in range(len(rows)))
    found = outcome(module(leaf, *rows, tables=tables))
    assert isinstance(found, list)
    assert found[0].endswith("the rows of all tables have more than 1048576 parts")


def test_a_map_is_no_type_of_a_column() -> None:
    found = outcome(module(product(id=U64, v=Map(U8, U8))))
    assert isinstance(found, list)
    assert "cannot be used to generate a client type use" in found[-1]


def test_a_default_of_a_composite_column_must_decode() -> None:
    raw = module(product(a=Array(U8)), tables=(plain_table(default_values=(RawColumnDefault(0, b"\x05\0\0\0a"),)),))
    found = outcome(raw)
    assert isinstance(found, list)
    assert found[0].startswith("Failed to deserialize default value for table t column 0: ")
