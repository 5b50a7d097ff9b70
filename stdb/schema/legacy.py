"""The legacy face of a definition: what clients of the 0.11 generation and older see of a module.

Responsible for: which tables and reducers those clients know, their types in that generation's shapes, the names of
lifecycle events.
Not responsible for: values in those types (the sats profile V0_11), messages (`stdb.net.protocols.legacy`).

Source: spec 03 sections 1 and 13. Names are not translated. Ids are those of the definition: a reducer's is its place
among all reducers, also in a face that shows fewer of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from stdb.sats.caches import by_identity
from stdb.sats.profiles import OLD_ADDRESS, OLD_IDENTITY, OLD_SCHEDULE_AT
from stdb.sats.types import (
    BYTES,
    CONNECTION_ID,
    I256,
    IDENTITY,
    SCHEDULE_AT,
    TIME_DURATION,
    TIMESTAMP,
    U64,
    U128,
    U256,
    UUID,
    AlgebraicType,
    Array,
    Element,
    Map,
    Product,
    Sum,
    Typespace,
)
from stdb.schema.model import Lifecycle, ModuleDef, ReducerDef, TableDef, TypeDef

__all__ = [
    "LIFECYCLE_NAMES",
    "UPDATE_NAME",
    "LegacyFace",
    "LegacyReducer",
    "LegacyTable",
    "is_reserved",
    "legacy_face",
    "legacy_type",
]

LIFECYCLE_NAMES: Mapping[Lifecycle, str] = {
    Lifecycle.INIT: "__init__",
    Lifecycle.ON_CONNECT: "__identity_connected__",
    Lifecycle.ON_DISCONNECT: "__identity_disconnected__",
}
"""What those clients call the lifecycle reducers, whatever their own name; nobody may call them."""
UPDATE_NAME = "__update__"
"""The lifecycle reducer that only modules of that generation have."""
_OLD_TYPES: Mapping[AlgebraicType, AlgebraicType] = {
    IDENTITY: OLD_IDENTITY,
    CONNECTION_ID: OLD_ADDRESS,
    TIMESTAMP: U64,
    TIME_DURATION: U64,
    SCHEDULE_AT: OLD_SCHEDULE_AT,
    UUID: U128,
    U256: BYTES,
    I256: BYTES,
}


@dataclass(frozen=True, slots=True)
class LegacyTable:
    """A table as those clients see it. `definition` has everything whose form did not change: keys, indexes, access."""

    name: str
    definition: TableDef
    row_type: Product
    """Refs filled in."""


@dataclass(frozen=True, slots=True)
class LegacyReducer:
    """A reducer as those clients see it."""

    name: str
    id: int
    """Its place among all reducers of the module."""
    definition: ReducerDef
    params: Product
    """May hold Refs into the face's typespace."""


@dataclass(frozen=True, slots=True)
class LegacyFace:
    """Everything that those clients see of a module. Views, event tables and procedures are not in it."""

    typespace: Typespace
    """As long as the definition's: Refs stay what they are."""
    tables: tuple[LegacyTable, ...]
    reducers: tuple[LegacyReducer, ...]
    """Without lifecycle reducers; private ones (that the owner alone may call) included."""
    types: tuple[TypeDef, ...]
    lifecycles: Mapping[int, str]
    """Ids of the lifecycle reducers: what those clients call them."""
    _tables: dict[str, LegacyTable] = field(init=False, repr=False, compare=False)
    _reducers: dict[str, LegacyReducer] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tables", {table.name: table for table in self.tables})
        object.__setattr__(self, "_reducers", {reducer.name: reducer for reducer in self.reducers})

    def table(self, name: str) -> LegacyTable | None:
        """Return the table of that name; names have case."""
        return self._tables.get(name)

    def reducer(self, name: str) -> LegacyReducer | None:
        """Return the reducer of that name; None for a lifecycle reducer, which nobody may call."""
        return self._reducers.get(name)


@by_identity
def legacy_face(definition: ModuleDef) -> LegacyFace:
    """Return what clients of the 0.11 generation see of a module; made once per definition."""
    tables = (
        LegacyTable(table.name, table, _product(table.row_type)) for table in definition.tables if not table.is_event
    )
    reducers = (
        LegacyReducer(reducer.name, i, reducer, _product(reducer.params))
        for i, reducer in enumerate(definition.reducers)
        if reducer.lifecycle is None and not is_reserved(reducer.name)
    )
    lifecycles = {
        i: reducer.name if reducer.lifecycle is None else LIFECYCLE_NAMES[reducer.lifecycle]
        for i, reducer in enumerate(definition.reducers)
        if reducer.lifecycle is not None or is_reserved(reducer.name)
    }
    typespace = Typespace(tuple(map(legacy_type, definition.typespace.types)))
    return LegacyFace(typespace, tuple(tables), tuple(reducers), definition.types, lifecycles)


def is_reserved(name: str) -> bool:
    """Tell whether a reducer's name is one that no client of that generation may call."""
    return name.startswith("__") and name.endswith("__")


def legacy_type(type_: AlgebraicType) -> AlgebraicType:
    """Return the type that clients of the 0.11 generation have for a modern one; Refs stay.

    Identity and ConnectionId are products of bytes, times are U64, ScheduleAt has its variants the other way round,
    a Uuid is a U128, 256-bit integers are bytes (32, little-endian).
    """
    old = _OLD_TYPES.get(type_)
    if old is not None:
        return old
    match type_:
        case Product(elements):
            return Product(_elements(elements))
        case Sum(variants):
            return Sum(_elements(variants))
        case Array(element):
            return Array(legacy_type(element))
        case Map(key, value):
            return Map(legacy_type(key), legacy_type(value))
    return type_


def _elements(elements: tuple[Element, ...]) -> tuple[Element, ...]:
    return tuple(Element(element.name, legacy_type(element.type)) for element in elements)


def _product(type_: Product) -> Product:
    return Product(_elements(type_.elements))
