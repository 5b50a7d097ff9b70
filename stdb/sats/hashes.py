"""Hashes that the protocols and identities are made of.

Responsible for: Keccak-256 (programs, migration tokens, 0.11 identities) and BLAKE3 (identities from 1.0 on).
Not responsible for: what is hashed (`special`, `schema`, `modules`).

Source: spec 01 section 8. Keccak-256 has the original padding; `hashlib.sha3_256` differs.
"""

from blake3 import blake3
from Crypto.Hash import keccak

__all__ = ["blake3_256", "keccak256"]


def keccak256(data: bytes) -> bytes:
    """Return the 32-byte Keccak-256 digest of `data`, in digest (text) order."""
    digest: bytes = keccak.new(data=data, digest_bits=256).digest()
    return digest


def blake3_256(data: bytes) -> bytes:
    """Return the 32-byte BLAKE3 digest of `data`."""
    return blake3(data).digest()
