"""LinearMemory: a guest's memory as the host reads and writes it, every pointer checked.

Responsible for: bounds, NULL, growth, integers in memory.
Not responsible for: where the memory is (`raw`, `public` hand in a view of all of it).

A view of the whole memory is kept: a slice of it costs a tenth of a call into wasmtime. The memory never moves
(`Config.memory_may_move`) and never shrinks, so a view may be short but never long: only when a pointer is outside of
it is the memory asked for its size, and then the pointer is checked again.

Source: spec 04 sections 2 and 11.
"""

from collections.abc import Callable
from struct import Struct

from stdb.modules.wasm.runtime import HostTrap

__all__ = ["NULL_POINTER", "OUT_OF_BOUNDS", "LinearMemory"]

NULL_POINTER = "null pointer passed to a spacetime function"
OUT_OF_BOUNDS = "out of bounds pointer passed to a spacetime function"

_U32, _U64 = Struct("<I"), Struct("<Q")
_get_u32, _set_u32, _set_u64 = _U32.unpack_from, _U32.pack_into, _U64.pack_into


def _nothing() -> memoryview:
    return memoryview(b"")


class LinearMemory:
    """The memory of one guest. `view_of_all` returns a view of as much as there is now; without it there is none."""

    __slots__ = ("_view_of_all", "size", "view")

    def __init__(self, view_of_all: Callable[[], memoryview] = _nothing) -> None:
        self._view_of_all = view_of_all
        self.view = memoryview(b"")
        self.size = 0
        """Bytes of `view`; the memory may be larger by now."""

    def read(self, pointer: int, length: int) -> bytes:
        """Return a copy of `length` bytes. Raises HostTrap: they are not all within the memory."""
        end = pointer + length
        if end > self.size or not pointer:
            self._check(pointer, end)
        return self.view[pointer:end].tobytes()

    def write(self, pointer: int, data: bytes) -> None:
        """Put bytes into the memory. Raises HostTrap: they would not all be within it."""
        end = pointer + len(data)
        if end > self.size or not pointer:
            self._check(pointer, end)
        self.view[pointer:end] = data

    def read_u32(self, pointer: int) -> int:
        """Return the u32 at `pointer`. Raises HostTrap."""
        if pointer + 4 > self.size or not pointer:
            self._check(pointer, pointer + 4)
        number: int = _get_u32(self.view, pointer)[0]
        return number

    def write_u32(self, pointer: int, number: int) -> None:
        """Put a u32 at `pointer`. Raises HostTrap."""
        if pointer + 4 > self.size or not pointer:
            self._check(pointer, pointer + 4)
        _set_u32(self.view, pointer, number)

    def write_u64(self, pointer: int, number: int) -> None:
        """Put a u64 at `pointer`. Raises HostTrap."""
        if pointer + 8 > self.size or not pointer:
            self._check(pointer, pointer + 8)
        _set_u64(self.view, pointer, number)

    def read_sized(self, pointer: int, length_at: int) -> bytes:
        """Return a copy of as many bytes as the u32 at `length_at` says. Raises HostTrap."""
        if length_at + 4 > self.size or not length_at:
            self._check(length_at, length_at + 4)
        end: int = pointer + _get_u32(self.view, length_at)[0]
        if end > self.size or not pointer:
            self._check(pointer, end)
        return self.view[pointer:end].tobytes()

    def fill(self, pointer: int, data: bytes, length_at: int) -> bool:
        """Put bytes into a buffer and their number at `length_at`, where the buffer's size is.

        False, and nothing is written, where they do not fit. Raises HostTrap: something is not within the memory.
        """
        if length_at + 4 > self.size or not length_at:
            self._check(length_at, length_at + 4)
        length = len(data)
        if length > _get_u32(self.view, length_at)[0]:
            return False
        end = pointer + length
        if end > self.size or not pointer:
            self._check(pointer, end)
        view = self.view
        view[pointer:end] = data
        _set_u32(view, length_at, length)
        return True

    def text(self, pointer: int, length: int) -> str:
        """Return a name. Raises HostTrap: it is outside the memory, or no UTF-8."""
        try:
            return self.read(pointer, length).decode()
        except UnicodeDecodeError:
            raise HostTrap("a name passed to a spacetime function is not valid UTF-8") from None

    def lossy_text(self, pointer: int, length: int) -> str | None:
        """Return a text that may be anything; None for NULL. Raises HostTrap: it is outside the memory."""
        return self.read(pointer, length).decode("utf-8", "replace") if pointer else None

    def refresh(self) -> None:
        """Look at the memory again: it may have grown."""
        self.view = self._view_of_all()
        self.size = len(self.view)

    def close(self) -> None:
        """Let go of the memory, which is freed: from now on nothing is within it."""
        self.view = memoryview(b"")
        self.size = 0
        self._view_of_all = _nothing

    def _check(self, pointer: int, end: int) -> None:
        if not pointer:
            raise HostTrap(NULL_POINTER)
        self.refresh()
        if end > self.size:
            raise HostTrap(OUT_OF_BOUNDS)
