"""Views of WebAssembly modules: what they return, as rows or as a query.

Responsible for: reading a view's result at its row type.
Not responsible for: calling views (`module`), keeping their rows (`stdb.modules.views`).

Source: spec 04 section 5, "view".
"""

from collections.abc import Callable

from stdb.errors import DecodeError
from stdb.modules.protocol import ViewSql
from stdb.sats import bsatn
from stdb.sats.types import STRING, AlgebraicType
from stdb.sql.work import BATCH, Steps

__all__ = ["WITH_HEADER", "rows_reader"]

WITH_HEADER = 2
"""A view's return code: a header says whether rows or a query follow. Before that was invented the code was 0."""
_read_text = bsatn.codec(STRING).decode_exact


def rows_reader(row_type: AlgebraicType) -> Callable[[int, bytes], Steps[list[bytes] | ViewSql]]:
    """Return what reads a view's result in steps, given its return code and the bytes. It raises DecodeError."""
    skip = bsatn.codec(row_type).skip

    def rows(data: bytes, offset: int) -> Steps[list[bytes]]:
        count = int.from_bytes(data[offset : offset + 4], "little")
        offset += 4
        if offset > len(data) or (count > len(data) and len(data) > offset):
            raise DecodeError(f"{len(data)} bytes are no {count} rows", offset)
        found: list[bytes] = []
        for number in range(1, count + 1):
            end = skip(data, offset)
            if end == offset:
                return [b""]  # rows of nothing are all the same one
            found.append(data[offset:end])
            offset = end
            if number % BATCH == 0:
                yield
        return found

    def read(code: int, data: bytes) -> Steps[list[bytes] | ViewSql]:
        if code != WITH_HEADER:
            return (yield from rows(data, 0))
        match data[:1]:
            case b"\x00":
                return (yield from rows(data, 1))
            case b"\x01":
                return ViewSql(_read_text(data[1:]))
        raise DecodeError(f"a view's result begins with {data[:1].hex() or 'nothing'}, known are 00 and 01", 0)

    return read
