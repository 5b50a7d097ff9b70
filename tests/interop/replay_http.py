"""Recorded HTTP exchanges and SQL statements, played in their order against a fresh server.

Compared: status, the headers of COMPARED_HEADERS, body. Masked: times, durations, energy, fresh identities, tokens and
connection ids, line numbers, stack traces, program hashes, the order of rows, names and identities. Entries marked `we`
are sent and not compared; where a text ends in the detail of one particular parser, only its beginning counts.
"""

import base64
import contextlib
import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

__all__ = ["Replay"]

COMPARED_HEADERS = {
    "content-type",
    "allow",
    "vary",
    "cache-control",
    "upgrade",
    "sec-websocket-protocol",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "spacetime-identity",
    "spacetime-identity-token",
    "spacetime-energy-used",
    "spacetime-execution-duration-micros",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
    "access-control-allow-credentials",
    "x-made",
}
CORS_HEADERS = {
    "vary": "origin, access-control-request-method, access-control-request-headers",
    "access-control-allow-origin": "*",
}
DETAIL_PREFIXES = (
    r"invalid arguments for (?:reducer|procedure) [^:]*: ",
    r"Invalid token: JSON error: ",
    r"Invalid token: Base64 error: ",
    r"failed to parse WebAssembly module: ",
    r"Failed to deserialize query string: ",
    r"sql parser error: ",
    r"Failed to parse the request body as JSON: ",
    r"Failed to deserialize the JSON body into the target type: ",
    r"The module instance encountered a fatal error: ",
)
UNORDERED = {
    "rows",
    "identities",
    "names",
    "tables",
    "Tables",
    "Types",
    "Reducers",
    "Procedures",
    "Views",
    "HttpHandlers",
    "HttpRoutes",
    "Schedules",
    "LifeCycleReducers",
    "RowLevelSecurity",
    "entries",
    "indexes",
    "constraints",
    "sequences",
}
PLACEHOLDERS = {
    "fresh identity": "[0-9a-f]{64}",
    "fresh jwt": r"[\w-]+\.[\w-]+\.[\w-]+",
    "jwt": r"[\w-]+\.[\w-]+\.[\w-]+",
    "micros": r"\d+",
    "int": r"-?\d+",
    "ts": r"\d+",
    "u128": r"(?:\\u0001)?\d+",
    "hex": "<hex>",
}
PLACEHOLDER = re.compile("<(" + "|".join(map(re.escape, PLACEHOLDERS)) + ")>")
NEVER_ALLOCATED = "c200" + "11" * 30  # an identity without a database, used in the recordings
RECORDED_AT = 1_795_488_778
NUMBER = "\x01"  # marks a JSON number inside the canonical form, so that 1, 1.0 and "1" stay different


class Response:
    def __init__(self, status: int, reason: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.reason, self.body = status, reason, body
        self.headers: dict[str, str] = {}
        for name, value in headers:
            name = name.lower()
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value


def expand(parts: list[list[Any]]) -> str:
    return "".join(text * times for text, times in parts)


class Replay:
    """Plays recordings against one server; differences are kept by the id of their entry."""

    def __init__(self, address: tuple[str, int], module: Callable[[str], bytes], documents: Path) -> None:
        self.host, self.port = address
        self.module, self.documents = module, documents
        self.values: dict[str, str] = {"host": f"{self.host}:{self.port}"}
        self.passed = 0
        self.differences: dict[str, str] = {}
        for who in ("owner", "client"):
            document = json.loads(self.send("POST", "/v1/identity").body)
            self.values["identity:" + who], self.values["jwt:" + who] = document["identity"], document["token"]
            self.values["IDENTITY:" + who] = document["identity"].upper()

    def send(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """One request on a connection of its own, with exactly the given headers."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=90)
        connection.putrequest(method, path, skip_accept_encoding=True)
        given = dict(headers or {})
        lower = {name.lower() for name in given}
        if not lower & {"content-length", "transfer-encoding"} and (
            body is not None or method in ("POST", "PUT", "PATCH")
        ):
            given["Content-Length"] = str(len(body or b""))
        for name, value in given.items():
            connection.putheader(name, value)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.endheaders(body)  # the server may answer before it has read everything
        answer = connection.getresponse()
        upgraded = answer.status == 101
        try:
            content = b"" if upgraded else answer.read()
        except (http.client.IncompleteRead, ConnectionResetError) as error:
            content = getattr(error, "partial", b"")
        result = Response(answer.status, answer.reason, answer.getheaders(), content)
        connection.close()
        return result

    def bearer(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.values['jwt:' + who]}"}

    def fill(self, text: str) -> str:
        """Replace the placeholders whose values are known."""
        return re.sub(r"<([\w: ]+)>", lambda m: self.values.get(m[1], m[0]), text)

    def mask(self, text: str) -> str:
        known = {*self.values.values(), NEVER_ALLOCATED}
        text = re.sub(r"c200[0-9a-f]{60}", lambda m: m[0] if m[0] in known else "<hex>", text)
        text = re.sub(r"<db:[a-z]+>|<fresh identity>", "<hex>", text)
        text = re.sub(r'(total_duration_micros\\*":\s*)\d+', r"\g<1>0", text)
        text = re.sub(r"(ConnectionId\(|connection_id\W+)[0-9a-f]{32}", r"\g<1><hex>", text)
        text = re.sub(r'("(?:initial_program|program_hash|token)":")0x[0-9a-f]+', r"\g<1><hash>", text)
        text = re.sub(r"(-----BEGIN PUBLIC KEY-----\n).*(\n-----END)", r"\1\2", text, flags=re.S)
        text = re.sub(r'(\\?"sub\\?":\\?")[^"\\]*', r"\g<1><sub>", text)
        text = re.sub(r'(\\?"iat\\?":)\d+', r"\g<1>0", text)
        if '"index_id"' in text:  # numbered in hash order within a table
            text = re.sub(r'\[\d+,(\d+,")', r"[0,\1", text)
        if '"constraint_id"' in text:
            text = re.sub(r'\[\d+,(")', r"[0,\1", text)
        if '"connection_id"' in text:
            text = re.sub(r'"<u128>"|\b\d{30,39}\b', "0", text)
        return re.sub(r"(error while executing at wasm backtrace:).*", r"\1", text, flags=re.S)

    def mask_log(self, text: str) -> str:
        text = re.sub(r'"ts":\d+', '"ts":0', text)
        text = re.sub(r'"line_number":\d+', '"line_number":0', text)
        text = re.sub(r'"filename":"[^"]*table\.rs"', '"filename":"table.rs"', text)
        return re.sub(r'"trace":\[.*?\]\}', '"trace":[]}', text)

    def canonical(self, text: str) -> str:
        """A JSON text with sorted members and, where order means nothing, sorted lists; any other text as it is."""
        try:
            document = json.loads(text, parse_int=lambda s: NUMBER + s, parse_float=lambda s: NUMBER + s)
        except ValueError:
            return text

        def walk(value: Any, key: str) -> Any:
            if isinstance(value, dict):
                return {name: walk(item, name) for name, item in value.items()}
            if isinstance(value, list):
                items = [walk(item, "") for item in value]
                return sorted(items, key=lambda item: json.dumps(item, sort_keys=True)) if key in UNORDERED else items
            return value

        return json.dumps(walk(document, ""), sort_keys=True, ensure_ascii=False)

    def same_text(self, expected: str, actual: str) -> bool:
        for prefix in DETAIL_PREFIXES:
            if match := re.match(prefix, expected):
                return actual.startswith(match[0])
        pattern, last = "", 0
        for match in PLACEHOLDER.finditer(expected):
            pattern += re.escape(expected[last : match.start()]) + PLACEHOLDERS[match[1]]
            last = match.end()
        pattern += re.escape(expected[last:])
        return re.fullmatch(pattern, actual, flags=re.S) is not None

    def body_difference(self, expected: str, actual: bytes, *, is_json: bool, is_log: bool = False) -> str | None:
        text = actual.decode("utf-8", "replace")
        if cut := re.fullmatch(r"(.*)(?:\.\.\.<\d+ characters>|…)", expected, flags=re.S):
            expected, text, is_json = cut[1], text[: len(self.fill(cut[1]))], False
        want, got = self.mask(self.fill(expected)), self.mask(text)
        if is_log:
            want, got = self.mask_log(want), self.mask_log(got)
        if is_json and (canonical := self.canonical(want)) != want:
            want, got = canonical, self.canonical(got)
        if self.same_text(want, got):
            return None
        at = next((i for i, (a, b) in enumerate(zip(want, got, strict=False)) if a != b), min(len(want), len(got)))
        start = max(0, at - 60)
        return f"body at {at}: expected …{want[start : at + 160]!r}, got …{got[start : at + 160]!r}"

    def header_differences(self, expected: dict[str, Any], actual: Response) -> Iterator[str]:
        want = {name: value for name, value in expected.get("headers", [])}
        if expected.get("cors"):
            want.update(CORS_HEADERS)
        for name in sorted(COMPARED_HEADERS):
            a, b = want.get(name), actual.headers.get(name)
            if a is None and b is None:
                continue
            if a is None or b is None:
                yield f"header {name}: expected {a!r}, got {b!r}"
                continue
            a, b = self.fill(a), b
            if name == "allow":
                if set(a.replace(" ", "").split(",")) != set(b.replace(" ", "").split(",")):
                    yield f"header allow: expected {a!r}, got {b!r}"
            elif not self.same_text(a, b):
                yield f"header {name}: expected {a[:90]!r}, got {b[:90]!r}"

    def report(self, label: str, differences: list[str]) -> None:
        if differences:
            self.differences[label] = "; ".join(differences)
        else:
            self.passed += 1

    def exchanges(self, entries: list[dict[str, Any]]) -> None:
        """Send the requests in their order."""
        for entry in entries:
            if "skip" not in entry and entry.get("we") != "not sent":
                self.exchange(entry, compare="we" not in entry)

    def exchange(self, entry: dict[str, Any], *, compare: bool) -> None:
        request, expected = entry["request"], entry.get("response")
        path = expand(request["path_parts"]) if "path_parts" in request else self.fill(request["path"])
        headers = {
            name: expand(value["parts"]) if isinstance(value, dict) else self.fill(value)
            for name, value in request.get("headers", {}).items()
        }
        body: bytes | None = None
        if "body" in request:
            body = self.fill(request["body"]).encode()
        elif "body_hex" in request:
            body = bytes.fromhex(request["body_hex"])
        elif "body_parts" in request:
            body = expand(request["body_parts"]).encode()
        elif "body_file" in request:
            body = self.module(request["body_file"])
        label = f"[{entry['section']}] {entry['id']}"
        try:
            actual = self.send(request["method"], path, headers, body)
            if b"Database is already opened" in actual.body:  # a race of the reference after a refused publish
                time.sleep(0.5)
                actual = self.send(request["method"], path, headers, body)
        except (OSError, http.client.HTTPException) as error:
            self.report(label, [f"no answer: {error!r}"])
            return
        for name, where in entry.get("capture", {}).items():
            if where.startswith("header "):
                found = actual.headers.get(where[7:])
            else:
                match = re.search(rf'"{where}":"([^"]*)"', actual.body.decode("utf-8", "replace"))
                found = match and match[1]
            if found:
                self.values[name] = found
        if "wait" in entry:
            time.sleep(entry["wait"])
        if expected is None or not compare:
            return
        differences = []
        if actual.status != expected["status"]:
            differences.append(f"status: expected {expected['status']}, got {actual.status} {actual.body[:200]!r}")
        elif expected["status"] == 530 and actual.reason != expected["reason"]:
            differences.append(f"reason: expected {expected['reason']!r}, got {actual.reason!r}")
        differences.extend(self.header_differences(expected, actual))
        mode = entry.get("compare", "body")
        is_json = actual.headers.get("content-type") == "application/json"
        if mode == "schema":
            version = re.search(r"version=(\d+)", path)
            assert version is not None
            text = (self.documents / f"kitchen_v{version[1]}.json").read_text("utf-8")
            difference = self.body_difference(text, actual.body, is_json=True)
        elif mode == "head" or "body" not in expected or expected["status"] == 101:
            difference = None
        else:
            difference = self.body_difference(expected["body"], actual.body, is_json=is_json, is_log=mode == "log")
        if difference and actual.status == expected["status"]:
            differences.append(difference)
        if "value_seen" in entry and actual.status == 200:
            name = path.rsplit("/", 1)[1]
            lines = (
                self.send("GET", "/v1/database/kitchen/logs?num_lines=4", self.bearer("owner"))
                .body.decode()
                .splitlines()
            )
            seen = [line["message"] for line in map(json.loads, lines) if line.get("function") == name]
            if not seen or self.mask(seen[-1]) != self.mask(self.fill(entry["value_seen"])):
                differences.append(f"the reducer saw {seen[-1:]!r}, expected {entry['value_seen']!r}")
        self.report(label, differences)

    def publish(self, name: str, file: str) -> None:
        answer = self.send("PUT", f"/v1/database/{name}?clear=true", self.bearer("owner"), self.module(file))
        if answer.status != 200:
            raise SystemExit(f"cannot publish {file} as {name}: {answer.status} {answer.body[:300]!r}")

    def statements(self, entries: list[dict[str, Any]]) -> None:
        """Run the statements in their order: each meets what those before it made."""
        self.publish("kitchen", "kitchen.wasm")
        fresh = False
        for number, entry in enumerate(entries):
            category = entry["category"]
            if "status" not in entry or category == "sysdml":  # over a WebSocket; changes of system tables
                continue
            if category == "more" and not fresh:
                self.publish("kitchen", "kitchen.wasm")
                fresh = True
            if "sql_hex" in entry:
                text = bytes.fromhex(entry["sql_hex"])
            else:
                text = (expand(entry["sql_parts"]) if "sql_parts" in entry else self.fill(entry["sql"])).encode()
            who = entry.get("caller", "owner")
            path = f"/v1/database/{entry.get('db', 'kitchen')}/sql{entry.get('query', '')}"
            actual = self.send("POST", path, {} if who == "anonymous" else self.bearer(who), text)
            if "we" in entry:
                continue
            differences = []
            if actual.status != entry["status"]:
                differences.append(f"status: expected {entry['status']}, got {actual.status} {actual.body[:200]!r}")
            else:
                expected = entry["result_text"] if "result_text" in entry else entry["error"]
                if "characters>" not in expected[-40:]:
                    difference = self.body_difference(expected, actual.body, is_json="result_text" in entry)
                    if difference:
                        differences.append(difference)
            self.report(f"[sql {category}] #{number}", differences)

    def tokens(self, entries: list[dict[str, Any]], key: ec.EllipticCurvePrivateKey) -> None:
        """Ask with tokens that are signed by the server's own key."""
        for entry in entries:
            if entry.get("own_key"):
                self.token(entry, key)

    def token(self, entry: dict[str, Any], key: ec.EllipticCurvePrivateKey) -> None:
        payload, now = dict(entry["payload"]), int(time.time())
        for name, value in payload.items():  # times near the moment of the recording
            if isinstance(value, int | float) and abs(value - RECORDED_AT) < 200_000:
                payload[name] = value - RECORDED_AT + now
            elif isinstance(value, str) and value == str(RECORDED_AT + 1000):
                payload[name] = str(now + 1000)
        text = json.dumps(payload, separators=(",", ":")).encode()
        message = base64url(entry["header"].encode()) + b"." + base64url(text)
        first, second = decode_dss_signature(key.sign(message, ec.ECDSA(SHA256())))
        signature = first.to_bytes(32, "big") + second.to_bytes(32, "big")
        token = (message + b"." + base64url(signature)).decode()
        actual = self.send("GET", "/v1/database/kitchen/names", {"Authorization": f"Bearer {token}"})
        got = actual.body.decode("utf-8", "replace")
        differences = []
        if actual.status != entry["status"]:
            differences.append(f"status: expected {entry['status']}, got {actual.status} {got[:200]}")
        elif actual.status != 200:
            if not self.same_text(re.sub(r"\d{10}", "0", entry["body"]), re.sub(r"\d{10}", "0", got)):
                differences.append(f"body: expected {entry['body'][:200]!r}, got {got[:200]!r}")
        else:
            if actual.headers.get("spacetime-identity") != entry["identity"]:
                differences.append(f"identity: expected {entry['identity']}, got {actual.headers}")
            if (actual.headers.get("spacetime-identity-token") == token) != entry["token_echoed"]:
                differences.append("the token is not echoed")
        self.report(f"[tokens] {entry['id']}", differences)


def base64url(data: bytes) -> bytes:
    """Return the form of bytes in tokens."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")
