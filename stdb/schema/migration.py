"""Migration of tables: what must be done to the stored tables of one definition so that they are those of another.

Responsible for: the automatic rules, their refusals table by table, the steps in the order in which they are done.
Not responsible for: doing them (`stdb.datastore.catalog`), views and rules of row-level security
(`stdb.actors.programs`), how a plan is shown.

Tables, indexes, constraints and sequences are matched by canonical name, columns by name.

Source: spec 04 section 13; texts as recorded from the real server.
"""

from collections.abc import Iterator
from typing import NamedTuple

from stdb.sats import bsatn, satn
from stdb.sats.types import AlgebraicType, Array, Element, Map, Product, Scalar, ScalarKind, Sum
from stdb.schema.model import Access, ColumnDef, IndexDef, ModuleDef, ScheduleDef, SequenceDef, TableDef, UniqueDef

__all__ = [
    "AddColumns",
    "AlterIndex",
    "ChangeColumns",
    "ChangeEventTable",
    "CreateIndex",
    "CreateSchedule",
    "CreateSequence",
    "CreateTable",
    "CreateUnique",
    "DropIndex",
    "DropSchedule",
    "DropSequence",
    "DropTable",
    "DropUnique",
    "Refusal",
    "RenameAccessors",
    "SetAccess",
    "SetPrimaryKey",
    "Step",
    "TablePlan",
    "plan_tables",
    "table_of",
]


class CreateTable(NamedTuple):
    """Create a table, empty."""

    table: TableDef


class DropTable(NamedTuple):
    """Drop a table, which must be empty."""

    table: TableDef


class SetAccess(NamedTuple):
    """Make a table public or private."""

    table: str
    access: Access


class CreateIndex(NamedTuple):
    """Build an index."""

    table: TableDef
    definition: IndexDef


class DropIndex(NamedTuple):
    """Drop an index."""

    table: TableDef
    definition: IndexDef


class AlterIndex(NamedTuple):
    """Give an index another source name."""

    table: TableDef
    definition: IndexDef


class CreateUnique(NamedTuple):
    """Forbid duplicates; there must be none."""

    table: TableDef
    unique: UniqueDef


class DropUnique(NamedTuple):
    """Allow duplicates."""

    table: TableDef
    unique: UniqueDef


class SetPrimaryKey(NamedTuple):
    """Change the primary key: positions of columns, None for none."""

    table: TableDef
    before: int | None
    after: int | None


class CreateSequence(NamedTuple):
    """Fill zeros of a column from now on; no row may have a value that it will give."""

    table: TableDef
    sequence: SequenceDef


class DropSequence(NamedTuple):
    """Store zeros as they are."""

    table: TableDef
    sequence: SequenceDef


class CreateSchedule(NamedTuple):
    """Make a table a scheduled one."""

    table: TableDef
    schedule: ScheduleDef


class DropSchedule(NamedTuple):
    """Make a scheduled table an ordinary one."""

    table: TableDef
    schedule: ScheduleDef


class AddColumns(NamedTuple):
    """Append columns, each with its default, to every row."""

    table: TableDef
    columns: tuple[ColumnDef, ...]


class ChangeColumns(NamedTuple):
    """Give columns types that have more variants; every stored row stays as it is."""

    table: TableDef


class ChangeEventTable(NamedTuple):
    """Give an event table other columns."""

    table: TableDef


class RenameAccessors(NamedTuple):
    """Write anew what a table and its columns are called in source code."""

    table: TableDef


Step = (
    CreateTable
    | DropTable
    | SetAccess
    | CreateIndex
    | DropIndex
    | AlterIndex
    | CreateUnique
    | DropUnique
    | SetPrimaryKey
    | CreateSequence
    | DropSequence
    | CreateSchedule
    | DropSchedule
    | AddColumns
    | ChangeColumns
    | ChangeEventTable
    | RenameAccessors
)
"""One thing to do. `table` is the table as it shall be, but for those that drop something: as it is."""


def table_of(step: Step) -> str:
    """Return the name of the table that a step is about."""
    return step.table if isinstance(step, SetAccess) else step.table.name


_BREAKING = (DropTable, AddColumns, ChangeEventTable)


class Refusal(NamedTuple):
    """Why a table cannot be changed by the automatic rules."""

    table: str
    text: str


class TablePlan(NamedTuple):
    """What becomes of the tables. With refusals, `steps` are those of the other tables."""

    steps: tuple[Step, ...]
    refusals: tuple[Refusal, ...]

    @property
    def breaks_clients(self) -> bool:
        """Tell whether connected clients hold rows of a form that is none any more: they have to come again."""
        return any(isinstance(step, _BREAKING) for step in self.steps)


def plan_tables(old: ModuleDef, new: ModuleDef) -> TablePlan:
    """Return what turns the tables of `old`, as they are stored, into those of `new`."""
    steps: list[Step] = []
    refusals: list[Refusal] = []
    for name in sorted({table.name for table in (*old.tables, *new.tables)}):
        before, after = old.table(name), new.table(name)
        if after is None:
            assert before is not None
            steps.append(DropTable(before))
        elif before is None:
            steps.append(CreateTable(after))
        elif errors := [*_refusals(before, after)]:
            refusals += (Refusal(name, text) for text in errors)
        else:
            steps += _changes(before, after)
    return TablePlan(tuple(sorted(steps, key=_rank)), tuple(refusals))


_ORDER = (
    DropTable,
    DropSchedule,
    DropSequence,
    DropUnique,
    DropIndex,
    AddColumns,
    ChangeColumns,
    ChangeEventTable,
    CreateIndex,
    AlterIndex,
    CreateUnique,
    SetPrimaryKey,
    CreateSequence,
    CreateSchedule,
    SetAccess,
    RenameAccessors,
    CreateTable,
)


def _rank(step: Step) -> int:
    return _ORDER.index(type(step))


def _changes(old: TableDef, new: TableDef) -> Iterator[Step]:
    yield from _column_changes(old, new)
    yield from _index_changes(old, new)
    for unique in _missing(old.uniques, new.uniques):
        yield DropUnique(old, unique)
    for unique in _missing(new.uniques, old.uniques):
        yield CreateUnique(new, unique)
    for sequence in _gone(old.sequences, new.sequences):
        yield DropSequence(old, sequence)
    for sequence in _gone(new.sequences, old.sequences):
        yield CreateSequence(new, sequence)
    if old.primary_key != new.primary_key:
        yield SetPrimaryKey(new, old.primary_key, new.primary_key)
    if old.access != new.access:
        yield SetAccess(new.name, new.access)
    if _schedule(old) != _schedule(new):
        if old.schedule is not None:
            yield DropSchedule(old, old.schedule)
        if new.schedule is not None:
            yield CreateSchedule(new, new.schedule)


def _column_changes(old: TableDef, new: TableDef) -> Iterator[Step]:
    before, after = _columns(old), _columns(new)
    if before != after[: len(before)] and not new.is_event:
        yield ChangeColumns(new)
    if new.is_event and before != after:
        yield ChangeEventTable(new)
    elif len(after) > len(before):
        yield AddColumns(new, new.columns[len(before) :])
    elif _accessors(old) != _accessors(new):
        yield RenameAccessors(new)


def _accessors(table: TableDef) -> list[str]:
    return [table.accessor, *(column.accessor for column in table.columns)]


def _columns(table: TableDef) -> list[tuple[str, AlgebraicType]]:
    return [(column.name, column.type) for column in table.columns]


def _index_changes(old: TableDef, new: TableDef) -> Iterator[Step]:
    before = {index.name: index for index in old.indexes}
    after = {index.name: index for index in new.indexes}
    for name, index in before.items():
        now = after.get(name)
        if now is None or _shape(now) != _shape(index):
            yield DropIndex(old, index)
    for name, index in after.items():
        was = before.get(name)
        if was is None or _shape(was) != _shape(index):
            yield CreateIndex(new, index)
        elif (was.source_name or name) != (index.source_name or name):
            yield AlterIndex(new, index)


def _shape(index: IndexDef) -> tuple[object, ...]:
    return index.algorithm, index.columns


def _missing(those: tuple[UniqueDef, ...], among: tuple[UniqueDef, ...]) -> list[UniqueDef]:
    names = {unique.name for unique in among}
    return [unique for unique in those if unique.name not in names]


def _gone(those: tuple[SequenceDef, ...], among: tuple[SequenceDef, ...]) -> list[SequenceDef]:
    """Return the sequences of `those` that are not, or not the same, among the others."""
    known = {_parameters(sequence) for sequence in among}
    return [sequence for sequence in those if _parameters(sequence) not in known]


def _parameters(sequence: SequenceDef) -> tuple[object, ...]:
    """Return what a sequence is: what a catalogue says of one has no omissions any more."""
    return sequence.name, sequence.column, sequence.parameters(), sequence.increment


def _schedule(table: TableDef) -> tuple[object, ...] | None:
    schedule = table.schedule
    return None if schedule is None else (schedule.function, schedule.at_column)


# What the automatic rules refuse


def _refusals(old: TableDef, new: TableDef) -> Iterator[str]:
    if old.is_event != new.is_event:
        yield f"Changing the event flag of table {old.name} requires a manual migration"
    if not (old.is_event and new.is_event):
        yield from _column_refusals(old, new)
    yield from _index_refusals(old, new)
    after = {unique.name: unique for unique in new.uniques}
    for unique in old.uniques:
        if unique.name in after and after[unique.name].columns != unique.columns:
            yield f"Changing the unique constraint {unique.name} requires a manual migration"


def _column_refusals(old: TableDef, new: TableDef) -> Iterator[str]:
    before = {column.name: (place, column) for place, column in enumerate(old.columns)}
    after = {column.name: (place, column) for place, column in enumerate(new.columns)}
    for name, (place, column) in before.items():
        if name not in after:
            yield f"Removing a column {name} from table {old.name} requires a manual migration"
            continue
        now_place, now = after[name]
        for reason in _type_refusals(column.type, now.type):
            types = f"from {satn.format_type(column.type)} to {satn.format_type(now.type)}"
            yield f"Changing the type of column {name} in table {old.name} {types}{reason}"
        if now_place != place:
            yield f"Reordering table {old.name} requires a manual migration"
    for name, (_, column) in after.items():
        if name not in before and column.default is None:
            yield f"Adding a column {name} to table {old.name} requires a default value annotation"


def _index_refusals(old: TableDef, new: TableDef) -> Iterator[str]:
    after = {index.name: index for index in new.indexes}
    for index in old.indexes:
        now = after.get(index.name)
        if now is not None and now.accessor != index.accessor and None not in (now.accessor, index.accessor):
            names = f"from {_some(index.accessor)} to {_some(now.accessor)}"
            yield f"Changing the accessor name on index {index.name} {names} requires a manual migration"


def _some(name: str | None) -> str:
    return "None" if name is None else f'Some("{name}")'


_REQUIRES = " requires a manual migration"


def _type_refusals(old: AlgebraicType, new: AlgebraicType) -> Iterator[str]:
    """Yield how the message ends, once for each thing that is wrong."""
    match old, new:
        case (Sum(before), Sum(after)):
            yield from _sum_refusals(old, new, before, after)
        case (Product(before), Product(after)):
            if len(before) != len(after):
                yield f", with fewer fields,{_REQUIRES}"
            else:
                yield from _element_refusals(before, after, "field")
        case (Array(before_element), Array(after_element)):
            yield from _type_refusals(before_element, after_element)
        case (Map(key, value), Map(now_key, now_value)):
            yield from _type_refusals(key, now_key)
            yield from _type_refusals(value, now_value)
        case _ if old != new:
            yield _REQUIRES


def _sum_refusals(
    old: AlgebraicType, new: AlgebraicType, before: tuple[Element, ...], after: tuple[Element, ...]
) -> Iterator[str]:
    if len(after) < len(before):
        yield f", with fewer variants,{_REQUIRES}"
        return
    yield from _element_refusals(before, after, "variant")
    (old_size, old_align), (new_size, new_align) = _layout(old), _layout(new)
    if old_size != new_size:
        yield f",{_REQUIRES}, due to size mismatch"
    if old_align != new_align:
        yield f",{_REQUIRES}, due to alignment mismatch"


def _element_refusals(before: tuple[Element, ...], after: tuple[Element, ...], what: str) -> Iterator[str]:
    for was, now in zip(before, after, strict=False):
        if was.name != now.name:
            yield f", with a renamed {what},{_REQUIRES}"
        yield from _type_refusals(was.type, now.type)


def _layout(type_: AlgebraicType) -> tuple[int, int]:
    """Return size and alignment in the reference's rows, in bytes: variants may be added while both stay the same."""
    match type_:
        case Scalar(kind) if kind is not ScalarKind.STRING:
            width = bsatn.codec(type_).fixed_size
            assert width is not None, "numbers have one width"
            return width, width
        case Product(elements):
            return _product_layout([_layout(element.type) for element in elements])
        case Sum(variants):
            layouts = [_layout(variant.type) for variant in variants]
            align = max((each for _, each in layouts), default=1)
            return align + _round_up(max((size for size, _ in layouts), default=0), align), align
    return 4, 2  # a string, an array or a map: a reference to what varies in length


def _product_layout(layouts: list[tuple[int, int]]) -> tuple[int, int]:
    size = 0
    for each, align in layouts:
        size = _round_up(size, align) + each
    align = max((each for _, each in layouts), default=1)
    return _round_up(size, align), align


def _round_up(size: int, align: int) -> int:
    return -(-size // align) * align
