"""Arguments written as JSON: members by the author's names and by canonical ones (spec 09 section 3.3)."""

from dataclasses import replace

import pytest

from stdb.actors.arguments import arguments_from_json
from stdb.errors import DecodeError
from stdb.sats.types import U8, Element, Product, Typespace
from stdb.schema.model import CasePolicy, ModuleDef

SNAKE = ModuleDef(Typespace.EMPTY, case_policy=CasePolicy.SNAKE_CASE)
PARAMS = Product((Element("MessageBody", U8), Element("b", U8)))


@pytest.mark.parametrize("text", ['{"MessageBody": 1, "b": 2}', '{"b": 2, "message_body": 1}', "[1, 2]"])
def test_both_spellings_name_a_parameter(text: str) -> None:
    assert arguments_from_json(PARAMS, text, SNAKE) == b"\1\2"


def test_the_authors_name_counts_before_anothers_canonical_one() -> None:
    params = Product((Element("aB", U8), Element("a_b", U8)))
    assert arguments_from_json(params, '{"a_b": 2, "aB": 1}', SNAKE) == b"\1\2"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"MessageBody": 1, "message_body": 1, "b": 2}', "duplicate field `MessageBody`"),
        ('{"message_body": 1, "MessageBody": 1, "b": 2}', "duplicate field `MessageBody`"),
        ('{"message_body": 1}', "missing field `b`"),
        ('{"messageBody": 1, "b": 2}', "unknown field `messageBody`"),
    ],
)
def test_what_does_not_fit_is_refused(text: str, told: str) -> None:
    with pytest.raises(DecodeError, match=told):
        arguments_from_json(PARAMS, text, SNAKE)


def test_names_that_are_not_converted_have_one_spelling() -> None:
    with pytest.raises(DecodeError, match="unknown field `message_body`"):
        arguments_from_json(PARAMS, '{"message_body": 1, "b": 2}', replace(SNAKE, case_policy=CasePolicy.NONE))
