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

__all__ = ["WITH_HEADER", "rows_reader"]

WITH_HEADER = 2
"""A view's return code: a header says whether rows or a query follow. Before that was invented the code was 0."""
_ROW_DATA, _RAW_SQL = 0, 1
_read_text = bsatn.codec(STRING).decode_exact


def rows_reader(row_type: AlgebraicType) -> Callable[[int, bytes], list[bytes] | ViewSql]:
    """Return what reads a view's result, given its return code and the bytes. It raises DecodeError."""
    skip = bsatn.codec(row_type).skip

    def rows(data: bytes, offset: int) -> list[bytes]:
        count = int.from_bytes(data[offset : offset + 4], "little")
        offset += 4
        if offset > len(data) or (count > len(data) and len(data) > offset):
            raise DecodeError(f"{len(data)} bytes are no {count} rows", offset)
        found = []
        for _ in range(count):
            end = skip(data, offset)
            if end == offset:
                return [b""]  # rows of nothing are all the same one
            found.append(data[offset:end])
            offset = end
        return found

    def read(code: int, data: bytes) -> list[bytes] | ViewSql:
        if code != WITH_HEADER:
            return rows(data, 0)
        match data[:1]:
            case b"\x00":
                return rows(data, 1)
            case b"\x01":
                return ViewSql(_read_text(data[1:]))
        raise DecodeError(f"a view's result begins with {data[:1].hex() or 'nothing'}, known are 00 and 01", 0)

    return read
