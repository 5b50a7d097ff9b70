"""Mounting: a definition with everything that its submodules declare, under the names by which a database has it.

Responsible for: names below namespaces, places in one typespace, the order in which functions are numbered.
Not responsible for: what a submodule may declare (`validation`), documents, which show the module as it was written.

Source: spec 04 sections 4.6 and 5: `{namespace}.{name}`, functions of the root first, then depth-first; views are
numbered so as well, those for each caller and those for all by themselves.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import NamedTuple, TypeVar

from stdb.sats.types import AlgebraicType, Array, Element, Product, Ref, Sum, Typespace
from stdb.schema.model import ModuleDef, ProcedureDef, ReducerDef, TableDef, ViewDef

__all__ = ["mounted"]

T = TypeVar("T", ReducerDef, ProcedureDef, ViewDef)


class _Part(NamedTuple):
    """One module of those that are mounted, and where."""

    definition: ModuleDef
    namespace: str
    """What its names begin with: `lib.sub.`; nothing for the root."""
    accessor: str
    """What the names that its author wrote begin with."""


def mounted(definition: ModuleDef) -> ModuleDef:
    """Return a definition with everything that its submodules declare; `root` is the definition itself."""
    if not definition.submodules:
        return definition
    parts = list(_parts(definition, "", ""))
    types: list[AlgebraicType] = []
    found: list[ModuleDef] = []
    counts = {True: 0, False: 0}
    for part in parts:
        found.append(_placed(part, len(types), counts))
        types += found[-1].typespace.types
        for view in part.definition.views:
            counts[view.is_anonymous] += 1
    return replace(
        definition,
        typespace=Typespace(tuple(types)),
        tables=tuple(chain.from_iterable(each.tables for each in found)),
        reducers=tuple(chain.from_iterable(each.reducers for each in found)),
        procedures=tuple(chain.from_iterable(each.procedures for each in found)),
        views=tuple(chain.from_iterable(each.views for each in found)),
        root=definition,
    )


def _parts(definition: ModuleDef, namespace: str, accessor: str) -> Iterator[_Part]:
    yield _Part(definition, namespace, accessor)
    for submodule in definition.submodules:
        below = f"{namespace}{submodule.namespace}.", f"{accessor}{submodule.accessor}."
        yield from _parts(submodule.definition, *below)


def _placed(part: _Part, offset: int, views_before: dict[bool, int]) -> ModuleDef:
    """Return what a part declares, by its full names and with its types from `offset` on."""
    definition = part.definition
    typespace = Typespace(tuple(_moved(each, offset) for each in definition.typespace.types))
    return ModuleDef(
        typespace=typespace,
        tables=tuple(_table(part, each, offset) for each in definition.tables),
        reducers=tuple(
            replace(_named(part, each), params=_moved_product(each.params, offset)) for each in definition.reducers
        ),
        procedures=tuple(
            replace(
                _named(part, each),
                params=_moved_product(each.params, offset),
                return_type=_moved(each.return_type, offset),
            )
            for each in definition.procedures
        ),
        views=tuple(
            replace(
                _named(part, each),
                params=_moved_product(each.params, offset),
                return_type=_moved(each.return_type, offset),
                index=each.index + views_before[each.is_anonymous],
            )
            for each in definition.views
        ),
    )


def _named(part: _Part, each: T) -> T:
    return replace(each, name=part.namespace + each.name, accessor=part.accessor + each.accessor)


def _table(part: _Part, table: TableDef, offset: int) -> TableDef:
    namespace, accessor = part.namespace, part.accessor

    def source(name: str | None) -> str | None:
        return None if name is None else accessor + name

    schedule = table.schedule
    if schedule is not None:
        schedule = replace(
            schedule,
            name=namespace + schedule.name,
            table=namespace + schedule.table,
            function=namespace + schedule.function,
            source_name=source(schedule.source_name),
        )
    return replace(
        table,
        name=namespace + table.name,
        accessor=accessor + table.accessor,
        type_ref=table.type_ref + offset,
        indexes=tuple(
            replace(each, name=namespace + each.name, source_name=source(each.source_name)) for each in table.indexes
        ),
        uniques=tuple(
            replace(each, name=namespace + each.name, source_name=source(each.source_name)) for each in table.uniques
        ),
        sequences=tuple(
            replace(each, name=namespace + each.name, source_name=source(each.source_name)) for each in table.sequences
        ),
        schedule=schedule,
    )


def _moved_product(type_: Product, offset: int) -> Product:
    return Product(tuple(Element(each.name, _moved(each.type, offset)) for each in type_.elements))


def _moved(type_: AlgebraicType, offset: int) -> AlgebraicType:
    """Return a type whose Refs lead so many places further."""
    match type_:
        case Ref(index):
            return Ref(index + offset)
        case Product():
            return _moved_product(type_, offset)
        case Sum(variants):
            return Sum(tuple(Element(each.name, _moved(each.type, offset)) for each in variants))
        case Array(element):
            return Array(_moved(element, offset))
    return type_
