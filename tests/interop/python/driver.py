"""A program around the Python SDK 0.7.0: commands come as JSON lines, what its callbacks are told goes out as such.

Run with the SDK's own interpreter: `driver.py sync|async PACKAGE`, where PACKAGE is a directory of generated bindings.
It keeps its identity in the SDK's `local_config`, as the SDK's own examples do.
"""

import asyncio
import enum
import importlib
import json
import queue
import sys
import threading
import time
import traceback
from pathlib import Path

from spacetimedb_sdk import local_config
from spacetimedb_sdk.spacetimedb_async_client import SpacetimeDBAsyncClient
from spacetimedb_sdk.spacetimedb_client import Address, Identity, SpacetimeDBClient

KIND, PACKAGE = sys.argv[1], Path(sys.argv[2])
sys.path.insert(0, str(PACKAGE.parent))
package = importlib.import_module(PACKAGE.name)
commands: "queue.Queue[dict | None]" = queue.Queue()
END = object()


def say(event, **details):
    line = json.dumps({"event": event, **{name: plain(value) for name, value in details.items()}})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def plain(value):
    """Return a value of the bindings as JSON has it."""
    if isinstance(value, (Identity, Address)):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if hasattr(type(value), "variants"):
        return {value.name: plain(value.value)}
    if hasattr(type(value), "fields"):
        return {name: plain(each) for name, each in value.data.items()}
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    return value


def module_of(name):
    return importlib.import_module(f"{PACKAGE.name}.{name}")


def watch(client):
    """Tell of every row and every reducer that the bindings know."""
    for table, cache in client.client_cache.tables.items():
        cache.table_class.register_row_update(
            lambda operation, old, new, event, table=table: say(
                "row",
                table=table,
                operation=operation,
                old=old,
                new=new,
                reducer=event and event.reducer_name,
                caller=event and event.caller_identity,
                address=event and event.caller_address,
            )
        )
    for name in client.client_cache.reducer_cache:
        getattr(module_of(f"{name}_reducer"), f"register_on_{name}")(
            lambda caller, address, status, message, *args, name=name: say(
                "reducer", name=name, caller=caller, address=address, status=status, message=message, args=args
            )
        )
    client.register_on_subscription_applied(lambda: say("applied"))
    client.register_on_event(
        lambda event: say("transaction", reducer=event.reducer_event.reducer_name, status=event.reducer_event.status)
    )


def build(value):
    """Return a value of the bindings: {"@place": [1, 2]} is made of the JSON of a row by the class of that module."""
    if isinstance(value, list):
        return [build(each) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, data),) = value.items()
    simple = {"@identity": Identity.from_string, "@address": Address.from_string, "@bytes": bytes.fromhex}
    if kind in simple:
        return simple[kind](data)
    module = module_of(kind[1:])
    class_ = getattr(module, kind[1:].replace("_", " ").title().replace(" ", ""))
    if isinstance(class_, enum.EnumMeta):
        return class_[data]
    return (
        class_(*(build(each) for each in data))
        if hasattr(class_, "variants")
        else class_.of(**{n: build(v) for n, v in data.items()})
    )


def run_command(command, client):
    """Do what a command says; END for the last one."""
    what = command["do"]
    if what == "call":
        name = command["name"]
        getattr(module_of(f"{name}_reducer"), name)(*(build(each) for each in command["args"]))
    elif what == "subscribe":
        client.subscribe(command["queries"])
    elif what == "rows":
        table = client.client_cache.tables[command["table"]].table_class
        say("rows", rows=list(table.iter()), encoded=[row.encode() for row in table.iter()])
    elif what == "find":
        table = client.client_cache.tables[command["table"]].table_class
        say("find", found=getattr(table, f"filter_by_{command['column']}")(build(command["value"])))
    elif what == "close":
        return END
    return None


def note_identity(token, identity, address=None):
    local_config.set_string("auth_token", token)
    say("identity", token=token, identity=identity, address=address)


def run_blocking(options):
    say_lost = lambda text: say("disconnected", text=text)  # noqa: E731
    client = SpacetimeDBClient(package)
    watch(client)
    client.connect(
        local_config.get_string("auth_token"),
        options["host"],
        options["database"],
        False,
        on_connect=lambda: client.subscribe(options["queries"]),
        on_disconnect=say_lost,
        on_identity=note_identity,
        on_error=lambda error: say("error", text=str(error)),
    )
    while True:
        client.update()
        try:
            command = commands.get(timeout=0.02)
        except queue.Empty:
            continue
        if command is None or run_command(command, client) is END:
            break
    client.close()
    client.wsc.message_thread.join(timeout=5)
    say("closed", alive=client.wsc.message_thread.is_alive())


def run_async(options):
    client = SpacetimeDBAsyncClient(package)
    watch(client.client)

    def look():
        try:
            command = commands.get_nowait()
        except queue.Empty:
            client.schedule_event(0.02, look)
            return
        if command is None or run_command(command, client.client) is END:
            client.force_close()
        else:
            client.schedule_event(0.02, look)

    client.schedule_event(0.02, look)
    asyncio.run(
        client.run(
            local_config.get_string("auth_token"),
            options["host"],
            options["database"],
            False,
            on_connect=lambda token, identity: note_identity(token, identity, client.client.address),
            subscription_queries=options["queries"],
        )
    )
    say("closed", alive=client.client.wsc.message_thread.is_alive())


def read_commands():
    for line in sys.stdin:
        commands.put(json.loads(line))
    commands.put(None)


def main():
    local_config.init()
    threading.Thread(target=read_commands, daemon=True).start()
    say("ready")
    options = commands.get()
    if options is None:
        return
    try:
        (run_blocking if KIND == "sync" else run_async)(options)
    except Exception as error:  # noqa: BLE001 - however a client ends, the test is told
        say("ended", text=str(error), trace=traceback.format_exc())
        time.sleep(0.1)


main()
