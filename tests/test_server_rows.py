"""A server's databases live from the rows in their files: records that these reflect may be gone."""

from pathlib import Path

import pytest
import trio

from stdb.actors.host import Host, HostSettings
from stdb.modules.protocol import Module
from stdb.storage.data_directory import DataDirectory
from stdb.storage.log import SqliteLog
from stdb.storage.retention import Retention
from stdb.storage.server_storage import ServerStorage
from stdb.testing.hosts import TestClient, identity, virtual_now_us
from stdb.testing.sinks import Applied
from tests.actors_chat import chat

OWNER = identity(7)


def load(program: bytes) -> Module:
    return chat()


def test_a_database_goes_on_after_restarts_without_any_old_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stdb.storage.log_writer.IDLE_SECONDS", 0.01)
    monkeypatch.setattr("stdb.storage.log_writer.RETENTION_SECONDS", 0.01)
    lives, texts = 3, 4

    async def main() -> None:
        database = b""
        for life in range(lives):
            storage = ServerStorage(directory, virtual_now_us)
            async with Host.open(storage, load, HostSettings(), now_us=virtual_now_us) as host:
                if not database:
                    database = (await host.publish(OWNER, b"chat", name="chat")).identity
                    storage.control.set_retention(database, Retention(size=0))
                handle = host.database(database)
                await handle.ready()
                client = TestClient(handle)
                applied = await client.subscribe(1, "SELECT * FROM message")
                assert isinstance(applied, Applied)
                assert client.sink.rows().total() == life * texts
                for number in range(texts):
                    await client.call("say", _text(f"{life} {number}"))
                await client.leave()
            log = SqliteLog(directory.database_path(database), retention=lambda: Retention(size=0))
            assert log.rows_offset == log.durable
            with trio.fail_after(30):
                while log.first < log.durable:  # noqa: ASYNC110 - the writer, a thread, tells nobody
                    await trio.sleep(0.01)
            log.close()
            storage.close()

    with DataDirectory(tmp_path) as directory:
        trio.run(main)


def _text(text: str) -> bytes:
    return len(text).to_bytes(4, "little") + text.encode()
