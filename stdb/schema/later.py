"""Modules of 0.11 as later clients may know them: every type has a name, none is of a kind that they never heard of.

Responsible for: the definition that documents and generators show in place of one of 0.11; values keep their bytes.
Not responsible for: documents (`documents`), the definition by which the module runs (`validation`).

0.11 used types where they stood: an Identity is a product around bytes, a row that is due has times that are plain
numbers. Later ones take a type for a use only if it has a name, so such types get entries in the typespace and names;
a Map is an array of pairs. A schedule is not shown: its table has none of the columns that later clients look for.
"""

from dataclasses import replace

from stdb.sats.names import is_identifier
from stdb.sats.profiles import OLD_ADDRESS, OLD_IDENTITY, OLD_SCHEDULE_AT
from stdb.sats.types import AlgebraicType, Array, Element, Map, Product, Ref, Scalar, Sum, Typespace
from stdb.schema.model import ModuleDef, TypeDef
from stdb.schema.naming import is_special

__all__ = ["as_later"]

_KNOWN: dict[AlgebraicType, str] = {
    OLD_IDENTITY: "IdentityBytes",
    OLD_ADDRESS: "AddressBytes",
    OLD_SCHEDULE_AT: "TimeOrInterval",
}


def as_later(definition: ModuleDef) -> ModuleDef:
    """Return a definition as if the module were of 1.0; one that is of no older generation as it is."""
    if not definition.is_0_11:
        return definition
    types = _Types(definition)
    reducers = tuple(
        replace(reducer, params=types.params(reducer.params))
        for reducer in definition.reducers
        if reducer.lifecycle is not None or not definition.is_reserved(reducer.name)
    )
    tables = tuple(replace(table, schedule=None) for table in definition.tables)
    typespace, named = types.finished()
    return replace(definition, is_0_11=False, typespace=typespace, tables=tables, reducers=reducers, types=named)


class _Types:
    """The types of one module, and those that get a name."""

    def __init__(self, definition: ModuleDef) -> None:
        self._source = definition.typespace.types
        self._tables = {table.type_ref: table.name for table in definition.tables}
        self._types: list[AlgebraicType] = list(self._source)
        self._named: dict[int, TypeDef] = {}
        self._places: dict[AlgebraicType, int] = {}
        self._taken: set[tuple[tuple[str, ...], str]] = set()
        for each in definition.types:
            self._name(each.type_ref, each.name, each.scope)
        for index, type_ in enumerate(self._source):
            self._types[index] = self._definition(type_)
            if isinstance(type_, Product | Sum) and index not in self._named:
                self._name(index, self._tables.get(index, f"Type{index}"))

    def finished(self) -> tuple[Typespace, tuple[TypeDef, ...]]:
        """Return the typespace and the names of its entries."""
        return Typespace(tuple(self._types)), tuple(self._named.values())

    def params(self, params: Product) -> Product:
        """Return parameters whose types all have names."""
        return Product(self._elements(params.elements))

    def _elements(self, elements: tuple[Element, ...]) -> tuple[Element, ...]:
        return tuple(
            Element(f"field_{position}" if element.name is None else element.name, self._use(element.type))
            for position, element in enumerate(elements)
        )

    def _definition(self, type_: AlgebraicType) -> AlgebraicType:
        """Return an entry of the typespace with names for what it uses."""
        match type_:
            case Product(elements):
                return Product(self._elements(elements))
            case Sum(variants):
                return Sum(self._elements(variants))
        return self._use(type_)

    def _use(self, type_: AlgebraicType) -> AlgebraicType:
        match type_:
            case Scalar() | Ref():
                return type_
            case Array(element):
                return Array(self._use(element))
            case Map(key, value):
                return Array(self._use(Product((Element("key", key), Element("value", value)))))
            case Product(()) | Sum(()):
                return type_
            case Product(elements) if is_special(type_):
                return Product(tuple(Element(each.name, self._use(each.type)) for each in elements))
            case Sum(variants) if is_special(type_):
                return Sum(tuple(Element(each.name, self._use(each.type)) for each in variants))
        if type_ not in self._places:
            self._places[type_] = place = len(self._types)
            self._types.append(type_)
            self._types[place] = self._definition(type_)
            self._name(place, _KNOWN.get(type_, f"Type{place}"))
        return Ref(self._places[type_])

    def _name(self, index: int, name: str, scope: tuple[str, ...] = ()) -> None:
        """Name an entry, by another name if that one is taken or none."""
        if not all(map(is_identifier, (*scope, name))):
            scope, name = (), f"Type{index}"
        while (scope, name) in self._taken:
            name += "_"
        self._taken.add((scope, name))
        self._named[index] = TypeDef(name, scope, index, True)
