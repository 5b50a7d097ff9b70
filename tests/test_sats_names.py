"""Names: the canonical ones of the running server, and why a name is refused."""

import json
from pathlib import Path

import pytest

from stdb.sats import names

RECORDED = json.loads((Path(__file__).parent / "vectors" / "names_recorded.json").read_text())


@pytest.mark.parametrize("case", ["snake", "camel", "pascal"])
def test_names_are_converted_as_the_running_server_did(case: str) -> None:
    (section,) = (content for title, content in RECORDED.items() if title.startswith(f"{case} ("))
    convert = getattr(names, f"{case}_case")
    assert {name: convert(name) for name in section} == section
    assert len(section) == {"snake": 138, "camel": 18, "pascal": 7}[case]


def test_marks_stay_with_their_letter() -> None:
    assert names.snake_case("E\u0301te\u0301User") == "e\u0301te\u0301_user"
    assert names.pascal_case("e\u0301te\u0301_user") == "E\u0301te\u0301User"


def test_a_name_of_separators_alone_becomes_empty() -> None:
    assert [names.snake_case("__"), names.camel_case("_"), names.pascal_case("")] == ["", "", ""]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "database names cannot be empty"),
        ("-a", "invalid hyphen in database name"),
        ("a-", "invalid hyphen in database name"),
        ("a--b", "invalid hyphen in database name"),
        ("-", "invalid hyphen in database name"),
        ("A", "invalid characters in database name"),
        ("a_b", "invalid characters in database name"),
        ("é", "invalid characters in database name"),
        ("a\n", "invalid characters in database name"),
        ("a-1", None),
        ("0" * 63, None),
    ],
)
def test_names_of_databases_are_refused_in_the_words_of_the_reference(name: str, reason: str | None) -> None:
    assert names.database_name_error(name) == reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "Empty identifiers are forbidden."),
        ("1a", "begins with `1`"),
        ("a-b", "contains `-`"),
        ("e\u0301", "not in Unicode normal form C; write it as `\u00e9`"),
        ("a\u2118b", None),
        ("class", None),
    ],
)
def test_a_name_that_is_no_identifier_is_told_why(name: str, reason: str | None) -> None:
    problem = names.identifier_problem(name)
    assert (problem is None) == names.is_identifier(name)
    assert problem is None if reason is None else reason in str(problem)
