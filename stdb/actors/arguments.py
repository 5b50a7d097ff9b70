"""Arguments of a call written as JSON, as BSATN of its parameters.

Responsible for: an array or an object, whose members may be named as the author wrote them or canonically.
Not responsible for: JSON itself (`stdb.sats.json`), how a refusal is told (`calls`, `procedures`).

Source: spec 09 section 3.3.
"""

from typing import Any

from stdb.errors import DecodeError
from stdb.sats import bsatn, json
from stdb.sats.names import snake_case
from stdb.sats.types import Product
from stdb.schema.model import CasePolicy, ModuleDef

__all__ = ["arguments_from_json"]


def arguments_from_json(params: Product, text: str, definition: ModuleDef) -> bytes:
    """Return the BSATN of arguments written as a JSON array or object.

    Raises:
        DecodeError: The text is no JSON, or does not fit the parameters.
    """
    document = json.parse(text)
    if type(document) is dict and definition.case_policy is CasePolicy.SNAKE_CASE:
        document = _as_written(document, [element.name for element in params.elements])
    values = json.decode(params, document, typespace=definition.typespace)
    return bsatn.codec(params, definition.typespace).encode(values)


def _as_written(document: dict[str, Any], names: list[str | None]) -> dict[str, Any]:
    """Return an object with the author's names in the place of canonical ones; where both are one, it is the author's.

    Raises:
        DecodeError: A parameter is named twice.
    """
    canonical = {snake_case(name): name for name in names if name is not None}
    found: dict[str, Any] = {}
    for key, value in document.items():
        name = key if key in names else canonical.get(key, key)
        if name in found:
            raise DecodeError(f"duplicate field `{name:.60}`")
        found[name] = value
    return found
