"""Modules as WebAssembly: what the official toolchains compile, run on wasmtime, unmodified (spec 04)."""
