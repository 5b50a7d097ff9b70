"""Archives: a program as one canonical zip, and back.

Responsible for: packing, unpacking within limits, refusing paths that could lead elsewhere, the program hash.
Not responsible for: reading directories (the command line), which files belong to a program (`ignore`).

Layout (spec 08, "Publishing and loading"): regular files only, `/`-separated paths without `..`, sorted by path, time
1980-01-01 00:00, mode 0644, deflate level 9. A single file is `<name>.py`, a package `<name>/__init__.py` and the rest.

The hash is Keccak-256 over the files in the order of their paths, each as
    path length u32 | path, UTF-8 | length u64 | bytes          (integers little-endian)
so it is of the source and not of the zip that carried it.
"""

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping

from stdb.errors import SchemaError
from stdb.modules.python.ignore import select
from stdb.sats.hashes import keccak256

__all__ = ["FILES_MAX", "MAGIC", "UNPACKED_BYTES_MAX", "pack", "program_hash", "unpack"]

FILES_MAX = 4096
UNPACKED_BYTES_MAX = 64 * 1024 * 1024
MAGIC = b"PK\x03\x04"
"""The first bytes of every archive that is not empty."""
_TIME = (1980, 1, 1, 0, 0, 0)
_MODE = stat.S_IFREG | 0o644
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, IndexError, OverflowError),
    *(NotImplementedError, RuntimeError, OSError),
)
"""What `zipfile` raises for bytes that are no zip, or one of a kind that it cannot read."""


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the canonical archive of a program; the same files give the same bytes.

    Raises:
        SchemaError: A path is not acceptable, or there are too many files or bytes.
    """
    _check_limits(files)
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, whatever this machine is
            entry.external_attr = _MODE << 16
            archive.writestr(entry, files[path], compresslevel=9)
    return body.getvalue()


def unpack(body: bytes) -> dict[str, bytes]:
    """Return the files of an archive that belong to the program, sorted; other archives than canonical ones are fine.

    Raises:
        SchemaError: It is no zip, too large, or holds something other than files with plain paths.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            return select(_read(archive))
    except SchemaError:
        raise
    except _ZIP_ERRORS as error:
        raise SchemaError(
            [f"the program is no zip archive that can be read ({error}); send one made by publish"]
        ) from error


def program_hash(files: Mapping[str, bytes]) -> bytes:
    """Return the hash of a program, 32 bytes in digest order."""
    parts: list[bytes] = []
    for path in sorted(files):
        name = path.encode()
        parts += (struct.pack("<I", len(name)), name, struct.pack("<Q", len(files[path])), files[path])
    return keccak256(b"".join(parts))


def _read(archive: zipfile.ZipFile) -> dict[str, bytes]:
    entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
    if len(entries) > FILES_MAX:
        raise _too_many(len(entries))
    files: dict[str, bytes] = {}
    left = UNPACKED_BYTES_MAX
    for entry in entries:
        _check_entry(entry, files)
        files[entry.filename] = _content(archive, entry, left)
        left -= len(files[entry.filename])
    return files


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, bytes_max: int) -> bytes:
    """Return an entry's bytes; never unpacks more than `bytes_max` and one, whatever its header says."""
    with archive.open(entry) as stream:
        content = stream.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise _too_large()
    return content


def _check_entry(entry: zipfile.ZipInfo, files: Mapping[str, bytes]) -> None:
    problem = _path_problem(entry.orig_filename)
    mode = entry.external_attr >> 16
    if problem is None and mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        problem = "is a link or a device; only regular files can be published"
    if problem is None and entry.filename in files:
        problem = "is there twice"
    if problem is None and entry.flag_bits & 1:
        problem = "is encrypted"
    if problem is None and entry.compress_type not in _METHODS:
        problem = "is compressed by another method than deflate"
    if problem is not None:
        raise SchemaError([f"the file {entry.orig_filename!r} in the program's archive {problem}"])


def _check_limits(files: Mapping[str, bytes]) -> None:
    if len(files) > FILES_MAX:
        raise _too_many(len(files))
    if sum(map(len, files.values())) > UNPACKED_BYTES_MAX:
        raise _too_large()
    for path in files:
        if (problem := _path_problem(path)) is not None:
            raise SchemaError([f"the file {path!r} of the program {problem}"])


def _path_problem(path: str) -> str | None:
    """Return why a path cannot be in an archive."""
    if not path or "\0" in path or "\\" in path or ":" in path.partition("/")[0]:
        return "has a path that not every system can have; rename it"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "has a path that leads outside the program; paths are relative and without '..'"
    try:
        path.encode()
    except UnicodeEncodeError:
        return "has a name that is no Unicode text; rename it"
    return None


def _too_many(count: int) -> SchemaError:
    return SchemaError(
        [f"the program has {count} files, at most {FILES_MAX} are taken; name what does not belong to it in .gitignore"]
    )


def _too_large() -> SchemaError:
    return SchemaError(
        [
            f"the program is larger than {UNPACKED_BYTES_MAX >> 20} MiB unpacked; "
            "name what does not belong to it in .gitignore"
        ]
    )
