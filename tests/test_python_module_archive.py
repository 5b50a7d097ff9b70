"""Archives: one canonical zip, limits while unpacking, refused paths, what is left out."""

import io
import zipfile

import pytest

from stdb.errors import SchemaError
from stdb.modules.python import archive
from stdb.modules.python.archive import FILES_MAX, MAGIC, pack, program_hash, unpack
from stdb.modules.python.ignore import is_never_packed, select

FILES = {"game/__init__.py": b"x = 1\n", "game/a.py": b"", "game/data/ü.bin": bytes(range(256)) * 10}


def zipped(*entries: tuple[str, bytes], **fields: int) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as file:
        for path, content in entries:
            info = zipfile.ZipInfo(path)
            for name, value in fields.items():
                setattr(info, name, value)
            file.writestr(info, content)
    return body.getvalue()


def test_an_archive_is_canonical_whatever_order_the_files_came_in() -> None:
    body = pack(FILES)
    assert body == pack(dict(reversed(FILES.items())))
    assert body.startswith(MAGIC)
    with zipfile.ZipFile(io.BytesIO(body)) as file:
        entries = file.infolist()
    assert [entry.filename for entry in entries] == sorted(FILES)
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
    assert {entry.external_attr >> 16 for entry in entries} == {0o100644}
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_DEFLATED}
    assert {entry.create_system for entry in entries} == {3}


def test_what_was_packed_is_unpacked() -> None:
    assert unpack(pack(FILES)) == FILES
    assert list(unpack(pack(FILES))) == sorted(FILES)


def test_the_hash_is_of_the_source_and_not_of_the_zip() -> None:
    stored = zipped(*reversed(FILES.items()), compress_type=zipfile.ZIP_STORED)
    assert stored != pack(FILES)
    assert program_hash(unpack(stored)) == program_hash(FILES)
    assert program_hash({"a": b"bc"}) != program_hash({"ab": b"c"})
    assert program_hash({"a": b"1", "b": b"2"}) != program_hash({"a": b"2", "b": b"1"})


@pytest.mark.parametrize(
    "path", ["../x.py", "a/../x.py", "/etc/x", "a//b.py", "./a.py", "a\\b.py", "C:x.py", "a/.", "..", "c:/x.py"]
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(SchemaError, match=r"leads outside the program|not every system can have"):
        unpack(zipped((path, b"")))
    with pytest.raises(SchemaError, match=r"leads outside the program|not every system can have"):
        pack({path: b""})


def test_an_empty_path_a_null_and_half_a_character_are_refused() -> None:
    for path in ("", "a\0b", "\ud800.py"):
        with pytest.raises(SchemaError):
            pack({path: b""})


def test_links_and_devices_and_doubles_are_refused() -> None:
    with pytest.raises(SchemaError, match="only regular files"):
        unpack(zipped(("a.py", b"b.py"), external_attr=0o120777 << 16))
    with pytest.warns(UserWarning, match="Duplicate name"):
        double = zipped(("a.py", b"1"), ("a.py", b"2"))
    with pytest.raises(SchemaError, match=r"'a.py' in the program's archive is there twice"):
        unpack(double)


def test_encrypted_and_foreign_methods_are_refused() -> None:
    body = bytearray(zipped(("a.py", b"1")))
    at = body.index(b"PK\1\2")
    body[at + 8] |= 1
    with pytest.raises(SchemaError, match="is encrypted"):
        unpack(bytes(body))
    with pytest.raises(SchemaError, match="another method than deflate"):
        unpack(zipped(("a.py", b"1"), compress_type=zipfile.ZIP_LZMA))


def test_directories_are_skipped() -> None:
    assert unpack(zipped(("game/", b""), ("game/a.py", b"1"))) == {"game/a.py": b"1"}


@pytest.mark.parametrize("body", [b"", b"PK\3\4", b"no zip at all", pack(FILES)[:-30], pack(FILES)[:40]])
def test_what_is_no_zip_is_refused(body: bytes) -> None:
    with pytest.raises(SchemaError, match="no zip archive that can be read"):
        unpack(body)


def test_a_damaged_file_is_refused() -> None:
    body = bytearray(pack(FILES))
    at = body.index(b"game/__init__.py") + len("game/__init__.py") + 1
    body[at] ^= 0x55
    with pytest.raises(SchemaError):
        unpack(bytes(body))


def test_too_many_files_are_refused() -> None:
    files = {f"{n}.py": b"" for n in range(FILES_MAX + 1)}
    for refused in (lambda: pack(files), lambda: unpack(zipped(*files.items()))):
        with pytest.raises(SchemaError, match=r"has 4097 files, at most 4096 are taken; .*\.gitignore"):
            refused()
    del files["0.py"]
    assert len(unpack(pack(files))) == FILES_MAX


def test_a_bomb_is_refused_while_it_unpacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "UNPACKED_BYTES_MAX", 1 << 20)
    for entries in ([("a.bin", bytes(1 << 24))], [("a.bin", bytes(1 << 19)), ("b.bin", bytes((1 << 19) + 1))]):
        body = zipped(*entries, compress_type=zipfile.ZIP_DEFLATED)
        with pytest.raises(SchemaError, match="larger than 1 MiB unpacked"):
            unpack(body)
        with pytest.raises(SchemaError, match="larger than 1 MiB unpacked"):
            pack(dict(entries))
    assert unpack(zipped(("a.bin", bytes(1 << 20)))) == {"a.bin": bytes(1 << 20)}


def test_a_header_that_lies_about_the_size_is_refused() -> None:
    body = bytearray(zipped(("a.bin", bytes(5000)), compress_type=zipfile.ZIP_DEFLATED))
    at = body.index(b"PK\1\2")
    body[at + 24 : at + 28] = (10).to_bytes(4, "little")
    with pytest.raises(SchemaError):
        unpack(bytes(body))


TREE = [
    "__init__.py", ".git/config", ".hidden.py", "__pycache__/a.pyc", "deep/__pycache__/b.pyc", "venv/pyvenv.cfg",
    "venv/lib/x.py", "build/out.py", "src/build/out.py", "notes.log", "deep/notes.log", "keep.log", "deep/a.tmp",
    "a.tmp", "docs/a.md", "docs/deep/b.md", "node_modules/x/index.js", "deep/only_here.txt", "only_here.txt",
    "x/y/z/gen.py", "gen.py", "file[1].py", "weird name .py", "#literal.py", "A.py", "B.py",
]  # fmt: skip


def chosen(gitignore: str, **more: str) -> set[str]:
    files = {path: b"" for path in TREE} | {".gitignore": gitignore.encode()}
    files |= {path.replace("__", "/") + "/.gitignore": text.encode() for path, text in more.items()}
    return set(select(files))


ALWAYS_OUT = {
    ".git/config",
    ".hidden.py",
    "__pycache__/a.pyc",
    "deep/__pycache__/b.pyc",
    "venv/pyvenv.cfg",
    "venv/lib/x.py",
}
REST = set(TREE) - ALWAYS_OUT


def test_hidden_files_caches_and_environments_are_never_packed() -> None:
    assert chosen("") == REST
    assert is_never_packed(".venv")
    assert is_never_packed("__pycache__")
    assert not is_never_packed("chat.py")


@pytest.mark.parametrize(
    ("gitignore", "out"),
    [
        ("build/", {"build/out.py", "src/build/out.py"}),
        ("/build/", {"build/out.py"}),
        ("build", {"build/out.py", "src/build/out.py"}),
        ("*.log\n!keep.log", {"notes.log", "deep/notes.log"}),
        ("*.log\n!keep.log\n", {"notes.log", "deep/notes.log"}),
        ("/*.tmp", {"a.tmp"}),
        ("deep/*.tmp", {"deep/a.tmp"}),
        ("docs/**", {"docs/a.md", "docs/deep/b.md"}),
        ("docs/*", {"docs/a.md", "docs/deep/b.md"}),
        ("*.md\n*.py\n!/**", set()),
        ("*\n!*/\n!*.py", {path for path in REST if not path.endswith(".py")}),
        ("docs/*.md", {"docs/a.md"}),
        ("**/gen.py", {"gen.py", "x/y/z/gen.py"}),
        ("x/**/gen.py", {"x/y/z/gen.py"}),
        ("x/**/z", {"x/y/z/gen.py"}),
        ("docs\n!docs/a.md", {"docs/a.md", "docs/deep/b.md"}),
        ("# a comment\n\n   \nnode_modules  ", {"node_modules/x/index.js"}),
        ("\\#literal.py", {"#literal.py"}),
        ("file\\[1\\].py", {"file[1].py"}),
        ("[A]*", {"A.py"}),
        ("[!A].py", {"B.py"}),
        ("?.py", {"A.py", "B.py"}),
        ("[", set()),
        ("[z-a]", set()),
        ("/", set()),
        ("*", REST),
    ],
)
def test_gitignore_is_honoured(gitignore: str, out: set[str]) -> None:
    assert chosen(gitignore) == REST - out


def test_a_gitignore_deeper_down_rules_its_own_directory() -> None:
    assert chosen("", deep="only_here.txt\n/a.tmp") == REST - {"deep/only_here.txt", "deep/a.tmp"}


def test_an_archive_made_by_others_is_cleaned_on_the_way_in() -> None:
    body = zipped(
        ("game/__init__.py", b""), ("game/__pycache__/x.pyc", b"1"), ("game/.gitignore", b"*.log"), ("game/a.log", b"")
    )
    assert unpack(body) == {"game/__init__.py": b""}
