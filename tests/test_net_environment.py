"""Headers that change environment variables: how they are read, and that the command line writes what is read."""

import argparse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.cli.environment import environment_headers
from stdb.net.environment import environment_of
from stdb.net.errors import HttpError
from stdb.net.http import Headers
from stdb.schema.environment import UNCHANGED, EnvironmentChange


def read(*values: str, remove: tuple[str, ...] = ()) -> EnvironmentChange:
    lines = [(b"spacetime-environment", value.encode("latin-1")) for value in values]
    lines += [(b"spacetime-environment-remove", value.encode("latin-1")) for value in remove]
    return environment_of(Headers(tuple(lines)))


def refusal(*values: str, remove: tuple[str, ...] = ()) -> str:
    with pytest.raises(HttpError) as caught:
        read(*values, remove=remove)
    assert caught.value.response.status == 400
    return str(caught.value)


@pytest.mark.parametrize(
    ("lines", "values"),
    [
        (["A=1"], {"A": "1"}),
        (["A=1,B=2", "C=3"], {"A": "1", "B": "2", "C": "3"}),
        ([" \t, A=1 ,, B=  ,\t"], {"A": "1", "B": ""}),
        (["A=''"], {"A": ""}),
        (["A='a, b=\"c\" \\n'"], {"A": 'a, b="c" \\n'}),
        (['A="a,\\" \\n\\u00e4\\ud83d\\ude00"'], {"A": 'a," \nä😀'}),
        (["A=x=y!#$%"], {"A": "x=y!#$%"}),
        (['A="x" \t,B=y'], {"A": "x", "B": "y"}),
        (["A=" + "x" * 8192], {"A": "x" * 8192}),
    ],
)
def test_values_are_bare_literal_or_json(lines: list[str], values: dict[str, str]) -> None:
    assert read(*lines) == EnvironmentChange(values)


@pytest.mark.parametrize(
    "line",
    [
        "A",
        "A =1",
        "A= 1",
        "=1",
        "1A=x",
        "a-b=x",
        "A=x y",
        "A=x'y",
        'A=x"y',
        "A=x\\y",
        "A='x",
        'A="x',
        'A="x"y',
        "A='x' y",
        'A="\\x"',
        'A="\\ud83d"',
        "A='\t'",
        'A="\t"',
        "A=\xe4",
        "A='\xe4'",
        "A='\x01'",
        "A=1,A=2",
        "A=" + "x" * 8193,
        "*",
    ],
)
def test_what_is_malformed_is_refused_without_its_value(line: str) -> None:
    text = refusal(line)
    assert text.startswith("malformed header spacetime-environment: ")
    assert "xx" not in text
    assert "\xe4" not in text


def test_a_key_may_come_once_in_all_lines() -> None:
    assert refusal("A=1", "A=2") == "malformed header spacetime-environment: the key A comes twice"


def test_removals() -> None:
    assert read(remove=("A, B", "C,")) == EnvironmentChange({}, ("A", "B", "C"))
    assert read("A=1", remove=("*",)) == EnvironmentChange({"A": "1"}, None)
    assert read() is UNCHANGED
    assert read(remove=(" ",)) is UNCHANGED
    for bad in (("*,A",), ("*", "*"), ("1",), ("a b",)):
        assert refusal(remove=bad).startswith("malformed header spacetime-environment-remove: ")


def options(**given: list[str]) -> argparse.Namespace:
    return argparse.Namespace(**{"env": [], "env_file": [], "remove_env": []} | given)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True), st.text(max_size=20), max_size=4))
def test_what_the_command_line_writes_is_read_as_it_was(values: dict[str, str]) -> None:
    headers = environment_headers(options(env=[f"{name}={value}" for name, value in values.items()]))
    lines = tuple((name.encode(), value.encode("ascii")) for name, value in headers.items())
    assert dict(environment_of(Headers(lines)).values) == values
