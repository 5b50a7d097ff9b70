"""Which types a module may declare and use: those that every client's generator can express.

Responsible for: the rules for definitions and uses of types, for recursion and size of rows; rows with Refs filled in.
Not responsible for: names of columns and functions (`tables`, `functions`).

Source: spec 01 sections 2 and 3, spec 04 section 4.5. Every Ref of the definition is looked at once, so that no
definition costs more than its size: rows are measured before they are spelled out.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice

from stdb.errors import SchemaError
from stdb.sats.types import AlgebraicType, Array, Element, Map, Product, Ref, Sum, Typespace
from stdb.sats.typespace import INLINE_NODES_MAX, TYPE_DEPTH_MAX, children, inline, recursive_refs
from stdb.schema.findings import Findings, Group, identifier_text, shown
from stdb.schema.naming import is_special
from stdb.schema.raw import RawTypeDef

__all__ = ["ROW_NODES_MAX", "VARIANTS_MAX", "TypeChecker"]

VARIANTS_MAX = 255
"""Variants of a sum (spec 01 section 2)."""
ROW_NODES_MAX = 1 << 20
"""Nodes of all row types of a module together, Refs filled in."""
_TEXTS_MAX = 10
"""Findings about the names and about the elements of one definition; each shows the whole definition."""
_CODEGEN = "internal codegen error"


class TypeChecker:
    """The types of one module: `source` as written, `typespace` with canonical names.

    `uses_are_free`: a type may be used without a name of its own, as in 0.11.
    """

    def __init__(
        self, source: Typespace, typespace: Typespace, findings: Findings, *, uses_are_free: bool = False
    ) -> None:
        self.typespace = typespace
        self._uses_are_free = uses_are_free
        self._source = source
        self._findings = findings
        self._declared: set[int] = set()
        self._row_refs: frozenset[int] = frozenset()
        self._checked: set[int] = set()
        self._undeclared: dict[int, str | None] = {}
        self._rows: dict[int, Product] = {}
        self._row_nodes = 0
        self._in_range = self._check_refs()
        self._recursive = recursive_refs(typespace) if self._in_range else frozenset[int]()
        self._sizes: dict[int, tuple[int, int]] = {}

    def _check_refs(self) -> bool:
        """Note entries whose Refs point nowhere or that are too deep; tell whether there are none."""
        bad = len(self._findings.texts())
        for position, type_ in enumerate(self.typespace.types):
            stack = [(type_, 0)]
            while stack:
                current, depth = stack.pop()
                text = self._range_text(current) if isinstance(current, Ref) else None
                if depth > TYPE_DEPTH_MAX:
                    text = f"type is nested more than {TYPE_DEPTH_MAX} levels deep"
                if text is not None:
                    self._findings.add(Group.TYPE, f"error at typespace ref `&{position}`: {text}")
                    break
                stack.extend((child, depth + 1) for child in children(current))
        return len(self._findings.texts()) == bad

    def _range_text(self, ref: Ref) -> str | None:
        count = len(self.typespace.types)
        return None if ref.index < count else f"invalid type ref &{ref.index}: the typespace has {count} types"

    def product(self, index: int) -> Product | None:
        """Return the product at a position of the typespace; None when there is none."""
        type_ = self.typespace.types[index] if index < len(self.typespace.types) else None
        return type_ if isinstance(type_, Product) else None

    def source_product(self, index: int) -> Product:
        """Return the same product with the names that the author wrote."""
        type_ = self._source.types[index]
        assert isinstance(type_, Product)
        return type_

    def declare(self, types: tuple[RawTypeDef, ...], row_refs: frozenset[int]) -> None:
        """Check every definition; from then on, uses may refer to them.

        Of the rows of tables, at `row_refs`, the tables themselves look at the names.
        """
        self._row_refs = row_refs
        self._declared = {definition.type_ref for definition in types}
        for definition in types:
            full_name = "::".join((*definition.name.scope, definition.name.name))
            if definition.type_ref >= len(self.typespace.types):
                self._findings.add(Group.TYPE, f'Type "{full_name}" has invalid ref: &{definition.type_ref}')
                continue
            self.check_definition(definition.type_ref)
            type_ = self._source.types[definition.type_ref]
            if not definition.custom_ordering and not _is_ordered(type_):
                text = f'type `"{full_name}"` is not annotated with a custom ordering, but uses one: {shown(type_)}'
                self._findings.add(Group.TYPE, text)

    def check_definition(self, index: int) -> None:
        """Note what keeps an entry of the typespace from being a definition; each entry is checked once."""
        if index in self._checked or self._uses_are_free:
            return
        self._checked.add(index)
        for text in self._definition_texts(index, self.typespace.types[index]):
            self._findings.add(Group.TYPE, f"error at typespace ref `&{index}`: {text}")

    def _definition_texts(self, index: int, type_: AlgebraicType) -> list[str]:
        if not isinstance(type_, Product | Sum):
            return [f"{_CODEGEN}: type {shown(type_)} is not valid for generating a definition"]
        elements = type_.elements if isinstance(type_, Product) else type_.variants
        if any(element.name is None for element in elements):
            return [f"{_CODEGEN}: all type elements require names: {shown(type_)}"]
        texts = []
        if isinstance(type_, Sum) and len(elements) > VARIANTS_MAX:
            texts.append(_too_many_variants(type_))
        if index not in self._row_refs:
            counts = Counter(element.name for element in elements)
            texts += [f"type has {count} elements named `{name}`" for name, count in counts.items() if count > 1]
        found = chain.from_iterable(self._element_texts(type_, element) for element in elements)
        return [*texts[:_TEXTS_MAX], *islice(found, _TEXTS_MAX)]

    def _element_texts(self, type_: AlgebraicType, element: Element) -> Iterator[str]:
        problem = identifier_text(element.name or "")
        if problem is not None:
            yield f"type {shown(type_)} contains identifier error {problem}"
        use = self.use_text(element.type)
        if use is not None:
            yield use

    def use_text(self, type_: AlgebraicType) -> str | None:
        """Return why a type cannot be used in a column, parameter or result, or None."""
        return self._free_use(type_) if self._uses_are_free else self._use(type_, frozenset())

    def _free_use(self, type_: AlgebraicType) -> str | None:
        stack = [type_]
        while stack:
            current = stack.pop()
            if isinstance(current, Ref) and (text := self._range_text(current)) is not None:
                return text
            stack.extend(children(current))
        return None

    def _use(self, type_: AlgebraicType, open_refs: frozenset[int]) -> str | None:
        match type_:
            case Ref(index):
                return self._range_text(type_) or self._use_ref(index, open_refs)
            case Array(element):
                return self._use(element, open_refs)
            case Product(()) | Sum(()):
                return None
            case Product() | Sum() if not is_special(type_):
                text = f"non-special product or sum type {shown(type_)} cannot be used to generate a client type use"
                return f"{_CODEGEN}: {text}"
            case Sum(variants):
                return next(filter(None, (self._use(variant.type, open_refs) for variant in variants)), None)
            case Map():
                return f"{_CODEGEN}: type {shown(type_)} cannot be used to generate a client type use"
        return None

    def _use_ref(self, index: int, open_refs: frozenset[int]) -> str | None:
        if index in self._declared:
            return None
        if index in open_refs or len(open_refs) > TYPE_DEPTH_MAX:
            return f"{_CODEGEN}: type &{index} leads back to itself without a declared type in between"
        if index not in self._undeclared:
            self._undeclared[index] = self._use(self.typespace.types[index], open_refs | {index})
        return self._undeclared[index]

    def row(self, index: int, owner: str) -> Product | None:
        """Return the row type at `index` with its Refs filled in; None, and a finding, when that cannot be.

        `owner` begins the finding: ``table `t` ``.
        """
        if not self._in_range:
            return None
        row = self.product(index)
        assert row is not None
        if index not in self._rows:
            if not self._is_spellable(index, row, owner):
                return None
            try:
                spelled = inline(row, self.typespace)
            except SchemaError as error:
                self._findings.add(Group.TABLE, f"{owner}: {error}")
                return None
            assert isinstance(spelled, Product)
            self._check_variants(spelled, owner)
            self._rows[index] = spelled
        return self._rows[index]

    def _check_variants(self, row: Product, owner: str) -> None:
        """Note the columns that hold a sum with too many variants."""
        for position, column in enumerate(row.elements):
            stack = [column.type]
            while stack:
                type_ = stack.pop()
                if isinstance(type_, Sum) and len(type_.variants) > VARIANTS_MAX:
                    where = f"{owner} column `{column.name or f'col_{position}'}`"
                    self._findings.add(Group.TABLE, f"{where}: {_too_many_variants(type_)}")
                    break
                stack.extend(children(type_))

    def _is_spellable(self, index: int, row: Product, owner: str) -> bool:
        """Measure a row; note a recursive or too large column."""
        nodes = 1
        for position, element in enumerate(row.elements):
            where = f"{owner} column `{element.name or f'col_{position}'}`"
            circular = self._first_recursive(element.type)
            if circular is not None:
                text = f"{where} has the recursive type &{circular}; a row cannot contain itself"
                self._findings.add(Group.TABLE, text)
                return False
            size, depth = self._size(element.type)
            nodes += size
            if depth > TYPE_DEPTH_MAX or nodes > INLINE_NODES_MAX:
                text = f"{where} makes the row too large: more than {INLINE_NODES_MAX} parts or {TYPE_DEPTH_MAX} levels"
                self._findings.add(Group.TABLE, text)
                return False
        self._row_nodes += nodes
        if self._row_nodes > ROW_NODES_MAX:
            self._findings.add(Group.TABLE, f"{owner}: the rows of all tables have more than {ROW_NODES_MAX} parts")
        return self._row_nodes <= ROW_NODES_MAX

    def _first_recursive(self, type_: AlgebraicType) -> int | None:
        """Return a recursive position that `type_` reaches through its own Refs, or None."""
        stack, seen = [type_], set[int]()
        while stack:
            current = stack.pop()
            if isinstance(current, Ref):
                if current.index in self._recursive:
                    return current.index
                if current.index not in seen and current.index not in self._sizes:
                    seen.add(current.index)
                    stack.append(self.typespace.types[current.index])
            stack.extend(children(current))
        return None

    def _size(self, type_: AlgebraicType) -> tuple[int, int]:
        """Return nodes and levels of a type that reaches no recursive one, Refs filled in; both bounded."""
        for index in self._refs_inside_out(type_):
            self._sizes[index] = self._size_of(self.typespace.types[index])
        return self._size_of(type_)

    def _refs_inside_out(self, type_: AlgebraicType) -> list[int]:
        """Return the unmeasured positions that `type_` reaches, each after those it needs itself."""
        order: list[int] = []
        open_refs: set[int] = set()
        stack: list[tuple[AlgebraicType, bool]] = [(type_, False)]
        while stack:
            current, is_left = stack.pop()
            if isinstance(current, Ref):
                if is_left:
                    order.append(current.index)
                elif current.index not in self._sizes and current.index not in open_refs:
                    open_refs.add(current.index)
                    stack += [(current, True), (self.typespace.types[current.index], False)]
            else:
                stack.extend((child, False) for child in children(current))
        return order

    def _size_of(self, type_: AlgebraicType) -> tuple[int, int]:
        if isinstance(type_, Ref):
            return self._sizes[type_.index]
        parts = [self._size_of(child) for child in children(type_)]
        nodes = 1 + sum(size for size, _ in parts)
        depth = 1 + max((levels for _, levels in parts), default=0)
        return min(nodes, INLINE_NODES_MAX + 1), min(depth, TYPE_DEPTH_MAX + 1)


def _too_many_variants(type_: Sum) -> str:
    return f"sum type has {len(type_.variants)} variants, at most {VARIANTS_MAX} are possible"


def _is_ordered(type_: AlgebraicType) -> bool:
    """Tell whether elements stand in the default order: unnamed ones by position, then named ones by name."""
    match type_:
        case Product(elements) | Sum(elements):
            keys = [(element.name is not None, (element.name or "").encode()) for element in elements]
            return keys == sorted(keys)
    return True
