"""Metrics: numbers for Prometheus, under the names that the reference's ecosystem knows.

Responsible for: counters that the network keeps, reading gauges off the host, the exposition text.
Not responsible for: what the numbers count (`front_door`, `actors`).

Source: spec 05 section 1.3.3 and the recorded names. Only what we really count is shown.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from stdb.actors.refusals import DatabaseUnavailable

if TYPE_CHECKING:
    from stdb.actors.handle import DatabaseHandle
    from stdb.actors.host import Host

__all__ = ["Counter", "exposition"]


class Counter:
    """A number per database that only grows; `kind` is the word the reference calls it."""

    def __init__(self, name: str, label: str, about: str, kind: str = "counter") -> None:
        self.name = name
        self.label = label
        self.about = about
        self.kind = kind
        self._values: dict[bytes, int] = {}

    def add(self, identity: bytes, amount: int = 1) -> None:
        """Count `amount` for a database."""
        self._values[identity] = self._values.get(identity, 0) + amount

    def lines(self, living: Iterable[bytes]) -> Iterable[str]:
        """Return the lines of the exposition; a database that is gone is forgotten."""
        self._values = {identity: self._values[identity] for identity in living if identity in self._values}
        yield from _head(self.name, self.kind, self.about)
        for identity, value in self._values.items():
            yield f'{self.name}{{{self.label}="{identity[::-1].hex()}"}} {value}'


def exposition(host: "Host", counters: Iterable[Counter]) -> str:
    """Return all numbers as Prometheus reads them."""
    living = [handle.identity for handle in host.databases()]
    lines = [line for counter in counters for line in counter.lines(living)]
    for name, label, about, read in _GAUGES:
        lines.extend(_head(name, "gauge", about))
        for handle in host.databases():
            lines.append(f'{name}{{{label}="{handle.identity[::-1].hex()}"}} {read(handle)}')
    return "\n".join(lines) + "\n"


def _head(name: str, kind: str, about: str) -> tuple[str, str]:
    return f"# HELP {name} {about}", f"# TYPE {name} {kind}"


def _instances(handle: "DatabaseHandle") -> int:
    try:
        return 1 if handle.definition else 0
    except DatabaseUnavailable:
        return 0


_GAUGES: tuple[tuple[str, str, str, "Callable[[DatabaseHandle], int]"], ...] = (
    (
        "spacetime_worker_connected_clients",
        "database_identity",
        "Clients connected over WebSocket right now",
        lambda handle: handle.client_count,
    ),
    ("spacetime_module_instances", "database_identity", "Running instances of the module", _instances),
)
