"""Open hosts: which hosts a test has open, and which it left by an exception.

Responsible for: the seam between hosts and whoever keeps the databases of failed tests (`plugin`).
Not responsible for: keeping them (`keeping`). Imports nothing: pytest loads it in every run.
"""

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Savable", "closed", "failed", "open_hosts", "opened", "when_failed"]


class Savable(Protocol):
    """A host whose database can be written down."""

    def save(self, directory: str) -> Any:
        """Write it as a data directory."""


open_hosts: list[Savable] = []
"""Hosts that are open, oldest first."""
when_failed: list[Callable[[Savable], None]] = []
"""Told of a host whose `with` was left by an exception, before it is closed."""


def opened(host: Savable) -> None:
    """Note a new host."""
    open_hosts.append(host)


def closed(host: Savable) -> None:
    """Forget a host."""
    if host in open_hosts:
        open_hosts.remove(host)


def failed(host: Savable) -> None:
    """Tell of a host that is left by an exception."""
    for tell in when_failed:
        tell(host)
