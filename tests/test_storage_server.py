"""The storage of a server: what becomes durable is told in the event loop; deleted is deleted."""

from pathlib import Path

import pytest
import trio

from stdb.datastore import records
from stdb.errors import StorageError
from stdb.storage.data_directory import DataDirectory
from stdb.storage.server_storage import ServerStorage

IDENTITY = bytes([7]) + bytes(31)


def test_durability_is_told_in_the_event_loop_and_the_log_is_found_again(tmp_path: Path) -> None:
    async def run() -> None:
        with DataDirectory(tmp_path) as directory:
            storage = ServerStorage(directory, lambda: 0)
            told = trio.Event()
            offsets: list[int] = []

            def on_durable(durable: int) -> None:
                offsets.append(durable)
                told.set()

            log = storage.open_log(IDENTITY, on_durable)
            log.append_nowait([records.join(records.Record(0, b"payload"))])
            with trio.fail_after(5):
                await told.wait()
            assert offsets == [1]
            log.close()
            again = storage.open_log(IDENTITY, on_durable)
            assert [record.payload for record in again.records(0)] == [b"payload"]
            again.close()
            storage.module_log(IDENTITY).write("Info", "x")
            assert storage.module_log(IDENTITY) is storage.module_log(IDENTITY)
            storage.delete_database(IDENTITY)
            storage.delete_database(IDENTITY)
            assert list((tmp_path / "databases").iterdir()) == []
            storage.close()

    trio.run(run)


@pytest.mark.parametrize("is_missing", [True, False])
def test_a_lost_control_store_beside_databases_is_refused_by_name(tmp_path: Path, is_missing: bool) -> None:
    async def run() -> None:
        with DataDirectory(tmp_path) as directory:
            ServerStorage(directory, lambda: 0).close()  # the first start finds none, and no databases
            directory.control_path.unlink()
            if not is_missing:
                directory.control_path.touch()
            directory.database_path(IDENTITY).touch()
            with pytest.raises(StorageError, match=r"control\.sqlite: it is missing or empty"):
                ServerStorage(directory, lambda: 0)

    trio.run(run)
