"""Recorded WebSocket sessions, and publishes, played against a running server.

Masked: see `replay_values`. Free: the order of rows in a list, of tables in a message and of the elements of one table;
the form of row lists; how v3 messages share a payload; where answers of procedures and of calls that did not run stand
among the others. Steps marked `bug` in the recordings are defects of the real server and are not compared.
"""

import base64
import http.client
import json
import re
import select
import struct
import time
from collections.abc import Callable
from typing import Any

from tests.interop.replay_peer import Peer, unpack
from tests.interop.replay_values import PROTOCOLS, RECORDED_USERS, Decoder, Schema, World, canonical

__all__ = ["Replay"]

NOT_RUN = re.compile(r"no such reducer|invalid arguments for reducer|can't directly call")


class Replay:
    """Plays sessions against one server; differences are kept by the id of their step or case."""

    def __init__(self, address: tuple[str, int], module: Callable[[str], bytes], *, wait_seconds: float = 15) -> None:
        self.address, self.module = address, module
        self.wait_seconds, self.pause_seconds = wait_seconds, 0.15
        self.passed = 0
        self.differences: dict[str, str] = {}
        self.tokens: dict[str, str] = {}
        self.actual, self.expected = World({}), World(RECORDED_USERS)
        self.values: dict[str, str] = {}
        self.peers: dict[str, Peer] = {}
        self.label, self.schema = "", Schema()
        for user in RECORDED_USERS:
            document = json.loads(self.request("POST", "/v1/identity")[1])
            self.actual.identities[user], self.tokens[user] = document["identity"], document["token"]

    def check(self, same: bool, expected: Any, got: Any) -> None:
        if same:
            self.passed += 1
            return
        text = f"expected {str(expected)[:700]} | got {str(got)[:700]}"
        self.differences[self.label] = " || ".join(filter(None, (self.differences.get(self.label), text)))

    def request(
        self, method: str, path: str, user: str | None = None, body: bytes | None = None, kind: str | None = None
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection(*self.address, timeout=120)
        headers = {"Authorization": "Bearer " + self.tokens[user]} if user else {}
        headers |= {"Content-Type": kind} if kind else {}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        connection.close()
        return answer.status, text

    def publish(self, name: str, wasm: bytes, query: str = "") -> tuple[int, str]:
        status, text = self.request("PUT", f"/v1/database/{name}{query}", "owner", wasm, "application/wasm")
        if status == 200:
            self.values[f"db:{name}"] = self.actual.identities["database"] = json.loads(text)["Success"][
                "database_identity"
            ]
            self.values[f"DB:{name}"] = self.values[f"db:{name}"].upper()
        return status, text

    def fill(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name, _, change = match[1].partition("!")
            if name in self.values:
                return self.values[name]
            token = self.tokens.get(name, match[0])
            if change == "badsig":
                return token[:-6] + "AAAAAA"
            return base64.b64encode(f"token:{token}".encode()).decode() if change == "basic" else token

        text = re.sub(r"\{([\w:!-]+)\}", value, text)
        for user, identity in RECORDED_USERS.items():
            text = text.replace(identity, self.actual.identities[user])
        return text

    def fill_bytes(self, data: bytes) -> bytes:
        for user, identity in RECORDED_USERS.items():
            old, new = bytes.fromhex(identity), bytes.fromhex(self.actual.identities[user])
            data = data.replace(old[::-1], new[::-1]).replace(identity.encode(), new.hex().encode())
        return data

    def run_session(self, document: dict[str, Any], schema: Schema) -> None:
        """Play one session."""
        self.peers, self.schema = {}, schema
        self.expected.masked_columns = self.actual.masked_columns = set(document.get("mask", []))
        if "database" in document:
            self.expected.identities["database"] = document["database"]
        for number, step in enumerate(document["steps"]):
            self.label = f"step {number}"
            if "note" in step and len(step) == 1:
                continue
            if step.get("pause"):
                self.pump(self.pause_seconds)
            if "http" in step:
                self.do_http(step)
            elif "open" in step:
                self.do_open(step)
            elif "to" in step:
                self.do_send(step)
            elif "from" in step:
                self.do_expect(step)
        self.label = "end"
        self.pump(0.3)
        for peer_name, peer in self.peers.items():
            rest = [self.show(peer, event) for event in peer.queue if event[0] not in ("eof", "pong")]
            if rest and not peer.tolerant and peer_name not in document.get("unread", []):
                self.check(False, f"nothing more for {peer_name}", rest[:3])
            peer.close()

    def do_http(self, step: dict[str, Any]) -> None:
        method, path = self.fill(step["http"]).split(" ", 1)
        if "wasm" in step and method == "PUT":
            name, _, query = path.removeprefix("/v1/database/").partition("?")
            status, text = self.publish(name, self.module(step["wasm"]), "?" + query if query else "")
        else:
            body = (
                self.module(step["wasm"])
                if "wasm" in step
                else self.fill(step["body"]).encode()
                if "body" in step
                else None
            )
            kind = "application/json" if "/call/" in path else "application/wasm" if "wasm" in step else None
            status, text = self.request(method, path, step.get("as"), body, kind)
        if "/pre_publish" in path and status == 200:
            self.values["migration"] = json.loads(text).get("AutoMigrate", {}).get("token", "")
        if self.skipped(step) or (method == "DELETE" and "answer" not in step):
            return
        self.check(status == step["status"], step["status"], f"{status} {text}")
        if "answer" in step:
            wanted = step["answer"]
            if "FROM st_client" in step.get("body", ""):  # bare u128 columns
                wanted, text = (re.sub(r"\d{20,}", '"<connection>"', part) for part in (wanted, text))
            expected, got = self.plain(wanted, self.expected), self.plain(text, self.actual)
            self.check(expected == got, expected, got)

    @staticmethod
    def plain(text: str, world: World) -> Any:
        try:
            return world.mask_json(json.loads(text))
        except ValueError:
            return world.mask_text(text)

    def do_open(self, step: dict[str, Any]) -> None:
        if step["open"] in self.peers and not self.peers[step["open"]].ended:
            self.peers[step["open"]].close()
        headers = [[name, self.fill(value)] for name, value in step.get("headers", [])]
        if step.get("as"):
            headers.append(["Authorization", "Bearer " + self.tokens[step["as"]]])
        peer = self.peers[step["open"]] = Peer(
            self.address, self.fill(step["path"]), step.get("protocols"), headers, self.wait_seconds
        )
        if self.skipped(step):
            peer.tolerant = True
            return
        self.check(peer.status == step["status"], step["status"], f"{peer.status} {getattr(peer, 'body', '')}")
        if "protocol" in step:
            self.check(peer.protocol == step["protocol"], step["protocol"], peer.protocol)
        if "answer" in step and peer.status != 101:
            expected, got = self.plain(step["answer"], self.expected), self.plain(peer.body, self.actual)
            detail = "Failed to deserialize query string: "
            same = expected.startswith(detail) and got.startswith(detail)
            self.check(same or expected == got, expected, got)

    def do_send(self, step: dict[str, Any]) -> None:
        peer = self.peers[step["to"]]
        if "reset" in step:
            peer.close(reset=True)
        elif "close" in step:
            code, reason = step["close"]
            peer.send(8, (struct.pack(">H", code) if code is not None else b"") + reason.encode())
        elif "frames" in step:  # [first byte, masked, payload]
            for first, masked, payload in step["frames"]:
                peer.send(first & 15, bytes.fromhex(payload), fin=bool(first & 0x80), rsv=first & 0x70, mask=masked)
        elif "text" in step:
            peer.send(1, self.fill(step["text"]).encode())
        else:
            data = bytearray(self.fill_bytes(bytes.fromhex(step["hex"])))
            if "clock" in step:  # [offset of an i64 time, microseconds from now]
                offset, distance = step["clock"]
                data[offset : offset + 8] = (int(time.time() * 1e6) + distance).to_bytes(8, "little")
            peer.send(2, bytes(data))

    def do_expect(self, step: dict[str, Any]) -> None:
        peer = self.peers[step["from"]]
        if self.skipped(step):
            peer.tolerant = True
            return
        if "hex" in step:
            expected = self.messages(peer, bytes.fromhex(step["hex"]), self.expected)
        elif "text" in step:
            expected = [self.expected.mask_json(json.loads(step["text"]))]
        elif "close" in step:
            expected = [{"close": step["close"]}]
        else:
            expected = [{"pong": step["pong"]}] if "pong" in step else [{"eof": True}]
        for wanted in expected:
            self.expect(peer, wanted)

    def expect(self, peer: Peer, wanted: Any) -> None:
        deadline = time.monotonic() + self.wait_seconds
        while True:
            seen: list[Any] = []
            for index, event in enumerate(peer.queue):
                got = self.show(peer, event)
                if got == wanted or self.same_close(wanted, got):
                    del peer.queue[: index + 1]
                    peer.queue[:0] = [] if peer.tolerant else [event for event, _ in seen]
                    self.check(True, wanted, got)
                    return
                if not peer.tolerant and not (is_free(wanted) or is_free(got)):
                    if not seen:
                        del peer.queue[index]
                    self.check(False, canonical(wanted), canonical(got))
                    return
                seen.append((event, got))
            if peer.ended or not self.pump(deadline - time.monotonic()):
                got = [canonical(item) for _, item in seen] or "nothing"
                self.check(False, canonical(wanted), got)
                return

    def same_close(self, wanted: Any, got: Any) -> bool:
        """The detail of a JSON error is each server's own."""
        if "close" not in wanted or "close" not in got:
            return False
        return wanted["close"][0] == got["close"][0] and bool(re.search(r" at line \d+ column", wanted["close"][1]))

    def show(self, peer: Peer, event: tuple[str, Any]) -> Any:
        kind, value = event
        if kind == "raw":
            return value
        if kind != "data":
            return {kind: value}
        opcode, payload = value
        try:
            if opcode == 1:
                return self.actual.mask_json(json.loads(payload))
            messages = self.messages(peer, payload, self.actual)
        except (ValueError, UnicodeDecodeError) as error:
            return {"undecodable": f"{error}: {payload[:100].hex()}"}
        if len(messages) != 1:  # v3: one event a message from here on
            index = peer.queue.index(event)
            peer.queue[index : index + 1] = [("raw", message) for message in messages]
        return messages[0] if messages else {"empty": True}

    def messages(self, peer: Peer, payload: bytes, world: World) -> list[Any]:
        body, result = unpack(payload), list[Any]()
        root = self.schema.types["Server1" if peer.protocol == PROTOCOLS["v1"] else "Server2"]
        decoder = Decoder(body, self.schema, world)
        while decoder.at < len(body):
            result.append(decoder.decode(root))
            if peer.protocol != PROTOCOLS["v3"] and decoder.at != len(body):
                raise ValueError(f"{len(body) - decoder.at} bytes after the message")
        return result

    def pump(self, seconds: float) -> bool:
        """Read from all connections; True as soon as something came (or, for a pause, when the time is over)."""
        end, any_event = time.monotonic() + seconds, False
        while True:
            alive = [peer for peer in self.peers.values() if not peer.ended]
            left = end - time.monotonic()
            if left <= 0 or not alive:
                if not alive and left > 0 and seconds <= self.pause_seconds:
                    time.sleep(left)
                return any_event
            for ready in select.select([peer.socket for peer in alive], [], [], left)[0]:
                next(peer for peer in alive if peer.socket is ready).feed()
                any_event = True
            if any_event and seconds > self.pause_seconds:
                return True

    def skipped(self, step: dict[str, Any]) -> bool:
        return "bug" in step

    def run_cases(self, cases: list[dict[str, Any]]) -> None:
        """Publish the programs of all cases, one after the other, under one name."""
        database = "case"
        for case in cases:
            if case.get("kills") or self.skipped(case):
                continue
            self.label = case_id(case)
            self.request("DELETE", f"/v1/database/{database}", "owner")
            if "old_definition_hex" in case:
                self.run_migration(database, case)
                continue
            wasm = (
                bytes.fromhex(case["wasm_hex"])
                if "wasm_hex" in case
                else wasm_around(bytes.fromhex(case["definition_hex"]))
            )
            status, text = self.publish(database, wasm)
            self.compare(case, case["status"], case["body"], status, text)

    def compare(self, case: dict[str, Any], status: int, body: Any, got_status: int, got: str) -> None:
        got, body = (re.sub(r"0x[0-9a-f]+ - <", "<", str(one)) for one in (got, body))  # places in a backtrace
        text = "ok" if got_status == 200 else self.actual.mask_text(got)
        expected = "ok" if status == 200 else self.expected.mask_text(body)
        self.check((got_status, text) == (status, expected), f"{status} {expected!r}", f"{got_status} {text!r}")

    def run_migration(self, database: str, case: dict[str, Any]) -> None:
        status, text = self.publish(database, wasm_around(bytes.fromhex(case["old_definition_hex"])))
        self.check(status == 200, "200 for the old definition", f"{status} {text}")
        for statement in case.get("sql_before") or []:
            status, text = self.request("POST", f"/v1/database/{database}/sql", "owner", statement.encode())
            self.check(status == 200, f"200 for {statement}", f"{status} {text}")
        new = wasm_around(bytes.fromhex(case["new_definition_hex"]))
        status, text = self.request(
            "POST", f"/v1/database/{database}/pre_publish?style=NoColor", "owner", new, "application/wasm"
        )
        self.check(
            status == case["pre_publish_status"], f"pre_publish {case['pre_publish_status']}", f"{status} {text}"
        )
        plan = json.loads(text).get("AutoMigrate", {}) if status == 200 else {}
        if isinstance(case["pre_publish"], dict) and "plan" in case["pre_publish"]:
            got = {
                "break_clients": plan.get("break_clients"),
                "major": plan.get("major_version_upgrade"),
                "plan": plan.get("migrate_plan", "").replace("━", "").strip(),
            }
            self.check(got == case["pre_publish"], f"{case['pre_publish']}", got)
        status, text = self.publish(database, new)
        self.compare(case, case["status"], case["body"], status, text)
        if case.get("break_clients_publish") and plan.get("token"):
            status, text = self.publish(database, new, f"?policy=BreakClients&token={plan['token']}")
            got = f"{status} {'ok' if status == 200 else text[:300]}"
            self.check(case["break_clients_publish"].endswith(got), case["break_clients_publish"], got)


def case_id(case: dict[str, Any]) -> str:
    """Return what a case is called."""
    return str(case.get("case") or f"{case['kind']} {case.get('name')!r}")


def is_free(message: Any) -> bool:
    return isinstance(message, dict) and ("ProcedureResult" in message or bool(NOT_RUN.search(canonical(message))))


def wasm_around(definition: bytes) -> bytes:
    """A module that describes itself with `definition` and whose reducers do nothing."""

    def number(value: int) -> bytes:
        out = bytearray()
        while True:
            out.append(value & 127 | (128 if value > 127 else 0))
            value >>= 7
            if not value:
                return bytes(out)

    def signed(value: int) -> bytes:
        out = bytearray()
        while True:
            low, value = value & 127, value >> 7
            if (value == 0 and not low & 64) or (value == -1 and low & 64):
                return bytes([*out, low])
            out.append(low | 128)

    def many(parts: list[bytes]) -> bytes:
        return number(len(parts)) + b"".join(parts)

    def name(text: str) -> bytes:
        return number(len(text)) + text.encode()

    def section(tag: int, content: bytes) -> bytes:
        return bytes([tag]) + number(len(content)) + content

    def body(code: bytes) -> bytes:
        return number(len(code) + 2) + b"\0" + code + b"\x0b"

    i32, i64 = b"\x7f", b"\x7e"
    types = [
        b"\x60" + many([i32] * 3) + many([i32]),
        b"\x60" + many([i32]) + many([]),
        b"\x60" + many([i32, *[i64] * 7, i32, i32]) + many([i32]),
    ]
    describe = b"\x20\0\x41" + signed(1024) + b"\x41" + signed(16) + b"\x10\0\x1a"
    data = [
        b"\0\x41" + signed(at) + b"\x0b" + number(len(content)) + content
        for at, content in ((1024, definition), (16, struct.pack("<I", len(definition))))
    ]
    return b"\0asm\1\0\0\0" + b"".join(
        [
            section(1, many(types)),
            section(2, many([name("spacetime_10.0") + name("bytes_sink_write") + b"\0\0"])),
            section(3, many([b"\1", b"\2"])),
            section(5, many([b"\0" + number(2 + len(definition) // 65536)])),
            section(
                7,
                many(
                    [
                        name("memory") + b"\2\0",
                        name("__describe_module__") + b"\0\1",
                        name("__call_reducer__") + b"\0\2",
                    ]
                ),
            ),
            section(10, many([body(describe), body(b"\x41\0")])),
            section(11, many(data)),
        ]
    )
