"""What environment variables there may be: names, values, an update as a whole (spec 09 sections 5.1 and 5.2)."""

import pytest

from stdb.schema.environment import UNCHANGED, EnvironmentChange, VariableError, is_variable_name, updated
from stdb.schema.model import EnvironmentVariableDef

A = EnvironmentVariableDef("A", None, False)
ON = EnvironmentVariableDef("B", ("on",), True)
XY = EnvironmentVariableDef("C", ("x", "y"), True)


def refusal(change: EnvironmentChange, *declared: EnvironmentVariableDef, old: dict[str, str] | None = None) -> str:
    with pytest.raises(VariableError) as caught:
        updated(old or {}, change, declared)
    return str(caught.value)


@pytest.mark.parametrize("name", ["A", "_", "a_1", "A" * 256])
def test_names_that_may_be(name: str) -> None:
    assert is_variable_name(name)


@pytest.mark.parametrize("name", ["", "1", "a-b", "ä", "a\n", "A" * 257, "a b", "\uff21"])
def test_names_that_may_not_be(name: str) -> None:
    assert not is_variable_name(name)
    assert refusal(EnvironmentChange({name: "x"})) == "invalid name"


def test_what_is_not_named_stays() -> None:
    assert updated({"A": "1", "Z": "2"}, UNCHANGED, [A]) == {"A": "1", "Z": "2"}
    assert updated({"A": "1"}, UNCHANGED, None) == {"A": "1"}


def test_removing_comes_before_setting() -> None:
    assert updated({"A": "1", "Z": "2"}, EnvironmentChange({"A": "3"}, None), [A]) == {"A": "3"}
    assert updated({"A": "1", "Z": "2"}, EnvironmentChange({}, ("Z", "Y")), [A]) == {"A": "1"}


def test_a_required_variable_needs_a_value() -> None:
    with pytest.raises(VariableError) as caught:
        updated({"A": "1"}, EnvironmentChange({}, ("A",)), [A, ON, EnvironmentVariableDef("D", None, False)])
    assert caught.value.missing == ("A", "D")
    assert str(caught.value) == (
        'environment key "A": required value is missing; environment key "D": required value is missing'
    )
    assert updated({}, EnvironmentChange({"A": ""}), [A]) == {"A": ""}  # an empty value is one


def test_a_value_is_one_of_the_choices_and_is_not_told() -> None:
    text = refusal(EnvironmentChange({"B": "secret"}), ON)
    assert text == 'environment key "B": value does not satisfy its declared string constraint'
    assert refusal(UNCHANGED, XY, old={"C": "z"}).startswith('environment key "C"')
    assert updated({}, EnvironmentChange({"C": "y", "B": "on"}), [ON, XY]) == {"C": "y", "B": "on"}


def test_conflicts_and_limits() -> None:
    conflict = 'environment key "A": conflicting environment update operations'
    assert refusal(EnvironmentChange({"A": "1"}, ("A",))) == conflict
    assert refusal(EnvironmentChange({}, ("A", "A"))) == conflict
    assert refusal(EnvironmentChange({"A": "é" * 4097})) == 'environment key "A": value exceeds size limit'
    assert updated({}, EnvironmentChange({"A": "é" * 4096, "B": "\0"}), None)["B"] == "\0"
    many = {f"K{i}": "" for i in range(200)}
    assert refusal(EnvironmentChange({f"L{i}": "" for i in range(57)}), old=many) == "too many stored values"
    assert len(updated(many, EnvironmentChange({f"L{i}": "" for i in range(56)}), None)) == 256
