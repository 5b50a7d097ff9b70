"""Compiled programs are kept between runs, whole or not at all."""

from pathlib import Path

import pytest

from stdb.modules.wasm.engine import Engine
from stdb.modules.wasm.loader import load_wasm
from stdb.storage import compiled_cache
from stdb.storage.compiled_cache import CompiledCacheDirectory
from tests.wasm_guests import module_text, wat


def test_a_program_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CompiledCacheDirectory(tmp_path / "cache")
    program = wat(module_text())
    engines = [Engine(), Engine()]
    compiled = [engine.compile(program, b"\1" * 32, cache) for engine in engines]
    assert compiled[0].imports == compiled[1].imports
    monkeypatch.setattr(Engine, "_compiled", lambda *_: pytest.fail("it was compiled again"))
    assert Engine().compile(program, b"\1" * 32, cache).exports == compiled[0].exports


def test_damaged_and_foreign_files_are_compiled_again(tmp_path: Path) -> None:
    cache = CompiledCacheDirectory(tmp_path / "cache")
    assert cache.get(bytes(32)) is None
    cache.put(bytes(32), b"no code of wasmtime")
    assert Engine().compile(wat(module_text()), bytes(32), cache).exports
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.get(bytes(32)) is None
    assert load_wasm(wat(module_text()), lambda: 0, cache=cache).definition.tables == ()


def test_what_was_not_used_for_longest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_cache, "CACHED_BYTES_MAX", 2_500)
    cache = CompiledCacheDirectory(tmp_path)
    for number in range(4):
        cache.put(bytes([number]) * 32, bytes(1_000))
    assert sum(cache.get(bytes([number]) * 32) is not None for number in range(4)) == 2
    assert cache.get(b"\3" * 32) is not None


def test_a_directory_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    cache = CompiledCacheDirectory(tmp_path / "cache")
    cache.put(bytes(32), b"x")
    assert cache.get(bytes(32)) is None
