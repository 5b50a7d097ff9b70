"""Generated source that writes BSATN: one function a type.

Responsible for: the source of encoders.
Not responsible for: error texts (a failure is explained by `bsatn_plain`), decoding (`bsatn_decoder`).

The rules are those of `bsatn_decoder`: fixed-size runs are packed at once, with the length prefix or tag that follows
and, inside the branches of a sum, with the fields before the tag, the payload and the fields behind.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from struct import Struct
from struct import pack as _pack
from typing import TYPE_CHECKING, Any, NamedTuple

from stdb.sats.bsatn_decoder import DEPTH_MAX
from stdb.sats.bsatn_layout import (
    Bytes,
    Call,
    Choice,
    Fixed,
    FixedKind,
    Layout,
    Layouts,
    List,
    Pairs,
    Text,
    Tuple,
)
from stdb.sats.objects import Converted, EnumShape, ObjectShape, OptionShape, UnionShape

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EncoderSource"]

_MERGED_BRANCHES_MAX = 8
_NESTING_MAX = 6


class _Field(NamedTuple):
    """Fixed-size bytes: format and the expression of what to pack."""

    format: str
    value: str


class _Piece(NamedTuple):
    """Bytes of any size: an expression."""

    value: str


class _Switch(NamedTuple):
    """A branch on the value in the variable `name`."""

    name: str
    layout: Choice
    nesting: int


_Atom = _Field | _Piece | _Switch


def _fail() -> None:
    raise ValueError("not encodable")


def _as_bytes(value: object) -> bytes:
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise TypeError("expected bytes")


@dataclass(slots=True)
class EncoderSource:
    """Collects functions until `compile`."""

    layouts: Layouts
    constants: dict[str, Any] = field(default_factory=dict)
    functions: list[str] = field(default_factory=list)
    pending: list[tuple[str, Layout, bool]] = field(default_factory=list)
    named: dict[object, str] = field(default_factory=dict)
    structs: dict[str, str] = field(default_factory=dict)
    names: int = 0

    def add(self, name: str, layout: Layout) -> None:
        """Add a function of (value) that returns bytes."""
        body = _Body(self, "0", "1", indent=2)
        body.write(body.atoms(layout, "v", 0), returns=True)
        head = [f"def {name}(v):", "    try:"]
        self.functions.append("\n".join([*head, *body.lines, "    except failures:", "        return explain(v)"]))

    def compile(self, failures: tuple[type[Exception], ...], explain: Callable[[Any], bytes]) -> dict[str, Any]:
        """Return the namespace with all functions; on `failures` those of `add` return what `explain` returns."""
        while self.pending:
            name, layout, is_recursive = self.pending.pop()
            body = _Body(self, "d", "d + 1")
            body.write(body.atoms(layout, "v", 0), returns=True)
            guard = [f"    if d > {DEPTH_MAX}: fail()"] if is_recursive else []
            self.functions.append("\n".join([f"def {name}(v, d):", *guard, *body.lines]))
        namespace: dict[str, Any] = {**self.constants, "fail": _fail, "as_bytes": _as_bytes, "pack": _pack}
        namespace |= {"failures": failures, "explain": explain}
        namespace["bools"] = {False: 0, True: 1}
        exec(compile("\n".join(self.functions), "<bsatn>", "exec"), namespace)
        return namespace

    def constant(self, value: object, prefix: str = "c") -> str:
        """Return the name under which generated source finds `value`."""
        name = f"{prefix}{len(self.constants)}_"
        self.constants[name] = value
        return name

    def struct(self, format_: str) -> str:
        """Return the name of the pack method of that format."""
        if format_ not in self.structs:
            self.structs[format_] = self.constant(Struct("<" + format_).pack, "s")
        return self.structs[format_]

    def name(self, prefix: str) -> str:
        """Return a new name for a local variable."""
        self.names += 1
        return f"{prefix}{self.names}"

    def call(self, key: object, layout: Layout, is_recursive: bool) -> str:
        """Return the name of the function for `key`, making it when it is new."""
        if key not in self.named:
            self.named[key] = name = f"f{len(self.named)}_"
            self.pending.append((name, layout, is_recursive))
        return self.named[key]


@dataclass(slots=True)
class _Body:
    """The lines of one function: `run` waits to be packed, `pieces` to be joined."""

    source: EncoderSource
    same: str
    deeper: str
    lines: list[str] = field(default_factory=list)
    indent: int = 1
    run: list[_Field] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    # Taking a value apart: statements that unpack it, and what is to be written in order.

    def atoms(self, layout: Layout, value: str, nesting: int) -> list[_Atom]:
        """Write the statements that take the value apart; return what its bytes are made of."""
        if isinstance(layout.shape, Converted):
            plain = self.source.name("v")
            self._line(f"{plain} = {self.source.constant(layout.shape.encode)}({value})")
            value = plain
        match layout:
            case Fixed():
                return self._fixed(layout, value)
            case Text():
                name = self.source.name("b")
                self._line(f"{name} = {value}.encode()")
                return [_Field("I", f"len({name})"), _Piece(name)]
            case Bytes():
                self._line(f"if type({value}) is not bytes: {value} = as_bytes({value})")
                return [_Field("I", f"len({value})"), _Piece(value)]
            case Tuple():
                return self._tuple(layout, value, nesting)
            case Call(index, is_recursive):
                function = self.source.call(index, self.source.layouts.ref(index), is_recursive)
                return [_Piece(f"{function}({value}, {self.deeper if is_recursive else self.same})")]
            case Choice():
                if nesting < _NESTING_MAX:
                    return [_Switch(value, layout, nesting + 1)]
                function = self.source.call(self.source.constant(layout), layout, False)
                return [_Piece(f"{function}({value}, {self.same})")]
            case List() | Pairs():
                return self._items(layout, value)

    def _tuple(self, layout: Tuple, value: str, nesting: int) -> list[_Atom]:
        names = [self.source.name("v") for _ in layout.parts]
        if isinstance(layout.shape, ObjectShape):
            if names:
                getter = self.source.constant(attrgetter(*layout.shape.attributes))
                self._line(f"{', '.join(names)} = {getter}({value})")
        elif names:
            self._line(f"{', '.join(names)}, = {value}")
        else:
            self._line(f"() = {value}")
        return [
            atom for name, part in zip(names, layout.parts, strict=True) for atom in self.atoms(part, name, nesting)
        ]

    def _fixed(self, layout: Fixed, value: str) -> list[_Atom]:
        size = layout.size
        match layout.kind:
            case FixedKind.BOOL:
                return [_Field("B", f"bools[{value}]")]
            case FixedKind.ENUM:
                if isinstance(layout.shape, EnumShape):
                    tags: dict[Any, int] = {member: tag for tag, member in enumerate(layout.shape.members)}
                else:
                    tags = {(tag, ()): tag for tag in range(layout.variants)}
                return [_Field("B", f"{self.source.constant(tags)}[{value}]")]
            case FixedKind.SIGNED:
                return [_Field(layout.format, f"{value}.to_bytes({size}, 'little', signed=True)")]
            case FixedKind.UNSIGNED:
                return [_Field(layout.format, f"{value}.to_bytes({size}, 'little')")]
            case FixedKind.RAW:
                self._line(f"if len({value}) != {size}: fail()")
            case FixedKind.PREFIXED:
                self._line(f"if len({value}) != {size - 4}: fail()")
                return [_Field("I", str(size - 4)), _Field(layout.format, f"{value}[::-1]")]
            case FixedKind.MICROS:
                return [_Field("q", f"max({value}, 0)")]
        return [_Field(layout.format, value)]

    def _items(self, layout: List | Pairs, value: str) -> list[_Atom]:
        if isinstance(layout, Pairs):
            part: Layout = Tuple([layout.key, layout.value])
        else:
            part = layout.part
        count = _Field("I", f"len({value})")
        if isinstance(part, Fixed) and part.shape is None and part.kind in (FixedKind.NUMBER, FixedKind.FLOAT):
            name = self.source.name("b")
            self._line(f"{name} = pack(f'<{{len({value})}}{part.format}', *{value})")
            return [count, _Piece(name)]
        if isinstance(part, Call):
            function = self.source.call(part.index, self.source.layouts.ref(part.index), part.is_recursive)
            depth = self.deeper if part.is_recursive else self.same
        else:
            function = self.source.call(self.source.constant(part), part, False)
            depth = self.same
        name, item = self.source.name("b"), self.source.name("v")
        self._line(f"if type({value}) is str: fail()")
        self._line(f"{name} = b''.join([{function}({item}, {depth}) for {item} in {value}])")
        return [count, _Piece(name)]

    # Writing.

    def write(self, atoms: list[_Atom], returns: bool) -> bool:
        """Write `atoms`; with `returns` end the function. Tell whether it has ended."""
        for i, atom in enumerate(atoms):
            if isinstance(atom, _Field):
                self.run.append(atom)
            elif isinstance(atom, _Piece):
                self._flush()
                self.pieces.append(atom.value)
            else:
                tail = self._tail(atom, atoms[i + 1 :])
                is_last = len(tail) == len(atoms) - i - 1 and len(atom.layout.parts) <= _MERGED_BRANCHES_MAX
                self._switch(atom, tail, returns and is_last)
                if returns and is_last:
                    return True
                return self.write(atoms[i + 1 + len(tail) :], returns)
        if returns:
            self._flush()
            self._line(f"return {_joined(self.pieces)}")
        return returns

    def _tail(self, switch: _Switch, rest: list[_Atom]) -> list[_Atom]:
        tail: list[_Atom] = []
        if len(switch.layout.parts) <= _MERGED_BRANCHES_MAX:
            for atom in rest:
                if not isinstance(atom, _Field):
                    break
                tail.append(atom)
        return tail

    def _flush(self) -> None:
        if self.run:
            reader = self.source.struct(_merged(self.run))
            self.pieces.append(f"{reader}({', '.join(atom.value for atom in self.run)})")
            self.run = []

    def _switch(self, switch: _Switch, tail: list[_Atom], returns: bool) -> None:
        layout, name = switch.layout, switch.name
        if len(layout.parts) > _MERGED_BRANCHES_MAX:
            self._flush()
        before, run = self.pieces, self.run
        joined = self.source.name("b")
        if isinstance(layout.shape, UnionShape):
            tag, payload = self.source.name("t"), name
            classes = {class_: i for i, class_ in enumerate(layout.shape.classes)}
            self._line(f"{tag} = {self.source.constant(classes)}[type({name})]")
            order = list(range(len(layout.parts)))
        elif layout.is_option:
            tag, payload = "", name
            order = [1, 0]
        else:
            tag, payload = self.source.name("t"), self.source.name("v")
            self._line(f"{tag}, {payload} = {name}")
            order = list(range(len(layout.parts)))
        self._branches(switch, order, tag, payload, tail, joined if not returns else None, before, run)
        self.pieces = [*before, joined] if not returns else []
        self.run = []

    def _branches(
        self,
        switch: _Switch,
        order: list[int],
        tag: str,
        payload: str,
        tail: list[_Atom],
        joined: str | None,
        before: list[str],
        run: list[_Field],
    ) -> None:
        if len(order) > 4:
            middle = len(order) // 2
            with self._indented(f"if {tag} < {switch.layout.tags[order[middle]]}:"):
                self._branches(switch, order[:middle], tag, payload, tail, joined, before, run)
            with self._indented("else:"):
                self._branches(switch, order[middle:], tag, payload, tail, joined, before, run)
            return
        for i, wire_tag in enumerate(order):
            with self._indented(self._condition(switch, wire_tag, tag, payload, i)):
                self.pieces = list(before) if joined is None else []
                self.run = [*run, _Field("B", str(wire_tag))]
                self._branch(switch, wire_tag, payload, tail, joined)
        if not switch.layout.is_option or isinstance(switch.layout.shape, UnionShape):
            with self._indented("else:"):
                self._line("fail()")

    def _condition(self, switch: _Switch, wire_tag: int, tag: str, payload: str, i: int) -> str:
        keyword = "elif" if i else "if"
        if not tag:
            return f"if {payload} is None:" if i == 0 else "else:"
        return f"{keyword} {tag} == {switch.layout.tags[wire_tag]}:"

    def _branch(self, switch: _Switch, wire_tag: int, payload: str, tail: list[_Atom], joined: str | None) -> None:
        layout = switch.layout
        if layout.is_option and wire_tag == 1:
            atoms: list[_Atom] = []
        else:
            if layout.is_wrapped and not isinstance(layout.shape, OptionShape):
                inner = self.source.name("v")
                self._line(f"{inner}, = {payload}")
                payload = inner
            atoms = self.atoms(layout.parts[wire_tag], payload, switch.nesting)
        if not self.write(atoms + tail, returns=joined is None):
            self._flush()
            self._line(f"{joined} = {_joined(self.pieces)}")

    def _line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    @contextmanager
    def _indented(self, head: str) -> "Iterator[None]":
        self._line(head)
        self.indent += 1
        yield
        self.indent -= 1


def _joined(pieces: list[str]) -> str:
    if not pieces:
        return "b''"
    return " + ".join(pieces) if len(pieces) <= 5 else f"b''.join(({', '.join(pieces)}))"


def _merged(run: list[_Field]) -> str:
    parts: list[tuple[int, str]] = []
    for atom in run:
        if parts and parts[-1][1] == atom.format and len(atom.format) == 1:
            parts[-1] = parts[-1][0] + 1, atom.format
        else:
            parts.append((1, atom.format))
    return "".join(letter if count == 1 else f"{count}{letter}" for count, letter in parts)
