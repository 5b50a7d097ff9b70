"""SATS-JSON: strict parsing, paths in errors, spellings, the leniency and forms of each generation."""

import time
from typing import Any

import pytest

from stdb.errors import DecodeError, EncodeError
from stdb.sats import bsatn, json, meta, types
from stdb.sats.json_numbers import f32_text, f64_text
from stdb.sats.profiles import MODERN, OLD_IDENTITY, V0_11, V0_12, Profile
from stdb.sats.types import U8, UNIT, AlgebraicType, Array, Element, Map, Product, Ref, Sum, Typespace, option


def product(**parts: AlgebraicType) -> Product:
    return Product(tuple(Element(name, type_) for name, type_ in parts.items()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value at line 1 column 1"),
        ('{"a":1,"b":2,"a":3}', "duplicate field `a`"),
        ('[{"a":{"x":1,"x":1}}]', "duplicate field `x`"),
        ("NaN", "NaN, which is not JSON"),
        ("[Infinity]", "Infinity, which is not JSON"),
        ("-Infinity", "not JSON"),
        ("1e400", "number out of range: 1e400"),
        ("1" + "0" * 400, "number out of range"),
        (r'"\ud83e"', "lone surrogate"),
        (r'{"\udd76":1}', "lone surrogate"),
        (r'[{"a":["\ud83e\ud83e"]}]', "lone surrogate"),
        ('"\ud83e"', "lone surrogate"),
        (b'"\xff"', "invalid utf8 at byte 1"),
        ("[1] 2", "Extra data at line 1 column 5"),
        ("[1]\x0c", "Extra data"),
        ("\ufeff1", "at line 1 column 1"),
        ('"a\nb"', "Invalid control character"),
        ("01", "Extra data"),
        ("1.", "Extra data"),
        ("'a'", "Expecting value"),
        ("[" * 128 + "]" * 128, "more than 127 nested"),
        ("[" * 100_000, "more than 127 nested"),
        ('{"a":' * 100_000, "more than 127 nested"),
        ('["' + "[" * 200 + '",' + "[" * 127 + "]" * 127 + "]", "more than 127 nested"),
    ],
)
def test_what_is_not_json_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        json.parse(text)
    assert message in str(caught.value)


def test_what_only_looks_nested_is_accepted() -> None:
    deepest = "[" * 127 + "]" * 127
    assert json.parse(deepest) is not None
    assert json.parse('["' + "[" * 200 + '\\"' + "{" * 200 + '"]') == ["[" * 200 + '"' + "{" * 200]
    assert json.parse("[" + ",".join(["[]"] * 200) + "]") == [[]] * 200


def test_pairs_of_surrogates_are_one_character() -> None:
    assert json.parse(r'"\ud83e\udd76"') == json.parse('"\U0001f976"') == "\U0001f976"


def test_long_numbers_take_no_long_time() -> None:
    began = time.process_time()
    assert json.parse("[" + "1" * 300 + "]") == [float("1" * 300)]
    assert json.parse("0." + "1" * 1_000_000) == pytest.approx(1 / 9)
    for text in ("1" * 1_000_000, "-" + "9" * 1_000_000, "1e" + "9" * 1_000_000):
        with pytest.raises(DecodeError, match="number out of range"):
            json.parse(text)
    assert time.process_time() - began < 1


def test_minus_zero_is_an_integer_of_128_bits_alone() -> None:
    zero = json.parse("-0")
    assert json.decode(types.I128, zero) == json.decode(types.U128, zero) == 0
    assert str(json.decode(types.F64, zero)) == str(json.decode(types.F32, zero)) == "-0.0"
    assert type(json.decode(types.F64, zero)) is float
    for type_, document in ((types.I64, zero), (U8, zero), (types.I128, -0.0), (types.BYTES, [zero])):
        with pytest.raises(DecodeError, match=r"floating point `-0.0`"):
            json.decode(type_, document)


ARGS = product(a=U8, b=Array(product(c=option(types.STRING), d=Sum((Element("x", UNIT), Element("y", types.U256))))))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([256, []], "$.args[0]: integer `256`, expected u8"),
        ({"a": 1, "b": [{"c": 5, "d": {"x": []}}]}, "$.args.b[0].c: integer `5`, expected sum type"),
        ({"a": 1, "b": [[None, {"y": "0xg"}]]}, '$.args.b[0][1].y: string "0xg", expected u256 as hex digits after 0x'),
        ({"a": 1, "b": [[{"some": None}, 1]]}, "$.args.b[0][0].some: null, expected a string"),
        ({"a": 1}, "$.args: missing field `b`"),
        ({"a": 1, "b": [], "c": 1}, "$.args: unknown field `c`, expected `a`, `b`"),
        ([1], "$.args: invalid length 1, expected 2 elements"),
        (None, "$.args: null, expected a 2-element tuple"),
        ([True, []], "$.args[0]: boolean `true`, expected u8"),
        ([1, {}], "$.args[1]: map, expected a vec"),
        ([1, [[None, {"z": 1}]]], "$.args[1][0][1]: unknown variant `z`, expected `x`, `y`"),
        ([1, [[None, [2, 1]]]], "$.args[1][0][1]: unknown tag 0x2 for sum type <unknown>"),
        ([1, [[None, [True, 1]]]], "$.args[1][0][1]: boolean `true`, expected a tag or the name of a variant"),
        ([1, [[None, {"1": "0x" + "f" * 65}]]], "expected u256"),
    ],
)
def test_an_error_names_its_path(document: Any, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        json.decode(ARGS, document, root="$.args")
    assert message in str(caught.value)
    assert caught.value.offset is None


def test_bytes_are_hex_or_numbers() -> None:
    assert json.decode(types.BYTES, "00fF") == b"\0\xff"
    assert json.decode(types.BYTES, [0, 255]) == b"\0\xff"
    for document in ("0", "0x00", "00 ff", " 00", "é0", [256], [-1], [True], ["0"], [1.0], {}, None, 5):
        with pytest.raises(DecodeError):
            json.decode(types.BYTES, document)


def test_a_numeric_key_is_a_tag_even_where_a_variant_has_that_name() -> None:
    type_ = Sum((Element("1", U8), Element("0", types.STRING), Element("300", U8)))
    assert json.decode(type_, {"0": 7}) == json.decode(type_, {"000": 7}) == json.decode(type_, ["+0", 7]) == (0, 7)
    assert json.decode(type_, {"300": 7}) == (2, 7)
    with pytest.raises(DecodeError, match="unknown tag 0xff"):
        json.decode(type_, {"255": 7})


def test_old_text_clients_write_none_as_an_empty_object() -> None:
    assert json.decode(option(U8), {}, profile=V0_11) is None
    for profile in (MODERN, V0_12):
        with pytest.raises(DecodeError, match="exactly one field"):
            json.decode(option(U8), {}, profile=profile)
    with pytest.raises(DecodeError, match="expected sum type"):
        json.decode(option(U8), [0, 5], profile=V0_11)


def test_old_generations_read_and_write_special_values_their_way() -> None:
    identity = bytes(range(32))
    text = identity[::-1].hex()
    for profile in (V0_11, V0_12):
        for document in ({"__identity_bytes": text}, [text], text.upper()):
            assert json.decode(types.IDENTITY, document, profile=profile) == identity
        with pytest.raises(DecodeError, match="31 bytes, expected 32"):
            json.decode(types.IDENTITY, [text[2:]], profile=profile)
        assert json.encode(types.IDENTITY, identity, "row", profile=profile) == f'{{"__identity_bytes":"{text}"}}'
        assert json.encode(types.CONNECTION_ID, bytes(16), "positional", profile=profile) == f'["{"0" * 32}"]'
        assert json.encode(types.TIMESTAMP, -5, "row", profile=profile) == "0"
        assert json.decode(types.TIMESTAMP, 7, profile=profile) == 7
    assert json.encode(types.SCHEDULE_AT, (1, 5), "row", profile=V0_11) == '{"0":5}'
    assert json.decode(types.SCHEDULE_AT, {"0": 5}, profile=V0_11) == (1, 5)
    assert json.decode(types.SCHEDULE_AT, {"Interval": 5}, profile=V0_11) == (0, 5)
    assert json.encode(types.SCHEDULE_AT, (1, 5), "typed", profile=V0_11) == '{"Time":5}'


def test_maps_are_objects() -> None:
    type_ = Map(types.I16, U8)
    assert json.encode(type_, [(-1, 2), (3, 4)], "row") == '{"-1":2,"3":4}'
    assert json.decode(type_, {"3": 4, "-1": 2}) == [(-1, 2), (3, 4)]
    assert json.decode(Map(types.STRING, U8), {"b": 1, "a": 2}) == [("a", 2), ("b", 1)]
    wide = Map(types.U256, U8)
    assert json.decode(wide, json.parse(json.encode(wide, [(255, 1)], "row"))) == [(255, 1)]
    for document in ({"x": 1}, {"40000": 1}, {"1": 256}, [1], {"1" * 100: 1}):
        with pytest.raises(DecodeError):
            json.decode(type_, document)


@pytest.mark.parametrize(
    ("key", "pairs", "text"),
    [
        (types.BOOL, [(False, 3), (True, 1)], '{"false":3,"true":1}'),
        (types.F32, [(-0.5, 1), (1.5, 2)], '{"-0.5":1,"1.5":2}'),
        (types.F64, [(1e300, 1)], '{"1e300":1}'),
        (option(U8), [(3, 2), (None, 1)], '[[{"some":3},2],[{"none":[]},1]]'),
        (product(a=U8), [((1,), 2), ((2,), 3)], '[[{"a":1},2],[{"a":2},3]]'),
    ],
)
def test_maps_have_keys_of_every_type(key: AlgebraicType, pairs: list[Any], text: str) -> None:
    type_ = Map(key, U8)
    assert json.encode(type_, pairs, "compiled") == text
    assert json.decode(type_, json.parse(text)) == pairs
    as_pairs = json.parse(f"[{','.join(json.encode(product(k=key, v=U8), pair, 'positional') for pair in pairs)}]")
    assert json.decode(type_, as_pairs) == pairs
    bad: list[Any] = [[[1]], [1], {"x": 1}, {"maybe": 1}, 5, {"1e": 1}]
    for document in bad:
        with pytest.raises(DecodeError):
            json.decode(type_, document)


@pytest.mark.parametrize("profile", [MODERN, V0_11], ids=lambda profile: profile.name)
def test_an_identity_of_0_11_may_be_a_key(profile: Profile) -> None:
    type_ = Map(OLD_IDENTITY, U8)
    stored = [bytes([1, *bytes(31)]), bytes([2, *bytes(31)])]
    pairs = [((each,), 0) if profile is MODERN else (each[::-1], 0) for each in stored]
    codec = bsatn.codec(type_, profile=profile)
    data = codec.encode(pairs[::-1])
    assert data == bsatn.codec(type_).encode([((each,), 0) for each in stored[::-1]])
    assert codec.decode_exact(data) == pairs
    text = json.encode(type_, pairs, "row", profile=profile)
    assert json.decode(type_, json.parse(text), profile=profile) == pairs


def test_compiled_types_write_unit_as_an_array() -> None:
    type_ = product(a=option(U8), b=Sum((Element("x", UNIT),)))
    assert json.encode(type_, (None, (0, ())), "compiled") == '{"a":{"none":[]},"b":{"x":[]}}'
    assert json.encode(type_, (None, (0, ())), "typed") == '{"a":{"none":{}},"b":{"x":{}}}'


def test_names_of_any_kind_are_written() -> None:
    type_ = product(**{'%d "quoted" %s': Sum((Element("100%", U8), Element("\n", Array(U8))))})
    for value, text in (((0, 7), '{"100%":7}'), ((1, b"\1"), r'{"\n":"01"}')):
        written = json.encode(type_, (value,), "typed")
        assert written == '{"%d \\"quoted\\" %s":' + text + "}"
        assert json.decode(type_, json.parse(written)) == (value,)


def test_what_cannot_be_written_is_refused() -> None:
    unnamed = Product((Element(None, U8),))
    assert json.encode(unnamed, (1,), "positional") == "[1]"
    with pytest.raises(EncodeError, match="element 0 has no name"):
        json.encode(unnamed, (1,), "typed")
    with pytest.raises(EncodeError, match="no JSON form 'pretty'"):
        json.encode(U8, 1, "pretty")
    with pytest.raises(EncodeError, match=r"\$\[1\]: expected a str, got 5"):
        json.encode(product(a=U8, b=types.STRING), (1, 5), "row")
    with pytest.raises(EncodeError, match="2 is no tag"):
        json.encode(Sum((Element("a", U8), Element("b", UNIT))), (2, 1), "row")


def test_recursive_types_are_read_and_written() -> None:
    space = Typespace((product(head=U8, tail=option(Ref(0))),))
    write, read = json.encoder(Ref(0), "row", typespace=space), json.decoder(Ref(0), typespace=space)
    assert write((1, (2, None))) == '{"head":1,"tail":[0,{"head":2,"tail":[1,{}]}]}'
    assert read(json.parse(write((1, (2, None))))) == (1, (2, None))


@pytest.mark.parametrize(
    ("value", "f64", "f32"),
    [
        (1e16, "1e16", "1e16"),
        (1e15, "1000000000000000.0", "1e15"),
        (1e13, "10000000000000.0", "1e13"),
        (1e12, "1000000000000.0", "1000000000000.0"),
        (123456789.0, "123456789.0", "123456790.0"),
        (0.00001, "0.00001", "0.00001"),
        (0.000012, "0.000012", "0.000012"),
        (0.000001, "1e-6", "0.000001"),
        (1e-7, "1e-7", "1e-7"),
        (1.5e300, "1.5e300", "null"),
        (-0.0, "-0.0", "-0.0"),
        (-1.5e-5, "-0.000015", "-0.000015"),
    ],
)
def test_floats_are_spelled_as_the_reference_spells_them(value: float, f64: str, f32: str) -> None:
    from stdb.sats.json_numbers import round_to_f32

    assert f64_text(value) == f64
    assert f32_text(round_to_f32(value)) == f32


def test_types_are_read_in_every_lenient_form() -> None:
    for document in ({"U64": {}}, ["U64", []], [13, []], {"13": []}):
        assert meta.type_from_json(document) == types.U64
    assert meta.type_from_json({"Product": [[[None, {"U8": []}]]]}) == Product((Element(None, U8),))
    for wrong in ({"U65": []}, "U64", None, {"Product": {"elements": [{"name": "a"}]}}, {"Ref": -1}):
        with pytest.raises(DecodeError, match=r"^\$"):
            meta.type_from_json(wrong)


def test_types_nested_without_end_are_refused() -> None:
    with pytest.raises(DecodeError, match="nested more than 128 levels"):
        meta.decode_type(b"\3" * 100_000)
    document: Any = {"U8": []}
    for _ in range(100_000):
        document = {"Array": document}
    with pytest.raises(DecodeError, match="nested more than 127 levels"):
        meta.type_from_json(document)
    while document:  # taken apart by hand: the interpreter would do it recursively
        document = document.pop("Array", None)
    with pytest.raises(DecodeError, match="data too short for"):
        meta.decode_type(b"\2\xff\xff\xff\xff")
