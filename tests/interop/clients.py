"""A database with a module of `modules/` and connected programs around npm SDKs, as tests speak of them."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from stdb.modules.python.archive import pack
from tests.interop.processes import WAIT_SECONDS, NodeDriver, Server

__all__ = ["Client", "Connect", "Database", "Row", "connecting", "in_order"]

NUMBERS = count()

Row = dict[str, Any]


class Database:
    """A fresh database; its owner is the operator of the server."""

    def __init__(self, server: Server, module: str, wasm: bytes | None = None) -> None:
        """Publish a module of `modules/`, or a program."""
        self.server = server
        self.name = f"{module.replace('_', '-')}-{next(NUMBERS)}"
        if wasm is None:
            source = Path(__file__).parent / "modules" / f"{module}.py"
            self.publish(pack({source.name: source.read_bytes()}), "Python")
        else:
            self.publish(wasm)

    def publish(self, program: bytes, host_type: str = "Wasm") -> None:
        """Publish a program, over the one that is there."""
        self.server.ask("PUT", f"/v1/database/{self.name}?host_type={host_type}", self.server.operator, program)

    def sql(self, text: str, token: str | None = None) -> list[Row]:
        """Run a statement, as the owner unless told otherwise; return its rows."""
        return self.server.sql(self.name, text, token)

    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of the module's log."""
        text = self.server.read(f"/v1/database/{self.name}/logs", self.server.operator)
        return [json.loads(line) for line in text.splitlines()]

    def wait_logged(self, message: str) -> dict[str, Any]:
        """Return the line of the module's log with that message; wait until there is one."""
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            lines = self.logged()
            if found := next((line for line in lines if message in line["message"]), None):
                return found
            time.sleep(0.02)
        raise AssertionError(f"nothing logged has {message!r}: {lines}")


class Client:
    """A program around an SDK, connected."""

    def __init__(self, driver: NodeDriver, database: Database, **options: Any) -> None:
        self.driver = driver
        self.database = database
        driver.do("connect", url=database.server.ws, database=database.name, **options)
        connected = driver.wait("connected")
        self.identity, self.token = connected["identity"], connected["token"]

    def subscribe(self, name: str, *queries: str) -> None:
        self.driver.do("subscribe", name=name, queries=queries)
        self.driver.wait("applied")

    def unsubscribe(self, name: str) -> None:
        self.driver.do("unsubscribe", name=name)
        self.driver.wait("unsubscribed")

    def call(self, reducer: str, **arguments: Any) -> None:
        self.driver.do("call", reducer=reducer, args=arguments)
        result = self.driver.wait("result", lambda event: event["reducer"] == reducer)
        assert result["status"] == "committed", result

    def refused(self, reducer: str, **arguments: Any) -> str:
        """Call a reducer that fails and return the text."""
        self.driver.do("call", reducer=reducer, args=arguments)
        result = self.driver.wait("result", lambda event: event["reducer"] == reducer)
        assert result["status"] == "failed", result
        text: str = result["text"]
        return text

    def run(self, procedure: str, **arguments: Any) -> Any:
        """Call a procedure and return what it returns."""
        self.driver.do("run", procedure=procedure, args=arguments)
        return self.driver.wait("returned", lambda event: event["procedure"] == procedure)["value"]

    def raised(self, procedure: str, **arguments: Any) -> str:
        """Call a procedure that fails and return the text."""
        self.driver.do("run", procedure=procedure, args=arguments)
        text: str = self.driver.wait("raised", lambda event: event["procedure"] == procedure)["text"]
        return text

    def wait(self, event: str, table: str, **columns: Any) -> dict[str, Any]:
        """Return the first unread event of that kind about a row with these values."""
        return self.driver.wait(event, lambda it: it["table"] == table and columns.items() <= it["row"].items())

    def rows(self, table: str) -> list[Row]:
        """Return the rows in the cache; what came before has been told."""
        rows: list[Row] = self.driver.ask("rows", table=table)["rows"]
        return in_order(rows)

    def told(self) -> list[tuple[str, Row]]:
        """Return, and forget, which row events came up to now."""
        self.driver.ask("sync")
        return [(event["event"], event["row"]) for event in self.driver.take("insert", "delete", "update")]

    def check(self, table: str, *queries: str) -> None:
        """The cache is what SQL answers this client to these queries, each row once."""
        answers = [row for query in queries for row in self.database.sql(query, self.token)]
        assert self.rows(table) == in_order({json.dumps(row): row for row in answers}.values())


def in_order(rows: Any) -> list[Row]:
    return sorted(rows, key=lambda row: list(row.values()))


Connect = Callable[..., Client]


@contextmanager
def connecting(version: str, module: str) -> Iterator[Connect]:
    """Hold what makes clients of one SDK, for databases of a module; in the end none of them has complained."""
    drivers: list[NodeDriver] = []

    def make(database: Database, **options: Any) -> Client:
        drivers.append(NodeDriver(version, module))
        return Client(drivers[-1], database, **options)

    yield make
    for driver in drivers:
        driver.close()
    outputs = [event["text"] for driver in drivers for event in driver.take("output")]
    assert [text for text in outputs if "INFO" not in text] == []
