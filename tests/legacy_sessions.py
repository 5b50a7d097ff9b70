"""Recorded WebSocket messages of 0.7 to 0.11, and this server's, in one form that can be compared.

A message becomes a `Told`: rows by table as JSON arrays, each once and in no order; arguments as a JSON value. What is
measured or drawn anew (times, energy, ids of tables) is left out or a placeholder. `Names` finds out what the
placeholders of one recording stand for here.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from stdb.errors import DecodeError
from stdb.sats import json as sats_json
from stdb.sats.profiles import V0_11
from stdb.schema.legacy import LegacyFace
from tests.legacy_messages import (
    SERVER_MESSAGE,
    array_form,
    bsatn_document,
    positional,
    protobuf_document,
    unpacked,
)

__all__ = ["ANY", "Names", "Rows", "Told", "numbered", "told_binary", "told_text"]

ANY = "${any}"
"""Stands for every value."""
_NUMBERS = re.compile(r"\$\{(?:us|n)\}")
_ANY_NUMBER = 987_654_321_987_654
_PLACEHOLDER = re.compile(r"\$\{(identity|address|token|hash):(\w+)\}")
_SHAPES = {
    "identity": "[0-9a-f]{64}",
    "address": "[0-9a-f]{32}",
    "token": r"[\w-]+\.[\w-]+\.[\w-]+",
    "hash": "[0-9a-f]{64}",
}


class Told(NamedTuple):
    """A message of a server. `tables`: name to rows that go and rows that come; of a one-off query a list of both."""

    kind: str
    fields: dict[str, Any]
    tables: Any


class Names:
    """What placeholders stand for."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def filled(self, text: str) -> str:
        """Return a text with every placeholder filled in."""
        return _PLACEHOLDER.sub(lambda match: self.known[f"{match[1]}:{match[2]}"], text)

    def differences(self, expected: Any, actual: Any, where: str = "") -> list[str]:
        """Return where a value is another than the expected one; learn what is new."""
        if expected == ANY or (expected == _ANY_NUMBER and isinstance(actual, int)):
            return []
        if isinstance(expected, str) and isinstance(actual, str):
            return [] if self._same(expected, actual) else [f"{where}: {actual!r}, recorded {expected!r}"]
        if isinstance(expected, dict) and isinstance(actual, dict):
            if expected.keys() != actual.keys():
                return [f"{where}: members {sorted(actual)}, recorded {sorted(expected)}"]
            return [text for key in expected for text in self.differences(expected[key], actual[key], f"{where}.{key}")]
        if isinstance(expected, Rows) and isinstance(actual, Rows):
            return self._rows(expected, actual, where)
        if isinstance(expected, list | tuple) and isinstance(actual, list | tuple):
            if len(expected) != len(actual):
                return [f"{where}: {actual!r}, recorded {expected!r}"]
            pairs = zip(expected, actual, strict=True)
            return [text for i, pair in enumerate(pairs) for text in self.differences(*pair, f"{where}[{i}]")]
        return [] if expected == actual else [f"{where}: {actual!r}, recorded {expected!r}"]

    def _rows(self, expected: "Rows", actual: "Rows", where: str) -> list[str]:
        """Compare rows without an order: each expected one takes away an actual one."""
        left = list(actual)
        for row in expected:
            before = dict(self.known)
            for place, candidate in enumerate(left):
                if not self.differences(row, candidate):
                    del left[place]
                    break
                self.known = dict(before)
            else:
                return [f"{where}: no row {row!r} in {list(actual)!r}"]
        return [f"{where}: rows too many: {left!r}"] if left else []

    def _same(self, expected: str, actual: str) -> bool:
        pattern, last = "", 0
        seen: dict[str, str] = {}
        for match in _PLACEHOLDER.finditer(expected):
            key = f"{match[1]}:{match[2]}"
            pattern += re.escape(expected[last : match.start()])
            if key in self.known:
                pattern += re.escape(self.known[key])
            elif key in seen:
                pattern += f"(?P={seen[key]})"
            else:
                seen[key] = f"p{len(seen)}"
                pattern += f"(?P<{seen[key]}>{_SHAPES[match[1]]})"
            last = match.end()
        pattern = pattern + re.escape(expected[last:])
        found = re.fullmatch(pattern.replace(re.escape(str(_ANY_NUMBER)), r"-?\d+"), actual, re.DOTALL)
        if found is None:
            return False
        self.known.update({key: found[group] for key, group in seen.items()})
        return True


class Rows(list[Any]):
    """Rows without an order."""


def told_text(text: str, face: LegacyFace) -> Told:
    """Return a text message, recorded or ours."""
    ((kind, content),) = json.loads(numbered(text)).items()
    if kind not in _OLD_TEXT or not _is_old(content):
        return _NEW[kind](content, _text_rows, None)
    told = _OLD_TEXT[kind](content)
    if kind == "TransactionUpdate":
        told.fields["args"] = _old_args(told.fields, face)
    return told


def _old_args(fields: dict[str, Any], face: LegacyFace) -> Any:
    """Return arguments as an array (spec 03 section 3.3, "we: L1 always re-encodes"), of a refused call nothing."""
    if fields["message"].startswith(("no such reducer", "invalid arguments for ")):
        return ANY
    reducer = face.reducer(fields["reducer"])
    if reducer is None or fields["reducer"] == "on_timer":
        return ANY if reducer else fields["args"]
    args, widths = fields["args"], {"identity": 64, "address": 32}
    found = {match[0]: match[1] for match in _PLACEHOLDER.finditer(args)}
    stand_ins = {text: f"{place:0{widths[kind]}x}" for place, (text, kind) in enumerate(found.items(), 0xABCD0000)}
    for text, stand_in in stand_ins.items():
        args = args.replace(text, stand_in)
    value = sats_json.decode(reducer.params, sats_json.parse(args), profile=V0_11)
    args = sats_json.encode(reducer.params, value, "positional", profile=V0_11)
    for text, stand_in in stand_ins.items():
        args = args.replace(stand_in, text)
    return json.loads(args)


def told_binary(payload: bytes, dialect: str, face: LegacyFace) -> Told:
    """Return a binary message of a dialect."""
    if dialect == "0.11":
        ((kind, content),) = bsatn_document(SERVER_MESSAGE, unpacked(payload)).items()
        return _NEW[kind](content, lambda table, rows: _binary_rows(face, table, [row["Binary"] for row in rows]), face)
    document = protobuf_document(payload if dialect == "0.8" else unpacked(payload))
    ((kind, content),) = document.items()
    return _PROTOBUF[kind](content, face)


def numbered(text: str) -> str:
    """Return a recorded text with a stand-in for every measured number."""
    return _NUMBERS.sub(str(_ANY_NUMBER), text)


def _is_old(content: Any) -> bool:
    old = ("event", "table_updates", "message_id_base64", "identity")
    return not isinstance(content.get("identity"), dict) and not content.keys().isdisjoint(old)


def _merged(tables: list[tuple[str, list[Any], list[Any]]]) -> dict[str, dict[str, Rows]]:
    """Return tables by name, every row once, however often it is told; one with an unknown time may be another one."""
    merged: dict[str, tuple[Counter[str], Counter[str]]] = {}
    for name, *sides in tables:
        known = merged.setdefault(name, (Counter(), Counter()))
        for counted, rows in zip(known, sides, strict=True):
            counted |= Counter(_counted(rows))
    for gone, come in merged.values():
        for row in [row for row in gone.keys() & come.keys() if str(_ANY_NUMBER) not in row]:
            del gone[row], come[row]
    told = {name: {"deletes": _rows(gone), "inserts": _rows(come)} for name, (gone, come) in merged.items()}
    return {name: sides for name, sides in told.items() if sides["deletes"] or sides["inserts"]}


def _counted(rows: list[Any]) -> Iterator[str]:
    texts = [json.dumps(row) for row in rows]
    yield from dict.fromkeys(text for text in texts if str(_ANY_NUMBER) not in text)
    yield from (text for text in texts if str(_ANY_NUMBER) in text)


def _rows(counted: Counter[str]) -> Rows:
    return Rows(json.loads(text) for text in counted.elements())


# 0.11.


def _text_rows(table: str, rows: list[Any]) -> list[Any]:
    return [_text_row(json.loads(numbered(row["Text"]), parse_float=str)) for row in rows]


def _text_row(row: Any) -> Any:
    """Return a row as an array; only rows that are objects have products that are."""
    return array_form(row) if isinstance(row, dict) else row


def _binary_rows(face: LegacyFace, table: str, rows: list[str]) -> list[Any]:
    """Return rows as arrays; of other columns than the table's as they are."""
    definition = face.table(table)
    found: list[Any] = []
    for data in rows:
        try:
            assert definition is not None
            found.append(_without_time(table, positional(definition.row_type, bytes.fromhex(data))))
        except (DecodeError, AssertionError):
            found.append(data)
    return found


def _without_time(table: str, row: Any) -> Any:
    if table == "Message":
        return [row[0], _ANY_NUMBER, row[2]]
    return [row[0], _ANY_NUMBER, row[2]] if table == "Timer" else row


def _identity_token_new(content: Any, *_: Any) -> Told:
    identity, address = content["identity"]["__identity_bytes"], content["address"]["__address_bytes"]
    return Told("identity", {"identity": identity, "token": content["token"], "address": address}, {})


def _tables_new(update: Any, rows: Any) -> dict[str, dict[str, Rows]]:
    tables = update["tables"]
    return _merged(
        [
            (each["table_name"], *(rows(each["table_name"], each[side]) for side in ("deletes", "inserts")))
            for each in tables
        ]
    )


def _initial_new(content: Any, rows: Any, _: Any) -> Told:
    return Told("initial", {"request_id": content["request_id"]}, _tables_new(content["database_update"], rows))


def _transaction_new(content: Any, rows: Any, face: LegacyFace | None) -> Told:
    ((status, detail),) = content["status"].items()
    call = content["reducer_call"]
    args = call["args"].get("Text")
    fields = {
        "status": {"Committed": "committed", "Failed": "failed", "OutOfEnergy": "out_of_energy"}[status],
        "message": detail if status == "Failed" else "",
        "caller": content["caller_identity"]["__identity_bytes"],
        "address": content["caller_address"]["__address_bytes"],
        "reducer": call["reducer_name"],
        "reducer_id": call["reducer_id"],
        "args": numbered(args) if face is None else _binary_args(face, call["reducer_name"], call["args"]["Binary"]),
        "request_id": call["request_id"],
    }
    return Told("transaction", fields, _tables_new(detail, rows) if status == "Committed" else {})


def _binary_args(face: LegacyFace, reducer: str, data: str) -> Any:
    known = face.reducer(reducer)
    if known is None or not data:
        return data
    if reducer == "on_timer":
        return ANY
    try:
        return positional(known.params, bytes.fromhex(data))
    except DecodeError:
        return data


def _one_off_new(content: Any, rows: Any, _: Any) -> Told:
    error = content["error"].get("some")
    tables = [[each["table_name"], Rows(rows(each["table_name"], each["rows"]))] for each in content["tables"]]
    return Told("one_off", {"message_id": content["message_id"], "error": error}, tables)


_NEW = {
    "IdentityToken": _identity_token_new,
    "InitialSubscription": _initial_new,
    "TransactionUpdate": _transaction_new,
    "OneOffQueryResponse": _one_off_new,
}


# 0.7 to 0.10, JSON.


def _tables_old(updates: Any) -> dict[str, dict[str, Rows]]:
    def rows(update: Any, operation: str) -> list[Any]:
        return [each["row"] for each in update["table_row_operations"] if each["op"] == operation]

    return _merged([(each["table_name"], rows(each, "delete"), rows(each, "insert")) for each in updates])


def _identity_token_old(content: Any) -> Told:
    return Told("identity", {name: content[name] for name in ("identity", "token", "address")}, {})


def _initial_old(content: Any) -> Told:
    fields = {"request_id": content["request_id"]} if "request_id" in content else {}
    return Told("initial", fields, _tables_old(content["table_updates"]))


def _transaction_old(content: Any) -> Told:
    event, update = content["event"], content["subscription_update"]
    call = event["function_call"]
    fields = {
        "status": event["status"],
        "message": event["message"],
        "caller": event["caller_identity"],
        "address": event["caller_address"],
        "reducer": call["reducer"],
        "args": numbered(call["args"]),
    }
    if "request_id" in call:
        assert call["request_id"] == update["request_id"]
        fields["request_id"] = call["request_id"]
    return Told("transaction", fields, _tables_old(update["table_updates"]))


def _one_off_old(content: Any) -> Told:
    tables = [[each["table_name"], Rows(each["rows"])] for each in content["result"]]
    return Told("one_off", {"message_id": content["message_id_base64"], "error": content["error"]}, tables)


_OLD_TEXT = {
    "IdentityToken": _identity_token_old,
    "SubscriptionUpdate": _initial_old,
    "TransactionUpdate": _transaction_old,
    "OneOffQueryResponse": _one_off_old,
}


# 0.7 to 0.10, protobuf.


def _tables_protobuf(update: Any, face: LegacyFace) -> dict[str, dict[str, Rows]]:
    def rows(table: Any, operation: int) -> list[Any]:
        operations = [each for each in table["tableRowOperations"] if each.get("op", 0) == operation]
        return _binary_rows(face, table["tableName"], [each["row"] for each in operations])

    tables = update.get("tableUpdates", [])
    return _merged([(each["tableName"], rows(each, 0), rows(each, 1)) for each in tables])


def _identity_token_protobuf(content: Any, _: LegacyFace) -> Told:
    return Told("identity", {name: content[name] for name in ("identity", "token", "address")}, {})


def _initial_protobuf(content: Any, face: LegacyFace) -> Told:
    return Told("initial", {"request_id": content.get("requestId", 0)}, _tables_protobuf(content, face))


def _transaction_protobuf(content: Any, face: LegacyFace) -> Told:
    event, update = content["event"], content["subscriptionUpdate"]
    call = event["functionCall"]
    request_id = call.get("requestId", 0)
    assert update.get("requestId", 0) == request_id
    fields = {
        "status": ("committed", "failed", "out_of_energy")[event.get("status", 0)],
        "message": event.get("message", ""),
        "caller": event["callerIdentity"],
        "address": event["callerAddress"],
        "reducer": call.get("reducer", ""),
        "args": _binary_args(face, call.get("reducer", ""), call.get("argBytes", "")),
        "request_id": request_id,
    }
    return Told("transaction", fields, _tables_protobuf(update, face))


def _one_off_protobuf(content: Any, face: LegacyFace) -> Told:
    tables = [
        [each["tableName"], Rows(_binary_rows(face, each["tableName"], each.get("row", [])))]
        for each in content.get("tables", [])
    ]
    return Told("one_off", {"message_id": content.get("messageId", ""), "error": content.get("error")}, tables)


_PROTOBUF = {
    "identityToken": _identity_token_protobuf,
    "subscriptionUpdate": _initial_protobuf,
    "transactionUpdate": _transaction_protobuf,
    "oneOffQueryResponse": _one_off_protobuf,
}
