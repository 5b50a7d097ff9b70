"""Keeping: the database of a test as a data directory that a server opens.

Responsible for: writing program, log, module log and a token of the owner.
Not responsible for: when a test's database is kept (`plugin`), the layout (`stdb.storage`).
"""

import json
from pathlib import Path

from stdb.datastore.records import join
from stdb.errors import StorageError
from stdb.net.tokens import load_or_make_key
from stdb.storage.control import Control
from stdb.storage.data_directory import DataDirectory
from stdb.storage.log import SqliteLog
from stdb.storage.module_log import ModuleLog
from stdb.testing.running import DATABASE, ISSUER, NAME, OWNER, Running

__all__ = ["save"]

_GROUP = 1000


def save(running: Running, path: Path) -> Path:
    """Write the database of a host; its owner is the operator there, so every command of this machine may do all.

    Raises:
        StorageError: The directory holds something already, or cannot be written.
    """
    if path.exists() and any(path.iterdir()):
        raise StorageError(f"{path} is not empty: give the path of a directory that does not exist yet")
    with DataDirectory(path) as directory:
        claims = {"hex_identity": OWNER.hex(), "sub": "owner", "iss": ISSUER, "aud": ["spacetimedb"], "exp": None}
        token = load_or_make_key(directory).sign(json.dumps(claims | {"iat": 0}, separators=(",", ":")))
        directory.write_secret("operator.token", token + "\n")
        _write_control(running, directory)
        _write_log(running, directory)
        lines = ModuleLog(directory.module_log_path(DATABASE.wire), running.time.now_us)
        for line in running.lines():
            lines._append(json.loads(line)["ts"], line)
        lines.close()
    return path


def _write_control(running: Running, directory: DataDirectory) -> None:
    known = running.storage.control.database(DATABASE.wire)
    assert known is not None, "the database of a host exists"
    program = running.storage.control.program(known.program_hash)
    assert program is not None, "the control store keeps the initial program of every database"
    control = Control(str(directory.control_path))
    try:
        control.create(known, program, NAME)
    finally:
        control.close()


def _write_log(running: Running, directory: DataDirectory) -> None:
    records = [join(record) for record in running.storage.logs[DATABASE.wire].records()]
    log = SqliteLog(directory.database_path(DATABASE.wire))
    try:
        for start in range(0, len(records), _GROUP):
            log.append_nowait(records[start : start + _GROUP])
    finally:
        log.close()
