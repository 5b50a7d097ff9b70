"""Declarations: what bindings for clients of the 0.11 generation have to declare, and under which names.

Responsible for: which named types are used, the name each of them gets, names that are taken.
Not responsible for: any language (`python_legacy`, `csharp_legacy`), the types themselves (`stdb.schema.legacy`).

Source: spec 03 sections 12 to 14.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stdb.sats.names import pascal_case
from stdb.sats.profiles import OLD_ADDRESS, OLD_IDENTITY, OLD_SCHEDULE_AT
from stdb.sats.types import AlgebraicType, Product, Ref, Sum, is_option
from stdb.sats.typespace import reachable_refs, resolve
from stdb.schema.legacy import LegacyFace, LegacyTable

__all__ = ["DeclaredType", "Taken", "declared_types", "is_plain_enum", "row_elements"]

_BUILT_IN = (OLD_IDENTITY, OLD_ADDRESS, OLD_SCHEDULE_AT)


@dataclass(frozen=True, slots=True)
class DeclaredType:
    """A product or a sum that gets a declaration of its own. `name` is in Pascal case, its scopes in front."""

    ref: int
    name: str
    type: Product | Sum


class Taken:
    """Names that are in use; whoever comes late gets a number behind."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._names = {name.casefold() for name in names}

    def take(self, name: str) -> str:
        """Return `name`, or `name_2` and so on: one that nobody else has, however it is capitalised."""
        candidate, number = name, 1
        while candidate.casefold() in self._names:
            number += 1
            candidate = f"{name}_{number}"
        self._names.add(candidate.casefold())
        return candidate


def declared_types(face: LegacyFace) -> Iterator[DeclaredType]:
    """Yield the types that tables and reducers use, in the order of the typespace; not the rows of the tables."""
    rows = {table.definition.type_ref for table in face.tables}
    names = {named.type_ref: "".join(map(pascal_case, (*named.scope, named.name))) for named in face.types}
    for ref in sorted(_used_refs(face) - rows):
        type_ = resolve(Ref(ref), face.typespace)
        if isinstance(type_, Product | Sum) and type_ not in _BUILT_IN and not is_option(type_):
            yield DeclaredType(ref, names.get(ref, f"Type{ref}"), type_)


def row_elements(face: LegacyFace, table: LegacyTable) -> Product:
    """Return a row as a product whose elements may be Refs, which is how they keep their names."""
    row = face.typespace.types[table.definition.type_ref]
    assert isinstance(row, Product), f"the rows of {table.name} are products"
    return row


def is_plain_enum(type_: AlgebraicType) -> bool:
    """Tell whether `type_` is a sum none of whose variants holds anything."""
    return isinstance(type_, Sum) and bool(type_.variants) and all(v.type == Product(()) for v in type_.variants)


def _used_refs(face: LegacyFace) -> set[int]:
    used: set[int] = set()
    for type_ in (*(row_elements(face, table) for table in face.tables), *(r.params for r in face.reducers)):
        used |= reachable_refs(type_, face.typespace)
    return used
