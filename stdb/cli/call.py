"""The command `call`: run a reducer or procedure, with suggestions when its name or its arguments are wrong."""

import argparse
import json
from typing import NamedTuple
from urllib.parse import quote

import httpx

from stdb.cli.api import TIMEOUT_SECONDS, Api, identity_digits, status_cause
from stdb.cli.databases import definition_of, fetch_schema
from stdb.cli.errors import CliError
from stdb.cli.render import function_signature
from stdb.cli.suggestions import suggest
from stdb.errors import SchemaError
from stdb.sats.types import IDENTITY, STRING, AlgebraicType, Element, Product, Typespace
from stdb.sats.typespace import inline
from stdb.schema.model import ModuleDef

__all__ = ["Function", "call", "functions_of"]


class Function(NamedTuple):
    """A callable of the module; `kind` is `reducer` or `procedure`."""

    kind: str
    name: str
    params: Product

    @property
    def signature(self) -> str:
        """Return the lines that say how to call it."""
        signature = function_signature(self.name, self.params)
        return f"The {self.kind} has the following signature:\n\t{signature}"


def call(api: Api, options: argparse.Namespace) -> None:
    """Call a reducer or procedure; print what a procedure returns, as JSON."""
    identity = api.database(options.database)
    functions = functions_of(definition_of(fetch_schema(api, identity)))
    function = next((each for each in functions if each.name == options.function), None)
    body = "[" + ", ".join(_arguments(function, options.arguments)) + "]"
    response = api.request(
        "POST",
        f"/v1/database/{identity}/call/{quote(options.function, safe='')}",
        content=body.encode("utf-8", "surrogateescape"),
        headers={"Content-Type": "application/json"},
        timeout=httpx.Timeout(TIMEOUT_SECONDS, read=None),  # a procedure may take its time
    )
    if response.status_code != 200:
        raise _failure(response, options, identity, functions, function)
    if response.text:
        print(response.text)


def functions_of(definition: ModuleDef) -> list[Function]:
    """Return what clients may call, types resolved."""
    declared = [("reducer", each.name, each.params) for each in definition.reducers if each.lifecycle is None]
    declared += [("procedure", each.name, each.params) for each in definition.procedures]
    return [Function(kind, name, _inlined(params, definition.typespace)) for kind, name, params in declared]


def _inlined(params: Product, typespace: Typespace) -> Product:
    return Product(tuple(Element(each.name, _resolved(each.type, typespace)) for each in params.elements))


def _resolved(type_: AlgebraicType, typespace: Typespace) -> AlgebraicType:
    try:
        return inline(type_, typespace)
    except SchemaError:  # a type that contains itself has no end; signatures show it as `?`
        return type_


def _arguments(function: Function | None, texts: list[str]) -> list[str]:
    if function is None:
        return texts
    elements = function.params.elements
    if len(texts) > len(elements):
        given = f"{len(texts)} argument{'s' if len(texts) > 1 else ''} given"
        raise CliError(f"{given}, but {function.kind} `{function.name}` takes {len(elements)}.\n\n{function.signature}")
    return [_argument(element.type, text) for element, text in zip(elements, texts, strict=False)]


def _argument(type_: AlgebraicType, text: str) -> str:
    """Return an argument as JSON: as typed, but that strings and identities may stand without quotes."""
    if type_ == STRING and not (len(text) > 1 and text[0] == text[-1] == '"'):
        return json.dumps(text)
    if type_ == IDENTITY and (digits := identity_digits(text)):
        return json.dumps(["0x" + digits])
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
    if response.status_code == 404 and function is None:
        names = {kind: [each.name for each in functions if each.kind == kind] for kind in ("reducer", "procedure")}
        unknown = f"No such reducer OR procedure `{options.function}` {place}"
        return CliError(f"{unknown}\n\n{suggest(options.function, names)}")
    cause = status_cause(response)
    if text.startswith("invalid arguments") and function is not None:
        head = f"Invalid arguments provided for {function.kind} `{function.name}` {place}"
        causes = (f"Response text: {text}", cause)
        return CliError(f"{head}\n\n{function.signature}", *causes, hint=_advice(function, options.arguments))
    return CliError(f"Response text: {text}", cause)


def _advice(function: Function, texts: list[str]) -> str | None:
    """Return which argument is no JSON, and how the others are written; the server cannot know where one ends."""
    for element, text in zip(function.params.elements, texts, strict=False):
        try:
            json.loads(_argument(element.type, text))
        except ValueError:
            return (
                f"`{text}`, given for {element.name}, is no JSON. Examples are 5, true, '[1, 2]' for lists, "
                """'{"x": 1}' for structs, '{"some": 1}' or null for options."""
            )
    return None
