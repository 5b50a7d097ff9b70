"""The control store: ownership of databases and names survives restarts and refuses strangers."""

from pathlib import Path

import pytest

from stdb.errors import StorageError
from stdb.sats.names import database_name_error
from stdb.storage.control import (
    Control,
    Database,
    NameInUseError,
    NameNotYoursError,
    NotYourDatabaseError,
)

OWNER, OTHER = bytes([1]) * 32, bytes([2]) * 32
FIRST, SECOND = bytes([10]) + bytes(31), bytes([11]) + bytes(31)
HASH = bytes(range(32))


def database(identity: bytes = FIRST, owner: bytes = OWNER, program_hash: bytes = HASH) -> Database:
    return Database(identity, identity[:15] + b"\x01", owner, "Python", program_hash, 1_700_000_000_000_000)


def test_a_created_database_is_there_after_reopening(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sqlite")
    control = Control(path)
    control.create(database(), b"program", "chat")
    control.grant(OTHER, "publish-python")
    control.close()
    control = Control(path)
    assert control.database(FIRST) == database()
    assert control.resolve("chat") == FIRST
    assert control.names(FIRST) == ("chat",)
    assert control.program(HASH) == b"program"
    assert control.databases_of(OWNER) == [FIRST]
    assert control.grants(OTHER) == {"publish-python"}
    control.close()


def test_the_file_shows_identities_as_people_know_them(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    control = Control(str(path))
    control.create(database(), b"program")
    shown = control._connection.execute("SELECT identity FROM databases").fetchone()[0]
    control.close()
    assert shown == FIRST[::-1].hex()


def test_a_deleted_database_comes_back_only_for_its_owner() -> None:
    control = Control()
    control.create(database(), b"program", "chat")
    control.delete(FIRST)
    assert control.database(FIRST) is None
    assert control.resolve("chat") == FIRST
    assert control.program(HASH) is None
    with pytest.raises(NotYourDatabaseError):
        control.create(database(owner=OTHER), b"program", "chat")
    control.create(database(), b"again", "chat")
    assert control.database(FIRST) == database()
    assert control.names(FIRST) == ("chat",)
    control.close()


def test_a_freed_name_stays_with_who_registered_it_first() -> None:
    control = Control()
    control.create(database(), b"program", "chat")
    control.set_names(FIRST, [], OWNER)
    assert control.resolve("chat") is None
    with pytest.raises(NameNotYoursError, match="chat"):
        control.create(database(SECOND, OTHER), b"program", "chat")
    assert control.database(SECOND) is None
    control.create(database(SECOND), b"program", "chat")
    assert control.resolve("chat") == SECOND
    control.close()


def test_names_are_added_and_replaced_by_the_owner_alone() -> None:
    control = Control()
    control.create(database(), b"program", "a")
    control.create(database(SECOND, OTHER), b"program", "b")
    control.add_name("c", FIRST, OWNER)
    assert control.names(FIRST) == ("a", "c")
    with pytest.raises(NotYourDatabaseError):
        control.add_name("d", FIRST, OTHER)
    with pytest.raises(NameInUseError, match="record with the name c already exists"):
        control.add_name("c", FIRST, OWNER)
    with pytest.raises(NameNotYoursError):
        control.set_names(FIRST, ["x", "b"], OWNER)
    assert control.names(FIRST) == ("a", "c")
    control.set_names(FIRST, ["e", "c", "e"], OWNER)
    assert control.names(FIRST) == ("e", "c")
    with pytest.raises(NotYourDatabaseError):
        control.set_names(FIRST, [], OTHER)
    control.close()


def test_a_name_of_another_own_database_is_in_use() -> None:
    control = Control()
    control.create(database(), b"program", "a")
    control.create(database(SECOND), b"program", "b")
    with pytest.raises(NameInUseError):
        control.set_names(FIRST, ["a", "b"], OWNER)
    with pytest.raises(NameInUseError):
        control.check_create(OWNER, bytes(32), "b")
    control.close()


def test_a_reset_changes_the_initial_program_and_forgets_the_old_one() -> None:
    control = Control()
    control.create(database(), b"old")
    control.replace_program(FIRST, "Wasm", bytes(32), b"new")
    changed = control.database(FIRST)
    assert changed is not None
    assert (changed.program_hash, changed.host_type) == (bytes(32), "Wasm")
    assert control.program(bytes(32)) == b"new"
    assert control.program(HASH) is None
    control.close()


def test_the_lock_and_grants_can_be_set_and_taken_back() -> None:
    control = Control()
    control.create(database(), b"program")
    control.set_locked(FIRST, True)
    assert control.database(FIRST) == database()._replace(locked=True)
    control.set_locked(FIRST, False)
    assert control.database(FIRST) == database()
    control.grant(OTHER, "publish-python")
    control.grant(OTHER, "publish-python")
    assert control.all_grants() == [(OTHER, "publish-python")]
    control.revoke(OTHER, "publish-python")
    control.revoke(OTHER, "publish-python")
    assert control.all_grants() == []
    control.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "control.sqlite"
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(StorageError, match=r"control\.sqlite"):
        Control(str(path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a", None),
        ("1-2-c", None),
        ("0" * 63, None),
        ("0" * 65, None),
        ("0" * 64, "database names cannot be identities"),
        ("0x" + "aF" * 32, "database names cannot be identities"),
        ("", "database names cannot be empty"),
        ("-a", "invalid hyphen in database name"),
        ("a-", "invalid hyphen in database name"),
        ("a--b", "invalid hyphen in database name"),
        ("A", "invalid characters in database name"),
        ("a_b", "invalid characters in database name"),
        ("a\n", "invalid characters in database name"),
        ("é", "invalid characters in database name"),
        ("0X" + "0" * 64, "invalid characters in database name"),
    ],
)
def test_a_database_name_follows_the_grammar(text: str, reason: str | None) -> None:
    assert database_name_error(text) == reason


def test_names_are_compared_without_case_and_keep_their_spelling() -> None:
    control = Control()
    control.create(database(), b"program", "Chat")
    assert control.resolve("cHAT") == FIRST
    assert control.names(FIRST) == ("Chat",)
    with pytest.raises(NameInUseError):
        control.add_name("chat", FIRST, OWNER)


def test_whoever_has_the_top_of_a_name_has_all_below_it() -> None:
    control = Control()
    control.create(database(), b"program", "Shop/eu")
    assert control.name_owner("shop/us") == OWNER
    control.create(database(SECOND, OTHER), b"program")
    with pytest.raises(NameNotYoursError):
        control.add_name("SHOP/us", SECOND, OTHER)
    control.add_name("shop", FIRST, OWNER)
    assert control.names(FIRST) == ("Shop/eu", "shop")


def test_a_top_can_be_taken_before_anything_is_called_so() -> None:
    control = Control()
    assert control.register_top("Shop", OWNER)
    assert not control.register_top("shop/eu", OWNER)
    with pytest.raises(NameNotYoursError):
        control.register_top("SHOP", OTHER)
    assert control.resolve("shop") is None


def test_a_database_is_found_by_its_address_also_once_deleted() -> None:
    control = Control()
    control.create(database(), b"program")
    assert control.resolve_address(database().address) == FIRST
    control.delete(FIRST)
    assert control.resolve_address(database().address) == FIRST
    assert control.resolve_address(bytes(16)) is None


def test_mail_addresses_and_energy_are_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sqlite")
    control = Control(path)
    control.set_email(OWNER, "a@example.com")
    control.set_email(OTHER, "a@example.com")
    control.set_email(OTHER, "b@example.com")
    assert control.add_balance(OWNER, 2**127) == 2**127 - 1
    assert control.add_balance(OTHER, 5) == 5
    control.close()
    control = Control(path)
    assert (control.email(OWNER), control.email(OTHER), control.email(FIRST)) == (
        "a@example.com",
        "b@example.com",
        None,
    )
    assert control.identities_of("a@example.com") == [OWNER]
    assert (control.balance(OTHER), control.balance(FIRST)) == (5, 0)
    control.close()
