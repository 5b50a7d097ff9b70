"""A guest's memory as the host reads and writes it: every pointer is checked, growth is seen."""

import pytest

from stdb.modules.wasm.memory import NULL_POINTER, OUT_OF_BOUNDS, LinearMemory
from stdb.modules.wasm.runtime import HostTrap

SIZE = 64


def memory_of(data: bytearray) -> LinearMemory:
    return LinearMemory(lambda: memoryview(data))


def sized(at: int, size: int) -> bytearray:
    """Memory with the size of a buffer at `at`."""
    data = bytearray(SIZE)
    data[at : at + 4] = size.to_bytes(4, "little")
    return data


def test_a_buffer_is_filled_and_its_length_written_back() -> None:
    data = sized(8, 20)
    assert memory_of(data).fill(16, b"abcde", 8)
    assert data[16:22] == b"abcde\0"
    assert data[8:12] == (5).to_bytes(4, "little")


@pytest.mark.parametrize("size", [0, 4])
def test_what_does_not_fit_into_a_buffer_writes_nothing(size: int) -> None:
    data = sized(8, size)
    before = bytes(data)
    assert not memory_of(data).fill(16, b"abcde", 8)
    assert data == before


@pytest.mark.parametrize(
    ("pointer", "length_at", "text"),
    [
        (0, 8, NULL_POINTER),
        (16, 0, NULL_POINTER),
        (SIZE - 4, 8, OUT_OF_BOUNDS),
        (0xFFFFFFFF, 8, OUT_OF_BOUNDS),
        (16, SIZE - 3, OUT_OF_BOUNDS),
        (16, 0xFFFFFFFF, OUT_OF_BOUNDS),
    ],
)
def test_a_buffer_that_is_not_within_the_memory_traps_and_nothing_is_written(
    pointer: int, length_at: int, text: str
) -> None:
    data = sized(8, 20)
    before = bytes(data)
    with pytest.raises(HostTrap, match=text):
        memory_of(data).fill(pointer, b"abcde", length_at)
    assert data == before


@pytest.mark.parametrize(
    ("pointer", "length_at", "text"),
    [
        (0, 8, NULL_POINTER),
        (16, 0, NULL_POINTER),
        (SIZE - 19, 8, OUT_OF_BOUNDS),
        (0xFFFFFFFF, 8, OUT_OF_BOUNDS),
        (16, SIZE - 3, OUT_OF_BOUNDS),
    ],
)
def test_bytes_of_a_length_in_memory_are_read_within_it_alone(pointer: int, length_at: int, text: str) -> None:
    data = sized(8, 20)
    assert memory_of(data).read_sized(SIZE - 20, 8) == bytes(20)
    with pytest.raises(HostTrap, match=text):
        memory_of(data).read_sized(pointer, length_at)


def test_memory_that_has_grown_is_looked_at_again() -> None:
    small, large = sized(8, 20), sized(8, 20) + bytearray(SIZE)
    views = [memoryview(small), memoryview(large)]
    memory = LinearMemory(lambda: views.pop(0))
    memory.refresh()
    assert memory.fill(SIZE, b"abcde", 8)
    assert large[SIZE : SIZE + 5] == b"abcde"
    assert memory.read_sized(SIZE, 8) == b"abcde"


def test_memory_that_was_let_go_holds_nothing() -> None:
    memory = memory_of(sized(8, 20))
    memory.refresh()
    memory.close()
    with pytest.raises(HostTrap, match=OUT_OF_BOUNDS):
        memory.fill(16, b"", 8)
