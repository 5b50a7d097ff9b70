"""Schema documents of the real server read, and are written back equal."""

import json
from dataclasses import replace
from typing import Any

import pytest

from stdb.errors import DecodeError
from stdb.schema import documents
from stdb.schema import raw as raw_module
from stdb.schema.model import CasePolicy, ModuleDef
from stdb.schema.raw import RawModuleDefV9, RawModuleDefV10
from stdb.schema.validation import validate
from tests.schema_samples import VECTORS, module, vector
from tests.test_schema_raw import FULL, FULL_V9

NAMES = sorted(path.stem for path in (VECTORS / "documents").glob("*.json"))
V9_NAMES = [name for name in NAMES if name.endswith("_v9")]
V10_NAMES = [name for name in NAMES if name.endswith("_v10")]
# The real server's order of these is not deterministic (hash order).
UNORDERED = {"Tables", "Types", "entries", "indexes", "constraints"}


def _document(name: str) -> Any:
    return vector(f"documents/{name}")


def _sorted(document: Any) -> Any:
    """Return a V10 document with what has no order put into one."""
    if isinstance(document, list):
        return [_sorted(item) for item in document]
    if not isinstance(document, dict):
        return document
    inner = {name: _sorted(value) for name, value in document.items()}
    return {name: sorted(v, key=json.dumps) if name in UNORDERED else v for name, v in inner.items()}


def _definition(name: str) -> ModuleDef:
    """Return the definition of a recorded V10 document."""
    raw = documents.from_json(_document(name))
    assert isinstance(raw, RawModuleDefV10)
    # The document does not tell the policy; this one module was made without conversion.
    return validate(replace(raw, case_policy=CasePolicy.NONE) if name == "cases_nocase_v10" else raw)


def test_all_recorded_documents_are_here() -> None:
    assert len(V9_NAMES) == 6
    assert len(V10_NAMES) == 7


@pytest.mark.parametrize("name", NAMES)
def test_a_recorded_document_reads_and_writes_back_equal(name: str) -> None:
    document = _document(name)
    raw = documents.from_json(document)
    assert documents.raw_to_json(raw) == document
    assert raw_module.decode(raw_module.encode(raw)) == raw


@pytest.mark.parametrize("name", V10_NAMES)
def test_a_recorded_v10_document_comes_back_from_its_definition(name: str) -> None:
    assert _sorted(documents.to_json(_definition(name), 10)) == _sorted(_document(name))


@pytest.mark.parametrize("name", V9_NAMES)
def test_a_recorded_v9_document_comes_back_from_its_definition(name: str) -> None:
    document = _document(name)
    assert documents.to_json(validate(documents.from_json(document)), 9) == document


@pytest.mark.parametrize("name", V9_NAMES)
def test_the_recorded_v9_document_is_written_from_the_v10_definition(name: str) -> None:
    assert documents.to_json(_definition(name.replace("_v9", "_v10")), 9) == _document(name)


@pytest.mark.parametrize("name", ["wsprobe", "views_2_6", "abi10"])
def test_a_definition_written_as_v10_declares_the_same(name: str) -> None:
    definition = validate(raw_module.decode(bytes.fromhex(vector("modules")[name]["definition_hex"])))
    again = validate(documents.to_raw_v10(definition))
    assert documents.to_json(again, 10) == documents.to_json(definition, 10)
    assert documents.to_json(again, 9) == documents.to_json(definition, 9)


@pytest.mark.parametrize("raw", [FULL, FULL_V9, RawModuleDefV9(), RawModuleDefV10()])
def test_every_part_survives_a_document(raw: RawModuleDefV9 | RawModuleDefV10) -> None:
    document = json.loads(json.dumps(documents.raw_to_json(raw)))
    assert documents.from_json(document) == raw


def test_the_served_v10_document_says_nothing_of_the_case_policy() -> None:
    document = documents.to_json(validate(module()), 10)
    assert [next(iter(section)) for section in document["sections"]] == [
        "Typespace",
        "Types",
        "Tables",
        "ExplicitNames",
    ]


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ([], "$: expected the document of a module definition, found list"),
        ({"sections": {}}, "$.sections: expected a list of sections, found dict"),
        ({"sections": [{"Nope": []}]}, "$.sections[0]: unknown variant `Nope`"),
        ({"sections": [{"HttpHandlers": [{"source_name": 1}]}]}, "$.sections[0].HttpHandlers[0].source_name: expected"),
        ({"sections": [{"HttpHandlers": [{}]}]}, "missing or unknown members 'source_name'"),
        ({"sections": [{"CaseConversionPolicy": {"None": [1]}}]}, "CaseConversionPolicy.None: expected an empty list"),
        ({"typespace": {"types": []}}, "$: missing or unknown members"),
        (
            {"sections": [{"Tables": [{**documents.raw_to_json(FULL)["sections"][2]["Tables"][0], "is_event": 1}]}]},
            "$.sections[0].Tables[0].is_event: expected true or false",
        ),
        (
            {
                "sections": [
                    {
                        "Schedules": [
                            {"source_name": None, "table_name": "t", "schedule_at_col": 1, "function_name": "f"}
                        ]
                    }
                ]
            },
            "source_name: expected an option",
        ),
        (
            {
                "sections": [
                    {
                        "Schedules": [
                            {
                                "source_name": {"none": []},
                                "table_name": "t",
                                "schedule_at_col": 65536,
                                "function_name": "f",
                            }
                        ]
                    }
                ]
            },
            "schedule_at_col: expected an integer of type u16, found 65536",
        ),
    ],
)
def test_a_malformed_document_is_refused_with_its_path(document: Any, text: str) -> None:
    with pytest.raises(DecodeError) as caught:
        documents.from_json(document)
    assert text in str(caught.value)
