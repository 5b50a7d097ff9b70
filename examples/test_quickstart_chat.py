"""The tests of the chat room: `python -m pytest examples`; docs/testing.md walks through them."""

import pytest
import quickstart_chat as chat
from hypothesis import settings
from quickstart_chat import Message, User

from stdb import SenderError, desc
from stdb.testing import TestHost, state_machine
from stdb.testing.plugin import HostFactory


@pytest.fixture
def host(stdb_host: HostFactory) -> TestHost:
    return stdb_host(chat)


def test_who_connects_is_online_and_stays_known(host: TestHost) -> None:
    alice = host.connect("alice")
    assert host[User].get(alice.identity) == User(identity=alice.identity, name=None, online=True)
    alice.disconnect()
    assert host[User].get(alice.identity) == User(identity=alice.identity, name=None, online=False)


def test_everybody_sees_a_new_name(host: TestHost) -> None:
    alice, bob = host.connect("alice"), host.connect("bob")
    bob.subscribe(User)
    renamed: list[tuple[str | None, str | None]] = []
    bob.on_update(User, lambda old, new: renamed.append((old.name, new.name)))
    alice.call(chat.set_name, "Alice")
    assert renamed == [(None, "Alice")]
    assert bob.updates[-1].reducer == "set_name"
    assert bob.updates[-1].caller == alice.identity


@pytest.mark.parametrize("name", ["", "   "])
def test_a_name_is_not_empty(host: TestHost, name: str) -> None:
    alice = host.connect("alice")
    with pytest.raises(SenderError, match="a name must not be empty"):
        alice.call(chat.set_name, name)
    assert host[User].one().name is None


def test_messages_come_in_order_with_their_time(host: TestHost) -> None:
    alice, bob = host.connect("alice"), host.connect("bob")
    bob.subscribe(Message)
    alice.call(chat.send_message, "good morning")
    host.advance(12 * 3600)
    alice.call(chat.send_message, text="good evening")
    last = next(host[Message].filter(order_by=desc(Message.sent), limit=1))
    assert (last.text, last.sent, last.sender) == ("good evening", host.now, alice.identity)
    assert [message.text for message in bob.rows(Message)] == ["good morning", "good evening"]


def test_whoever_was_online_in_a_crash_is_not_afterwards(host: TestHost) -> None:
    alice = host.connect("alice")
    alice.call(chat.send_message, "still there?")
    host.crash()
    assert host[User].one().online is False
    assert host[Message].one().text == "still there?"


def no_message_is_empty(host: TestHost) -> None:
    assert all(message.text.strip() for message in host[Message])


def senders_are_known(host: TestHost) -> None:
    assert all(host[User].get(message.sender) for message in host[Message])


TestAnyConversation = state_machine(chat, invariants=[no_message_is_empty, senders_are_known]).TestCase
TestAnyConversation.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
