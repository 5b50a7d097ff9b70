"""The pytest plugin: a fixture that makes hosts, and the databases of failed tests kept for a look.

Responsible for: the fixture `stdb_host`, `--stdb-keep`, the section of a failed test's report that says where to look.
Not responsible for: hosts (`test_host`), what is written (`keeping`). Loads no server before a test asks for a host.
"""

import re
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from stdb.testing.open_hosts import Savable, open_hosts, when_failed

if TYPE_CHECKING:
    from stdb.testing.async_host import Http, Start
    from stdb.testing.programs import Subject
    from stdb.testing.test_host import TestHost

__all__ = ["HostFactory", "stdb_host"]


class HostFactory(Protocol):
    """What the fixture `stdb_host` is."""

    def __call__(
        self,
        module: "Subject",
        *,
        start: "Start" = None,
        seed: int = 0,
        http: "Http" = None,
        env: "Mapping[str, str] | None" = None,
    ) -> "TestHost":
        """Return a host that is closed when the test has ended; arguments as of `TestHost`."""


@pytest.fixture
def stdb_host() -> Iterator[HostFactory]:
    """Return what makes hosts: `host = stdb_host(module)`. They are closed when the test has ended."""
    from stdb.testing.test_host import TestHost

    hosts: list[TestHost] = []

    def make(
        module: "Subject",
        *,
        start: "Start" = None,
        seed: int = 0,
        http: "Http" = None,
        env: "Mapping[str, str] | None" = None,
    ) -> TestHost:
        hosts.append(TestHost(module, start=start, seed=seed, http=http, env=env))
        return hosts[-1]

    yield make
    for host in reversed(hosts):
        host.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer where databases are kept."""
    text = "keep the databases of failed tests in DIR (default: stdb in pytest's cache; `no` keeps none)"
    parser.getgroup("stdb").addoption("--stdb-keep", metavar="DIR", default=None, help=text)


class _Kept:
    """The databases of one test that may yet fail."""

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self.paths: list[Path] = []

    def keep(self, host: Savable) -> None:
        """Write down the database of a host, if they are wanted."""
        where = self._item.config.getoption("--stdb-keep")
        if where == "no":
            return
        name = re.sub(r"[^\w.-]+", "_", self._item.nodeid)[-120:].strip("_")
        path = _directory(self._item.config, where) / (f"{name}.{len(self.paths)}" if self.paths else name)
        shutil.rmtree(path, ignore_errors=True)
        host.save(str(path))
        self.paths.append(path)

    def drop(self) -> None:
        """Remove what was written: the test passed."""
        for path in self.paths:
            shutil.rmtree(path, ignore_errors=True)
        self.paths.clear()


def _directory(config: pytest.Config, where: str | None) -> Path:
    if where is not None:
        return Path(where)
    cache = getattr(config, "cache", None)
    return Path(tempfile.gettempdir()) / "stdb" if cache is None else Path(cache.mkdir("stdb"))


_KEPT = pytest.StashKey[_Kept]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Keep the database of a host whose `with` the test leaves by an exception."""
    kept = item.stash[_KEPT] = _Kept(item)
    when_failed.append(kept.keep)
    try:
        return (yield)
    finally:
        when_failed.remove(kept.keep)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say in the report of a failed test where its databases are."""
    report = yield
    if call.when == "call" and (kept := item.stash.get(_KEPT, None)) is not None:
        if report.failed:
            for host in list(open_hosts):
                kept.keep(host)
            for path in kept.paths:
                text = f"kept; look at it with:\npython -m stdb serve --data-dir {path}\npython -m stdb sql test"
                report.sections.append(("stdb database", text + ' "SELECT * FROM …"'))
        else:
            kept.drop()
    return report
