"""Every entry of the value vectors, and the real server's answers to them.

`vectors/values.json` says what official clients and servers write; `vectors/values_recorded.json` is what the running
2.8.3 answered. Entries of one generation run in the profiles of the generations they name.
"""

import json as standard_json
import random
from pathlib import Path
from typing import Any

import pytest
from Crypto.Hash import keccak

from stdb.errors import DecodeError, SchemaError
from stdb.sats import bsatn, hashes, json, keys, meta, names, special
from stdb.sats.profiles import MODERN, V0_11, V0_12, Profile
from stdb.sats.types import AlgebraicType, Product, Typespace

VECTORS = Path(__file__).parent / "vectors"
VALUES = standard_json.loads((VECTORS / "values.json").read_text())
RECORDED = standard_json.loads((VECTORS / "values_recorded.json").read_text())
FORMS = ("typed", "row", "positional")


def profiles(versions: list[str] | str) -> list[Profile]:
    """The profiles in which an entry of these versions is tested."""
    if versions == "all":
        return [MODERN, V0_12, V0_11]
    text = str(versions)
    return [profile for profile, mark in ((MODERN, ".x"), (V0_12, "0.12"), (V0_11, "0.11")) if mark in text]


def type_of(entry: dict[str, Any]) -> tuple[AlgebraicType, Typespace]:
    return meta.type_from_json(entry["type"]), Typespace(
        tuple(meta.type_from_json(each) for each in entry.get("typespace", []))
    )


def cases(entries: list[dict[str, Any]]) -> list[Any]:
    found = []
    for entry in entries:
        for profile in profiles(entry.get("versions", "all")):
            found.append(pytest.param(entry, profile, id=f"{entry['id']}-{profile.name}"))
    return found


def test_no_vector_is_without_a_profile() -> None:
    assert all(profiles(entry["versions"]) for entry in VALUES["vectors"])
    assert len(VALUES["vectors"]) == 187


@pytest.mark.parametrize(("entry", "profile"), cases(VALUES["vectors"]))
def test_a_vector_decodes_and_encodes_to_the_same_bytes(entry: dict[str, Any], profile: Profile) -> None:
    type_, typespace = type_of(entry)
    data = bytes.fromhex(entry["bsatn"])
    codec = bsatn.codec(type_, typespace, profile)
    value, end = codec.decode(b"\xaa\xaa\xaa" + data + b"\xaa", 3)
    assert end == 3 + len(data)
    assert codec.encode(value) == data
    assert codec.skip(data) == len(data)
    assert codec.min_size <= len(data)
    assert codec.fixed_size in (None, len(data))


@pytest.mark.parametrize(("entry", "profile"), cases(VALUES["vectors"]))
def test_a_vector_has_the_json_forms_of_its_generation(entry: dict[str, Any], profile: Profile) -> None:
    type_, typespace = type_of(entry)
    value = bsatn.codec(type_, typespace, profile).decode_exact(bytes.fromhex(entry["bsatn"]))
    forms = entry["json_0_11"] if profile is V0_11 and "json_0_11" in entry else entry["json"]
    assert forms or entry["id"].startswith("schedule-01")
    for form in forms:
        text = json.encode(type_, value, form, typespace=typespace, profile=profile)
        assert repr(standard_json.loads(text)) == repr(forms[form]), form
        assert text == standard_json.dumps(forms[form], separators=(",", ":"), ensure_ascii=False).replace("e+", "e")


@pytest.mark.parametrize(("entry", "profile"), cases(VALUES["vectors"]))
def test_every_json_form_of_a_vector_reads_back(entry: dict[str, Any], profile: Profile) -> None:
    type_, typespace = type_of(entry)
    codec = bsatn.codec(type_, typespace, profile)
    forms = entry["json_0_11"] if profile is V0_11 and "json_0_11" in entry else entry["json"]
    for form, document in forms.items():
        text = standard_json.dumps(document)
        if entry.get("json_lossy"):
            with pytest.raises(DecodeError, match="null, expected f"):
                json.decode(type_, json.parse(text), typespace=typespace, profile=profile)
        else:
            value = json.decode(type_, json.parse(text), typespace=typespace, profile=profile)
            assert codec.encode(value).hex() == entry["bsatn"], form


@pytest.mark.parametrize("entry", VALUES["meta"], ids=lambda entry: entry["id"])
def test_types_are_values_in_every_generation(entry: dict[str, Any]) -> None:
    newest = MODERN if "bsatn" in entry else V0_12  # Map ended with 0.12
    type_ = meta.type_from_json(entry["type"], newest)
    assert meta.type_to_json(type_, newest) == entry["type"]
    for profile, key in ((MODERN, "bsatn"), (V0_12, "derived_0_12_bsatn"), (V0_11, "derived_0_11_bsatn")):
        if key not in entry:
            with pytest.raises(SchemaError, match="has no type"):
                meta.encode_type(type_, profile)
            continue
        data = bytes.fromhex(entry[key])
        assert meta.encode_type(type_, profile) == data
        assert meta.decode_type(b"\0" + data, 1, profile) == (type_, 1 + len(data))
        for length in range(len(data)):
            with pytest.raises(DecodeError):
                meta.decode_type(data[:length], 0, profile)
    if "derived_0_11_json" in entry:
        assert meta.type_to_json(type_, V0_11) == entry["derived_0_11_json"]
        assert meta.type_from_json(entry["derived_0_11_json"], V0_11) == type_


# What the entries of `errors` must do where that is more than "reject" (`stdb_must`): profiles that reject.
ALL = (MODERN, V0_12, V0_11)
REJECTS = {
    "reject": ALL,
    "reject above 65,536 elements (spec section 5.3)": ALL,
    "reject in 1.x/2.x; accept as true in 0.11 mode": (MODERN,),
    "as bool-2": (MODERN,),
    "reject in the 0.11/0.12 profile; in 1.x/2.x an ordinary product, decodes (spec section 5.2 point 5)": (
        V0_12,
        V0_11,
    ),
}
LEFTOVERS = {
    "decoder API returns bytes consumed; each caller decides (spec section 5.4)",
    "accept for reducer arguments; reject for rows",
    "as trailing-u8",
}
REFUSED_TYPE = "refuse the type at schema validation; never index blindly"


def test_every_expectation_is_known() -> None:
    assert {entry["stdb_must"] for entry in VALUES["errors"]} == {*REJECTS, *LEFTOVERS, REFUSED_TYPE}


@pytest.mark.parametrize("profile", ALL, ids=lambda profile: profile.name)
@pytest.mark.parametrize("entry", VALUES["errors"], ids=lambda entry: entry["id"])
def test_malformed_bytes_do_as_they_must(entry: dict[str, Any], profile: Profile) -> None:
    type_, typespace = type_of(entry)
    data = bytes.fromhex(entry["bsatn"])
    must = entry["stdb_must"]
    if must == REFUSED_TYPE:
        with pytest.raises(SchemaError, match="invalid type ref &5: the typespace has 0 types"):
            bsatn.codec(type_, typespace, profile)
        return
    codec = bsatn.codec(type_, typespace, profile)
    if must in LEFTOVERS:
        assert codec.decode(data)[1] == codec.skip(data) < len(data)
        with pytest.raises(DecodeError, match="left over"):
            codec.decode_exact(data)
    elif profile in REJECTS[must]:
        for read in (codec.decode, codec.skip):
            with pytest.raises(DecodeError) as caught:
                read(b"??" + data, 2)
            assert 2 <= (caught.value.offset or 0) <= 2 + len(data)
    else:
        value, end = codec.decode(data)
        assert end == codec.skip(data) <= len(data)
        if "bool" in entry["id"]:
            assert value in (True, [True, True])


RECORDED_TEXTS = {
    name: answer["result"]["InternalError"].split(": ", 1)[1]
    for name, answer in RECORDED["errors"].items()
    if isinstance(answer, dict)
    and "InternalError" in (answer["result"] or {})
    and ": " in answer["result"]["InternalError"]
}


@pytest.mark.parametrize("entry", VALUES["errors"], ids=lambda entry: entry["id"])
def test_errors_speak_the_words_of_the_real_server(entry: dict[str, Any]) -> None:
    """Without a text: the four it accepted or trapped on, the one that killed it, the one it cannot express."""
    if entry["id"] not in RECORDED_TEXTS:
        silent = {"trailing-u8", "trailing-product", "trailing-string", "array-unit-huge", "ref-oob"}
        assert entry["id"] in silent | {"identity-011-len31", "identity-011-len33", "address-011-len15"}
        return
    type_, typespace = type_of(entry)
    with pytest.raises(DecodeError) as caught:
        bsatn.codec(type_, typespace).decode(bytes.fromhex(entry["bsatn"]))
    assert str(caught.value) == RECORDED_TEXTS[entry["id"]]


@pytest.mark.parametrize(("entry", "profile"), cases(VALUES["json_decode"]))
def test_json_texts_are_accepted_and_refused_as_they_must(entry: dict[str, Any], profile: Profile) -> None:
    type_, typespace = type_of(entry)
    is_accepted = entry["outcome"] == "accept" or (entry["id"] == "opt-empty-object" and profile is V0_11)
    if is_accepted:
        value = json.decode(type_, json.parse(entry["text"]), typespace=typespace, profile=profile)
        assert bsatn.codec(type_, typespace, profile).encode(value).hex() == entry.get("bsatn", "01")
    else:
        with pytest.raises(DecodeError):
            json.decode(type_, json.parse(entry["text"]), typespace=typespace, profile=profile)


def test_the_real_server_accepted_the_same_json_texts() -> None:
    recorded = {name: answer["status"] == 200 for name, answer in RECORDED["json_decode"].items()}
    assert recorded == {entry["id"]: entry["outcome"] == "accept" for entry in VALUES["json_decode"]}


def recorded_rows() -> list[Any]:
    by_id = {entry["id"]: entry for entry in VALUES["vectors"]}
    return [
        pytest.param(by_id[name], answer, id=name)
        for name, answer in RECORDED["json_out"].items()
        if isinstance(answer, dict)
    ]


def test_only_recursive_and_oversized_types_have_no_recorded_row() -> None:
    missing = {entry["id"] for entry in VALUES["vectors"]} - {param.id for param in recorded_rows()}
    inexpressible = {"product-unnamed", "product-mixed", "sum-unnamed", "sum-256", "sum-tag-128"}
    old = {"schedule-011-time", "schedule-011-interval", "schedule-012-interval", "identity-011", "address-011"}
    assert missing <= inexpressible | old | {"ref-tree-leaf", "ref-tree-node", "list-list"}


@pytest.mark.parametrize(("entry", "answer"), recorded_rows())
def test_rows_are_written_as_the_real_server_wrote_them(entry: dict[str, Any], answer: dict[str, str]) -> None:
    type_, typespace = type_of(entry)
    value = bsatn.codec(type_, typespace).decode_exact(bytes.fromhex(entry["bsatn"]))
    for key, form in (("row_text", "row"), ("delta_text", "positional"), ("sql_text", "positional")):
        text = json.encode(type_, value, form, typespace=typespace)
        before, after = ('"v":', "}") if form == "row" else (",", "]]" if key == "sql_text" else "]")
        assert answer[key].partition(before)[2].removesuffix(after) == text


@pytest.mark.parametrize("entry", VALUES["identity"], ids=lambda entry: entry["hash_input"][:40])
def test_identities_are_derived_from_the_token(entry: dict[str, Any]) -> None:
    identity = special.Identity.derive(entry["issuer"], entry["subject"])
    assert identity.hex() == entry["identity_hex"]
    assert identity.wire.hex() == entry["bsatn"]
    assert special.Identity.from_hex(entry["identity_hex"].upper()) == identity


@pytest.mark.parametrize("entry", VALUES["keccak"], ids=lambda entry: entry["input_hex"] or "empty")
def test_keccak_is_the_original_one(entry: dict[str, Any]) -> None:
    assert hashes.keccak256(bytes.fromhex(entry["input_hex"])).hex() == entry["keccak256"]


@pytest.mark.parametrize("size", [32_767, 32_768, 32_769, 65_536, 100_001])
def test_keccak_of_what_is_hashed_in_pieces_is_that_of_the_whole(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert hashes.keccak256(data) == keccak.new(data=data, digest_bits=256).digest()


@pytest.mark.parametrize("entry", VALUES["identity_0_11"], ids=lambda entry: str(entry["counter"]))
def test_old_identities_are_hashes_of_a_counter(entry: dict[str, Any]) -> None:
    digest = hashes.keccak256(b"clockworklabs:" + entry["counter"].to_bytes(8, "little"))
    assert digest.hex() == entry["identity_011"]
    assert digest[:16].hex() == entry["address_011"]


@pytest.mark.parametrize("entry", VALUES["ordering"], ids=lambda entry: standard_json.dumps(entry["type"])[:40])
def test_keys_order_values_as_listed(entry: dict[str, Any]) -> None:
    type_ = meta.type_from_json(entry["type"])
    key = keys.value_key(type_)
    if "ascending_names" in entry:
        nan = float("nan")
        ordered = [[float("-inf")], [-1.0], [-0.0, 0.0], [1.0], [float("inf")], [nan, -nan]]
        assert [len({key(value) for value in equal}) for equal in ordered] == [1] * len(ordered)
        found = [key(equal[0]) for equal in ordered]
    else:
        found = [key(json.decode(type_, document)) for document in entry["ascending"]]
    assert found == sorted(set(found))


@pytest.mark.parametrize("entry", VALUES["names"], ids=lambda entry: entry["name"])
def test_names_change_case_as_the_reference_does(entry: dict[str, str]) -> None:
    assert names.snake_case(entry["name"]) == entry["snake"]
    assert names.camel_case(entry["name"]) == entry["camel"]
    assert names.pascal_case(entry["name"]) == entry["pascal"]


@pytest.mark.parametrize("name", VALUES["identifiers"]["valid"])
def test_identifiers(name: str) -> None:
    assert names.is_identifier(name)
    assert names.identifier_problem(name) is None


@pytest.mark.parametrize("entry", VALUES["identifiers"]["invalid"], ids=lambda entry: entry["name"])
def test_what_is_no_identifier_is_told_why(entry: dict[str, str]) -> None:
    assert not names.is_identifier(entry["name"])
    assert names.identifier_problem(entry["name"])


def test_database_names() -> None:
    assert all(map(names.is_database_name, VALUES["database_names"]["valid"]))
    assert not any(map(names.is_database_name, VALUES["database_names"]["invalid"]))


def test_errors_of_products_and_rows_agree() -> None:
    """A row type of constant size refuses leftovers when it is read whole (spec 01 section 5.4)."""
    entry = next(entry for entry in VALUES["errors"] if entry["id"] == "trailing-product")
    type_ = meta.type_from_json(entry["type"])
    assert isinstance(type_, Product)
    assert bsatn.codec(type_).fixed_size == 1
