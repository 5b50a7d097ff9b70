"""Hashes that the protocols and identities are made of.

Responsible for: Keccak-256 (programs, migration tokens, 0.11 identities) and BLAKE3 (identities from 1.0 on).
Not responsible for: what is hashed (`special`, `schema`, `modules`).

Source: spec 01 section 8. Keccak-256 has the original padding; `hashlib.sha3_256` differs.
"""

from blake3 import blake3
from Crypto.Hash import keccak

__all__ = ["blake3_256", "keccak256"]

_PIECE_BYTES = 32_768
"""Hashed in less than a millisecond."""


def keccak256(data: bytes) -> bytes:
    """Return the 32-byte Keccak-256 digest of `data`, in digest (text) order.

    Of a program it takes many milliseconds, in which the library holds the interpreter: it is done in pieces, between
    which other threads run.
    """
    if len(data) <= _PIECE_BYTES:
        digest: bytes = keccak.new(data=data, digest_bits=256).digest()
        return digest
    running = keccak.new(digest_bits=256)
    view = memoryview(data)
    for start in range(0, len(data), _PIECE_BYTES):
        running.update(view[start : start + _PIECE_BYTES])
    whole: bytes = running.digest()
    return whole


def blake3_256(data: bytes) -> bytes:
    """Return the 32-byte BLAKE3 digest of `data`."""
    return blake3(data).digest()
