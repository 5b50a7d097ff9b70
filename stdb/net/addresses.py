"""Addresses: which ones requests of modules may lead to, and what a name leads to.

Responsible for: telling addresses of the public internet from all others, networks that the configuration allows,
looking up names without standing in anybody's way.
Not responsible for: connecting (`http_client`).

The lists are the special-purpose registries of IANA (RFC 6890), written out: what Python's `is_global` says differs
between its versions, and takes multicast and translated addresses for public ones.
"""

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import trio

__all__ = ["Address", "Networks", "Resolve", "SocketAddress", "is_public", "literal", "resolve"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOKUPS_MAX = 16
"""Look-ups at once in one server; each takes a thread for as long as the resolver of the system does."""
ADDRESSES_MAX = 8
"""Addresses of one name that are looked at."""

_SPECIAL_V4 = [
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a carrier's NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, and the metadata services of clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocols
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
]
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""Everything else is loopback, link-local, private, multicast or a translation: `::ffff:0:0/96`, `64:ff9b::/96`."""
_SPECIAL_V6 = [
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocols, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NUMBERS = re.compile(r"(?:[0-9a-fA-FxX]+\.)*[0-9][0-9a-fA-FxX]*\.?\Z")


class SocketAddress(NamedTuple):
    """Where a connection can be made to, as the socket library takes it."""

    family: int
    address: Any

    @property
    def ip(self) -> Address:
        """Return the address itself, without port and scope."""
        return ipaddress.ip_address(str(self.address[0]).partition("%")[0])


Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[SocketAddress]]]
"""Returns what a name and a port lead to. Raises OSError, UnicodeError: the name leads nowhere, or is none."""


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to the public internet, and to nobody's inner network."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    return address in _GLOBAL_UNICAST and not any(address in network for network in _SPECIAL_V6)


class Networks:
    """The networks that requests may lead to besides the public internet."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        self._networks: list[Network] = [ipaddress.ip_network(text) for text in networks]

    def permit(self, address: Address) -> bool:
        """Tell whether requests may lead to an address.

        Where the translation of IPv4 (NAT64) is allowed, the IPv4 address inside has to be permitted too.
        """
        if is_public(address):
            return True
        if not any(address in network for network in self._networks):
            return False
        inner = ipaddress.IPv4Address(address.packed[12:]) if address.version == 6 and address in _NAT64 else None
        return inner is None or self.permit(inner)


def literal(host: str) -> Address | None:
    """Return the address that a host is written as, in any form that the socket library takes (`127.1`, `0x7f.1`)."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host.removesuffix("."))) if _NUMBERS.match(host) else None
    except OSError:
        return None


async def resolve(host: str, port: int, limiter: trio.CapacityLimiter) -> Sequence[SocketAddress]:
    """Return what the system's resolver says, asked in a thread; who gives up waiting does so at once.

    Raises:
        OSError, UnicodeError: The name leads nowhere, or is none.
    """
    found = await trio.to_thread.run_sync(_look_up, host, port, limiter=limiter, abandon_on_cancel=True)
    return found[:ADDRESSES_MAX]


def _look_up(host: str, port: int) -> list[SocketAddress]:
    kind, protocol = socket.SOCK_STREAM, socket.IPPROTO_TCP
    found = socket.getaddrinfo(host, port, type=kind, proto=protocol)
    return [SocketAddress(family, address) for family, _, _, _, address in found]
