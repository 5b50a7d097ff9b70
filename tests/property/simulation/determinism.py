"""Chance and time taken out: everything that differs between two runs of a server follows from a seed instead.

Responsible for: trio's scheduling order, stopwatches (they decide where a turn of an actor ends), entropy.
Not responsible for: the wall's clock, which the server is handed; `trio.testing.MockClock`, which all of it runs on.

Why a generator of our own and not Hypothesis: a failing run must come back from one number, in another process, on
another machine, after the code under test has changed, and a run of ten minutes must not be cut into examples of a size
that shrinking can bear. Hypothesis replays through a database or a blob that belongs to one version of the strategies,
and shrinks by running hundreds of variants; what we shrink by is the length of a run (`--steps`). Its own seeding of
trio is repeated here, because it only holds within its examples.
"""

import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha512
from random import Random
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import trio._core._run as trio_run

from stdb.actors import host
from stdb.net import routes_subscribe, routing

__all__ = ["PlainKey", "Stopwatch", "deterministic"]

_HEADER = b'{"typ":"JWT","alg":"ES256"}'
_LONG_SECONDS = 0.003
"""Longer than any slice or turn may take: what is measured so ends at once."""


class Stopwatch:
    """Takes the place of `time.perf_counter`: every look at it takes a little time, and now and then a lot."""

    def __init__(self, random: Random, pauses: float) -> None:
        self._random = random
        self._pauses = pauses
        self._now = 1000.0

    def __call__(self) -> float:
        """Return seconds; `pauses` is how likely it is that a slice is over since the last look."""
        self._now += _LONG_SECONDS if self._random.random() < self._pauses else 1e-6
        return self._now


class PlainKey:
    """Takes the place of the server's key, whose signatures differ from one to the next."""

    def sign(self, payload: str) -> str:
        """Return the token over exactly this payload text."""
        message = f"{_encode(_HEADER)}.{_encode(payload.encode())}"
        return f"{message}.{_encode(sha512(message.encode()).digest())}"

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Tell whether this key signed a message."""
        return sha512(message).digest() == signature


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@contextmanager
def deterministic(seed: int, pauses: float) -> Iterator[None]:
    """Have everything follow from `seed` within the block; afterwards all is as it was."""
    random = Random(f"chance {seed}")
    entropy = Random(f"entropy {seed}")
    watch = Stopwatch(random, pauses)
    undo: list[tuple[Any, str, Any]] = []

    def put(place: Any, name: str, value: Any) -> None:
        undo.append((place, name, getattr(place, name)))
        setattr(place, name, value)

    for name, module in list(sys.modules.items()):
        if name.startswith("stdb.") and getattr(module, "perf_counter", None) is perf_counter:
            put(module, "perf_counter", watch)
    put(host, "os", SimpleNamespace(urandom=entropy.randbytes))
    for module in (routes_subscribe, routing):
        put(module, "secrets", SimpleNamespace(token_bytes=entropy.randbytes))
    put(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    order = trio_run._r.getstate()
    trio_run._r.seed(seed)
    try:
        yield
    finally:
        trio_run._r.setstate(order)
        for place, name, value in reversed(undo):
            setattr(place, name, value)
