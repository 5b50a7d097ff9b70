"""Definition: what a program says of itself, checked.

Responsible for: from the bytes of `__describe_module__` to a `ModuleDef`, or to what the publisher is told.
Not responsible for: reading and the rules (`stdb.schema`).

Source: spec 04 section 4, spec 03 section 8.
"""

from typing import TYPE_CHECKING

from stdb.errors import DecodeError, ModuleFault
from stdb.schema import raw, raw_v8
from stdb.schema.raw import RawModuleDefV8
from stdb.schema.validation import validate

if TYPE_CHECKING:
    from stdb.schema.model import ModuleDef

__all__ = ["read_definition"]

TAG_MAX = 2
"""The highest version tag; of the lower ones `stdb.schema.raw` says which it reads."""


def read_definition(description: bytes, *, is_0_11: bool = False) -> "ModuleDef":
    """Return what a program declares; `is_0_11` says of which generation it is.

    Raises:
        ModuleFault: The bytes do not decode; in the reference's words, which say it three times. Or a module of 0.11
            has reducers of names that it may not have.
        SchemaError: It cannot be published; holds every finding.
    """
    try:
        if not description:
            raise DecodeError("data too short for u8: Expected 1, given 0", 0)
        if description[0] > (0 if is_0_11 else TAG_MAX):
            raise DecodeError(f"unknown tag {description[0]:#x} for sum type RawModuleDef", 0)
        decoded = raw.decode(description, is_0_11=is_0_11)
    except DecodeError as error:
        decoding = f"error decoding module description: {error}"
        raise ModuleFault(f"error getting module description: {decoding}: {decoding}: {error}") from error
    refusal = raw_v8.name_refusal(decoded) if isinstance(decoded, RawModuleDefV8) else None
    if refusal is not None:
        raise ModuleFault(refusal)
    return validate(decoded)
