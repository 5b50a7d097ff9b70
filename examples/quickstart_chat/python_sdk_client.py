"""A chat client for the terminal, with the Python SDK of the 0.11 generation: `spacetimedb-sdk` 0.7.0.

    python -m stdb generate --lang python --sdk 0.7 -o chat_bindings quickstart-chat
    pip install spacetimedb-sdk==0.7.0
    python examples/quickstart_chat/python_sdk_client.py

A line is a message, `/name Ann` takes a name, the end of input leaves. The identity is kept for the next time.
"""

import argparse
import asyncio
import importlib
import queue
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from spacetimedb_sdk import local_config
from spacetimedb_sdk.spacetimedb_async_client import SpacetimeDBAsyncClient

LOOK_SECONDS = 0.1
QUERIES = ["SELECT * FROM user", "SELECT * FROM message"]


class Chat:
    """One person's chat: what is typed goes out as calls, rows that come are printed."""

    def __init__(self, bindings: ModuleType) -> None:
        self.client = SpacetimeDBAsyncClient(bindings)
        self.user, self.message, self.set_name, self.send_message = (
            importlib.import_module(f"{bindings.__name__}.{name}")
            for name in ("user", "message", "set_name_reducer", "send_message_reducer")
        )
        self.typed: queue.Queue[str | None] = queue.Queue()
        self.is_here = False

    async def run(self, host: str, database: str) -> None:
        """Chat until the input ends or the connection does."""
        self.user.User.register_row_update(self.on_user)
        self.message.Message.register_row_update(self.on_message)
        self.set_name.register_on_set_name(self.on_result)
        self.send_message.register_on_send_message(self.on_result)
        self.client.register_on_subscription_applied(self.on_applied)
        threading.Thread(target=self.read_lines, daemon=True).start()
        self.client.schedule_event(LOOK_SECONDS, self.look)
        token = local_config.get_string("auth_token")
        await self.client.run(token, host, database, False, self.on_connect, QUERIES)

    def read_lines(self) -> None:
        for line in sys.stdin:
            self.typed.put(line.rstrip("\n"))
        self.typed.put(None)

    def look(self) -> None:
        """Do what was typed meanwhile, once the first rows are there."""
        while self.is_here and not self.typed.empty():
            line = self.typed.get()
            if line is None:
                self.client.force_close()
                return
            if line.startswith("/name "):
                self.set_name.set_name(line.removeprefix("/name ").strip())
            else:
                self.send_message.send_message(line)
        self.client.schedule_event(LOOK_SECONDS, self.look)

    def on_connect(self, token: str, identity: object) -> None:
        local_config.set_string("auth_token", token)
        print(f"You are {identity}.")

    def on_applied(self) -> None:
        for message in sorted(self.message.Message.iter(), key=lambda message: message.sent):
            self.show(message)
        self.is_here = True

    def on_user(self, operation: str, old: Any, new: Any, event: object) -> None:
        if not self.is_here or operation == "delete":
            return
        if operation == "insert" or (new.online and not old.online):
            print(f"{name_of(new)} is here.")
        elif old.online and not new.online:
            print(f"{name_of(new)} has left.")
        elif old.name != new.name:
            print(f"{name_of(old)} is now {name_of(new)}.")

    def on_message(self, operation: str, old: object, new: Any, event: object) -> None:
        if operation == "insert" and self.is_here:
            self.show(new)

    def on_result(self, caller: object, address: object, status: str, message: str, *args: object) -> None:
        if status == "failed" and caller == self.client.identity:
            print(f"Refused: {message}")

    def show(self, message: Any) -> None:
        sender = self.user.User.filter_by_identity(message.sender)
        print(f"{name_of(sender) if sender else 'somebody'}: {message.text}", flush=True)


def name_of(user: Any) -> str:
    """Return what a user is called: a name, else the beginning of the identity."""
    return str(user.name or str(user.identity)[:8])


def load_bindings(directory: Path) -> ModuleType:
    """Import the package of generated bindings in a directory."""
    if not (directory / "__init__.py").is_file():
        sys.exit(
            f"There are no bindings in {directory}. Make them with\n"
            f"    python -m stdb generate --lang python --sdk 0.7 -o {directory} quickstart-chat"
        )
    sys.path.insert(0, str(directory.resolve().parent))
    return importlib.import_module(directory.name)


def main() -> None:
    parser = argparse.ArgumentParser(description="Chat in the terminal.")
    parser.add_argument("--host", default="127.0.0.1:3000")
    parser.add_argument("--bindings", type=Path, default=Path("chat_bindings"))
    parser.add_argument("--client", help="a name for this person's settings: several can chat on one machine")
    parser.add_argument("database", nargs="?", default="quickstart-chat")
    options = parser.parse_args()
    local_config.init()  # reads --client by itself
    asyncio.run(Chat(load_bindings(options.bindings)).run(options.host, options.database))


if __name__ == "__main__":
    main()
