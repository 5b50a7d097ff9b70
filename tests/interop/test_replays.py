"""What the real server was recorded to say, this server says, with the modules it was recorded with.

Where this server says something else on purpose, the place stands here with the reason, and must still differ.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.interop import replay_http, replay_ws
from tests.interop.processes import serve_on
from tests.interop.recorded_modules import recorded_module
from tests.interop.replay_values import Schema

pytestmark = pytest.mark.slow

VECTORS = Path(__file__).parent.parent / "vectors"
SESSIONS = {
    "01_upgrade": 0,
    "10_v1_reducers": 69,
    "11_v1_subscriptions": 109,
    "12_v1_v9_module": 136,
    "15_v1_json": 68,
    "22_v2_session": 115,
    "23_v3_session": 115,
    "30_malformed": 340,
    "40_lifecycle": 84,
    "42_republish": 55,
    "50_scheduled": 102,
    "51_views_procedures": 50,
    "52_ordering": 100,
}
"""Sessions, and the least number of things in each that must be the same."""
CASES = {
    "abi_publish": ("abi_publish.json", 49),
    "validation": ("schema/72_validation.json", 92),
    "migration": ("migration.json", 242),
    "identifiers": ("schema/74_identifiers.json", 14),
}
"""Programs that are published, and the least number of answers that must be the same."""

ONE_TRANSACTION = "a row that was due once leaves in the transaction of its reducer, so both are one update"
ANSWERS_FIRST = "what came before a bad message is answered before the close"
TOLD = "the removal of a client whose disconnect failed is told to others"
NEWER = "a message that came after the recorded version"
SCHEDULED_12 = dict.fromkeys((f"step {n}" for n in (78, 79, 81, 82, 84, 85)), ONE_TRANSACTION)
SCHEDULED_50 = dict.fromkeys((f"step {n}" for n in (14, 15, 17, 18, 34, 35, 37, 38)), ONE_TRANSACTION)
OURS: dict[str, dict[str, str]] = {
    "11_v1_subscriptions": {"step 101": "rows that a client holds already are not sent to it twice"},
    "12_v1_v9_module": SCHEDULED_12,
    "30_malformed": {"step 146": NEWER, "step 255": NEWER, "step 247": ANSWERS_FIRST, "end": ANSWERS_FIRST},
    "40_lifecycle": dict.fromkeys(("step 87", "step 89", "step 94", "end"), TOLD),
    "50_scheduled": SCHEDULED_50,
    "abi_publish": {
        "import module spacetime_10.6": "the host has ABI 10.6",
        "only 9.0": "the host has ABI 9.0",
    },
    "validation": {"row with two equal column names": "refused: a column could not be named"},
}
"""Where this server differs, and why."""
LEGACY = "served as 0.11 did"
OURS_HTTP = {
    "[1.1 conventions] get /database/ping": LEGACY,
    "[1.1 conventions] get /metrics": LEGACY,
    "[sql stmt] #758": "several aggregates of one SELECT are of the same extension as GROUP BY (docs/sql.md)",
    "[sql set] #1302": "which rows a LIMIT leaves is not promised",
}
"""Where this server differs over HTTP, and why."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data directory of its own for each replay: what is recorded began with none."""
    return tmp_path / "data"


@pytest.fixture
def address(data: Path) -> Iterator[tuple[str, int]]:
    """Run a server; yield where it listens."""
    with serve_on(data) as server:
        host, _, port = server.address.rpartition(":")
        yield host, int(port)


def document(path: str) -> Any:
    return json.loads((VECTORS / path).read_text())


def assert_differences(name: str, differences: dict[str, str], wanted: dict[str, str]) -> None:
    new = {place: text for place, text in differences.items() if place not in wanted}
    assert not new, f"{name} differs from the recording:\n" + "\n".join(f"{k}: {v}" for k, v in new.items())
    same = wanted.keys() - differences
    assert not same, f"{name} is as recorded at {same}, which are said to differ"


@pytest.mark.parametrize("name", SESSIONS)
def test_a_websocket_session_is_as_recorded(name: str, address: tuple[str, int]) -> None:
    session = document(f"recorded_ws/{name}.json")
    replay = replay_ws.Replay(address, recorded_module)
    replay.run_session(session, Schema(document(f"recorded_modules/{session['module']}.json")))
    assert_differences(name, replay.differences, OURS.get(name, {}))
    assert replay.passed >= SESSIONS[name]


@pytest.mark.parametrize("name", CASES)
def test_publishes_are_answered_as_recorded(name: str, address: tuple[str, int]) -> None:
    path, count = CASES[name]
    replay = replay_ws.Replay(address, recorded_module)
    replay.run_cases(document(path)["cases"])
    assert_differences(name, replay.differences, OURS.get(name, {}))
    assert replay.passed >= count


def test_http_and_sql_are_as_recorded(address: tuple[str, int], data: Path) -> None:
    replay = replay_http.Replay(address, recorded_module, VECTORS / "schema" / "documents")
    replay.exchanges(document("recorded_http/exchanges.json")["exchanges"])
    replay.statements(document("recorded_sql/statements.json")["statements"])
    key = load_pem_private_key((data / "id_ecdsa").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    replay.tokens(document("recorded_http/tokens.json")["tokens"], key)
    assert_differences("HTTP", replay.differences, OURS_HTTP)
    assert replay.passed >= 2_260
