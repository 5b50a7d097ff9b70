"""Random definitions survive bytes and documents; spoiled ones are refused, never more."""

import json
import time
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.errors import DecodeError, SchemaError
from stdb.sats.types import (
    BOOL,
    CONNECTION_ID,
    IDENTITY,
    SCHEDULE_AT,
    STRING,
    TIMESTAMP,
    U8,
    U64,
    U256,
    UNIT,
    AlgebraicType,
    Array,
    Element,
    Product,
    Ref,
    Sum,
    Typespace,
    option,
)
from stdb.schema import documents
from stdb.schema import raw as raw_module
from stdb.schema.model import Access, CasePolicy, IndexAlgorithm, Lifecycle, ModuleDef, Visibility
from stdb.schema.raw import (
    NameKind,
    RawColumnDefault,
    RawColumnDefaultV9,
    RawConstraint,
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
    RawTableV10,
    RawTypeDef,
    RawTypeName,
    RawViewPrimaryKey,
    RawViewV9,
    RawViewV10,
)
from stdb.schema.validation import validate
from tests.schema_samples import outcome, vector

# ---- any definition, sound or not ----

texts = st.text(max_size=6)
maybe_texts = st.none() | texts
positions = st.integers(0, 0xFFFF)
column_lists = st.lists(positions, max_size=3).map(tuple)
refs = st.integers(0, 0xFFFF_FFFF)
leaves = st.sampled_from([BOOL, U8, U64, U256, STRING, IDENTITY, SCHEDULE_AT, UNIT]) | st.builds(Ref, refs)


def _elements(types: st.SearchStrategy[AlgebraicType]) -> st.SearchStrategy[tuple[Element, ...]]:
    return st.lists(st.builds(Element, maybe_texts, types), max_size=3).map(tuple)


types = st.recursive(
    leaves,
    lambda inner: st.builds(Array, inner) | st.builds(Product, _elements(inner)) | st.builds(Sum, _elements(inner)),
    max_leaves=6,
)
products = st.builds(Product, _elements(types))
numbers = st.integers(-(2**127), 2**127 - 1)


def _some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(strategy, max_size=2).map(tuple)


@st.composite
def indexes(draw: st.DrawFn) -> RawIndex:
    algorithm = draw(st.sampled_from(IndexAlgorithm))
    columns = (draw(positions),) if algorithm is IndexAlgorithm.DIRECT else draw(column_lists)
    return RawIndex(draw(maybe_texts), draw(maybe_texts), algorithm, columns)


constraints = st.builds(RawConstraint, maybe_texts, column_lists)
sequences = st.builds(
    RawSequence, maybe_texts, positions, st.none() | numbers, st.none() | numbers, st.none() | numbers, numbers
)
type_defs = st.builds(RawTypeDef, st.builds(RawTypeName, texts, _some(texts)), refs, st.booleans())
typespaces = st.builds(Typespace, _some(types))
rules = st.builds(RawRowLevelSecurity, texts)
events = st.sampled_from(Lifecycle)
visibilities = st.sampled_from(Visibility)
keys = (_some(indexes()), _some(constraints), _some(sequences))
v9_tables = st.builds(
    RawTableV9,
    texts,
    refs,
    column_lists,
    *keys,
    st.none() | st.builds(RawScheduleV9, maybe_texts, texts, positions),
    st.booleans(),
    st.sampled_from(Access),
)
view_parts = (texts, refs, st.booleans(), st.booleans(), products, types)
v9_definitions = st.builds(
    RawModuleDefV9,
    typespaces,
    _some(v9_tables),
    _some(st.builds(RawReducerV9, texts, products, st.none() | events)),
    _some(type_defs),
    _some(
        st.builds(RawColumnDefaultV9, texts, positions, st.binary(max_size=5))
        | st.builds(RawProcedureV9, texts, products, types)
        | st.builds(RawViewV9, *view_parts)
    ),
    _some(rules),
)
v10_tables = st.builds(
    RawTableV10,
    texts,
    refs,
    column_lists,
    *keys,
    st.booleans(),
    st.sampled_from(Access),
    _some(st.builds(RawColumnDefault, positions, st.binary(max_size=5))),
    st.booleans(),
)
methods = st.none() | st.sampled_from(["Get", "Post", "Patch", "BREW", ""])
variable_types = st.none() | texts | _some(texts)


def _v10(submodules: st.SearchStrategy[Any]) -> st.SearchStrategy[RawModuleDefV10]:
    return st.builds(
        RawModuleDefV10,
        typespaces,
        _some(type_defs),
        _some(v10_tables),
        _some(st.builds(RawReducerV10, texts, products, visibilities, types, types)),
        _some(st.builds(RawProcedureV10, texts, products, types, visibilities)),
        _some(st.builds(RawViewV10, *view_parts)),
        _some(st.builds(RawScheduleV10, maybe_texts, texts, positions, texts)),
        _some(st.builds(RawLifecycleReducer, events, texts)),
        _some(rules),
        st.none() | st.sampled_from(CasePolicy),
        _some(st.builds(RawExplicitName, st.sampled_from(NameKind), texts, texts)),
        _some(st.builds(RawHttpHandler, texts)),
        _some(st.builds(RawHttpRoute, texts, methods, texts)),
        _some(st.builds(RawViewPrimaryKey, texts, _some(texts))),
        submodules,
        st.none() | _some(st.builds(RawEnvironmentVariable, texts, variable_types, st.booleans())),
        _some(
            st.builds(
                RawOutbox, texts, texts, positions, column_lists, maybe_texts, st.binary(min_size=32, max_size=32)
            )
        ),
    )


v10_definitions = _v10(_some(st.builds(RawSubmodule, texts, _v10(st.just(())))))
definitions = v9_definitions | v10_definitions


@given(definitions)
@settings(max_examples=60, deadline=None)
def test_a_definition_survives_bytes_and_documents(definition: RawModuleDefV9 | RawModuleDefV10) -> None:
    assert raw_module.decode(raw_module.encode(definition)) == definition
    document = json.loads(json.dumps(documents.raw_to_json(definition)))
    assert documents.from_json(document) == definition


@given(definitions)
@settings(max_examples=60, deadline=None)
def test_any_definition_is_accepted_or_refused_with_findings(definition: RawModuleDefV9 | RawModuleDefV10) -> None:
    found = outcome(definition)
    assert isinstance(found, ModuleDef) or (found and all(found))


# ---- sound definitions ----

identifiers = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,5}", fullmatch=True)
uses = st.recursive(
    st.sampled_from([BOOL, U8, U64, STRING, IDENTITY, CONNECTION_ID, TIMESTAMP, UNIT, Ref(0)]),
    lambda inner: st.builds(Array, inner) | st.builds(option, inner),
    max_leaves=3,
)


def _named(names: list[str], columns: list[AlgebraicType]) -> Product:
    pairs = dict(zip((f"{name}{i}x" for i, name in enumerate(names)), columns, strict=False))
    return Product(tuple(Element(name, type_) for name, type_ in pairs.items()))


rows = st.builds(_named, st.lists(identifiers, min_size=1, max_size=4), st.lists(uses, min_size=1, max_size=4))


@st.composite
def sound_definitions(draw: st.DrawFn) -> RawModuleDefV10:
    color = Sum((Element("red", UNIT), Element("darkBlue", UNIT)))
    entries = (color, *draw(st.lists(rows, max_size=4)))
    tables = [draw(_sound_table(f"t{i}", ref, entries)) for i, ref in enumerate(range(1, len(entries)))]
    reducers = [RawReducerV10(f"r{i}", params) for i, params in enumerate(draw(st.lists(rows, max_size=3)))]
    return RawModuleDefV10(
        typespace=Typespace(entries),
        types=tuple(RawTypeDef(RawTypeName(f"T{i}"), i) for i in range(len(entries))),
        tables=tuple(tables),
        reducers=tuple(reducers),
        lifecycle_reducers=tuple(
            RawLifecycleReducer(Lifecycle.ON_CONNECT, reducer.source_name)
            for reducer in reducers[:1]
            if not reducer.params.elements
        ),
        case_policy=draw(st.none() | st.sampled_from(CasePolicy)),
    )


@st.composite
def _sound_table(draw: st.DrawFn, name: str, ref: int, entries: tuple[AlgebraicType, ...]) -> RawTableV10:
    row = entries[ref]
    assert isinstance(row, Product)
    columns = list(range(len(row.elements)))
    keyed = draw(st.lists(st.sampled_from(columns), unique=True, max_size=3))
    return RawTableV10(
        name,
        ref,
        primary_key=tuple(keyed[:1]),
        indexes=tuple(RawIndex(f"{name}_{c}", f"by{c}", IndexAlgorithm.BTREE, (c,)) for c in keyed),
        constraints=tuple(RawConstraint(None, (c,)) for c in keyed),
        sequences=tuple(RawSequence(None, c) for c in columns if row.elements[c].type == U64),
        access=draw(st.sampled_from(Access)),
        is_event=draw(st.booleans()),
    )


@given(sound_definitions())
@settings(max_examples=60, deadline=None)
def test_a_sound_definition_written_back_declares_the_same(raw: RawModuleDefV10) -> None:
    definition = validate(raw)
    again = validate(raw_module.decode(raw_module.encode(documents.to_raw_v10(definition))))
    for version in (9, 10):
        assert documents.to_json(again, version) == documents.to_json(definition, version)
    as_v9 = validate(raw_module.decode(raw_module.encode(documents.to_raw_v9(definition))))
    assert documents.to_json(as_v9, 9) == documents.to_json(definition, 9)
    assert {table.name: table.row_type for table in as_v9.tables} == {t.name: t.row_type for t in definition.tables}


# ---- spoiled bytes ----

SEEDS = [bytes.fromhex(value["definition_hex"]) for value in vector("modules").values() if isinstance(value, dict)]


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(1, len(data) - 1))
        match draw(st.sampled_from(["set", "cut", "insert", "huge", "copy"])):
            case "set":
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 8))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "huge":
                data[at : at + 4] = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\1\0"]))
            case "copy":
                begin = draw(st.integers(1, len(data) - 1))
                data[at:at] = data[begin : begin + 64]
    return bytes(data)


@given(spoiled())
@settings(max_examples=300, deadline=None)
def test_spoiled_bytes_are_refused_quickly_and_with_our_errors(data: bytes) -> None:
    begin = time.monotonic()
    with suppress(DecodeError, SchemaError):
        validate(raw_module.decode(data))
    assert time.monotonic() - begin < 3


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused_with_our_errors(data: bytes) -> None:
    for tag in (b"\1", b"\2"):
        with suppress(DecodeError, SchemaError):
            assert isinstance(validate(raw_module.decode(tag + data)), ModuleDef)
