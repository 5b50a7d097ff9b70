"""Refs: what they point at, whether they come back to themselves, and types with all of them filled in.

Responsible for: resolving and inlining Refs, finding recursion, refusing Refs that lead nowhere.
Not responsible for: which types a module may declare (`stdb.schema.validation`).

Source: spec 01 section 3. A type handed on from here is at most TYPE_DEPTH_MAX levels deep and, with its Refs
filled in, has at most INLINE_NODES_MAX nodes: a few Refs can otherwise spell a type larger than the machine.
"""

from collections.abc import Iterator

from stdb.errors import SchemaError
from stdb.sats.types import AlgebraicType, Array, Element, Map, Product, Ref, Sum, Typespace

__all__ = [
    "INLINE_NODES_MAX",
    "TYPE_DEPTH_MAX",
    "children",
    "inline",
    "is_recursive",
    "reachable_refs",
    "recursive_refs",
    "resolve",
    "without_maps",
]

TYPE_DEPTH_MAX = 128
"""Levels of products, sums and arrays in one another."""
INLINE_NODES_MAX = 1 << 16
"""Nodes of a type with its Refs filled in."""


def children(type_: AlgebraicType) -> Iterator[AlgebraicType]:
    """Yield the types directly inside `type_`, in order; a Ref has none."""
    match type_:
        case Product(elements) | Sum(elements):
            for element in elements:
                yield element.type
        case Array(element_type):
            yield element_type
        case Map(key, value):
            yield key
            yield value


def without_maps(type_: AlgebraicType) -> AlgebraicType:
    """Return a type for those who know no maps: arrays of pairs, whose bytes are the same."""
    match type_:
        case Product(elements):
            return Product(tuple(Element(element.name, without_maps(element.type)) for element in elements))
        case Sum(variants):
            return Sum(tuple(Element(variant.name, without_maps(variant.type)) for variant in variants))
        case Array(element_type):
            return Array(without_maps(element_type))
        case Map(key, value):
            pair = Product((Element("key", without_maps(key)), Element("value", without_maps(value))))
            return Array(pair)
    return type_


def resolve(type_: AlgebraicType, typespace: Typespace) -> AlgebraicType:
    """Follow a chain of Refs to what is not a Ref.

    Raises:
        SchemaError: A Ref points past the typespace, or the chain is a circle.
    """
    seen: set[int] = set()
    while isinstance(type_, Ref):
        if type_.index >= len(typespace.types):
            size = len(typespace.types)
            raise SchemaError([f"invalid type ref &{type_.index}: the typespace has {size} types"])
        if type_.index in seen:
            raise SchemaError([f"type ref &{type_.index} leads back to itself through Refs alone"])
        seen.add(type_.index)
        type_ = typespace.types[type_.index]
    return type_


def reachable_refs(type_: AlgebraicType, typespace: Typespace) -> set[int]:
    """Return the positions in the typespace that `type_` reaches, through any number of Refs.

    Raises:
        SchemaError: A Ref points past the typespace, or a type is more than TYPE_DEPTH_MAX levels deep.
    """
    found: set[int] = set()
    stack = [(type_, 0)]
    while stack:
        current, depth = stack.pop()
        if depth > TYPE_DEPTH_MAX:
            raise SchemaError([f"a type is nested more than {TYPE_DEPTH_MAX} levels deep"])
        if not isinstance(current, Ref):
            stack.extend((child, depth + 1) for child in children(current))
        elif current.index not in found:
            resolve(current, typespace)
            found.add(current.index)
            stack.append((typespace.types[current.index], 0))
    return found


def recursive_refs(typespace: Typespace, start: AlgebraicType | None = None) -> frozenset[int]:
    """Return the positions of types that reach themselves; of those that `start` reaches, where given."""
    nodes = set(range(len(typespace.types))) if start is None else reachable_refs(start, typespace)
    edges = {node: _direct_refs(typespace.types[node]) for node in nodes}
    return frozenset(_nodes_on_cycles(edges))


def is_recursive(type_: AlgebraicType, typespace: Typespace) -> bool:
    """Tell whether `type_` cannot be written without Refs."""
    return bool(recursive_refs(typespace, type_))


def inline(type_: AlgebraicType, typespace: Typespace) -> AlgebraicType:
    """Return `type_` with every Ref replaced by what it points at.

    Raises:
        SchemaError: The type is recursive, too large, or a Ref points nowhere.
    """
    circular = recursive_refs(typespace, type_)
    if circular:
        raise SchemaError([f"recursive type ref &{min(circular)}: a type that contains itself cannot be inlined"])
    return _Inliner(typespace).inline(type_, 0)[0]


class _Inliner:
    """Fills in Refs, each once; counts the nodes that the result spells."""

    def __init__(self, typespace: Typespace) -> None:
        self.typespace = typespace
        self.done: dict[int, tuple[AlgebraicType, int]] = {}

    def inline(self, type_: AlgebraicType, depth: int) -> tuple[AlgebraicType, int]:
        if depth > TYPE_DEPTH_MAX:
            raise SchemaError([f"a type is nested more than {TYPE_DEPTH_MAX} levels deep"])
        if isinstance(type_, Ref):
            if type_.index not in self.done:
                self.done[type_.index] = self.inline(resolve(type_, self.typespace), depth)
            return self.done[type_.index]
        filled = [self.inline(child, depth + 1) for child in children(type_)]
        nodes = 1 + sum(count for _, count in filled)
        if nodes > INLINE_NODES_MAX:
            raise SchemaError([f"a type has more than {INLINE_NODES_MAX} parts when its Refs are filled in"])
        return _rebuilt(type_, [child for child, _ in filled]), nodes


def _rebuilt(type_: AlgebraicType, parts: list[AlgebraicType]) -> AlgebraicType:
    match type_:
        case Product(elements):
            return Product(tuple(Element(old.name, new) for old, new in zip(elements, parts, strict=True)))
        case Sum(variants):
            return Sum(tuple(Element(old.name, new) for old, new in zip(variants, parts, strict=True)))
        case Array():
            return Array(parts[0])
        case Map():
            return Map(parts[0], parts[1])
    return type_


def _direct_refs(type_: AlgebraicType) -> list[int]:
    stack, refs = [type_], []
    while stack:
        current = stack.pop()
        if isinstance(current, Ref):
            refs.append(current.index)
        stack.extend(children(current))
    return refs


def _nodes_on_cycles(edges: dict[int, list[int]]) -> set[int]:
    """Return the nodes that lie on a circle: strongly connected components by Tarjan, without recursion."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    path: list[int] = []
    on_path: set[int] = set()
    circular: set[int] = set()
    for root in edges:
        if root in index:
            continue
        work = [(root, iter(edges[root]))]
        index[root] = low[root] = len(index)
        path.append(root)
        on_path.add(root)
        while work:
            node, targets = work[-1]
            for target in targets:
                if target not in edges:
                    continue
                if target not in index:
                    index[target] = low[target] = len(index)
                    path.append(target)
                    on_path.add(target)
                    work.append((target, iter(edges[target])))
                    break
                if target in on_path:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = [path.pop()]
                    while component[-1] != node:
                        component.append(path.pop())
                    on_path.difference_update(component)
                    if len(component) > 1 or node in edges[node]:
                        circular.update(component)
    return circular
