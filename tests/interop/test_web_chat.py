"""The web chat of the examples, built as README says, in a page against a real server with the example module."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.interop.npm import NODE_SOURCES, ROOT, alone, install, require
from tests.interop.processes import Driver, Server, serve

pytestmark = pytest.mark.slow

WEB_CHAT = ROOT / "examples" / "web_chat"


@pytest.fixture(scope="module")
def built() -> Path:
    """The directory of a built page; its packages are those that its package.json pins."""
    package = json.loads((WEB_CHAT / "package.json").read_text())
    pinned = [
        f"{name}@{version}" for part in ("dependencies", "devDependencies") for name, version in package[part].items()
    ]
    directory = install("web-chat", *pinned, "undici@6")
    with alone(directory):
        for source in (WEB_CHAT / "chat.js", NODE_SOURCES / "page.mjs"):
            shutil.copy(source, directory)
        command = package["scripts"]["build"].split()
        subprocess.run([require("npm"), "exec", "--offline", "--", *command], cwd=directory, check=True, timeout=60)
    return directory


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("--publish", f"{ROOT / 'examples' / 'quickstart_chat'}=quickstart-chat") as running:
        yield running


class Page(Driver):
    """An open page."""

    def __init__(self, directory: Path, server: Server, stored: dict[str, Any] | None = None) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SEARCH", f"?server={quote(server.ws, safe='')}")
            if stored is not None:
                patch.setenv("TOKEN_KEY", stored["key"])
                patch.setenv("TOKEN", stored["value"])
            super().__init__(require("node"), "page.mjs", directory=directory)

    def wait_items(self, event: str, *items: str) -> None:
        """Wait until the list shows these."""
        self.wait(event, lambda shown: shown["items"] == list(items))


def test_two_pages_show_names_and_messages_and_a_page_comes_back(built: Path, server: Server) -> None:
    ann, bob = Page(built, server), Page(built, server)
    stored = ann.wait("stored")
    for page in (ann, bob):
        page.wait("status", lambda shown: shown["text"] == "connected")
    ann.do("submit", form="name", text="Ann")
    bob.do("submit", form="name", text="Bob")
    bob.wait("users", lambda shown: sorted(shown["items"]) == ["Ann", "Bob"])
    ann.do("submit", form="say", text="hello ✓")
    bob.wait_items("messages", "Ann: hello ✓")
    bob.do("submit", form="say", text="hi")
    ann.wait_items("messages", "Ann: hello ✓", "Bob: hi")
    bob.do("submit", form="name", text=" ")
    bob.wait("status", lambda shown: shown["text"] == "a name must not be empty")

    ann.close()
    bob.wait_items("users", "Bob")
    again = Page(built, server, stored)
    again.wait("users", lambda shown: sorted(shown["items"]) == ["Ann", "Bob"])
    again.wait_items("messages", "Ann: hello ✓", "Bob: hi")
    for page in (again, bob):
        page.close()
