"""Raw definitions as bytes: real ones, every section, and what is refused."""

import time
from dataclasses import replace

import pytest

from stdb.errors import DecodeError, SchemaError
from stdb.sats.types import STRING, U8, U64, UNIT, Element, Product, Ref, Typespace
from stdb.schema import raw as raw_module
from stdb.schema.model import Access, CasePolicy, IndexAlgorithm, Lifecycle, Visibility
from stdb.schema.raw import (
    NameKind,
    RawColumnDefault,
    RawColumnDefaultV9,
    RawEnvironmentVariable,
    RawExplicitName,
    RawHttpHandler,
    RawHttpRoute,
    RawIndex,
    RawLifecycleReducer,
    RawModuleDefV9,
    RawModuleDefV10,
    RawOutbox,
    RawProcedureV9,
    RawProcedureV10,
    RawReducerV9,
    RawReducerV10,
    RawRowLevelSecurity,
    RawScheduleV9,
    RawScheduleV10,
    RawSequence,
    RawSubmodule,
    RawTableV9,
    RawTypeDef,
    RawTypeName,
    RawViewPrimaryKey,
    RawViewV9,
    RawViewV10,
)
from stdb.schema.validation import validate
from tests.schema_samples import module, plain_table, product, table, vector

MODULES = vector("modules")
RECORDED = [name for name in MODULES if name != "about"]

FULL = RawModuleDefV10(
    typespace=Typespace((product(id=U64, v=STRING),)),
    types=(RawTypeDef(RawTypeName("T", ("a", "b")), 0, custom_ordering=False),),
    tables=(
        table(
            access=Access.PUBLIC,
            sequences=(RawSequence("s", 0, -1, -(2**127), 2**127 - 1, 7),),
            default_values=(RawColumnDefault(1, b"\0\0\0\0"),),
            is_event=True,
        ),
        plain_table("u", is_system=True, indexes=(RawIndex(None, None, IndexAlgorithm.DIRECT, (3,)),)),
    ),
    reducers=(RawReducerV10("r", product(x=U8), Visibility.PRIVATE, U8, U8),),
    procedures=(RawProcedureV10("p", Product((Element(None, Ref(0)),)), STRING),),
    views=(RawViewV10("w", 4, False, True, UNIT, Ref(0)),),
    schedules=(RawScheduleV10("sched", "t", 1, "r"), RawScheduleV10(None, "u", 2, "p")),
    lifecycle_reducers=(RawLifecycleReducer(Lifecycle.ON_CONNECT, "r"),),
    row_level_security=(RawRowLevelSecurity("SELECT * FROM t"),),
    case_policy=CasePolicy.SNAKE_CASE,
    explicit_names=tuple(RawExplicitName(kind, "a", "b") for kind in NameKind),
    http_handlers=(RawHttpHandler("h"),),
    http_routes=(RawHttpRoute("h", None, "/"), RawHttpRoute("h", "Patch", "/"), RawHttpRoute("h", "BREW", "/")),
    view_primary_keys=(RawViewPrimaryKey("w", ("id", "v")),),
    submodules=(RawSubmodule("sub", RawModuleDefV10(submodules=(RawSubmodule("deep", RawModuleDefV10()),))),),
    environment=(
        RawEnvironmentVariable("A", None, True),
        RawEnvironmentVariable("B", "x", False),
        RawEnvironmentVariable("C", ("x", "y"), False),
    ),
    outboxes=(RawOutbox("t", "remote", 1, (0, 1), "r", bytes(range(32))), RawOutbox("t", "q", 1, (), None, bytes(32))),
)
FULL_V9 = RawModuleDefV9(
    typespace=FULL.typespace,
    tables=(
        RawTableV9("t", 0, (0,), schedule=RawScheduleV9(None, "r", 1), access=Access.PUBLIC),
        RawTableV9("u", 0, schedule=RawScheduleV9("s", "r", 1), is_system=True),
    ),
    reducers=tuple(RawReducerV9(f"r{i}", UNIT, event) for i, event in enumerate((None, *Lifecycle))),
    types=FULL.types,
    misc_exports=(
        RawColumnDefaultV9("t", 1, b"\0\0\0\0"),
        RawProcedureV9("p", product(x=U8), STRING),
        RawViewV9("w", 0, True, False, UNIT, Ref(0)),
    ),
    row_level_security=FULL.row_level_security,
)


@pytest.mark.parametrize("name", RECORDED)
def test_a_real_definition_reads_and_writes_back_the_same(name: str) -> None:
    data = bytes.fromhex(MODULES[name]["definition_hex"])
    definition = raw_module.decode(data)
    again = raw_module.encode(definition)
    assert raw_module.decode(again) == definition
    if isinstance(definition, RawModuleDefV9):
        assert again == data


@pytest.mark.parametrize("name", ["wsprobe", "v9", "abi10"])
def test_a_real_definition_declares_what_its_author_wrote(name: str) -> None:
    expected = MODULES[name]
    definition = validate(raw_module.decode(bytes.fromhex(expected["definition_hex"])))
    assert {found.name for found in definition.tables} == set(expected["tables"])
    for found in definition.tables:
        described = expected["tables"][found.name]
        names = [column.name for column in found.columns]
        assert names == [column for column, _ in described["columns"]]
        assert (None if found.primary_key is None else names[found.primary_key]) == described.get("primary_key")
        assert [[names[i] for i in unique.columns] for unique in found.uniques] == described.get("unique", [])
        assert [names[s.column] for s in found.sequences] == described.get("auto_inc", [])
        assert found.access.name.lower() == described["access"]
        assert found.is_event == described.get("event", False)
    ids = {reducer.name: i for i, reducer in enumerate(definition.reducers)}
    assert ids == {reducer: described["id"] for reducer, described in expected["reducers"].items()}
    assert {view.name: view.index for view in definition.views} == {
        view: described["index"] for view, described in expected["views"].items()
    }


def test_the_smallest_real_v9_definition_has_one_reducer() -> None:
    data = bytes.fromhex("01000000000000000001000000040000006e6f6f700000000001000000000000000000000000")
    assert raw_module.decode(data) == RawModuleDefV9(reducers=(RawReducerV9("noop"),))


@pytest.mark.parametrize("definition", [FULL, FULL_V9, RawModuleDefV10(), RawModuleDefV9()])
def test_every_part_survives_bytes(definition: RawModuleDefV9 | RawModuleDefV10) -> None:
    assert raw_module.decode(raw_module.encode(definition)) == definition


def test_an_empty_environment_is_not_an_undeclared_one() -> None:
    declared = RawModuleDefV10(environment=())
    assert raw_module.decode(raw_module.encode(declared)) == declared
    assert raw_module.decode(raw_module.encode(RawModuleDefV10())).environment is None  # type: ignore[union-attr]


def test_bytes_behind_a_definition_are_ignored() -> None:
    data = raw_module.encode(FULL) + b"\x07trailing"
    assert raw_module.decode(data) == FULL


def test_of_two_sections_of_a_kind_the_first_counts() -> None:
    sections = b"".join(b"\x0b\x01\0\0\0" + b"\x01\0\0\0" + name for name in (b"a", b"b"))
    merged = b"\x02" + (2).to_bytes(4, "little") + sections
    found = raw_module.decode(merged)
    assert isinstance(found, RawModuleDefV10)
    assert found.http_handlers == (RawHttpHandler("a"),)


def test_outboxes_of_the_older_form_are_told_by_what_fits() -> None:
    older = replace(FULL, outboxes=(RawOutbox("t", "remote", 1, (0,), None, "ab" * 32),))
    assert raw_module.decode(raw_module.encode(older)) == older


def test_a_truncated_definition_is_refused_at_every_length() -> None:
    for definition in (FULL, FULL_V9):
        data = raw_module.encode(definition)
        for size in range(1, len(data)):
            with pytest.raises(DecodeError):
                raw_module.decode(data[:size])


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the module definition is empty"),
        (b"\x07", "definition version tag 7 is unknown; expected 0 (V8), 1 (V9) or 2 (V10)"),
        (bytes(raw_module.DEFINITION_BYTES_MAX + 1), "the module definition is 2097153 bytes long"),
    ],
)
def test_a_definition_of_no_known_version_is_refused(data: bytes, text: str) -> None:
    with pytest.raises(SchemaError, match=r"definition") as caught:
        raw_module.decode(data)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("data", "text", "offset"),
    [
        (b"\x00\x00", "data too short for u32: Expected 4, given 1", 1),
        (b"\x02\x01\0\0\0\x11", "unknown tag 0x11 for sum type RawModuleDefV10Section", 5),
        (b"\x02\xff\xff\xff\xff", "number of sections says 4294967295, but only 0 bytes are left", 1),
        (b"\x02\x01\0\0\0\x0b\x01\0\0\0\x09\0\0\0a", "data too short for [u8]: Expected 9, given 1", 14),
        (b"\x02\x01\0\0\0\x0b\x01\0\0\0\x02\0\0\0a\xff", "string is not UTF-8", 15),
        (b"\x02\x01\0\0\0\x09\x02", "unknown tag 0x2 for sum type CaseConversionPolicy", 6),
    ],
)
def test_malformed_bytes_are_refused_with_their_place(data: bytes, text: str, offset: int) -> None:
    with pytest.raises(DecodeError) as caught:
        raw_module.decode(data)
    assert text in str(caught.value)
    assert caught.value.offset == offset


def test_submodules_nested_too_deep_are_refused() -> None:
    definition = RawModuleDefV10()
    for _ in range(17):
        definition = RawModuleDefV10(submodules=(RawSubmodule("a", definition),))
    with pytest.raises(DecodeError, match="submodules nested deeper than 16 levels"):
        raw_module.decode(raw_module.encode(definition))


def test_a_type_nested_without_end_is_refused() -> None:
    nested = b"\x03" * 100_000 + b"\x07"
    data = b"\x02" + (1).to_bytes(4, "little") + b"\0" + (1).to_bytes(4, "little") + nested
    with pytest.raises(DecodeError):
        raw_module.decode(data)


def test_a_wide_module_is_read_and_validated_in_time() -> None:
    tables = tuple(table(f"t{i}") for i in range(1000))
    reducers = tuple(RawReducerV10(f"r{i}", product(x=U8)) for i in range(1000))
    begin = time.monotonic()
    definition = validate(raw_module.decode(raw_module.encode(module(tables=tables, reducers=reducers))))
    assert len(definition.tables) == 1000
    assert time.monotonic() - begin < 5
