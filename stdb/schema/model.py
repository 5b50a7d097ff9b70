"""The internal module definition: what a module declares, whatever generation of definition it came from.

Responsible for: frozen descriptions of tables, functions, types and rules, names already canonical.
Not responsible for: reading and writing RawModuleDef (`raw_v9`, `raw_v10`), checking it (`validation`), rows.

Source: spec 04 section 4. Names are canonical; `accessor` is the name as the author wrote it.
"""

from dataclasses import dataclass, field
from enum import Enum

from stdb.sats.types import UNIT, AlgebraicType, Element, Product, Typespace

__all__ = [
    "STANDARD_HTTP_METHODS",
    "Access",
    "CasePolicy",
    "ColumnDef",
    "EnvironmentVariableDef",
    "HttpRouteDef",
    "IndexAlgorithm",
    "IndexDef",
    "Lifecycle",
    "ModuleDef",
    "OutboxDef",
    "ProcedureDef",
    "ReducerDef",
    "RowLevelSecurityDef",
    "ScheduleDef",
    "SequenceDef",
    "SubmoduleDef",
    "TableDef",
    "TypeDef",
    "UniqueDef",
    "ViewDef",
    "Visibility",
]


_SEQUENCE_MAX = 2**127 - 1
STANDARD_HTTP_METHODS = ("Get", "Head", "Post", "Put", "Delete", "Connect", "Options", "Trace", "Patch")
"""The methods that definitions have a name for, in the order of their tags; requests spell them in capitals."""


class Access(Enum):
    """Who may read a table."""

    PUBLIC = 0
    PRIVATE = 1


class Visibility(Enum):
    """Who may call a function: the database's owner alone, or every client."""

    PRIVATE = 0
    CLIENT_CALLABLE = 1


class IndexAlgorithm(Enum):
    """Kinds of index; `value` is the wire tag, `suffix` the word in generated names."""

    BTREE = 0
    HASH = 1
    DIRECT = 2

    @property
    def suffix(self) -> str:
        """Return the word that ends a generated index name."""
        return self.name.lower()


class Lifecycle(Enum):
    """Events of a database that call a reducer."""

    INIT = 0
    ON_CONNECT = 1
    ON_DISCONNECT = 2


class CasePolicy(Enum):
    """Whether canonical names are converted from the source names (V10)."""

    NONE = 0
    SNAKE_CASE = 1


@dataclass(frozen=True, slots=True)
class ColumnDef:
    """One column. `type` has its Refs resolved (inlined); `default` is BSATN at that type, or None."""

    name: str
    accessor: str
    type: AlgebraicType
    default: bytes | None = None


@dataclass(frozen=True, slots=True)
class IndexDef:
    """One index. `columns` are positions in the table, in index order; `source_name` is as the definition gave it."""

    name: str
    accessor: str | None
    algorithm: IndexAlgorithm
    columns: tuple[int, ...]
    source_name: str | None = None


@dataclass(frozen=True, slots=True)
class UniqueDef:
    """A unique constraint on `columns` (positions)."""

    name: str
    columns: tuple[int, ...]
    source_name: str | None = None


@dataclass(frozen=True, slots=True)
class SequenceDef:
    """An auto-increment sequence on one integer column; None means the default of spec 07 section 3."""

    name: str
    column: int
    start: int | None = None
    min_value: int | None = None
    max_value: int | None = None
    increment: int = 1
    source_name: str | None = None

    def parameters(self) -> tuple[int, int, int]:
        """Return the first value, the least and the greatest: as declared, else 1, 1 and the greatest I128."""
        low = 1 if self.min_value is None else self.min_value
        high = _SEQUENCE_MAX if self.max_value is None else self.max_value
        start = self.start
        if start is None:
            start = 1 if low <= 1 <= high else low
        return start, low, high


@dataclass(frozen=True, slots=True)
class ScheduleDef:
    """Rows of `table` call `function` when due; `at_column` is the position of the ScheduleAt column."""

    name: str
    table: str
    at_column: int
    function: str
    source_name: str | None = None


@dataclass(frozen=True, slots=True)
class TableDef:
    """One table. `primary_key` is a column position or None; `type_ref` the row type's place in the typespace."""

    name: str
    accessor: str
    type_ref: int
    columns: tuple[ColumnDef, ...]
    primary_key: int | None = None
    indexes: tuple[IndexDef, ...] = ()
    uniques: tuple[UniqueDef, ...] = ()
    sequences: tuple[SequenceDef, ...] = ()
    schedule: ScheduleDef | None = None
    access: Access = Access.PRIVATE
    is_event: bool = False

    @property
    def row_type(self) -> Product:
        """Return the row as a product of its (inlined) column types, names canonical."""
        return Product(tuple(Element(column.name, column.type) for column in self.columns))


@dataclass(frozen=True, slots=True)
class ReducerDef:
    """One reducer; its id is its position in `ModuleDef.reducers`. `params` may hold Refs, names stay as written."""

    name: str
    accessor: str
    params: Product
    lifecycle: Lifecycle | None = None
    visibility: Visibility = Visibility.CLIENT_CALLABLE


@dataclass(frozen=True, slots=True)
class ProcedureDef:
    """One procedure; its id is its position in `ModuleDef.procedures`."""

    name: str
    accessor: str
    params: Product
    return_type: AlgebraicType
    visibility: Visibility = Visibility.CLIENT_CALLABLE


@dataclass(frozen=True, slots=True)
class ViewDef:
    """One view; `index` is the number the module gave it among its kind (anonymous or per caller)."""

    name: str
    accessor: str
    index: int
    is_public: bool
    is_anonymous: bool
    return_type: AlgebraicType
    params: Product = UNIT
    primary_key: str | None = None


@dataclass(frozen=True, slots=True)
class TypeDef:
    """A named type of the typespace."""

    name: str
    scope: tuple[str, ...]
    type_ref: int
    custom_ordering: bool
    source_name: str | None = None


@dataclass(frozen=True, slots=True)
class RowLevelSecurityDef:
    """One rule: rows that others than the owner may see."""

    sql: str


@dataclass(frozen=True, slots=True)
class HttpRouteDef:
    """One route: requests of `method` (None: any) to `path` go to `handler`.

    A method of STANDARD_HTTP_METHODS is spelled as there, any other as requests spell it.
    """

    handler: str
    method: str | None
    path: str


@dataclass(frozen=True, slots=True)
class EnvironmentVariableDef:
    """One environment variable. `choices`: None for any text, else the texts it may have."""

    name: str
    choices: tuple[str, ...] | None
    is_optional: bool


@dataclass(frozen=True, slots=True)
class OutboxDef:
    """Rows of `table` are calls of `remote_reducer` at the database in `target_column`; columns are positions."""

    table: str
    remote_reducer: str
    target_column: int
    arg_columns: tuple[int, ...]
    on_result_reducer: str | None
    signature_hash: bytes | str


@dataclass(frozen=True, slots=True)
class SubmoduleDef:
    """A module mounted under `namespace`; the names inside `definition` are without it."""

    namespace: str
    accessor: str
    definition: "ModuleDef"


@dataclass(frozen=True, slots=True)
class ModuleDef:
    """Everything a module declares, validated. `typespace` has canonical names."""

    typespace: Typespace
    tables: tuple[TableDef, ...] = ()
    reducers: tuple[ReducerDef, ...] = ()
    types: tuple[TypeDef, ...] = ()
    procedures: tuple[ProcedureDef, ...] = ()
    views: tuple[ViewDef, ...] = ()
    row_level_security: tuple[RowLevelSecurityDef, ...] = ()
    case_policy: CasePolicy = CasePolicy.NONE
    abi_is_v10: bool = True
    """Defined by V10: other clients then learn nothing of a reducer call (spec 02 section 6.3)."""
    is_0_11: bool = False
    """Defined by V8, with the rules of 0.11: a connect reducer that fails refuses nobody, updates run `__update__`,
    rows that are due run as the owner."""
    http_handlers: tuple[str, ...] = ()
    http_routes: tuple[HttpRouteDef, ...] = ()
    submodules: tuple[SubmoduleDef, ...] = ()
    environment: tuple[EnvironmentVariableDef, ...] | None = None
    """None: the module declares nothing about its environment; empty: it declares that it reads nothing."""
    outboxes: tuple[OutboxDef, ...] = ()
    root: "ModuleDef | None" = field(default=None, repr=False, compare=False)
    """The definition as it was written, where this one has everything of its submodules, too (`mounting`)."""
    _tables: dict[str, TableDef] = field(init=False, repr=False, compare=False)
    _reducers: dict[str, int] = field(init=False, repr=False, compare=False)
    _procedures: dict[str, int] = field(init=False, repr=False, compare=False)
    _lifecycles: dict[Lifecycle, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        events = {reducer.lifecycle: i for i, reducer in enumerate(self.reducers) if reducer.lifecycle is not None}
        object.__setattr__(self, "_tables", {table.name: table for table in self.tables})
        object.__setattr__(self, "_reducers", {reducer.name: i for i, reducer in enumerate(self.reducers)})
        object.__setattr__(self, "_procedures", {procedure.name: i for i, procedure in enumerate(self.procedures)})
        object.__setattr__(self, "_lifecycles", events)

    def table(self, name: str) -> TableDef | None:
        """Return the table of that canonical name."""
        return self._tables.get(name)

    def reducer_id(self, name: str) -> int | None:
        """Return the id of the reducer of that canonical name; lifecycle and private ones included."""
        return self._reducers.get(name)

    def procedure_id(self, name: str) -> int | None:
        """Return the id of the procedure of that canonical name."""
        return self._procedures.get(name)

    def is_reserved(self, reducer: str) -> bool:
        """Tell whether a reducer is one that 0.11 keeps for itself: clients know nothing of it."""
        return self.is_0_11 and reducer.startswith("__") and reducer.endswith("__")

    @property
    def update_reducer(self) -> int | None:
        """The id of the reducer that runs when a module of 0.11 takes another one's place."""
        return self._reducers.get("__update__") if self.is_0_11 else None

    def lifecycle(self, event: Lifecycle) -> int | None:
        """Return the id of the reducer for `event`."""
        return self._lifecycles.get(event)
