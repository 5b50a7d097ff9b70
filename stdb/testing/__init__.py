"""Test a module: a database in memory for every test, clients, virtual time, restarts (docs/testing.md).

Names are loaded when they are first used: pytest imports this package in every run.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stdb.actors.refusals import ConnectRefused, NoSuchFunction, PublishFailed, UpdateRejected
    from stdb.errors import ModuleFault, QueryError, SchemaError
    from stdb.modules.protocol import HttpRequest, HttpResponse
    from stdb.testing.async_host import AsyncClient, AsyncTestHost
    from stdb.testing.caches import Update
    from stdb.testing.clients import Outcome
    from stdb.testing.clock import VirtualClock
    from stdb.testing.http import FakeHttp
    from stdb.testing.machines import ModuleMachine, state_machine
    from stdb.testing.running import LogLine
    from stdb.testing.tables import TableView
    from stdb.testing.test_host import Client, TestHost

__all__ = [
    "AsyncClient",
    "AsyncTestHost",
    "Client",
    "ConnectRefused",
    "FakeHttp",
    "HttpRequest",
    "HttpResponse",
    "LogLine",
    "ModuleFault",
    "ModuleMachine",
    "NoSuchFunction",
    "Outcome",
    "PublishFailed",
    "QueryError",
    "SchemaError",
    "TableView",
    "TestHost",
    "Update",
    "UpdateRejected",
    "VirtualClock",
    "state_machine",
]

_HOMES = {
    "stdb.actors.refusals": ("ConnectRefused", "NoSuchFunction", "PublishFailed", "UpdateRejected"),
    "stdb.errors": ("ModuleFault", "QueryError", "SchemaError"),
    "stdb.modules.protocol": ("HttpRequest", "HttpResponse"),
    "stdb.testing.async_host": ("AsyncClient", "AsyncTestHost"),
    "stdb.testing.caches": ("Update",),
    "stdb.testing.clients": ("Outcome",),
    "stdb.testing.clock": ("VirtualClock",),
    "stdb.testing.http": ("FakeHttp",),
    "stdb.testing.machines": ("ModuleMachine", "state_machine"),
    "stdb.testing.running": ("LogLine",),
    "stdb.testing.tables": ("TableView",),
    "stdb.testing.test_host": ("Client", "TestHost"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stdb.testing' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
