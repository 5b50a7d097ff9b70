"""Generated source that reads BSATN: values, keys and validation, one function a type.

Responsible for: the source of decoders, of validators ("skip"), and of readers of single columns.
Not responsible for: error texts (a failure is explained by `bsatn_plain`), encoding (`bsatn_encoder`).

Rules (measured; they are what makes it fast): one `struct.Struct` for every run of fixed-size fields; the length prefix
or tag that ends a run is read with it; the run after a tag is read inside each branch, with the branch's own fields; no
reader object, positions are local variables. Only numbers and names made here enter the source, never a user's text.

Generated functions raise whatever comes first (struct.error, IndexError, ValueError ...). They never read past the
buffer unnoticed: an end that no later read has proven is compared with `len(buf)`.
"""

import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from struct import Struct
from struct import unpack_from as _unpack_from
from typing import TYPE_CHECKING, Any, NamedTuple

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
    min_size,
)
from stdb.sats.keys_order import float_key, ordered_pairs
from stdb.sats.objects import Converted, EnumShape, ObjectShape, OptionShape, UnionShape

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DEPTH_MAX", "ZERO_SIZE_COUNT_MAX", "DecoderSource", "Mode"]

DEPTH_MAX = 256
"""Values of recursive types in one another."""
ZERO_SIZE_COUNT_MAX = 65_536
"""Elements of an array whose elements have no bytes."""
_MERGED_BRANCHES_MAX = 8
_NESTING_MAX = 6
_NUMBERS = frozenset("bBhHiIqQfd")


class Mode(Enum):
    """What a generated function makes of the bytes it passes."""

    VALUE = "v"
    KEY = "k"
    CHECK = "c"
    """Nothing, but everything is validated."""
    TRUST = "t"
    """Nothing at all: the bytes were validated before."""


class _Field(NamedTuple):
    """Fixed-size bytes; `name` receives them, None when nobody wants them."""

    format: str
    size: int
    name: str | None
    check: str | None = None
    """An expression that raises for a wrong value, where nobody else evaluates one."""


class _Run(NamedTuple):
    """Text or bytes, `length` long, into `name`."""

    length: str
    name: str
    is_text: bool
    mode: Mode


class _Items(NamedTuple):
    """`length` elements of an array or map, into `name`."""

    length: str
    name: str
    layout: List | Pairs
    mode: Mode
    nesting: int


class _Switch(NamedTuple):
    """One of the branches, by the tag in `tag`, into `name`."""

    tag: str
    name: str
    layout: Choice
    mode: Mode
    nesting: int


class _Jump(NamedTuple):
    """A call of another generated function, its value into `name`."""

    function: str
    name: str
    is_recursive: bool


_Atom = _Field | _Run | _Items | _Switch | _Jump


def _fail() -> None:
    raise ValueError("malformed")


@dataclass(slots=True)
class DecoderSource:
    """Collects functions until `compile`; they share constants and the functions of Refs."""

    layouts: Layouts
    constants: dict[str, Any] = field(default_factory=dict)
    functions: list[str] = field(default_factory=list)
    pending: list[tuple[str, Layout, Mode, bool]] = field(default_factory=list)
    named: dict[tuple[object, Mode], str] = field(default_factory=dict)
    structs: dict[str, str] = field(default_factory=dict)
    names: int = 0

    def add(self, name: str, layout: Layout, mode: Mode) -> None:
        """Add a function of (buffer, offset=0) that returns (value, end), or the end alone in CHECK and TRUST."""
        atoms, value = self.atoms(layout, mode, 0)
        body = _Body(self, mode, "0", "1", indent=2)
        body.emit(atoms, value)
        head = [f"def {name}(buf, o=0):", "    try:"]
        tail = ["    except failures:", "        explain(buf, o)", "        raise"]
        self.functions.append("\n".join([*head, *body.lines, *tail]))

    def add_reader(
        self, name: str, parts: list[Layout], wanted: dict[int, Mode], value: Callable[[list[str]], str]
    ) -> None:
        """Add a function of (buffer) that reads some elements of a product whose bytes are trusted.

        `value` makes the returned expression of the expressions of the elements wanted, in order of position.
        """
        atoms: list[_Atom] = []
        expressions = []
        for position in range(max(wanted, default=-1) + 1):
            part, expression = self.atoms(parts[position], wanted.get(position, Mode.TRUST), 0)
            atoms += part
            if position in wanted:
                expressions.append(expression)
        body = _Body(self, Mode.VALUE, "0", "1", ends=False)
        body.emit(atoms, value(expressions))
        self.functions.append("\n".join([f"def {name}(buf, o=0):", *body.lines]))

    def compile(
        self,
        failures: tuple[type[Exception], ...] = (),
        explain: Callable[[bytes, int], None] = lambda buffer, offset: None,
    ) -> dict[str, Any]:
        """Return the namespace with all functions; those of `add` call `explain`, which may raise, on `failures`."""
        while self.pending:
            name, layout, mode, is_recursive = self.pending.pop()
            atoms, value = self.atoms(layout, mode, 0)
            body = _Body(self, mode, "d", "d + 1")
            body.emit(atoms, value)
            guard = [f"    if d > {DEPTH_MAX}: fail()"] if is_recursive else []
            self.functions.append("\n".join([f"def {name}(buf, o, d):", *guard, *body.lines]))
        namespace: dict[str, Any] = {
            **self.constants,
            "fail": _fail,
            "failures": failures,
            "explain": explain,
            "bools": (False, True),
            "integer": int.from_bytes,
            "float_key": float_key,
            "ordered_pairs": ordered_pairs,
            "unpack_from": _unpack_from,
        }
        exec(compile("\n".join(self.functions), "<bsatn>", "exec"), namespace)
        return namespace

    def constant(self, value: object, prefix: str = "c") -> str:
        """Return the name under which generated source finds `value`."""
        name = f"{prefix}{len(self.constants)}_"
        self.constants[name] = value
        return name

    def struct(self, format_: str, method: str = "unpack_from") -> str:
        """Return the name of a method of the Struct of that format."""
        key = f"{method}<{format_}"
        if key not in self.structs:
            self.structs[key] = self.constant(getattr(Struct("<" + format_), method), "s")
        return self.structs[key]

    def name(self, prefix: str) -> str:
        """Return a new name for a local variable."""
        self.names += 1
        return f"{prefix}{self.names}"

    def call(self, key: object, layout: Layout, mode: Mode, is_recursive: bool) -> str:
        """Return the name of the function for `key`, making it when it is new."""
        if (key, mode) not in self.named:
            self.named[key, mode] = name = f"f{len(self.named)}_{mode.value}"
            self.pending.append((name, layout, mode, is_recursive))
        return self.named[key, mode]

    # What the bytes of a layout are, in order, and the expression for its value once they are read.

    def atoms(self, layout: Layout, mode: Mode, nesting: int) -> tuple[list[_Atom], str]:
        """Return what to read for `layout` and the expression that makes its value of what was read."""
        atoms, value = self._plain_atoms(layout, mode, nesting)
        if mode is Mode.VALUE and isinstance(layout.shape, Converted):
            value = f"{self.constant(layout.shape.decode)}({value})"
        return atoms, value

    def _plain_atoms(self, layout: Layout, mode: Mode, nesting: int) -> tuple[list[_Atom], str]:
        match layout:
            case Fixed():
                return self._fixed(layout, mode)
            case Tuple():
                return self._tuple(layout, mode, nesting)
            case Call(index, is_recursive):
                function = self.call(index, self.layouts.ref(index), mode, is_recursive)
                name = self.name("v")
                return [_Jump(function, name, is_recursive)], name
        count, name = self.name("n"), self.name("v")
        if nesting >= _NESTING_MAX:
            function = self.call(self.constant(layout), layout, mode, False)
            return [_Jump(function, name, False)], name
        match layout:
            case Text() | Bytes():
                return [_Field("I", 4, count), _Run(count, name, isinstance(layout, Text), mode)], name
            case Choice():
                return [_Field("B", 1, count), _Switch(count, name, layout, mode, nesting + 1)], name
            case List() | Pairs():
                value = f"tuple({name})" if mode is Mode.KEY else name
                return [_Field("I", 4, count), _Items(count, name, layout, mode, nesting + 1)], value

    def _tuple(self, layout: Tuple, mode: Mode, nesting: int) -> tuple[list[_Atom], str]:
        atoms: list[_Atom] = []
        values = []
        for part in layout.parts:
            part_atoms, value = self.atoms(part, mode, nesting)
            atoms += part_atoms
            values.append(value)
        if mode is Mode.VALUE and isinstance(layout.shape, ObjectShape):
            return atoms, f"{self.constant(layout.shape.factory)}({', '.join(values)})"
        return atoms, f"({', '.join(values)},)" if values else "()"

    def _fixed(self, layout: Fixed, mode: Mode) -> tuple[list[_Atom], str]:
        name = self.name("v")
        format_, size = layout.format, layout.size
        if layout.kind == FixedKind.PREFIXED:
            return self._prefixed(layout, mode, name)
        value, is_checked = self._fixed_value(layout, mode, name)
        if mode is Mode.TRUST or (mode is Mode.CHECK and not is_checked):
            return [_Field(format_, size, None)], "None"
        return [_Field(format_, size, name, value if mode is Mode.CHECK else None)], value

    def _fixed_value(self, layout: Fixed, mode: Mode, name: str) -> tuple[str, bool]:
        """Return the expression for a field's value and whether evaluating it validates the field."""
        match layout.kind:
            case FixedKind.BOOL:
                return (f"bools[{name}]", True) if layout.format == "B" else (name, False)
            case FixedKind.ENUM:
                return f"{self._members(layout, mode)}[{name}]", True
            case FixedKind.SIGNED:
                return f"integer({name}, 'little', signed=True)", False
            case FixedKind.UNSIGNED:
                return f"integer({name}, 'little')", False
            case FixedKind.RAW if mode is Mode.KEY:
                return f"{name}[::-1]", False
            case FixedKind.FLOAT if mode is Mode.KEY:
                return f"float_key({name})", False
        return name, False

    def _members(self, layout: Fixed, mode: Mode) -> str:
        if mode is Mode.VALUE and isinstance(layout.shape, EnumShape):
            return self.constant(layout.shape.members)
        return self.constant(tuple((tag, ()) for tag in range(layout.variants)))

    def _prefixed(self, layout: Fixed, mode: Mode, name: str) -> tuple[list[_Atom], str]:
        """Read an Identity or Address of 0.11: a length, which must be right, and bytes in the order of the text."""
        size = layout.size - 4
        if mode is Mode.TRUST:
            return [_Field("4x", 4, None), _Field(layout.format, size, None)], "None"
        count = self.name("n")
        check = f"{count} == {size} or fail()"
        if mode is Mode.CHECK:
            return [_Field("I", 4, count, check), _Field(layout.format, size, None)], "None"
        value = name if mode is Mode.KEY else f"{name}[::-1]"
        return [_Field("I", 4, count, check), _Field(layout.format, size, name)], value


@dataclass(slots=True)
class _Body:
    """The lines of one function. The position reached is `base` + `constant`; `run` waits to be read from `start`."""

    source: DecoderSource
    mode: Mode
    same: str
    """Depth to hand to a function on this level, and to one a level deeper."""
    deeper: str
    ends: bool = True
    """Whether the function returns where it ended; without, it need not look beyond what it returns."""
    lines: list[str] = field(default_factory=list)
    indent: int = 1
    base: str = "o"
    constant: int = 0
    start: int = 0
    run: list[_Field] = field(default_factory=list)
    is_unproven: bool = False
    """Whether no read has shown yet that the buffer reaches the position."""

    def emit(self, atoms: list[_Atom], value: str) -> None:
        """Write the whole function: read `atoms`, return `value`."""
        self._read(atoms, value)

    def _read(self, atoms: list[_Atom], value: str | None) -> bool:
        """Read `atoms`, then return `value` unless it is None; tell whether the function has returned."""
        for i, atom in enumerate(atoms):
            if isinstance(atom, _Field):
                self.run.append(atom)
                self.constant += atom.size
                continue
            self._flush()
            if isinstance(atom, _Switch):
                tail = self._tail(atom, atoms[i + 1 :])
                if (
                    value is not None
                    and len(tail) == len(atoms) - i - 1
                    and len(atom.layout.parts) <= _MERGED_BRANCHES_MAX
                ):
                    self._switch(atom, tail, value)
                    return True
                self._switch(atom, tail, None)
                return self._read(atoms[i + 1 + len(tail) :], value)
            if isinstance(atom, _Run):
                self._text_or_bytes(atom)
            elif isinstance(atom, _Items):
                self._items(atom)
            else:
                self._jump(atom)
        self._flush()
        if value is not None:
            self._return(value)
        return value is not None

    def _tail(self, switch: _Switch, rest: list[_Atom]) -> list[_Atom]:
        """Return the fixed-size fields after a switch that are read inside its branches."""
        tail: list[_Atom] = []
        if len(switch.layout.parts) <= _MERGED_BRANCHES_MAX:
            for atom in rest:
                if not isinstance(atom, _Field):
                    break
                tail.append(atom)
        return tail

    def _return(self, value: str) -> None:
        if not self.ends:
            self._line(f"return {value}")
            return
        self._prove()
        end = self._position(self.constant)
        self._line(f"return {end}" if self.mode in (Mode.CHECK, Mode.TRUST) else f"return {value}, {end}")

    def _line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    @contextmanager
    def _indented(self, head: str) -> "Iterator[None]":
        self._line(head)
        self.indent += 1
        yield
        self.indent -= 1

    def _position(self, constant: int) -> str:
        return f"{self.base} + {constant}" if constant else self.base

    def _flush(self) -> None:
        """Read the waiting run with one Struct."""
        run, start = self.run, self.start
        self.run, self.start = [], self.constant
        is_skipping = bool(run)
        while run and run[0].name is None:
            start += run.pop(0).size
        skipped_tail = False
        while run and run[-1].name is None:
            run.pop()
            skipped_tail = True
        if not run:
            self.is_unproven = self.is_unproven or is_skipping
            return
        names = [atom.name for atom in run if atom.name is not None]
        reader = self.source.struct(_merged(run))
        self._line(f"{', '.join(names)}{',' if len(names) == 1 else ''} = {reader}(buf, {self._position(start)})")
        for atom in run:
            if atom.check is not None:
                self._line(atom.check)
        self.is_unproven = skipped_tail

    def _prove(self) -> None:
        if self.is_unproven:
            self._line(f"if {self._position(self.constant)} > len(buf): fail()")
            self.is_unproven = False

    def _move(self, base: str, is_unproven: bool) -> None:
        self.base, self.constant, self.start, self.is_unproven = base, 0, 0, is_unproven

    def _text_or_bytes(self, atom: _Run) -> None:
        start = self._position(self.constant)
        if self.constant and atom.mode is not Mode.TRUST:
            start = self.source.name("o")
            self._line(f"{start} = {self._position(self.constant)}")
        end = self.source.name("o")
        self._line(f"{end} = {start} + {atom.length}")
        if atom.mode in (Mode.VALUE, Mode.KEY):
            slice_ = f"buf[{start}:{end}]"
            self._line(f"{atom.name} = " + (f"str({slice_}, 'utf-8')" if atom.is_text else slice_))
        elif atom.mode is Mode.CHECK and atom.is_text:
            self._line(f"str(buf[{start}:{end}], 'utf-8')")
        self._move(end, True)

    def _jump(self, atom: _Jump) -> None:
        end = self.source.name("o")
        depth = self.deeper if atom.is_recursive else self.same
        target = f"{atom.name}, {end}" if atom.function.endswith(("_v", "_k")) else end
        self._line(f"{target} = {atom.function}(buf, {self._position(self.constant)}, {depth})")
        self._move(end, False)

    def _switch(self, switch: _Switch, tail: list[_Atom], value: str | None) -> None:
        """Branch on a tag. With `value` every branch returns; else all meet at one position behind the branches."""
        end = self.source.name("o")
        self._branches(switch, tail, value, end, 0, len(switch.layout.parts))
        if value is None:
            self._move(end, False)

    def _branches(self, switch: _Switch, tail: list[_Atom], value: str | None, end: str, low: int, high: int) -> None:
        if high - low > 4:
            middle = (low + high) // 2
            with self._indented(f"if {switch.tag} < {middle}:"):
                self._branches(switch, tail, value, end, low, middle)
            with self._indented("else:"):
                self._branches(switch, tail, value, end, middle, high)
            return
        for wire_tag in range(low, high):
            keyword = "if" if wire_tag == low else "elif"
            with self._indented(f"{keyword} {switch.tag} == {wire_tag}:"):
                self._branch(switch, wire_tag, tail, value, end)
        if value is not None:
            self._line("fail()")
        else:
            with self._indented("else:"):
                self._line("fail()")

    def _branch(self, switch: _Switch, wire_tag: int, tail: list[_Atom], value: str | None, end: str) -> None:
        saved = self.base, self.constant, self.start, self.is_unproven
        atoms, expression = self._variant(switch, wire_tag)
        if value is not None:
            value = re.sub(rf"\b{switch.name}\b", lambda _: expression, value)
        if not self._read(atoms + tail, value):
            self._prove()
            if switch.mode in (Mode.VALUE, Mode.KEY):
                self._line(f"{switch.name} = {expression}")
            self._line(f"{end} = {self._position(self.constant)}")
        self.base, self.constant, self.start, self.is_unproven = saved

    def _variant(self, switch: _Switch, wire_tag: int) -> tuple[list[_Atom], str]:
        layout, mode = switch.layout, switch.mode
        atoms, value = self.source.atoms(layout.parts[wire_tag], mode, switch.nesting)
        tag = layout.tags[wire_tag]
        if mode is Mode.KEY:
            return atoms, "(1,)" if layout.is_option and tag else f"({tag}, {value})"
        if isinstance(layout.shape, UnionShape):
            return atoms, value
        if layout.is_option:
            some = f"({value},)" if layout.is_wrapped and not isinstance(layout.shape, OptionShape) else value
            return atoms, "None" if tag else some
        return atoms, f"({tag}, {value})"

    def _items(self, items: _Items) -> None:
        layout = items.layout
        part = layout.part if isinstance(layout, List) else Tuple([layout.key, layout.value])
        least = min_size(part, self.source.layouts)
        atoms, value = self.source.atoms(part, items.mode, items.nesting)
        if least == 0:
            self._line(f"if {items.length} > {ZERO_SIZE_COUNT_MAX}: fail()")
            if items.mode in (Mode.VALUE, Mode.KEY):
                self._line(f"{items.name} = [{value}] * {items.length}")
        elif all(isinstance(atom, _Field) for atom in atoms):
            self._fixed_items(items, [atom for atom in atoms if isinstance(atom, _Field)], value)
        else:
            self._loop(items, atoms, value, least)
        if isinstance(layout, Pairs) and items.mode in (Mode.VALUE, Mode.KEY):
            self._line(f"{items.name} = ordered_pairs({items.name}, {self._pair_key(layout, items.mode)})")

    def _pair_key(self, layout: Pairs, mode: Mode) -> str:
        from stdb.sats.keys import value_key

        if mode is Mode.KEY:
            return "None"
        return self.source.constant(value_key(layout.key_type, self.source.layouts.typespace))

    def _fixed_items(self, items: _Items, fields: list[_Field], value: str) -> None:
        """Read elements of fixed size, all at once where the values need no work."""
        size = sum(atom.size for atom in fields)
        start, end = self.source.name("o"), self.source.name("o")
        self._line(f"{start} = {self._position(self.constant)}")
        self._line(f"{end} = {start} + {items.length} * {size}")
        names = [atom.name for atom in fields if atom.name is not None]
        self._move(end, True)
        if not names and items.mode in (Mode.CHECK, Mode.TRUST):
            return
        self._prove()
        each = f"{self.source.struct(_merged(fields), 'iter_unpack')}(buf[{start}:{end}])"
        target = f"{', '.join(names)}," if names else "_"
        if items.mode is Mode.CHECK:
            with self._indented(f"for {target} in {each}:"):
                for atom in fields:
                    if atom.check is not None:
                        self._line(atom.check)
            return
        checks = [atom.check for atom in fields if atom.check is not None]
        if len(fields) == 1 and value == names[0] and fields[0].format in _NUMBERS:
            whole = f"list(unpack_from(f'<{{{items.length}}}{fields[0].format}', buf, {start}))"
        elif not checks and value == f"({', '.join(names)},)":
            whole = f"list({each})"
        elif checks:
            whole = f"[{value} for {target} in {each} if {' and '.join(f'({check})' for check in checks)}]"
        else:
            whole = f"[{value} for {target} in {each}]"
        self._line(f"{items.name} = {whole}")

    def _loop(self, items: _Items, atoms: list[_Atom], value: str, least: int) -> None:
        position, append = self.source.name("o"), self.source.name("a")
        self._line(f"{position} = {self._position(self.constant)}")
        self._line(f"if {items.length} * {least} > len(buf) - {position}: fail()")
        keeps = items.mode in (Mode.VALUE, Mode.KEY)
        if keeps:
            self._line(f"{items.name} = []")
            self._line(f"{append} = {items.name}.append")
        self._move(position, False)
        with self._indented(f"for _ in range({items.length}):"):
            self._read(atoms, None)
            if keeps:
                self._line(f"{append}({value})")
            self._line(f"{position} = {self._position(self.constant)}")
            is_unproven = self.is_unproven
        self._move(position, is_unproven)


def _merged(run: list[_Field]) -> str:
    """Return the format of a run: equal numbers counted, unwanted fields as padding."""
    parts: list[tuple[int, str]] = []
    for atom in run:
        letter = atom.format if atom.name is not None else "x"
        count = 1 if atom.name is not None else atom.size
        if parts and parts[-1][1] == letter and (letter == "x" or letter in _NUMBERS):
            parts[-1] = parts[-1][0] + count, letter
        else:
            parts.append((count, letter))
    return "".join(letter if count == 1 else f"{count}{letter}" for count, letter in parts)
