"""The cache of compiled programs: what compiling WebAssembly made, kept beside the databases between two runs.

Responsible for: one file a program, whole or not there; throwing away what was not used for longest.
Not responsible for: compiling (`stdb.modules.wasm.engine`), whether code fits this machine (wasmtime looks).

A file is BLAKE3 of all that follows, 32 bytes, then the code. Whoever can write here can run code in the server, as
everywhere in the data directory. Nothing is lost with a file: the program is in its database.
"""

import contextlib
import os
from pathlib import Path

from blake3 import blake3

__all__ = ["CACHED_BYTES_MAX", "CompiledCacheDirectory"]

CACHED_BYTES_MAX = 256 << 20
"""All files together."""
_DIGEST_BYTES = 32


class CompiledCacheDirectory:
    """A `stdb.modules.wasm.engine.CompiledCache` in a directory, which is made when something is put there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, program_hash: bytes) -> bytes | None:
        """Return what was put there for a program; None if there is nothing, or it is damaged."""
        path = self._file(program_hash)
        try:
            kept = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        digest, compiled = kept[:_DIGEST_BYTES], kept[_DIGEST_BYTES:]
        return compiled if blake3(compiled).digest() == digest else None

    def put(self, program_hash: bytes, compiled: bytes) -> None:
        """Keep a compiled program. Where that cannot be done it is not: it will be compiled again."""
        path = self._file(program_hash)
        half = path.with_suffix(".new")
        with contextlib.suppress(OSError):
            self._path.mkdir(exist_ok=True)
            half.write_bytes(blake3(compiled).digest() + compiled)
            half.replace(path)
            self._shrink()

    def _file(self, program_hash: bytes) -> Path:
        return self._path / f"{program_hash.hex()}.compiled"

    def _shrink(self) -> None:
        files = sorted((each.stat().st_mtime, each.stat().st_size, each) for each in self._path.glob("*.compiled"))
        size = sum(bytes_ for _, bytes_, _ in files)
        for _, bytes_, path in files:
            if size <= CACHED_BYTES_MAX:
                return
            path.unlink(missing_ok=True)
            size -= bytes_
