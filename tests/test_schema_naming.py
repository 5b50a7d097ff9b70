"""Canonical names are those of the real server."""

from stdb.sats.types import IDENTITY, SCHEDULE_AT, U8, UNIT, Array, Element, Product, Sum, Typespace, option
from stdb.schema.model import CasePolicy, IndexAlgorithm
from stdb.schema.naming import Namer, constraint_name, index_name, is_special, schedule_name, sequence_name
from stdb.schema.raw import NameKind, RawExplicitName
from tests.schema_samples import product, vector

RECORDED = vector("names")
SNAKE = Namer(CasePolicy.SNAKE_CASE)
VERBATIM = Namer(CasePolicy.NONE)


def test_names_of_tables_columns_and_functions_are_the_recorded_ones() -> None:
    pairs = RECORDED["snake (tables, columns, reducers, procedures, views)"]
    assert len(pairs) == 138
    assert {source: SNAKE.element(source) for source in pairs} == pairs


def test_names_of_variants_and_types_are_the_recorded_ones() -> None:
    variants, types = RECORDED["camel (enum variants)"], RECORDED["pascal (type names)"]
    assert {source: SNAKE.variant(source) for source in variants} == variants
    assert {source: SNAKE.type_name(source) for source in types} == types


def test_names_stay_verbatim_without_a_policy() -> None:
    for convert in (VERBATIM.element, VERBATIM.variant, VERBATIM.type_name):
        assert convert("HTTPThing_2x") == "HTTPThing_2x"


def test_derived_names_are_the_recorded_ones() -> None:
    recorded = RECORDED["index, constraint, sequence names"]["snake"]
    columns = ["p_key_1", "a_col", "b_2", "c_col_3"]
    for index in recorded["indexes"]:
        ((algorithm, positions),) = index["algorithm"].items()
        names = [columns[i] for i in positions]
        assert index["name"]["some"] == index_name("idx_names_2", names, IndexAlgorithm[algorithm.upper()])
    for constraint in recorded["constraints"]:
        names = [columns[i] for i in constraint["data"]["Unique"]["columns"]]
        assert constraint["name"]["some"] == constraint_name("idx_names_2", names)
    assert recorded["sequences"][0]["name"]["some"] == sequence_name("idx_names_2", "p_key_1")
    assert schedule_name("timer") == "timer_sched"


def test_an_explicit_name_is_for_its_kind_only() -> None:
    namer = Namer(CasePolicy.SNAKE_CASE, (RawExplicitName(NameKind.TABLE, "aB", "X"),))
    assert namer.named(NameKind.TABLE, "aB") == "X"
    assert namer.named(NameKind.FUNCTION, "aB") == "a_b"


def test_names_inside_the_typespace_are_converted_but_not_inside_special_types() -> None:
    color = Sum((Element("DarkBlue", UNIT), Element(None, product(innerName=U8))))
    row = product(anId=IDENTITY, myAt=SCHEDULE_AT, maybe=option(U8), many=Array(product(aB=U8)))
    renamed = SNAKE.typespace(Typespace((color, row))).types
    assert renamed[0] == Sum((Element("darkBlue", UNIT), Element(None, product(inner_name=U8))))
    assert renamed[1] == product(an_id=IDENTITY, my_at=SCHEDULE_AT, maybe=option(U8), many=Array(product(a_b=U8)))


def test_special_types_are_told_by_their_shape() -> None:
    assert is_special(IDENTITY)
    assert is_special(SCHEDULE_AT)
    assert is_special(option(product(aB=U8)))
    assert not is_special(product(__identity__=U8))
    assert not is_special(UNIT)
    assert not is_special(Product((Element("x", U8), Element("y", U8))))
