"""Templates: what `init` writes into an empty directory, a chat of one room to begin with.

A Rust project is pinned to a version of the official crate whose functions of the host this server has.
"""

import re

__all__ = ["CRATE_VERSION", "LANGUAGES", "crate_name", "database_name", "files"]

CRATE_VERSION = "2.8.3"
"""Of the crate `spacetimedb`: it compiles to ABI 10.5."""
_RUST_VERSION = "1.93"
"""The oldest compiler that takes that crate."""

LANGUAGES = ("rust", "python")

_CARGO_TOML = """\
[package]
name = "{name}"
version = "0.1.0"
edition = "2021"
rust-version = "{rust_version}"
resolver = "3"
publish = false

[lib]
crate-type = ["cdylib"]

[dependencies]
spacetimedb = "={crate_version}"
log = "0.4"
"""

_LIB_RS = """\
//! A chat of one room. `python -m stdb publish {database}` in this directory builds and publishes it.

use spacetimedb::{{reducer, table, Identity, ReducerContext, Table, Timestamp}};

/// What was said. Every client may subscribe to it, as the table is public.
#[table(accessor = message, public)]
pub struct Message {{
    #[primary_key]
    #[auto_inc]
    pub id: u64,
    pub sender: Identity,
    pub sent: Timestamp,
    pub text: String,
}}

/// Runs once, when the database is created.
#[reducer(init)]
pub fn init(_ctx: &ReducerContext) {{
    log::info!("the room is open");
}}

/// A reducer is one transaction: when it returns an error, nothing it did has happened.
#[reducer]
pub fn send_message(ctx: &ReducerContext, text: String) -> Result<(), String> {{
    if text.trim().is_empty() {{
        return Err("a message must not be empty".to_string());
    }}
    let (sender, sent) = (ctx.sender(), ctx.timestamp);
    ctx.db.message().insert(Message {{ id: 0, sender, sent, text }});
    Ok(())
}}
"""

_INIT_PY = '''\
"""A chat of one room. `python -m stdb publish {database}` in this directory publishes it."""

import logging

from stdb import Identity, ReducerContext, SenderError, Timestamp, init, primary_key, reducer, table, u64


@table(public=True)
class Message:
    """What was said. Every client may subscribe to it, as the table is public."""

    id: u64 = primary_key(auto_inc=True)
    sender: Identity
    sent: Timestamp
    text: str


@init
def opened(ctx: ReducerContext) -> None:
    """Runs once, when the database is created."""
    logging.info("the room is open")


@reducer
def send_message(ctx: ReducerContext, text: str) -> None:
    """A reducer is one transaction: when it raises, nothing it did has happened."""
    if not text.strip():
        raise SenderError("a message must not be empty")
    ctx.db[Message].insert(Message(sender=ctx.sender, sent=ctx.timestamp, text=text))
'''

_FILES = {
    "rust": {"Cargo.toml": _CARGO_TOML, "src/lib.rs": _LIB_RS, ".gitignore": "/target/\n"},
    "python": {"__init__.py": _INIT_PY, ".gitignore": "__pycache__/\n"},
}

_NO_CRATE_NAMES = frozenset(
    (
        *("abstract", "alloc", "as", "async", "await", "become", "box", "break", "const", "continue", "core", "crate"),
        *("do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let"),
        *("log", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "proc-macro", "pub", "ref"),
        *("return", "self", "spacetimedb", "static", "std", "struct", "super", "test", "trait", "true", "try", "type"),
        *("typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield"),
    )
)
"""Words of the language, its own crates, and the crates that a new project uses."""


def files(language: str, name: str) -> dict[str, str]:
    """Return the files of a new project by `/`-separated path; `name` is what its user calls it."""
    words = {
        "name": crate_name(name),
        "database": database_name(name),
        "crate_version": CRATE_VERSION,
        "rust_version": _RUST_VERSION,
    }
    return {path: text.format_map(words) for path, text in _FILES[language].items()}


def crate_name(name: str) -> str:
    """Return a name that cargo takes."""
    made = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_")
    return f"{made or 'my'}-module" if made in _NO_CRATE_NAMES or not made[:1].isalpha() else made


def database_name(name: str) -> str:
    """Return a name that a database can have."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "my-module"
