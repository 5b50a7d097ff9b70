"""Rows as text, one a line: JSON objects or CSV, both ways and without loss.

Responsible for: the two forms, which line is wrong and why.
Not responsible for: taking rows out of a table and putting them in (`stdb.actors.transfer`).

A JSON line is an object of all columns, values in SATS-JSON with the names of variants. A CSV file begins with the
names of the columns; text stands as it is, everything else as its JSON. Floats that JSON lacks are the strings `NaN`,
`Infinity` and `-Infinity`; inside other values they are refused, since no reader could tell them apart. Reading takes
columns in any order; those that are auto-increment may be left out and get the next values.
"""

import csv
import math
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any, NamedTuple

from stdb.datastore.table import TableSchema
from stdb.errors import DecodeError, EncodeError, RequestError
from stdb.sats import json as sats_json
from stdb.sats.types import F32, F64, STRING, AlgebraicType

__all__ = ["FORMATS", "BadLineError", "RowReader", "RowWriter", "TextRow"]

FORMATS = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
LINE_BYTES_MAX = 64 * 1024 * 1024
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
csv.field_size_limit(2 * LINE_BYTES_MAX)


class BadLineError(RequestError):
    """A line that is no row of the table (400)."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}")


class TextRow(NamedTuple):
    """A row that was read, and the line where it began."""

    line: int
    row: bytes


# --------------------------------------------------------------------------------------------------- writing
class RowWriter:
    """Writes rows of one table."""

    def __init__(self, schema: TableSchema, format_: str) -> None:
        self._decode = schema.codec.decode_exact
        self._names = [column.name for column in schema.definition.columns]
        types = [column.type for column in schema.definition.columns]
        self._is_csv = format_ == "csv"
        self._texts = [str if self._is_csv and type_ == STRING else _writer(type_) for type_ in types]
        quoted = [sats_json.encode(STRING, name, "typed") for name in self._names]
        self._template = "{" + ",".join(f"{name.replace('%', '%%')}:%s" for name in quoted) + "}\n"

    def head(self) -> bytes:
        """Return what stands before the rows."""
        return self._csv([self._names]) if self._is_csv else b""

    def lines(self, rows: list[bytes]) -> bytes:
        """Return the lines of rows."""
        cells = ([text(value) for text, value in zip(self._texts, self._decode(row), strict=True)] for row in rows)
        if self._is_csv:
            return self._csv(cells)
        return "".join([self._template % tuple(each) for each in cells]).encode("utf-8", "replace")

    def _csv(self, rows: Any) -> bytes:
        out = StringIO()
        csv.writer(out).writerows(rows)
        return out.getvalue().encode("utf-8", "replace")


def _writer(type_: AlgebraicType) -> Callable[[Any], str]:
    encode = sats_json.encoder(type_, "typed")
    if type_ not in (F32, F64):
        return encode
    return lambda value: encode(value) if math.isfinite(value) else f'"{_name_of(value)}"'


def _name_of(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


# --------------------------------------------------------------------------------------------------- reading
class RowReader:
    """Reads rows of one table from bytes that arrive in pieces."""

    def __init__(self, schema: TableSchema, format_: str) -> None:
        self._table = schema.name
        self._encode = schema.codec.encode
        self._columns = [column.name for column in schema.definition.columns]
        self._optional = {self._columns[each.column] for each in schema.definition.sequences}
        self._is_csv = format_ == "csv"
        self._values = [_reader(column.type, column.name, is_cell=self._is_csv) for column in schema.definition.columns]
        self._order: list[int] | None = None
        """CSV: the column that each cell is of, once the head was read."""
        self._rest = b""
        self._line = 0
        self._began = 0
        self._record = b""

    def feed(self, data: bytes) -> Iterator[TextRow]:
        """Yield the rows that are whole now. Raises BadLineError."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from self._take(line + b"\n")
        if len(self._rest) + len(self._record) > LINE_BYTES_MAX:
            raise BadLineError(self._line + 1, f"it is longer than {LINE_BYTES_MAX} bytes{self._hint()}")

    def end(self) -> Iterator[TextRow]:
        """Yield the row of a last line without an end of line. Raises BadLineError."""
        if self._rest:
            yield from self._take(self._rest)
        if self._record:
            raise BadLineError(self._began, "a quote is opened here that is never closed")
        if self._is_csv and self._order is None:
            raise BadLineError(1, f"the names of the columns are missing: table `{self._table}` has {self._known()}")

    def _take(self, line: bytes) -> Iterator[TextRow]:
        self._line += 1
        if not self._record:
            self._began = self._line
        self._record += line
        if self._is_csv and self._record.count(b'"') % 2:  # goes on behind the end of the line
            if len(self._record) > LINE_BYTES_MAX:
                raise BadLineError(self._began, f"it is longer than {LINE_BYTES_MAX} bytes{self._hint()}")
            return
        record, self._record = self._record, b""
        try:
            text = record.decode("utf-8-sig" if self._began == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise BadLineError(self._began, f"it is no UTF-8 at byte {error.start}") from error
        if text.strip("\r\n"):
            row = self._from_csv(text) if self._is_csv else self._from_json(text)
            if row is not None:
                yield TextRow(self._began, row)

    def _from_json(self, text: str) -> bytes:
        document = self._checked(lambda: sats_json.parse(text))
        if not isinstance(document, dict):
            raise BadLineError(self._began, "it is no JSON object")
        self._check_names(list(document))
        return self._row({name: document[name] for name in self._columns if name in document})

    def _from_csv(self, text: str) -> bytes | None:
        try:
            (cells,) = csv.reader([text], strict=True)
        except (csv.Error, ValueError) as error:
            raise BadLineError(self._began, f"it is no CSV: {error}") from error
        if self._order is None:
            self._check_names(cells)
            self._order = [self._columns.index(name) for name in cells]
            return None
        if len(cells) != len(self._order):
            raise BadLineError(
                self._began, f"it has {len(cells)} cells, the first line names {len(self._order)} columns"
            )
        return self._row({self._columns[place]: cell for place, cell in zip(self._order, cells, strict=True)})

    def _check_names(self, names: list[str]) -> None:
        known = f"table `{self._table}` has {self._known()}"
        for place, name in enumerate(names):
            if name not in self._columns:
                raise BadLineError(self._began, f"there is no column `{name}`: {known}")
            if name in names[:place]:
                raise BadLineError(self._began, f"column `{name}` is named twice")
        for name in self._columns:
            if name not in names and name not in self._optional:
                raise BadLineError(self._began, f"column `{name}` is missing: {known}")

    def _row(self, documents: dict[str, Any]) -> bytes:
        values = []
        for name, value_of in zip(self._columns, self._values, strict=True):
            values.append(0 if name not in documents else self._checked(lambda: value_of(documents[name])))  # noqa: B023 - called at once
        return bytes(self._checked(lambda: self._encode(tuple(values))))

    def _checked(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (DecodeError, EncodeError) as error:
            raise BadLineError(self._began, str(error)) from error

    def _known(self) -> str:
        return ", ".join(f"`{name}`" for name in self._columns)

    def _hint(self) -> str:
        return "; is a quote missing?" if self._is_csv else ""


def _reader(type_: AlgebraicType, name: str, *, is_cell: bool) -> Callable[[Any], Any]:
    if is_cell and type_ == STRING:
        return str
    decode = sats_json.decoder(type_, root=f"$.{name}")

    def value(document: Any) -> Any:
        if type_ in (F32, F64) and isinstance(document, str) and document in _NOT_FINITE:
            return _NOT_FINITE[document]
        return decode(document)

    return (lambda cell: value(_parsed(cell))) if is_cell else value


def _parsed(cell: str) -> Any:
    """Return the JSON of a cell; what is none is text, so that people need not quote twice."""
    try:
        return sats_json.parse(cell)
    except DecodeError:
        return cell
