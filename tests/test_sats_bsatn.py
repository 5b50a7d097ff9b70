"""BSATN: errors and their places, bounds, profiles, recursion, and that no user text enters generated source."""

import tracemalloc
from typing import Any

import pytest

from stdb.errors import DecodeError, EncodeError, SchemaError
from stdb.sats import bsatn, json
from stdb.sats.bsatn_decoder import DecoderSource, Mode
from stdb.sats.bsatn_encoder import EncoderSource
from stdb.sats.bsatn_layout import Layouts
from stdb.sats.profiles import MODERN, OLD_IDENTITY, V0_11, V0_12
from stdb.sats.types import (
    BOOL,
    BYTES,
    CONNECTION_ID,
    F32,
    F64,
    I8,
    I64,
    I128,
    IDENTITY,
    SCHEDULE_AT,
    STRING,
    TIMESTAMP,
    U8,
    U16,
    U32,
    U64,
    U128,
    U256,
    UNIT,
    UUID,
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


def product(**parts: AlgebraicType) -> Product:
    return Product(tuple(Element(name, type_) for name, type_ in parts.items()))


PLAYER = product(id=U64, owner=IDENTITY, name=STRING, x=F32, y=F32, z=F32, hp=U32, target=option(U32), seen=TIMESTAMP)
PLAYER_VALUE = (7, bytes(range(32)), "Ann", 1.0, -2.5, 0.0, 90, 5, 1_700_000_000_000_000)
LIST = Typespace((product(head=U8, tail=option(Ref(0))),))
TREES = Typespace((Array(Ref(0)),))


def chain(levels: int) -> Any:
    value = None
    for _ in range(levels):
        value = (1, value)
    return value


def test_a_row_reads_and_writes_as_its_layout_says() -> None:
    codec = bsatn.codec(PLAYER)
    data = codec.encode(PLAYER_VALUE)
    assert data.hex() == (
        "0700000000000000" + bytes(range(32)).hex() + "03000000416e6e" + "0000803f000020c000000000" + "5a000000"
        "0005000000" + (1_700_000_000_000_000).to_bytes(8, "little").hex()
    )
    assert codec.decode(data) == (PLAYER_VALUE, len(data))
    assert (codec.fixed_size, codec.min_size) == (None, 8 + 32 + 4 + 12 + 4 + 1 + 8)


@pytest.mark.parametrize(
    ("type_", "data", "text", "offset"),
    [
        (product(a=U8, b=U32), "0102", "data too short for u32: Expected 4, given 1", 1),
        (product(a=U8, b=STRING), "01 00000043 5f", "data too short for [u8]: Expected 1124073472, given 1", 5),
        (BYTES, "01020304 5f", "data too short for [u8]: Expected 67305985, given 1", 4),
        (product(a=STRING, b=U8), "02000000 c328 01", "invalid utf8", 4),
        (product(a=U32, b=BOOL), "00000000 02", "byte 2 not valid as `bool` (must be 0 or 1)", 4),
        (product(a=U8, b=option(U8)), "01 03", "unknown tag 0x3 for sum type <unknown>", 1),
        (Array(Array(STRING)), "01000000 01000000 01000000 80", "invalid utf8", 12),
        (Array(BOOL), "03000000 000103", "byte 3 not valid as `bool` (must be 0 or 1)", 6),
        (Array(product(a=U8, b=U16)), "02000000 01 0200 01 02", "data too short for u16: Expected 2, given 1", 8),
        (product(a=F64, b=F32), "0000000000000000 0000", "data too short for u32: Expected 4, given 2", 8),
    ],
)
def test_an_error_names_its_place(type_: AlgebraicType, data: str, text: str, offset: int) -> None:
    codec = bsatn.codec(type_)
    for read in (codec.decode, codec.skip):
        with pytest.raises(DecodeError) as caught:
            read(bytes.fromhex(data))
        assert (str(caught.value), caught.value.offset) == (text, offset)
        with pytest.raises(DecodeError) as caught:
            read(b"\xff" * 7 + bytes.fromhex(data), 7)
        assert (str(caught.value), caught.value.offset) == (text, offset + 7)


def test_leftovers_are_refused_where_the_whole_buffer_is_the_value() -> None:
    codec = bsatn.codec(U16)
    assert codec.decode_exact(b"\1\0") == 1
    with pytest.raises(DecodeError, match="1 bytes left over: Expected 2, given 3") as caught:
        codec.decode_exact(b"\1\0\0")
    assert caught.value.offset == 2


@pytest.mark.parametrize("element", [UNIT, product(a=UNIT, b=product()), Array(UNIT).element])
def test_a_huge_count_of_elements_without_bytes_takes_constant_memory(element: AlgebraicType) -> None:
    codec = bsatn.codec(Array(element))
    tracemalloc.start()
    for read in (codec.decode, codec.skip):
        with pytest.raises(DecodeError, match="array of 4294967295 elements without bytes: at most 65536"):
            read(b"\xff\xff\xff\xff")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert len(codec.decode_exact((65_536).to_bytes(4, "little"))) == 65_536
    assert codec.skip((65_536).to_bytes(4, "little")) == 4
    with pytest.raises(DecodeError):
        codec.decode((65_537).to_bytes(4, "little"))


@pytest.mark.parametrize("element", [U8, U64, BOOL, STRING, product(a=U8, b=F64), option(U8), Array(U8), U256])
def test_a_huge_count_allocates_nothing(element: AlgebraicType) -> None:
    codec = bsatn.codec(Array(element))
    tracemalloc.start()
    for read in (codec.decode, codec.skip):
        with pytest.raises(DecodeError):
            read(b"\xff\xff\xff\xff" + bytes(40))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_hundred_thousand_levels_are_refused_not_crashed_on() -> None:
    codec = bsatn.codec(Ref(0), LIST)
    deep = b"\1\0" * 100_000 + b"\1\1"
    for read in (codec.decode, codec.skip):
        with pytest.raises(DecodeError, match="nested more than 256 levels deep"):
            read(deep)
    with pytest.raises(EncodeError, match="nested more than 256 levels deep"):
        codec.encode(chain(100_000))
    trees = bsatn.codec(Ref(0), TREES)
    for read in (trees.decode, trees.skip):
        with pytest.raises(DecodeError, match="nested more than 256 levels deep"):
            read(b"\1\0\0\0" * 100_000)


def test_256_levels_pass_and_one_more_does_not() -> None:
    codec = bsatn.codec(Ref(0), LIST)
    value = chain(256)
    assert codec.decode_exact(codec.encode(value)) == value
    with pytest.raises(EncodeError):
        codec.encode(chain(257))
    with pytest.raises(DecodeError):
        codec.decode(b"\1\0" * 256 + b"\1\1")


def test_many_levels_between_recursions_exhaust_no_stack() -> None:
    """Each of 200 levels of the value is 40 levels of the type: more frames than the interpreter allows."""
    step: AlgebraicType = Ref(0)
    for _ in range(40):
        step = Array(step)
    codec = bsatn.codec(Ref(0), Typespace((step,)))
    value: Any = []
    for _ in range(200 * 40):
        value = [value]
    data = codec.encode(value)
    assert data == b"\1\0\0\0" * 8000 + bytes(4)
    for read in (codec.decode, codec.skip):
        with pytest.raises(DecodeError, match="nested too deep for the stack"):
            read(data)
    with pytest.raises(EncodeError, match="nested too deep to be written as JSON"):
        json.encode(Ref(0), value, "row", typespace=Typespace((step,)))


def test_256_levels_are_written_as_json() -> None:
    trees = bsatn.codec(Ref(0), TREES).decode_exact(b"\1\0\0\0" * 255 + bytes(4))
    assert json.encode(Ref(0), trees, "positional", typespace=TREES) == "[" * 256 + "]" * 256
    assert json.encode(Ref(0), chain(256), "row", typespace=LIST).count("head") == 256


def test_a_type_whose_values_never_end_has_none() -> None:
    endless = Typespace((product(again=Ref(0)),))
    codec = bsatn.codec(Ref(0), endless)
    for read in (codec.decode, codec.skip):
        with pytest.raises(DecodeError, match="nested more than 256"):
            read(bytes(1000))
    with pytest.raises(DecodeError):
        bsatn.codec(Array(Ref(0)), endless).decode(b"\xff\xff\xff\xff")


def test_types_as_deep_as_allowed_have_codecs() -> None:
    for wrap in (
        Array,
        option,
        lambda inner: product(a=inner),
        lambda inner: Sum((Element("x", inner), Element("y", STRING))),
    ):
        type_: AlgebraicType = U8
        for _ in range(100):
            type_ = wrap(type_)
        codec = bsatn.codec(type_)
        data = bytes(500) if wrap is not Array else (b"\1\0\0\0" * 99 + b"\1\0\0\0\7")
        value, end = codec.decode(data)
        assert codec.encode(value) == data[:end]
        assert codec.skip(data) == end
    type_ = U8
    for _ in range(200):
        type_ = Array(type_)
    with pytest.raises(SchemaError, match="nested more than 128 levels"):
        bsatn.codec(type_)


def test_shared_types_do_not_multiply() -> None:
    """Forty entries that each hold the next one twice spell 2^40 fields; nobody may write them out."""
    shared = Typespace((*(product(a=Ref(i + 1), b=option(Ref(i + 1))) for i in range(40)), UNIT))
    codec = bsatn.codec(Ref(0), shared)
    value: Any = ()
    for _ in range(40):
        value = (value, None)
    assert codec.decode_exact(codec.encode(value)) == value
    assert codec.min_size == 40


def test_refs_that_lead_nowhere_are_refused() -> None:
    with pytest.raises(SchemaError, match="invalid type ref &3"):
        bsatn.codec(product(a=Ref(3)))
    with pytest.raises(SchemaError, match="leads back to itself"):
        bsatn.codec(Ref(0), Typespace((Ref(1), Ref(0))))
    with pytest.raises(SchemaError, match="257 variants"):
        bsatn.codec(Sum((Element(None, U8),) * 257))


@pytest.mark.parametrize(
    ("type_", "value", "text"),
    [
        (U8, 256, "$: 256 is out of range for u8 (0 to 255)"),
        (I8, -129, "$: -129 is out of range for i8 (-128 to 127)"),
        (U128, -1, "$: -1 is out of range for u128"),
        (I128, 1 << 127, "is out of range for i128"),
        (U64, 1.0, "$: expected an integer (u64), got 1.0"),
        (U64, "1", "$: expected an integer (u64), got '1'"),
        (BOOL, 2, "$: expected a bool, got 2"),
        (BOOL, "yes", "$: expected a bool, got 'yes'"),
        (F64, "1", "$: expected a number for f64, got '1'"),
        (F64, 10**400, "$: expected a number for f64"),
        (STRING, b"x", "$: expected a str, got b'x'"),
        (STRING, "a\ud800", "lone surrogate at position 1"),
        (BYTES, "x", "$: expected bytes, got 'x'"),
        (BYTES, [1], "$: expected bytes, got [1]"),
        (IDENTITY, bytes(31), "$: expected 32 bytes"),
        (IDENTITY, "0" * 32, "$: expected 32 bytes"),
        (CONNECTION_ID, bytes(17), "$: expected 16 bytes"),
        (UUID, None, "$: expected 16 bytes, got None"),
        (product(a=U8, b=Array(product(c=U16))), (1, [(2,), (70000,)]), "$[1][1][0]: 70000 is out of range for u16"),
        (product(a=U8), (1, 2), "$: expected a tuple of 1 values, got (1, 2)"),
        (product(a=U8), 5, "$: expected a tuple of 1 values, got 5"),
        (UNIT, (1,), "$: expected a tuple of 0 values"),
        (option(U8), (1,), "$: expected an integer (u8), got (1,)"),
        (option(option(U8)), 1, "$: expected None or a 1-tuple"),
        (Sum((Element("a", U8), Element("b", STRING))), (2, 1), "$: 2 is no tag of a sum with 2 variants"),
        (Sum((Element("a", U8), Element("b", STRING))), (1, 1), "$: expected a str, got 1"),
        (Sum((Element("a", UNIT), Element("b", UNIT))), (2, ()), "$: 2 is no tag of a sum with 2 variants"),
        (Sum((Element("a", UNIT), Element("b", UNIT))), (1, 5), "$: variant 1 carries nothing, got 5"),
        (Array(U16), [1, 65536], "$[1]: 65536 is out of range for u16"),
        (Array(STRING), "ab", "$: expected a list, got 'ab'"),
        (Array(STRING), None, "$: expected a list, got None"),
    ],
)
def test_a_value_that_does_not_fit_is_named(type_: AlgebraicType, value: Any, text: str) -> None:
    with pytest.raises(EncodeError) as caught:
        bsatn.codec(type_).encode(value)
    assert text in str(caught.value)


def test_an_f32_too_large_is_infinite() -> None:
    codec = bsatn.codec(product(a=U8, b=F32, c=Array(F32)))
    inf = float("inf")
    assert codec.decode_exact(codec.encode((1, 1e39, [-1e39, 1]))) == (1, inf, [-inf, 1.0])


def test_bytes_like_objects_are_bytes() -> None:
    codec = bsatn.codec(product(a=BYTES))
    assert codec.encode((bytearray(b"ab"),)) == codec.encode((memoryview(b"ab"),)) == codec.encode((b"ab",))


def test_every_nan_and_zero_keeps_its_bits_as_a_double() -> None:
    codec = bsatn.codec(F64)
    for bits in ("000000000000f87f", "010000000000f8ff", "0000000000000080"):
        assert codec.encode(codec.decode_exact(bytes.fromhex(bits))).hex() == bits


def test_older_generations_write_modern_values_in_their_layouts() -> None:
    identity, address = bytes(range(32)), bytes(range(16))
    for profile in (V0_11, V0_12):
        for type_ in (IDENTITY, OLD_IDENTITY):
            codec = bsatn.codec(type_, profile=profile)
            assert codec.encode(identity).hex() == "20000000" + identity[::-1].hex()
            assert codec.decode_exact(codec.encode(identity)) == identity
            assert (codec.fixed_size, codec.min_size) == (36, 36)
        assert bsatn.codec(CONNECTION_ID, profile=profile).encode(address).hex() == "10000000" + address[::-1].hex()
        assert bsatn.codec(TIMESTAMP, profile=profile).encode(-5) == bytes(8)
        assert bsatn.codec(BOOL, profile=profile).decode_exact(b"\7") is True
        assert bsatn.codec(Array(IDENTITY), profile=profile).decode_exact(
            bytes.fromhex("01000000 20000000") + identity
        ) == [identity[::-1]]
    assert bsatn.codec(OLD_IDENTITY).encode((b"ab",)) == b"\2\0\0\0ab"


def test_schedules_swap_their_tags_in_0_11_alone() -> None:
    for profile, tag in ((MODERN, 1), (V0_12, 1), (V0_11, 0)):
        codec = bsatn.codec(SCHEDULE_AT, profile=profile)
        assert codec.encode((1, 9)) == bytes([tag, 9, 0, 0, 0, 0, 0, 0, 0])
        assert codec.decode_exact(codec.encode((0, 7))) == (0, 7)


def test_maps_come_out_in_key_order_and_the_last_of_equal_keys_wins() -> None:
    codec = bsatn.codec(Map(U8, U16), profile=V0_11)
    data = codec.encode([(5, 1), (3, 2), (5, 3)])
    assert codec.decode_exact(data) == [(3, 2), (5, 3)]
    assert codec.skip(data) == len(data)


def test_sums_of_many_variants_find_each_branch() -> None:
    type_ = product(before=U8, sum=Sum(tuple(Element(f"v{i}", I64 if i % 2 else STRING) for i in range(50))), after=U8)
    codec = bsatn.codec(type_)
    for tag in range(50):
        value = (1, (tag, -tag if tag % 2 else str(tag)), 2)
        assert codec.decode_exact(codec.encode(value)) == value
    with pytest.raises(DecodeError, match="unknown tag 0x32"):
        codec.decode(b"\1\x32" + bytes(20))


def test_no_name_of_a_user_enters_generated_source() -> None:
    hostile = "x\n    import os  # ' \" \\"
    shape = Product((Element(hostile, U8), Element(hostile, Sum((Element(hostile, STRING), Element(None, U8))))))
    layouts = Layouts(Typespace.EMPTY, MODERN)
    layout = layouts.of(shape)
    decoders, encoders = DecoderSource(layouts), EncoderSource(layouts)
    for mode in Mode:
        decoders.add(f"read_{mode.value}", layout, mode)
    encoders.add("write", layout)
    assert "import" not in "".join(decoders.functions + encoders.functions)
    codec = bsatn.codec(shape)
    assert codec.decode_exact(codec.encode((1, (0, "a")))) == (1, (0, "a"))


def test_fixed_runs_are_read_at_once() -> None:
    layouts = Layouts(Typespace.EMPTY, MODERN)
    source = DecoderSource(layouts)
    source.add("decode", layouts.of(PLAYER), Mode.VALUE)
    formats = {key.removeprefix("unpack_from<") for key in source.structs}
    assert formats == {"Q32sI", "3fIB", "Iq", "q"}


def test_codecs_of_equal_types_are_one() -> None:
    assert bsatn.codec(product(a=U8)) is bsatn.codec(product(a=U8))
    assert bsatn.codec(product(a=U8)) is not bsatn.codec(product(a=U8), profile=V0_11)
