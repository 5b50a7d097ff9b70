"""The command `call`: run a reducer, with suggestions when its name or its arguments are wrong."""

import argparse
import difflib
import json
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx

from stdb.cli.api import Api, status_cause
from stdb.cli.databases import fetch_schema
from stdb.cli.errors import CliError
from stdb.cli.render import function_signature
from stdb.sats import meta
from stdb.sats.types import IDENTITY, STRING, AlgebraicType, Product, Typespace
from stdb.sats.typespace import inline

__all__ = ["call"]

NAMES_SHOWN_MAX = 10


class Function(NamedTuple):
    """A callable of the module; `kind` is `reducer` or `procedure`."""

    kind: str
    name: str
    params: Product


def call(api: Api, options: argparse.Namespace) -> None:
    """Call a reducer; print what a procedure returns."""
    identity = api.database(options.database)
    functions = _functions(fetch_schema(api, identity))
    function = next((each for each in functions if each.name == options.function), None)
    body = "[" + ", ".join(_arguments(function, options.arguments)) + "]"
    response = api.request(
        "POST",
        f"/v1/database/{identity}/call/{quote(options.function, safe='')}",
        content=body.encode(),
        headers={"Content-Type": "application/json"},
    )
    if response.status_code != 200:
        raise _failure(response, options, identity, functions, function)
    if response.text:
        print(response.text)


def _functions(sections: list[dict[str, Any]]) -> list[Function]:
    by_name = {name: value for section in sections for name, value in section.items()}
    types = by_name.get("Typespace", {"types": []})["types"]
    typespace = Typespace(tuple(meta.type_from_json(each) for each in types))
    functions = []
    for section, kind in (("Reducers", "reducer"), ("Procedures", "procedure")):
        for entry in by_name.get(section, []):
            params = meta.type_from_json({"Product": entry["params"]})
            resolved = _resolve(params, typespace)
            assert isinstance(resolved, Product)
            functions.append(Function(kind, entry["source_name"], resolved))
    return functions


def _resolve(type_: AlgebraicType, typespace: Typespace) -> AlgebraicType:
    try:
        return inline(type_, typespace)
    except ValueError:  # recursive: shown as far as it goes
        return type_


def _arguments(function: Function | None, texts: list[str]) -> list[str]:
    if function is None:
        return texts
    elements = function.params.elements
    if len(texts) > len(elements):
        signature = function_signature(function.name, function.params)
        raise CliError(
            f"{len(texts)} arguments given, but {function.kind} `{function.name}` takes {len(elements)}.\n\n"
            f"The {function.kind} has the following signature:\n\t{signature}"
        )
    return [_argument(element.type, text) for element, text in zip(elements, texts, strict=False)]


def _argument(type_: AlgebraicType, text: str) -> str:
    if type_ == STRING and not (len(text) > 1 and text[0] == text[-1] == '"'):
        return json.dumps(text)
    if type_ == IDENTITY and text.removeprefix("0x").isalnum():
        return json.dumps(["0x" + text.removeprefix("0x").lstrip("0").lower() or "0x0"])
    return text


def _failure(
    response: httpx.Response,
    options: argparse.Namespace,
    identity: str,
    functions: list[Function],
    function: Function | None,
) -> CliError:
    text = response.text
    place = f"for database `{options.database}` resolving to identity `{identity}`."
    if text.lower().startswith(("no such reducer", "no such procedure")):
        found = f"No such reducer OR procedure `{options.function}` {place}"
        return CliError(found + "\n\n" + _suggestions(options.function, functions))
    if text.startswith("invalid arguments") and function is not None:
        signature = function_signature(function.name, function.params)
        head = f"Invalid arguments provided for {function.kind} `{function.name}` {place}\n\n"
        head += f"The {function.kind} has the following signature:\n\t{signature}"
        return CliError(head, f"Response text: {text}", status_cause(response))
    return CliError(f"Response text: {text}", status_cause(response))


def _suggestions(name: str, functions: list[Function]) -> str:
    for kind in ("reducer", "procedure"):
        names = [each.name for each in functions if each.kind == kind]
        if close := difflib.get_close_matches(name, names, n=1, cutoff=0.75):
            return f"A {kind} with a similar name exists: `{close[0]}`"
    parts = []
    for kind in ("reducer", "procedure"):
        if names := [each.name for each in functions if each.kind == kind]:
            lines = [f"Here are some existing {kind}s:", *(f"- {each}" for each in names[:NAMES_SHOWN_MAX])]
            if hidden := len(names) - NAMES_SHOWN_MAX:
                lines += [f"... ({hidden} {kind}s not shown)"] if hidden > 0 else []
            parts.append("\n".join(lines))
    return "\n\n".join(parts)
