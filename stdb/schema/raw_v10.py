"""The layout of RawModuleDef V10: a list of sections.

Responsible for: which sections there are, their tags, fields and names in JSON.
Not responsible for: the meaning of the fields (`validation`).

Source: spec 04 section 4.3, spec 09 section 3.1 (sections 15 and 16, entry Namespace); JSON as `schema?version=10` of
2.8.3 writes it. Sections come in any order and may be missing; of two of a kind the first counts.
"""

from typing import Any, NamedTuple

from stdb.errors import DecodeError
from stdb.schema.layout import (
    BOOL,
    BYTES,
    PRODUCT,
    STRING,
    TYPE,
    U16,
    U32,
    Case,
    Constant,
    ListOf,
    Optional,
    Reader,
    Shape,
    TagOnly,
    Union,
    member,
    record,
)
from stdb.schema.model import STANDARD_HTTP_METHODS as _METHODS
from stdb.schema.model import CasePolicy, Visibility
from stdb.schema.raw import (
    NameKind,
    RawColumnDefault,
    RawEnvironmentVariable,
    RawExplicitName,
    RawHttpHandler,
    RawHttpRoute,
    RawLifecycleReducer,
    RawModuleDefV10,
    RawOutbox,
    RawProcedureV10,
    RawReducerV10,
    RawScheduleV10,
    RawSubmodule,
    RawTableV10,
    RawViewPrimaryKey,
    RawViewV10,
)
from stdb.schema.raw_v9 import (
    ACCESS,
    COLUMNS,
    LIFECYCLE,
    ROW_LEVEL_SECURITY,
    TABLE_KIND,
    TYPESPACE,
    constraint_shape,
    index_shape,
    sequence_shape,
    type_def_shape,
)

__all__ = ["SUBMODULE_DEPTH_MAX", "decode", "encode", "from_json", "to_json"]

SUBMODULE_DEPTH_MAX = 16
"""Submodules inside submodules that are read."""
_HASH_BYTES = 32

_VISIBILITY = TagOnly(
    "FunctionVisibility", [("Private", Visibility.PRIVATE), ("ClientCallable", Visibility.CLIENT_CALLABLE)]
)
_CASE_POLICY = TagOnly("CaseConversionPolicy", [("None", CasePolicy.NONE), ("SnakeCase", CasePolicy.SNAKE_CASE)])
_DEFAULT = record(RawColumnDefault, column=("col_id", U16), value=("value", BYTES))
_TABLE = record(
    RawTableV10,
    source_name=("source_name", STRING),
    product_type_ref=("product_type_ref", U32),
    primary_key=("primary_key", COLUMNS),
    indexes=("indexes", ListOf(index_shape("source_name"), "indexes")),
    constraints=("constraints", ListOf(constraint_shape("source_name"), "constraints")),
    sequences=("sequences", ListOf(sequence_shape("source_name"), "sequences")),
    is_system=("table_type", TABLE_KIND),
    access=("table_access", ACCESS),
    default_values=("default_values", ListOf(_DEFAULT, "default values")),
    is_event=("is_event", BOOL),
)
_REDUCER = record(
    RawReducerV10,
    source_name=("source_name", STRING),
    params=("params", PRODUCT),
    visibility=("visibility", _VISIBILITY),
    ok_return_type=("ok_return_type", TYPE),
    err_return_type=("err_return_type", TYPE),
)
_PROCEDURE = record(
    RawProcedureV10,
    source_name=("source_name", STRING),
    params=("params", PRODUCT),
    return_type=("return_type", TYPE),
    visibility=("visibility", _VISIBILITY),
)
_VIEW = record(
    RawViewV10,
    source_name=("source_name", STRING),
    index=("index", U32),
    is_public=("is_public", BOOL),
    is_anonymous=("is_anonymous", BOOL),
    params=("params", PRODUCT),
    return_type=("return_type", TYPE),
)
_SCHEDULE = record(
    RawScheduleV10,
    source_name=("source_name", Optional(STRING)),
    table_name=("table_name", STRING),
    at_column=("schedule_at_col", U16),
    function_name=("function_name", STRING),
)
_LIFECYCLE_REDUCER = record(
    RawLifecycleReducer, lifecycle=("lifecycle_spec", LIFECYCLE), function_name=("function_name", STRING)
)
_HANDLER = record(RawHttpHandler, source_name=("source_name", STRING))
_VIEW_KEY = record(
    RawViewPrimaryKey, view_source_name=("view_source_name", STRING), columns=("columns", ListOf(STRING, "columns"))
)


class _ExplicitName(Shape[RawExplicitName]):
    """A sum whose variants all have the same two fields."""

    _NAMES = ("Table", "Function", "Index", "Namespace")

    @staticmethod
    def _pair(kind: NameKind) -> Shape[RawExplicitName]:
        def join(source_name: str, canonical_name: str) -> RawExplicitName:
            return RawExplicitName(kind, source_name, canonical_name)

        return record(join, source_name=("source_name", STRING), canonical_name=("canonical_name", STRING))

    def write(self, value: RawExplicitName, out: bytearray) -> None:
        out.append(value.kind.value)
        self._pair(value.kind).write(value, out)

    def read(self, reader: Reader) -> RawExplicitName:
        return self._pair(NameKind(reader.tag(len(self._NAMES), "ExplicitNameEntry"))).read(reader)

    def to_json(self, value: RawExplicitName) -> Any:
        return {self._NAMES[value.kind.value]: self._pair(value.kind).to_json(value)}

    def from_json(self, document: Any, path: str) -> RawExplicitName:
        name, payload = member(document, path, self._NAMES)
        return self._pair(NameKind(self._NAMES.index(name))).from_json(payload, f"{path}.{name}")


class _Method(Shape[str | None]):
    """`Any`, or the sum of the standard methods and `Extension(String)`."""

    def write(self, value: str | None, out: bytearray) -> None:
        if value is None:
            out.append(0)
            return
        out.append(1)
        if value in _METHODS:
            out.append(_METHODS.index(value))
        else:
            out.append(len(_METHODS))
            STRING.write(value, out)

    def read(self, reader: Reader) -> str | None:
        if reader.tag(2, "MethodOrAny") == 0:
            return None
        tag = reader.tag(len(_METHODS) + 1, "HttpMethod")
        return STRING.read(reader) if tag == len(_METHODS) else _METHODS[tag]

    def to_json(self, value: str | None) -> Any:
        if value is None:
            return {"Any": []}
        return {"Method": {value: []} if value in _METHODS else {"Extension": value}}

    def from_json(self, document: Any, path: str) -> str | None:
        name, payload = member(document, path, ("Any", "Method"))
        if name == "Any":
            return Constant(None).from_json(payload, f"{path}.Any")
        method, detail = member(payload, f"{path}.Method", (*_METHODS, "Extension"))
        if method == "Extension":
            return STRING.from_json(detail, f"{path}.Method.Extension")
        return Constant(method).from_json(detail, f"{path}.Method.{method}")


class _Hash(Shape[bytes | str]):
    """32 bytes (2.14) or text (2.12, 2.13) under the same tag; the reader is told which."""

    def write(self, value: bytes | str, out: bytearray) -> None:
        if isinstance(value, str):
            STRING.write(value, out)
        else:
            out += value

    def read(self, reader: Reader) -> bytes | str:
        reader.met_hash = True
        return STRING.read(reader) if reader.hash_is_text else reader.take(_HASH_BYTES, "[u8]")

    def to_json(self, value: bytes | str) -> Any:
        return value if isinstance(value, str) else value.hex()

    def from_json(self, document: Any, path: str) -> bytes | str:
        text = STRING.from_json(document, path)
        try:
            value = bytes.fromhex(text)
        except ValueError:
            return text
        return value if len(value) == _HASH_BYTES and value.hex() == text else text


_ROUTE = record(
    RawHttpRoute, handler_function=("handler_function", STRING), method=("method", _Method()), path=("path", STRING)
)
_VARIABLE_TYPE: Shape[Any] = Union(
    "EnvVarType",
    [
        Case("String", type(None), Constant(None)),
        Case("StringLiteral", str, STRING),
        Case("Union", tuple, ListOf(STRING, "texts")),
    ],
)
_VARIABLE = record(
    RawEnvironmentVariable, name=("name", STRING), type=("ty", _VARIABLE_TYPE), optional=("optional", BOOL)
)
_OUTBOX = record(
    RawOutbox,
    table_name=("table_name", STRING),
    remote_reducer=("remote_reducer", STRING),
    target_column=("target_column", U16),
    arg_columns=("arg_columns", COLUMNS),
    on_result_reducer=("on_result_reducer", Optional(STRING)),
    signature_hash=("signature_hash", _Hash()),
)


class _Nested(Shape[RawModuleDefV10]):
    """The module of a submodule: its sections, without version tag."""

    def write(self, value: RawModuleDefV10, out: bytearray) -> None:
        _write(value, out)

    def read(self, reader: Reader) -> RawModuleDefV10:
        if reader.depth >= SUBMODULE_DEPTH_MAX:
            raise DecodeError(f"submodules nested deeper than {SUBMODULE_DEPTH_MAX} levels", reader.offset)
        reader.depth += 1
        module = _read(reader)
        reader.depth -= 1
        return module

    def to_json(self, value: RawModuleDefV10) -> Any:
        return to_json(value)

    def from_json(self, document: Any, path: str) -> RawModuleDefV10:
        return _from_json(document, path)


_SUBMODULE = record(RawSubmodule, namespace=("namespace", STRING), module=("module", _Nested()))


class _Entries(Shape[tuple[RawExplicitName, ...]]):
    """Explicit names: a product with one element, the list."""

    _list = ListOf(_ExplicitName(), "explicit names")

    def write(self, value: tuple[RawExplicitName, ...], out: bytearray) -> None:
        self._list.write(value, out)

    def read(self, reader: Reader) -> tuple[RawExplicitName, ...]:
        return self._list.read(reader)

    def to_json(self, value: tuple[RawExplicitName, ...]) -> Any:
        return {"entries": self._list.to_json(value)}

    def from_json(self, document: Any, path: str) -> tuple[RawExplicitName, ...]:
        _, entries = member(document, path, ("entries",))
        return self._list.from_json(entries, f"{path}.entries")


class _Section(NamedTuple):
    name: str
    attribute: str
    shape: Shape[Any]


_SECTIONS = (  # position = tag
    _Section("Typespace", "typespace", TYPESPACE),
    _Section("Types", "types", ListOf(type_def_shape("source_name"), "type definitions")),
    _Section("Tables", "tables", ListOf(_TABLE, "tables")),
    _Section("Reducers", "reducers", ListOf(_REDUCER, "reducers")),
    _Section("Procedures", "procedures", ListOf(_PROCEDURE, "procedures")),
    _Section("Views", "views", ListOf(_VIEW, "views")),
    _Section("Schedules", "schedules", ListOf(_SCHEDULE, "schedules")),
    _Section("LifeCycleReducers", "lifecycle_reducers", ListOf(_LIFECYCLE_REDUCER, "lifecycle reducers")),
    _Section("RowLevelSecurity", "row_level_security", ListOf(ROW_LEVEL_SECURITY, "rules")),
    _Section("CaseConversionPolicy", "case_policy", _CASE_POLICY),
    _Section("ExplicitNames", "explicit_names", _Entries()),
    _Section("HttpHandlers", "http_handlers", ListOf(_HANDLER, "HTTP handlers")),
    _Section("HttpRoutes", "http_routes", ListOf(_ROUTE, "HTTP routes")),
    _Section("ViewPrimaryKeys", "view_primary_keys", ListOf(_VIEW_KEY, "view primary keys")),
    _Section("Submodules", "submodules", ListOf(_SUBMODULE, "submodules")),
    _Section("Environment", "environment", ListOf(_VARIABLE, "environment variables")),
    _Section("Outboxes", "outboxes", ListOf(_OUTBOX, "outboxes")),
)
_WRITTEN = (0, 1, 2, 3, 4, 11, 12, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16)
"""The order in which the reference writes sections; the last four are not in it, they follow by tag."""
_ALWAYS = frozenset({"typespace", "explicit_names"})


def _present(raw: RawModuleDefV10) -> list[int]:
    def is_said(tag: int) -> bool:
        attribute = _SECTIONS[tag].attribute
        value = getattr(raw, attribute)
        return attribute in _ALWAYS or (value is not None and (value != () or attribute == "environment"))

    return [tag for tag in _WRITTEN if is_said(tag)]


def _write(raw: RawModuleDefV10, out: bytearray) -> None:
    tags = _present(raw)
    out += len(tags).to_bytes(4, "little")
    for tag in tags:
        out.append(tag)
        _SECTIONS[tag].shape.write(getattr(raw, _SECTIONS[tag].attribute), out)


def _read(reader: Reader) -> RawModuleDefV10:
    found: dict[str, Any] = {}
    for _ in range(reader.count("number of sections")):
        section = _SECTIONS[reader.tag(len(_SECTIONS), "RawModuleDefV10Section")]
        found.setdefault(section.attribute, section.shape.read(reader))
    return RawModuleDefV10(**found)


def encode(raw: RawModuleDefV10) -> bytes:
    """Return the BSATN of a V10 definition, without version tag."""
    out = bytearray()
    _write(raw, out)
    return bytes(out)


def decode(buffer: bytes, offset: int) -> RawModuleDefV10:
    """Return the V10 definition that begins at `offset`, behind the version tag.

    Outboxes of 2.12 and 2.13 differ from those of 2.14 under the same tag; the older form counts when it alone fits.
    """
    reader = Reader(buffer, offset)
    try:
        raw, failure = _read(reader), None
    except DecodeError as error:
        raw, failure = RawModuleDefV10(), error
    if reader.met_hash and (failure is not None or reader.offset < len(buffer)):
        older = _decode_older(buffer, offset)
        if older is not None:
            return older
    if failure is not None:
        raise failure
    return raw


def _decode_older(buffer: bytes, offset: int) -> RawModuleDefV10 | None:
    """Return the definition with hashes as text, if it then uses up the bytes exactly."""
    reader = Reader(buffer, offset, hash_is_text=True)
    try:
        raw = _read(reader)
    except DecodeError:
        return None
    return raw if reader.offset == len(buffer) else None


def to_json(raw: RawModuleDefV10) -> dict[str, Any]:
    """Return the document of a V10 definition; empty sections are left out."""
    sections = [_SECTIONS[tag] for tag in _present(raw)]
    return {"sections": [{name: shape.to_json(getattr(raw, attribute))} for name, attribute, shape in sections]}


def from_json(document: Any) -> RawModuleDefV10:
    """Return the V10 definition of a document; DecodeError names the path of what does not fit."""
    return _from_json(document, "$")


def _from_json(document: Any, path: str) -> RawModuleDefV10:
    _, sections = member(document, path, ("sections",))
    if type(sections) is not list:
        raise DecodeError(f"{path}.sections: expected a list of sections, found {type(sections).__name__}")
    by_name = {section.name: section for section in _SECTIONS}
    found: dict[str, Any] = {}
    for i, entry in enumerate(sections):
        name, payload = member(entry, f"{path}.sections[{i}]", tuple(by_name))
        section = by_name[name]
        found.setdefault(section.attribute, section.shape.from_json(payload, f"{path}.sections[{i}].{name}"))
    return RawModuleDefV10(**found)
