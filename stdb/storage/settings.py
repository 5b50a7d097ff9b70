"""Settings of one server: `config.toml` of the data directory, decoded once into frozen values.

Responsible for: the keys of spec 05 section 5.3 that mean something here, our own under `[stdb]` and, about the
requests of modules, `[module-http]`, durations.
Not responsible for: flags of the command line (they are laid over these by `replace`), where the file is.

Unknown tables and keys are ignored, as in the reference; wrong types and bad TOML stop the start.
"""

import ipaddress
import re
import tomllib
from typing import Any, Literal

import msgspec

from stdb.errors import StorageError

__all__ = [
    "CertificateAuthority",
    "Issuer",
    "ModuleHttp",
    "Own",
    "Settings",
    "Websocket",
    "parse_duration",
    "parse_settings",
]

_UNIT_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_DURATION = re.compile(r"(\d+)\s*([a-z]+)\s*", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds of a human duration such as `250ms`, `1m 30s`.

    Raises:
        ValueError: The text is none; says what was expected and where.
    """
    seconds, position = 0.0, 0
    while position < len(text) or not text:
        match = _DURATION.match(text, position)
        if match is None:
            raise ValueError(f"expected number at {position}")
        if match[2] not in _UNIT_SECONDS:
            raise ValueError(f'unknown time unit "{match[2]}", supported units: ns, us, ms, s, m, h, d')
        seconds += int(match[1]) * _UNIT_SECONDS[match[2]]
        position = match.end()
    return seconds


class CertificateAuthority(msgspec.Struct, frozen=True, rename="kebab"):
    """Where the signing keys are, when not in the data directory: both or neither."""

    jwt_priv_key_path: str | None = None
    jwt_pub_key_path: str | None = None


class Websocket(msgspec.Struct, frozen=True, rename="kebab"):
    """Limits of client connections; durations such as `15s`."""

    ping_interval: str = "15s"
    idle_timeout: str = "30s"
    close_handshake_timeout: str = "250ms"
    incoming_queue_length: int = 16384

    def __post_init__(self) -> None:
        if not (self.ping_seconds and self.idle_seconds_max and self.incoming_queue_length > 0):
            raise ValueError("ping-interval, idle-timeout and incoming-queue-length must be above 0")
        parse_duration(self.close_handshake_timeout)

    @property
    def ping_seconds(self) -> float:
        """Return the time between two pings."""
        return parse_duration(self.ping_interval)

    @property
    def idle_seconds_max(self) -> float:
        """Return how long a client may be silent before it is dropped."""
        return parse_duration(self.idle_timeout)

    @property
    def close_seconds_max(self) -> float:
        """Return how long the server waits for the answer to its Close frame."""
        return parse_duration(self.close_handshake_timeout)


class Issuer(msgspec.Struct, frozen=True, rename="kebab"):
    """An OIDC issuer whose tokens are accepted (spec 05 section 2.4); the exact text of its `iss` claim."""

    url: str
    allow_http: bool = False
    """Plain http instead of https."""
    allow_private: bool = False
    """Loopback and private addresses, for tests and inner networks."""


class ModuleHttp(msgspec.Struct, frozen=True, rename="kebab"):
    """Requests of modules to other servers."""

    enabled: bool = True
    """Off: none is sent."""
    allowed_networks: tuple[str, ...] = ()
    """Networks that requests may lead to besides the public internet, such as `10.1.0.0/16`."""
    request_bytes_max: int = 32 * 1024 * 1024
    response_bytes_max: int = 32 * 1024 * 1024

    def __post_init__(self) -> None:
        for network in self.allowed_networks:
            ipaddress.ip_network(network)
        if self.request_bytes_max < 0 or self.response_bytes_max < 0:
            raise ValueError("request-bytes-max and response-bytes-max must not be below 0")


class Own(msgspec.Struct, frozen=True, rename="kebab"):
    """What only stdb has: table `[stdb]`."""

    sql: Literal["public", "owner"] = "public"
    """Who may run SQL over HTTP: everybody on public tables, or the owner alone (DESIGN decision 14)."""
    publish_bytes_max: int = 256 * 1024 * 1024
    route_bytes_max: int = 32 * 1024 * 1024
    initial_bytes_max: int = 256 * 1024 * 1024
    query_rows_max: int = 10_000_000
    reducer_timeout: str = "1s"
    issuers: tuple[Issuer, ...] = ()

    def __post_init__(self) -> None:
        parse_duration(self.reducer_timeout)

    @property
    def reducer_seconds_max(self) -> float:
        """Return how long one reducer call may run."""
        return parse_duration(self.reducer_timeout)


class Settings(msgspec.Struct, frozen=True, rename="kebab"):
    """All settings of one server."""

    certificate_authority: CertificateAuthority = CertificateAuthority()
    websocket: Websocket = Websocket()
    module_http: ModuleHttp = ModuleHttp()
    stdb: Own = Own()


def parse_settings(text: str, path: str) -> Settings:
    """Return the settings written in `text`; `path` is what an error names.

    Raises:
        StorageError: Bad TOML, a value of the wrong type, a bad duration.
    """
    try:
        document: dict[str, Any] = tomllib.loads(text)
        return msgspec.convert(document, Settings)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as error:
        raise StorageError(f"invalid TOML syntax in {path}: {error}") from error
