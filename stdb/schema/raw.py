"""Raw module definitions: what a module says of itself, before anybody believed it.

Responsible for: frozen descriptions that mirror RawModuleDef V8 to V10 one to one, `decode` and `encode` of the whole.
Not responsible for: the layouts (`raw_v8` to `raw_v10`), checking (`validation`), JSON documents (`documents`).

Source: spec 04 section 4, spec 09 section 3.1. A definition is one tag byte (0: V8, 1: V9, 2: V10) and the value.
Names are as the module's author wrote them. Column references are positions.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from stdb.errors import SchemaError
from stdb.sats.types import STRING, UNIT, AlgebraicType, Product, Typespace
from stdb.schema.model import Access, CasePolicy, IndexAlgorithm, Lifecycle, Visibility

__all__ = [
    "DEFINITION_BYTES_MAX",
    "NameKind",
    "RawColumnDefault",
    "RawColumnDefaultV9",
    "RawColumnV8",
    "RawConstraint",
    "RawConstraintV8",
    "RawEnvironmentVariable",
    "RawExplicitName",
    "RawHttpHandler",
    "RawHttpRoute",
    "RawIndex",
    "RawIndexV8",
    "RawLifecycleReducer",
    "RawMiscV9",
    "RawModuleDef",
    "RawModuleDefV8",
    "RawModuleDefV9",
    "RawModuleDefV10",
    "RawOutbox",
    "RawProcedureV9",
    "RawProcedureV10",
    "RawReducerV8",
    "RawReducerV9",
    "RawReducerV10",
    "RawRowLevelSecurity",
    "RawScheduleV9",
    "RawScheduleV10",
    "RawSequence",
    "RawSequenceV8",
    "RawSubmodule",
    "RawTableV8",
    "RawTableV9",
    "RawTableV10",
    "RawTypeAliasV8",
    "RawTypeDef",
    "RawTypeName",
    "RawViewPrimaryKey",
    "RawViewV9",
    "RawViewV10",
    "decode",
    "encode",
]

DEFINITION_BYTES_MAX = 2 * 1024 * 1024
"""Longer definitions are refused unread: a module with 5,000 columns needs some 60 KB."""


@dataclass(frozen=True, slots=True)
class RawIndex:
    """An index on `columns`, in this order. V10 needs `source_name`; a direct index has one column."""

    source_name: str | None
    accessor_name: str | None
    algorithm: IndexAlgorithm
    columns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RawConstraint:
    """A unique constraint on a set of columns."""

    source_name: str | None
    columns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RawSequence:
    """An auto-increment sequence on one column."""

    source_name: str | None
    column: int
    start: int | None = None
    min_value: int | None = None
    max_value: int | None = None
    increment: int = 1


@dataclass(frozen=True, slots=True)
class RawTypeName:
    """The name of a type, and the segments before it."""

    name: str
    scope: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RawTypeDef:
    """A name for an entry of the typespace."""

    name: RawTypeName
    type_ref: int
    custom_ordering: bool = True


@dataclass(frozen=True, slots=True)
class RawRowLevelSecurity:
    """One row-level security rule."""

    sql: str


@dataclass(frozen=True, slots=True)
class RawScheduleV9:
    """The schedule of a V9 table."""

    name: str | None
    reducer_name: str
    at_column: int


@dataclass(frozen=True, slots=True)
class RawTableV9:
    """A table of V9; its columns are the elements of the typespace's entry `product_type_ref`."""

    name: str
    product_type_ref: int
    primary_key: tuple[int, ...] = ()
    indexes: tuple[RawIndex, ...] = ()
    constraints: tuple[RawConstraint, ...] = ()
    sequences: tuple[RawSequence, ...] = ()
    schedule: RawScheduleV9 | None = None
    is_system: bool = False
    access: Access = Access.PRIVATE


@dataclass(frozen=True, slots=True)
class RawReducerV9:
    """A reducer of V9."""

    name: str
    params: Product = UNIT
    lifecycle: Lifecycle | None = None


@dataclass(frozen=True, slots=True)
class RawColumnDefaultV9:
    """The default of a column, BSATN at the column's type."""

    table: str
    column: int
    value: bytes


@dataclass(frozen=True, slots=True)
class RawProcedureV9:
    """A procedure of V9."""

    name: str
    params: Product
    return_type: AlgebraicType


@dataclass(frozen=True, slots=True)
class RawViewV9:
    """A view of V9; `index` counts within its kind (anonymous or per caller)."""

    name: str
    index: int
    is_public: bool
    is_anonymous: bool
    params: Product
    return_type: AlgebraicType


RawMiscV9: TypeAlias = RawColumnDefaultV9 | RawProcedureV9 | RawViewV9


@dataclass(frozen=True, slots=True)
class RawModuleDefV9:
    """A whole V9 definition."""

    typespace: Typespace = Typespace.EMPTY
    tables: tuple[RawTableV9, ...] = ()
    reducers: tuple[RawReducerV9, ...] = ()
    types: tuple[RawTypeDef, ...] = ()
    misc_exports: tuple[RawMiscV9, ...] = ()
    row_level_security: tuple[RawRowLevelSecurity, ...] = ()


@dataclass(frozen=True, slots=True)
class RawColumnDefault:
    """The default of a column, BSATN at the column's type."""

    column: int
    value: bytes


@dataclass(frozen=True, slots=True)
class RawTableV10:
    """A table of V10; its columns are the elements of the typespace's entry `product_type_ref`."""

    source_name: str
    product_type_ref: int
    primary_key: tuple[int, ...] = ()
    indexes: tuple[RawIndex, ...] = ()
    constraints: tuple[RawConstraint, ...] = ()
    sequences: tuple[RawSequence, ...] = ()
    is_system: bool = False
    access: Access = Access.PRIVATE
    default_values: tuple[RawColumnDefault, ...] = ()
    is_event: bool = False


@dataclass(frozen=True, slots=True)
class RawReducerV10:
    """A reducer of V10."""

    source_name: str
    params: Product = UNIT
    visibility: Visibility = Visibility.CLIENT_CALLABLE
    ok_return_type: AlgebraicType = UNIT
    err_return_type: AlgebraicType = STRING


@dataclass(frozen=True, slots=True)
class RawProcedureV10:
    """A procedure of V10."""

    source_name: str
    params: Product
    return_type: AlgebraicType
    visibility: Visibility = Visibility.CLIENT_CALLABLE


@dataclass(frozen=True, slots=True)
class RawViewV10:
    """A view of V10; `index` counts within its kind (anonymous or per caller)."""

    source_name: str
    index: int
    is_public: bool
    is_anonymous: bool
    params: Product
    return_type: AlgebraicType


@dataclass(frozen=True, slots=True)
class RawScheduleV10:
    """Rows of a table call a function when due."""

    source_name: str | None
    table_name: str
    at_column: int
    function_name: str


@dataclass(frozen=True, slots=True)
class RawLifecycleReducer:
    """The reducer that an event of the database calls."""

    lifecycle: Lifecycle
    function_name: str


class NameKind(Enum):
    """What an explicit name is for; `value` is the wire tag."""

    TABLE = 0
    FUNCTION = 1
    INDEX = 2
    NAMESPACE = 3


@dataclass(frozen=True, slots=True)
class RawExplicitName:
    """A canonical name that overrides the case policy."""

    kind: NameKind
    source_name: str
    canonical_name: str


@dataclass(frozen=True, slots=True)
class RawHttpHandler:
    """A function that answers HTTP requests."""

    source_name: str


@dataclass(frozen=True, slots=True)
class RawHttpRoute:
    """Where a handler is reached. `method`: None for any, `Get` and the like, or another one in its own spelling."""

    handler_function: str
    method: str | None
    path: str


@dataclass(frozen=True, slots=True)
class RawViewPrimaryKey:
    """The primary key of a view's rows, by column name."""

    view_source_name: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RawSubmodule:
    """A module mounted under a namespace."""

    namespace: str
    module: "RawModuleDefV10"


@dataclass(frozen=True, slots=True)
class RawEnvironmentVariable:
    """A declared environment variable. `type` is None for any text, a str for that text, a tuple for one of them."""

    name: str
    type: str | tuple[str, ...] | None
    optional: bool


@dataclass(frozen=True, slots=True)
class RawOutbox:
    """A table whose rows are calls to another database. `signature_hash` is 32 bytes from 2.14, text before."""

    table_name: str
    remote_reducer: str
    target_column: int
    arg_columns: tuple[int, ...]
    on_result_reducer: str | None
    signature_hash: bytes | str


@dataclass(frozen=True, slots=True)
class RawModuleDefV10:
    """A whole V10 definition. `case_policy` None: not said, so snake case; `environment` None: not declared."""

    typespace: Typespace = Typespace.EMPTY
    types: tuple[RawTypeDef, ...] = ()
    tables: tuple[RawTableV10, ...] = ()
    reducers: tuple[RawReducerV10, ...] = ()
    procedures: tuple[RawProcedureV10, ...] = ()
    views: tuple[RawViewV10, ...] = ()
    schedules: tuple[RawScheduleV10, ...] = ()
    lifecycle_reducers: tuple[RawLifecycleReducer, ...] = ()
    row_level_security: tuple[RawRowLevelSecurity, ...] = ()
    case_policy: CasePolicy | None = None
    explicit_names: tuple[RawExplicitName, ...] = ()
    http_handlers: tuple[RawHttpHandler, ...] = ()
    http_routes: tuple[RawHttpRoute, ...] = ()
    view_primary_keys: tuple[RawViewPrimaryKey, ...] = ()
    submodules: tuple[RawSubmodule, ...] = ()
    environment: tuple[RawEnvironmentVariable, ...] | None = None
    outboxes: tuple[RawOutbox, ...] = ()


@dataclass(frozen=True, slots=True)
class RawColumnV8:
    """A column of V8, Refs filled in."""

    name: str
    type: AlgebraicType


@dataclass(frozen=True, slots=True)
class RawIndexV8:
    """An index of V8."""

    name: str
    is_unique: bool
    algorithm: IndexAlgorithm
    columns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RawConstraintV8:
    """What V8 says of columns. `bits`: 1 indexed, 2 auto-increment, 4 unique, 8 primary key."""

    name: str
    bits: int
    columns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RawSequenceV8:
    """A sequence of V8; `allocated` means nothing in a definition."""

    name: str
    column: int
    increment: int = 1
    start: int | None = None
    min_value: int | None = None
    max_value: int | None = None
    allocated: int = 0


@dataclass(frozen=True, slots=True)
class RawTableV8:
    """A table of V8. `scheduled`: the reducer that its rows call when due."""

    name: str
    columns: tuple[RawColumnV8, ...]
    indexes: tuple[RawIndexV8, ...]
    constraints: tuple[RawConstraintV8, ...]
    sequences: tuple[RawSequenceV8, ...]
    table_type: str
    access: str
    scheduled: str | None
    product_type_ref: int


@dataclass(frozen=True, slots=True)
class RawReducerV8:
    """A reducer of V8."""

    name: str
    params: Product = UNIT


@dataclass(frozen=True, slots=True)
class RawTypeAliasV8:
    """A name for an entry of the typespace; segments of its scope are joined by `.` or `::`."""

    name: str
    type_ref: int


@dataclass(frozen=True, slots=True)
class RawModuleDefV8:
    """A whole V8 definition."""

    typespace: Typespace = Typespace.EMPTY
    tables: tuple[RawTableV8, ...] = ()
    reducers: tuple[RawReducerV8, ...] = ()
    types: tuple[RawTypeAliasV8, ...] = ()


RawModuleDef: TypeAlias = RawModuleDefV8 | RawModuleDefV9 | RawModuleDefV10


def decode(definition: bytes, *, is_0_11: bool = False) -> RawModuleDef:
    """Return what `__describe_module__` wrote. Bytes behind the value are ignored, as the reference does.

    `is_0_11`: the program is one of 0.11, which spells V8 in a way of its own.

    Raises:
        DecodeError: The bytes do not follow the layout; names the offset.
        SchemaError: A version that this server does not read, or a definition longer than DEFINITION_BYTES_MAX.
    """
    from stdb.schema import raw_v8, raw_v9, raw_v10

    if len(definition) > DEFINITION_BYTES_MAX:
        raise SchemaError(
            [f"the module definition is {len(definition)} bytes long, at most {DEFINITION_BYTES_MAX} are read"]
        )
    match definition[:1]:
        case b"\x01":
            return raw_v9.decode(definition, 1)
        case b"\x02":
            return raw_v10.decode(definition, 1)
        case b"":
            raise SchemaError(["the module definition is empty; expected a version tag (0: V8, 1: V9, 2: V10)"])
        case b"\x00":
            return raw_v8.decode(definition, 1, is_0_11=is_0_11)
        case tag:
            raise SchemaError([f"definition version tag {tag[0]} is unknown; expected 0 (V8), 1 (V9) or 2 (V10)"])


def encode(raw: RawModuleDef) -> bytes:
    """Return the definition as a module would write it, version tag first; V8 as modules of 0.11 do."""
    from stdb.schema import raw_v8, raw_v9, raw_v10

    if isinstance(raw, RawModuleDefV8):
        return b"\x00" + raw_v8.encode(raw)
    if isinstance(raw, RawModuleDefV9):
        return b"\x01" + raw_v9.encode(raw)
    return b"\x02" + raw_v10.encode(raw)
