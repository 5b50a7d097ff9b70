"""Small module definitions for tests: one table more or less, whatever a test wants to change."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from stdb.errors import SchemaError
from stdb.sats.types import STRING, U64, AlgebraicType, Element, Product, Typespace
from stdb.schema.model import CasePolicy, IndexAlgorithm, ModuleDef
from stdb.schema.raw import RawConstraint, RawIndex, RawModuleDefV10, RawTableV10, RawTypeDef, RawTypeName
from stdb.schema.validation import validate

VECTORS = Path(__file__).parent / "vectors/schema"


def vector(name: str) -> Any:
    """Return a document of the recorded test data."""
    return json.loads((VECTORS / f"{name}.json").read_text())


def product(**columns: AlgebraicType) -> Product:
    return Product(tuple(Element(name, type_) for name, type_ in columns.items()))


def module(row: AlgebraicType | None = None, *others: AlgebraicType, **changes: Any) -> RawModuleDefV10:
    """Return a module with the table `t`: key `id` with its index, column `v`; names verbatim."""
    base = RawModuleDefV10(
        typespace=Typespace((row or product(id=U64, v=STRING), *others)),
        types=tuple(RawTypeDef(RawTypeName(f"T{i}"), i) for i in range(1 + len(others))),
        tables=(table(),),
        case_policy=CasePolicy.NONE,
    )
    return replace(base, **changes)


def table(source_name: str = "t", **changes: Any) -> RawTableV10:
    base = RawTableV10(
        source_name,
        0,
        primary_key=(0,),
        indexes=(RawIndex(f"{source_name}_id_idx_btree", "id", IndexAlgorithm.BTREE, (0,)),),
        constraints=(RawConstraint(None, (0,)),),
    )
    return replace(base, **changes)


def plain_table(source_name: str = "t", **changes: Any) -> RawTableV10:
    """Return a table without key and index."""
    return replace(RawTableV10(source_name, 0), **changes)


def outcome(raw: Any) -> list[str] | ModuleDef:
    """Return the definition, or everything that is wrong."""
    try:
        return validate(raw)
    except SchemaError as error:
        return error.errors
