"""The plain twin of the generated codecs: slow, iterative, and able to say what is wrong.

Responsible for: the error of bytes that do not decode, in the words of the reference; the error of a value that does
not encode, with its path; encoding the few values that the fast path leaves alone (an F32 too large is infinity).
Not responsible for: values (`bsatn_decoder` and `bsatn_encoder` make them; tests hold both to this).

Texts: spec 02 sections 11.1 and 11.2, spec 01 section 13; nothing here recurses, whatever the input.
"""

import struct
from reprlib import Repr
from typing import Any, NamedTuple

from stdb.errors import DecodeError, EncodeError
from stdb.sats.bsatn_decoder import DEPTH_MAX, ZERO_SIZE_COUNT_MAX
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
from stdb.sats.objects import Converted, EnumShape, ObjectShape, OptionShape, UnionShape

__all__ = ["encode", "skip"]

_SHORT_NAMES = {
    "b": "i8", "B": "u8", "?": "u8", "h": "i16", "H": "u16", "i": "i32", "I": "u32", "q": "i64", "Q": "u64",
    "f": "u32", "d": "u64",
}  # fmt: skip
_INTEGER_NAMES = {"b": "i8", "B": "u8", "h": "i16", "H": "u16", "i": "i32", "I": "u32", "q": "i64", "Q": "u64"}
_BITS = {"b": 8, "B": 8, "h": 16, "H": 16, "i": 32, "I": 32, "q": 64, "Q": 64}
_TOO_DEEP = f"nested more than {DEPTH_MAX} levels deep"
_COUNT_MAX = (1 << 32) - 1
_REPR = Repr()
_REPR.maxother = _REPR.maxstring = 100
shown = _REPR.repr  # values in messages: never longer than a line, however large or deep they are


def _field_name(layout: Fixed) -> str:
    match layout.kind:
        case FixedKind.SIGNED:
            return f"i{layout.size * 8}"
        case FixedKind.UNSIGNED | FixedKind.RAW:
            return f"u{layout.size * 8}"
        case FixedKind.MICROS:
            return "u64"
    return _SHORT_NAMES[layout.format]


class _Reader:
    """A buffer and how far it is read."""

    def __init__(self, buffer: bytes, offset: int) -> None:
        self.buffer = buffer
        self.offset = offset

    def take(self, size: int, what: str) -> bytes:
        left = max(len(self.buffer) - self.offset, 0)
        if size > left:
            raise DecodeError(f"data too short for {what}: Expected {size}, given {left}", self.offset)
        self.offset += size
        return self.buffer[self.offset - size : self.offset]

    def count(self) -> int:
        return int.from_bytes(self.take(4, "u32"), "little")


def skip(layout: Layout, layouts: Layouts, buffer: bytes, offset: int) -> int:
    """Return where the value at `offset` ends; DecodeError where it is none."""
    reader = _Reader(buffer, offset)
    stack: list[tuple[Layout, int, int]] = [(layout, 1, 0)]
    while stack:
        current, count, depth = stack.pop()
        if count > 1:
            stack.append((current, count - 1, depth))
        if count < 1:
            continue
        match current:
            case Fixed():
                _skip_fixed(current, reader)
            case Text():
                _skip_text(reader)
            case Bytes():
                reader.take(reader.count(), "[u8]")
            case Tuple(parts):
                stack.extend((part, 1, depth) for part in reversed(parts))
            case Choice(parts):
                stack.append((parts[_tag(reader, len(parts))], 1, depth))
            case List(part):
                stack.append((part, _item_count(part, layouts, reader), depth))
            case Pairs(key, value):
                pair = Tuple([key, value])
                stack.append((pair, _item_count(pair, layouts, reader), depth))
            case Call(index, is_recursive):
                if depth + is_recursive > DEPTH_MAX:
                    raise DecodeError(_TOO_DEEP, reader.offset)
                stack.append((layouts.ref(index), 1, depth + is_recursive))
    return reader.offset


def _skip_fixed(layout: Fixed, reader: _Reader) -> None:
    start = reader.offset
    if layout.kind == FixedKind.PREFIXED:
        size = layout.size - 4
        count = reader.count()
        if count != size:
            raise DecodeError(f"expected an array of {size} bytes, given {count}", start)
        reader.take(size, "[u8]")
    elif layout.kind == FixedKind.ENUM:
        _tag(reader, layout.variants)
    else:
        data = reader.take(layout.size, _field_name(layout))
        if layout.kind == FixedKind.BOOL and layout.format == "B" and data[0] > 1:
            raise DecodeError(f"byte {data[0]} not valid as `bool` (must be 0 or 1)", start)


def _skip_text(reader: _Reader) -> None:
    data = reader.take(reader.count(), "[u8]")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError("invalid utf8", reader.offset - len(data) + error.start) from None


def _tag(reader: _Reader, variants: int) -> int:
    start = reader.offset
    tag = reader.take(1, "u8")[0]
    if tag >= variants:
        raise DecodeError(f"unknown tag {tag:#x} for sum type <unknown>", start)
    return tag


def _item_count(part: Layout, layouts: Layouts, reader: _Reader) -> int:
    start = reader.offset
    count = reader.count()
    if count > ZERO_SIZE_COUNT_MAX and min_size(part, layouts) == 0:
        text = f"array of {count} elements without bytes: at most {ZERO_SIZE_COUNT_MAX} are accepted"
        raise DecodeError(text, start)
    return count


class _Path(NamedTuple):
    """Where in the value, as a chain from the inside out."""

    outer: "_Path | None"
    step: str

    def __str__(self) -> str:
        steps, path = [], self
        while path is not None:
            steps.append(path.step)
            path = path.outer  # type: ignore[assignment]  # ends with None
        return "".join(reversed(steps))


def encode(layout: Layout, layouts: Layouts, value: Any) -> bytes:
    """Return the BSATN of `value`; EncodeError, naming the element, where it is none of the type's."""
    pieces: list[bytes] = []
    stack: list[tuple[Layout, Any, _Path, int]] = [(layout, value, _Path(None, "$"), 0)]
    while stack:
        current, item, path, depth = stack.pop()
        item = _unconverted(current, item, path)
        match current:
            case Fixed():
                pieces.append(_fixed_bytes(current, item, path))
            case Text() | Bytes():
                pieces.append(_run_bytes(current, item, path))
            case Tuple():
                stack.extend(reversed(_elements(current, item, path, depth)))
            case Choice():
                wire_tag, payload = _variant(current, item, path)
                pieces.append(bytes([wire_tag]))
                stack.append((current.parts[wire_tag], payload, path, depth))
            case List(part):
                items = _items(item, path)
                pieces.append(struct.pack("<I", len(items)))
                stack.extend((part, items[i], _Path(path, f"[{i}]"), depth) for i in reversed(range(len(items))))
            case Pairs():
                items = _items(item, path)
                pieces.append(struct.pack("<I", len(items)))
                pair = Tuple([current.key, current.value])
                stack.extend((pair, items[i], _Path(path, f"[{i}]"), depth) for i in reversed(range(len(items))))
            case Call(index, is_recursive):
                if depth + is_recursive > DEPTH_MAX:
                    raise EncodeError(f"{path}: {_TOO_DEEP}")
                stack.append((layouts.ref(index), item, path, depth + is_recursive))
    return b"".join(pieces)


def _unconverted(layout: Layout, value: Any, path: _Path) -> Any:
    """Return the plain value of an object with a `Converted` or `EnumShape`."""
    shape = layout.shape
    if isinstance(shape, EnumShape):
        for tag, member in enumerate(shape.members):
            if member is value or member == value:
                return tag, ()
        raise EncodeError(f"{path}: {shown(value)} is none of {', '.join(map(str, shape.members))}")
    if not isinstance(shape, Converted):
        return value
    try:
        return shape.encode(value)
    except (TypeError, AttributeError) as error:
        text = f"expected {shape.expected}, got {shown(value)}" if shape.expected else f"{shown(value)}: {error}"
        raise EncodeError(f"{path}: {text}") from error
    except (ValueError, KeyError, OverflowError) as error:
        raise EncodeError(f"{path}: {shown(value)}: {error}") from error


def _fixed_bytes(layout: Fixed, value: Any, path: _Path) -> bytes:
    match layout.kind:
        case FixedKind.BOOL:
            if value not in (False, True):
                raise EncodeError(f"{path}: expected a bool, got {shown(value)}")
            return b"\x01" if value else b"\x00"
        case FixedKind.ENUM:
            tag, _ = _tagged(value, layout.variants, path)
            if value[1] != ():
                raise EncodeError(f"{path}: variant {tag} carries nothing, got {shown(value[1])}")
            return bytes([tag])
        case FixedKind.FLOAT:
            return _float_bytes(layout, value, path)
        case FixedKind.RAW | FixedKind.PREFIXED:
            return _raw_bytes(layout, value, path)
        case FixedKind.SIGNED | FixedKind.UNSIGNED:
            return _integer_bytes(value, layout.size, layout.kind == FixedKind.SIGNED, _field_name(layout), path)
        case FixedKind.MICROS:
            return _integer_bytes(max(value, 0) if isinstance(value, int) else value, 8, True, "i64", path)
    return _integer_bytes(value, layout.size, layout.format.islower(), _field_name(layout), path)


def _integer_bytes(value: Any, size: int, is_signed: bool, name: str, path: _Path) -> bytes:
    if not hasattr(value, "__index__"):
        raise EncodeError(f"{path}: expected an integer ({name}), got {shown(value)}")
    try:
        return int(value).to_bytes(size, "little", signed=is_signed)
    except OverflowError:
        low = -(1 << size * 8 - 1) if is_signed else 0
        high = (1 << size * 8 - is_signed) - 1
        raise EncodeError(f"{path}: {value} is out of range for {name} ({low} to {high})") from None


def _float_bytes(layout: Fixed, value: Any, path: _Path) -> bytes:
    try:
        number = float(value) if not isinstance(value, str | bytes) else None
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        raise EncodeError(f"{path}: expected a number for f{layout.size * 8}, got {shown(value)}")
    try:
        return struct.pack("<" + layout.format, number)
    except OverflowError:
        return struct.pack("<f", float("inf") if number > 0 else float("-inf"))


def _raw_bytes(layout: Fixed, value: Any, path: _Path) -> bytes:
    is_prefixed = layout.kind == FixedKind.PREFIXED
    size = layout.size - 4 if is_prefixed else layout.size
    if not isinstance(value, bytes | bytearray) or len(value) != size:
        raise EncodeError(f"{path}: expected {size} bytes, got {shown(value)}")
    return struct.pack("<I", size) + bytes(value[::-1]) if is_prefixed else bytes(value)


def _run_bytes(layout: Text | Bytes, value: Any, path: _Path) -> bytes:
    if isinstance(layout, Text):
        if not isinstance(value, str):
            raise EncodeError(f"{path}: expected a str, got {shown(value)}")
        try:
            data = value.encode()
        except UnicodeEncodeError as error:
            text = f"{path}: the text holds a lone surrogate at position {error.start}, which UTF-8 cannot write"
            raise EncodeError(text) from None
    elif isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
    else:
        raise EncodeError(f"{path}: expected bytes, got {shown(value)}")
    if len(data) > _COUNT_MAX:
        raise EncodeError(f"{path}: {len(data)} bytes; at most {_COUNT_MAX} can be written")
    return struct.pack("<I", len(data)) + data


def _elements(layout: Tuple, value: Any, path: _Path, depth: int) -> list[tuple[Layout, Any, _Path, int]]:
    shape = layout.shape
    if isinstance(shape, ObjectShape):
        try:
            values = [getattr(value, name) for name in shape.attributes]
        except AttributeError as error:
            raise EncodeError(f"{path}: {error}") from error
        steps = [f".{name}" for name in shape.attributes]
    else:
        if not isinstance(value, tuple | list) or len(value) != len(layout.parts):
            raise EncodeError(f"{path}: expected a tuple of {len(layout.parts)} values, got {shown(value)}")
        values = list(value)
        steps = [f"[{i}]" for i in range(len(values))]
    return [
        (part, item, _Path(path, step), depth) for part, item, step in zip(layout.parts, values, steps, strict=True)
    ]


def _variant(layout: Choice, value: Any, path: _Path) -> tuple[int, Any]:
    """Return the wire tag and the payload."""
    if isinstance(layout.shape, UnionShape):
        for tag, class_ in enumerate(layout.shape.classes):
            if type(value) is class_:
                return tag, value
        names = " | ".join(class_.__name__ for class_ in layout.shape.classes)
        raise EncodeError(f"{path}: expected {names}, got {shown(value)}")
    if layout.is_option:
        if value is None:
            return 1, ()
        if not layout.is_wrapped or isinstance(layout.shape, OptionShape):
            return 0, value
        if not isinstance(value, tuple) or len(value) != 1:
            raise EncodeError(f"{path}: expected None or a 1-tuple (an option of an option), got {shown(value)}")
        return 0, value[0]
    tag, payload = _tagged(value, len(layout.parts), path)
    return layout.tags.index(tag), payload


def _tagged(value: Any, variants: int, path: _Path) -> tuple[int, Any]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise EncodeError(f"{path}: expected (tag, payload), got {shown(value)}")
    tag, payload = value
    if not isinstance(tag, int) or not 0 <= tag < variants:
        raise EncodeError(f"{path}: {shown(tag)} is no tag of a sum with {variants} variants")
    return tag, payload


def _items(value: Any, path: _Path) -> list[Any]:
    if isinstance(value, str | bytes | bytearray) or not hasattr(value, "__len__"):
        raise EncodeError(f"{path}: expected a list, got {shown(value)}")
    if len(value) > _COUNT_MAX:
        raise EncodeError(f"{path}: {len(value)} elements; at most {_COUNT_MAX} can be written")
    return list(value)
