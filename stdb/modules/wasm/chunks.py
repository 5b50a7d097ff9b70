"""Chunks: rows as a guest reads them through an iterator, some whole ones at a time.

Responsible for: how rows are joined, filling a guest's buffer with as many chunks as it holds.
Not responsible for: the numbers of iterators (`handles`), which rows one has (`tables`).

Source: spec 04 sections 3.3 and 9.
"""

from collections.abc import Iterable

from stdb.modules.wasm.memory import LinearMemory

__all__ = ["CHUNK_BYTES", "chunks_of", "fill_chunks"]

CHUNK_BYTES = 32_768
"""A chunk of rows is closed by the row that makes it longer than this."""


def chunks_of(rows: Iterable[bytes]) -> list[bytes]:
    """Return rows as chunks, in reverse: the first one is the last."""
    chunks: list[bytes] = []
    part: list[bytes] = []
    size = 0
    for row in rows:
        part.append(row)
        size += len(row)
        if size > CHUNK_BYTES:
            chunks.append(b"".join(part))
            part, size = [], 0
    if part:
        chunks.append(b"".join(part))
    chunks.reverse()
    return chunks


def fill_chunks(memory: LinearMemory, chunks: list[bytes], buffer: int, length_at: int) -> bool:
    """Write as many chunks as a buffer holds whose size stands at `length_at`, and how much that was; take them off.

    False: not even the next one fits; how much it takes was written.
    """
    left = memory.read_u32(length_at)
    memory.read(buffer, 0)
    count, size = 0, 0
    while count < len(chunks) and size + len(chunks[-1 - count]) <= left:
        size += len(chunks[-1 - count])
        count += 1
    if not count and chunks:
        memory.write_u32(length_at, len(chunks[-1]))
        return False
    memory.write(buffer, b"".join(reversed(chunks[len(chunks) - count :])))
    memory.write_u32(length_at, size)
    del chunks[len(chunks) - count :]
    return True
