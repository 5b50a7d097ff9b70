"""Definitions of 0.11 that lie: whatever the bytes, they are read, or refused with a reason."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.errors import DecodeError, SchemaError
from stdb.modules.wasm.filters import row_filter
from stdb.sats.types import F64, STRING, U8, U32, Element, Product, option
from stdb.schema import documents, raw_v8
from stdb.schema import raw as raw_module
from stdb.schema.raw import RawModuleDefV8
from stdb.schema.validation import validate
from tests.test_schema_raw_v8 import DEFINITION

SOME = settings(max_examples=150, deadline=None)
ROW = Product((Element("a", U8), Element("b", U32), Element("c", STRING), Element("d", option(F64))))


def _check(data: bytes) -> None:
    """Read a definition as far as it goes."""
    try:
        raw = raw_module.decode(data, is_0_11=True)
        assert isinstance(raw, RawModuleDefV8)
        assert raw_module.decode(raw_module.encode(raw), is_0_11=True) == raw
        raw_v8.name_refusal(raw)
        definition = validate(raw)
    except (DecodeError, SchemaError):
        return
    for version in (9, 10):
        documents.from_json(documents.to_json(definition, version))


@SOME
@given(st.data())
def test_a_flipped_byte_is_refused_or_read(data: st.DataObject) -> None:
    changed = bytearray(DEFINITION)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(1, len(DEFINITION) - 1))] = data.draw(st.integers(0, 255))
    _check(bytes(changed))


@SOME
@given(st.data())
def test_a_piece_moved_is_refused_or_read(data: st.DataObject) -> None:
    start, end, target = sorted(data.draw(st.integers(1, len(DEFINITION))) for _ in range(3))
    _check(DEFINITION[:start] + DEFINITION[end:target] + DEFINITION[start:end] + DEFINITION[target:])


@SOME
@given(st.binary(max_size=60))
def test_random_bytes_are_refused_or_read(data: bytes) -> None:
    _check(b"\0" + data)


@SOME
@given(st.binary(max_size=24), st.sampled_from([b"", b"\0", b"\1", b"\1\0\0\0\0", b"\0\0\2\0"]))
def test_conditions_are_refused_or_tell(data: bytes, start: bytes) -> None:
    try:
        condition = row_filter(ROW, start + data)
    except DecodeError:
        return
    assert condition(b"\1" + bytes(4) + bytes(4) + b"\1") in (True, False)
