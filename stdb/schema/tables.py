"""Validation of tables: columns, keys, indexes, constraints, sequences, defaults.

Responsible for: the rules for one table, and the `TableDef` that comes of it.
Not responsible for: schedules (`functions`), types (`client_types`), taken names (`scope`).

Source: spec 04 section 4.5, its "we:" sentences included.
"""

from collections import Counter

from stdb.errors import DecodeError
from stdb.sats import bsatn
from stdb.sats.types import (
    I8,
    I16,
    I32,
    I64,
    I128,
    I256,
    U8,
    U16,
    U32,
    U64,
    U128,
    U256,
    UNIT,
    AlgebraicType,
    Product,
    Scalar,
    Sum,
)
from stdb.schema.findings import Group, shown
from stdb.schema.model import ColumnDef, IndexAlgorithm, IndexDef, SequenceDef, TableDef, UniqueDef
from stdb.schema.naming import constraint_name, index_name, sequence_name
from stdb.schema.raw import NameKind, RawConstraint, RawIndex, RawSequence, RawTableV10
from stdb.schema.scope import SYSTEM_PREFIX, Scope

__all__ = ["COLUMNS_MAX", "TableValidator"]

COLUMNS_MAX = 1 << 16
"""Column positions are u16."""
_INTEGERS = frozenset({I8, U8, I16, U16, I32, U32, I64, U64, I128, U128, I256, U256})
_DIRECT = frozenset({U8, U16, U32, U64})


class TableValidator:
    """Checks one table against its module."""

    def __init__(self, scope: Scope, raw: RawTableV10) -> None:
        self.raw = raw
        self.name = scope.namer.named(NameKind.TABLE, raw.source_name)
        self._scope = scope
        self._row = scope.types.product(raw.product_type_ref)
        self._columns: tuple[str, ...] = ()

    def validate(self) -> TableDef | None:
        """Return the table, or None when a finding keeps it from being one."""
        self._check_name()
        if self._row is None:
            self._add(f"Table {self.raw.source_name} has invalid product_type_ref &{self.raw.product_type_ref}")
            return None
        self._columns = tuple(element.name or f"col_{i}" for i, element in enumerate(self._row.elements))
        self._check_columns()
        spelled = self._scope.types.row(self.raw.product_type_ref, f"table `{self.name}`")
        indexes = tuple(filter(None, map(self._index, self.raw.indexes)))
        uniques = tuple(filter(None, map(self._unique, self.raw.constraints)))
        self._check_support(uniques, indexes)
        sequences = tuple(filter(None, map(self._sequence, self.raw.sequences)))
        self._check_single_sequences(sequences)
        primary_key = self._primary_key()
        if spelled is None:
            return None
        self._check_types(indexes, sequences, spelled)
        return TableDef(
            name=self.name,
            accessor=self.raw.source_name,
            type_ref=self.raw.product_type_ref,
            columns=self._column_defs(spelled, self._defaults(spelled)),
            primary_key=primary_key,
            indexes=indexes,
            uniques=uniques,
            sequences=sequences,
            access=self.raw.access,
            is_event=self.raw.is_event,
        )

    def _add(self, text: str) -> None:
        self._scope.findings.add(Group.TABLE, text)

    def _check_name(self) -> None:
        scope, source = self._scope, self.raw.source_name
        scope.identify(source, self.name)
        scope.take_entity(self.name, source)
        if self.name.startswith(SYSTEM_PREFIX):
            self._add(f"Table name is reserved for system use: {self.name}")
        if self.raw.is_system:
            self._add(f"table `{self.name}` is declared a system table; a module may declare user tables only")

    def _check_columns(self) -> None:
        assert self._row is not None
        if len(self._row.elements) > COLUMNS_MAX:
            self._add(f"table `{self.name}` has {len(self._row.elements)} columns, at most {COLUMNS_MAX} are possible")
        sources = self._scope.types.source_product(self.raw.product_type_ref).elements
        seen: set[str] = set()
        for position, (element, source) in enumerate(zip(self._row.elements, sources, strict=True)):
            if element.name is None or source.name is None:
                self._add(f"table `{self.name}` has unnamed column `{position}`, which is forbidden.")
                continue
            self._scope.identify(source.name, element.name)
            if element.name in seen:
                self._add(f"table `{self.name}` has more than one column `{element.name}`")
            seen.add(element.name)
        self._scope.types.check_definition(self.raw.product_type_ref)

    def _positions(self, columns: tuple[int, ...], owner: str) -> bool:
        """Note columns that are missing or there twice; tell whether all is well."""
        missing = sorted({column for column in columns if column >= len(self._columns)})
        for column in missing:
            self._add(f"column `{column}` referenced by def {owner} not found in table `{self.name}`")
        if len(set(columns)) < len(columns):
            listed = ", ".join(f"ColId({column})" for column in columns)
            self._add(f"def `{owner}` has duplicate columns: [{listed}]")
        if not columns:
            self._add(f"table `{self.name}`: def `{owner}` has no columns")
        return not missing and bool(columns) and len(set(columns)) == len(columns)

    def _names_of(self, columns: tuple[int, ...]) -> list[str]:
        known = len(self._columns)
        names = [self._columns[column] if column < known else f"col_{column}" for column in columns]
        self._scope.spend(names)
        return names

    def _index(self, raw: RawIndex) -> IndexDef | None:
        derived = index_name(self.name, self._names_of(raw.columns), raw.algorithm)
        name = self._index_name(raw, derived)
        usable = self._positions(raw.columns, name)
        self._scope.take_entity(name, raw.source_name)
        if not usable:
            return None
        return IndexDef(name, raw.accessor_name, raw.algorithm, raw.columns, raw.source_name)

    def _index_name(self, raw: RawIndex, derived: str) -> str:
        if self._scope.names_are_final:
            name = derived if raw.source_name is None else raw.source_name
        elif raw.source_name is None:
            self._add(f"table `{self.name}` index `{derived}` has no source name; every index needs one")
            return derived
        else:
            explicit = self._scope.namer.explicit(NameKind.INDEX, raw.source_name)
            name = derived if explicit is None else explicit
        self._scope.findings.add_identifier(name)
        return name

    def _unique(self, raw: RawConstraint) -> UniqueDef | None:
        columns = tuple(sorted(raw.columns))
        name = self._given(raw.source_name) or constraint_name(self.name, self._names_of(columns))
        usable = self._positions(columns, name)
        self._scope.take_entity(name)
        if not usable:
            return None
        return UniqueDef(name, columns, raw.source_name)

    def _given(self, source: str | None) -> str | None:
        """Return the name that a V9 definition gives; V10 names are derived."""
        return source if self._scope.names_are_final else None

    def _check_support(self, uniques: tuple[UniqueDef, ...], indexes: tuple[IndexDef, ...]) -> None:
        indexed = {frozenset(index.columns) for index in indexes}
        for unique in uniques:
            if frozenset(unique.columns) not in indexed:
                listed = ", ".join(f"ColId({column})" for column in unique.columns)
                self._add(f"No index found to support unique constraint `{unique.name}` for columns `{{{listed}}}`")

    def _sequence(self, raw: RawSequence) -> SequenceDef | None:
        (column,) = self._names_of((raw.column,))
        name = raw.source_name or sequence_name(self.name, column)
        self._scope.findings.add_identifier(name)
        usable = self._positions((raw.column,), name)
        self._check_range(raw, f"table `{self.name}` column `{column}` sequence `{name}`")
        self._scope.take_entity(name)
        if not usable:
            return None
        numbers = (raw.start, raw.min_value, raw.max_value, raw.increment)
        return SequenceDef(name, raw.column, *numbers, raw.source_name)

    def _check_range(self, raw: RawSequence, owner: str) -> None:
        if raw.increment == 0:
            self._add(f"{owner}: the increment must not be 0")
        low, start, high = raw.min_value, raw.start, raw.max_value
        said = [value for value in (low, start, high) if value is not None]
        if said != sorted(said):
            self._add(f"{owner}: expected min_value <= start <= max_value, found {low}, {start}, {high}")

    def _check_single_sequences(self, sequences: tuple[SequenceDef, ...]) -> None:
        counts = Counter(sequence.column for sequence in sequences)
        for column in (column for column, count in counts.items() if count > 1):
            where = f"table `{self.name}` column `{self._columns[column]}`"
            self._add(f"Attempt to define {where} with more than 1 auto_inc sequence")

    def _check_types(self, indexes: tuple[IndexDef, ...], sequences: tuple[SequenceDef, ...], spelled: Product) -> None:
        for index in indexes:
            type_ = spelled.elements[index.columns[0]].type
            if index.algorithm is IndexAlgorithm.DIRECT and not _may_be_direct(type_):
                where = f"column `{self._columns[index.columns[0]]}` in index `{index.name}`"
                self._add(f"Direct index does not support type `{shown(type_)}` in {where}")
        for sequence in sequences:
            type_ = spelled.elements[sequence.column].type
            if type_ not in _INTEGERS:
                where = f"table `{self.name}` column `{self._columns[sequence.column]}`"
                text = f"invalid sequence column type: {where} with type `{shown(type_)}` in sequence `{sequence.name}`"
                self._add(text)

    def _primary_key(self) -> int | None:
        if len(self.raw.primary_key) > 1:
            self._add(f"table `{self.name}` has multiple primary key annotations")
        if len(self.raw.primary_key) != 1 or not self._positions(self.raw.primary_key, self.name):
            return None
        (column,) = self.raw.primary_key
        if all(constraint.columns != (column,) for constraint in self.raw.constraints):
            self._add(
                f"table `{self.name}` column `{self._columns[column]}` is primary key but has no unique constraint"
            )
        return column

    def _defaults(self, spelled: Product) -> dict[int, bytes]:
        defaults: dict[int, bytes] = {}
        for default in self.raw.default_values:
            if not self._positions((default.column,), self.name):
                continue
            if default.column in defaults:
                column = self._columns[default.column]
                self._add(f"table `{self.name}` column `{column}` has more than one default value")
            try:
                end = _default_end(spelled.elements[default.column].type, default.value)
            except DecodeError as error:
                where = f"table {self.name} column {default.column}"
                self._add(f"Failed to deserialize default value for {where}: {error}")
            else:
                defaults[default.column] = default.value[:end]
        return defaults

    def _column_defs(self, spelled: Product, defaults: dict[int, bytes]) -> tuple[ColumnDef, ...]:
        sources = self._scope.types.source_product(self.raw.product_type_ref).elements
        return tuple(
            ColumnDef(self._columns[i], source.name or self._columns[i], element.type, defaults.get(i))
            for i, (element, source) in enumerate(zip(spelled.elements, sources, strict=True))
        )


def _may_be_direct(type_: AlgebraicType) -> bool:
    if isinstance(type_, Sum):
        return bool(type_.variants) and all(variant.type == UNIT for variant in type_.variants)
    return type_ in _DIRECT


def _default_end(type_: AlgebraicType, value: bytes) -> int:
    """Return how much of `value` is a value of a column's type; bytes behind it are ignored."""
    codec = bsatn.codec(type_)
    if isinstance(type_, Scalar) and codec.fixed_size is not None and len(value) < codec.fixed_size:
        kind = type_.kind.value.lower()
        raise DecodeError(f"data too short for {kind}: Expected {codec.fixed_size}, given {len(value)}", 0)
    return codec.skip(value)
