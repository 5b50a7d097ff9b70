"""Values of modules of 0.11: what their bytes must be beyond what their types say.

Responsible for: Identity and Address, whose types are arrays of any length there: 32 and 16 bytes, nothing else.
Not responsible for: codecs (`stdb.sats`), how later and older clients see them (`stdb.net`).

Source: spec 03 section 1, "we:".
"""

from collections.abc import Callable

from stdb.sats import bsatn
from stdb.sats.profiles import OLD_ADDRESS, OLD_IDENTITY, V0_11
from stdb.sats.types import AlgebraicType, Ref, Typespace
from stdb.sats.typespace import children, reachable_refs

__all__ = ["checked_skip"]


def checked_skip(type_: AlgebraicType, typespace: Typespace = Typespace.EMPTY) -> Callable[[bytes, int], int]:
    """Return what says where a value ends. It raises DecodeError for what is none, or of another length."""
    skip = bsatn.codec(type_, typespace).skip
    if not _mentions_old(type_, typespace):
        return skip
    old = bsatn.codec(type_, typespace, V0_11).skip

    def checked(data: bytes, offset: int) -> int:
        old(data, offset)
        return skip(data, offset)

    return checked


def _mentions_old(type_: AlgebraicType, typespace: Typespace) -> bool:
    stack = [type_, *(typespace.types[index] for index in reachable_refs(type_, typespace))]
    while stack:
        current = stack.pop()
        if current in (OLD_IDENTITY, OLD_ADDRESS):
            return True
        if not isinstance(current, Ref):
            stack.extend(children(current))
    return False
