"""Server messages as plain values with everything masked that differs from run to run.

Types are in the notation of `vectors/recorded_modules`: `(a: U8, b: &3)`, `Sum(x: () | y: String)`, `Array<T>`, `&n`.
"""

import json
import re
import struct
from typing import Any

__all__ = ["PROTOCOLS", "RECORDED_USERS", "Decoder", "Schema", "World", "canonical"]

PROTOCOLS = {
    "v1": "v1.bsatn.spacetimedb",
    "v2": "v2.bsatn.spacetimedb",
    "v3": "v3.bsatn.spacetimedb",
    "json": "v1.json.spacetimedb",
}
RECORDED_USERS = {  # issuer "localhost", subject = the name (spec 01, section 8.2)
    "owner": "c2001eebebd872679530a71db4abd79b3334819f73ed81a71affa4ccb2fb63c4",
    "alice": "c20035600353a2e93544d898c6ed0eac323e200c0468300f22958f8b472a265d",
    "bob": "c200e63a6bd07da2304dd6f5b4691d3338562ceaa43cad4624d0d181a7a6c0d4",
    "carol": "c200c5b4fe98a95fd1e3967f4e1e9e7927b93b583e77c0468cab6151e749791d",
}

TYPES = {
    "QueryUpdate": "(deletes: Rows, inserts: Rows)",
    "Compressable": "Sum(Uncompressed: QueryUpdate | Brotli: Array<U8> | Gzip: Array<U8>)",
    "TableUpdate1": "(table_id: Skip4, table_name: Table, num_rows: U64, updates: Set<Compressable>)",
    "DatabaseUpdate": "(tables: Set<TableUpdate1>)",
    "Status1": "Sum(Committed: DatabaseUpdate | Failed: Text | OutOfEnergy: ())",
    "Call": "(reducer_name: String, reducer_id: U32, args: Args, request_id: U32)",
    "OneOff1": "(table_name: Table, rows: Rows)",
    "SubscribeRows": "(table_id: Skip4, table_name: Table, table_rows: TableUpdate1)",
    "Procedure1": "Sum(Returned: Array<U8> | OutOfEnergy: () | InternalError: Text)",
    "Applied1": "(request_id: U32, duration: Skip8, query_id: U32, rows: SubscribeRows)",
    "MultiApplied1": "(request_id: U32, duration: Skip8, query_id: U32, update: DatabaseUpdate)",
    "Server1": "Sum(InitialSubscription: (database_update: DatabaseUpdate, request_id: U32, duration: Skip8)"
    " | TransactionUpdate: (status: Status1, timestamp: Timestamp, caller_identity: Identity,"
    " caller_connection_id: ConnectionId, reducer_call: Call, energy_quanta_used: Skip16, duration: Skip8)"
    " | TransactionUpdateLight: (request_id: U32, update: DatabaseUpdate)"
    " | IdentityToken: (identity: Identity, token: Token, connection_id: ConnectionId)"
    " | OneOffQueryResponse: (message_id: Array<U8>, error: Option<Text>, tables: Array<OneOff1>, duration: Skip8)"
    " | SubscribeApplied: Applied1 | UnsubscribeApplied: Applied1"
    " | SubscriptionError: (duration: Skip8, request_id: Option<U32>, query_id: Option<U32>,"
    " table_id: Option<U32>, error: Text)"
    " | SubscribeMultiApplied: MultiApplied1 | UnsubscribeMultiApplied: MultiApplied1"
    " | ProcedureResult: (status: Procedure1, timestamp: Timestamp, duration: Skip8, request_id: U32))",
    "TableRows": "(table: Table, rows: Rows)",
    "QueryRows": "(tables: Set<TableRows>)",
    "UpdateRows": "Sum(PersistentTable: (inserts: Rows, deletes: Rows) | EventTable: (events: Rows))",
    "TableUpdate2": "(table_name: Table, rows: Set<UpdateRows>)",
    "QuerySetUpdate": "(query_set_id: U32, tables: Set<TableUpdate2>)",
    "Update2": "(query_sets: Array<QuerySetUpdate>)",
    "Outcome": "Sum(Ok: (ret_value: Array<U8>, transaction_update: Update2) | OkEmpty: ()"
    " | Err: Array<U8> | InternalError: Text)",
    "Procedure2": "Sum(Returned: Array<U8> | InternalError: Text)",
    "Server2": "Sum(InitialConnection: (identity: Identity, connection_id: ConnectionId, token: Token)"
    " | SubscribeApplied: (request_id: U32, query_set_id: U32, rows: QueryRows)"
    " | UnsubscribeApplied: (request_id: U32, query_set_id: U32, rows: Option<QueryRows>)"
    " | SubscriptionError: (request_id: Option<U32>, query_set_id: U32, error: Text)"
    " | TransactionUpdate: Update2"
    " | OneOffQueryResult: (request_id: U32, result: Result<QueryRows, Text>)"
    " | ReducerResult: (request_id: U32, timestamp: Timestamp, result: Outcome)"
    " | ProcedureResult: (status: Procedure2, timestamp: Timestamp, duration: Skip8, request_id: U32))",
    "ScheduleAt": "Sum(Interval: TimeDuration | Time: Timestamp)",
}
SYSTEM_TABLES = {"st_client": [["identity", "Identity"], ["connection_id", "ConnectionId"]]}


def parse_type(text: str) -> Any:
    """`(a: U8, b: &3)`, `Sum(x: () | y: String)`, `Array<T>`, `Option<T>`, `Result<T, E>`, a name, `&n`."""
    tokens = re.findall(r"&\d+|\w+|[()<>|:,]", text)
    position = 0

    def take() -> str:
        nonlocal position
        position += 1
        return tokens[position - 1]

    def fields(separator: str) -> list[tuple[str, Any]]:
        result = []
        while tokens[position] != ")":
            name = take()
            take()  # the colon
            result.append((name, one()))
            if tokens[position] == separator:
                take()
        take()
        return result

    def one() -> Any:
        head = take()
        if head == "(":
            return ("product", fields(","))
        if head == "Sum":
            take()
            return ("sum", fields("|"))
        if position < len(tokens) and tokens[position] == "<":
            take()
            inner = [one()]
            while take() == ",":
                inner.append(one())
            if head == "Option":
                return ("sum", [("some", inner[0]), ("none", ("product", []))])
            if head == "Result":
                return ("sum", [("ok", inner[0]), ("err", inner[1])])
            return (head.lower(), inner[0])
        return ("name", head)

    return one()


class Schema:
    def __init__(self, document: dict[str, Any] | None = None) -> None:
        document = document or {}
        self.types = {name: parse_type(text) for name, text in TYPES.items()}
        for text in document.get("types", {}).values():
            number, _, body = text.partition(" = ")
            self.types[number] = parse_type(body)
        self.tables: dict[str, Any] = {}
        for name, columns in SYSTEM_TABLES.items():
            self.tables[name] = self.row(columns)
        for name, table in document.get("tables", {}).items():
            self.tables[name] = self.row(table["columns"])
        for name, view in document.get("views", {}).items():
            inner = re.search(r"&\d+", view["returns"] if isinstance(view, dict) else str(view))
            if inner:
                self.tables[name] = self.types[inner[0]]

    @staticmethod
    def row(columns: list[list[str]]) -> Any:
        return ("product", [(name, parse_type(text)) for name, text in columns])


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


class Decoder:
    """BSATN of server messages to plain values, with everything that differs from run to run masked."""

    def __init__(self, data: bytes, schema: Schema, world: "World") -> None:
        self.data, self.schema, self.world, self.at, self.table = data, schema, world, 0, ""

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise ValueError(f"message ends at {len(self.data)}, {count} bytes wanted at {self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), "little", signed=signed)

    def bytes_(self) -> bytes:
        return self.take(self.number(4))

    def decode(self, kind: Any, path: str = "") -> Any:
        shape, inner = kind
        if shape == "product":
            return {name: self.decode(part, f"{path}.{name}") for name, part in inner}
        if shape == "sum":
            tag = self.number(1)
            if tag >= len(inner):
                raise ValueError(f"unknown tag {tag} at {self.at - 1}")
            return {inner[tag][0]: self.decode(inner[tag][1], path)}
        if shape in ("array", "set"):
            if inner == ("name", "U8"):
                return self.world.mask_bytes(self.bytes_())
            values = [self.decode(inner, path) for _ in range(self.number(4))]
            return sorted(values, key=canonical) if shape == "set" else values
        return self.named(inner, path)

    def named(self, name: str, path: str) -> Any:
        if name in self.schema.types:
            return self.decode(self.schema.types[name], path)
        if name == "Rows":
            return self.rows()
        if name.startswith("Skip"):
            self.take(int(name[4:]))
            return "~"
        if name == "Args":
            data = self.bytes_()
            return self.world.mask_text(data.decode()) if data[:1] in (b"[", b"{") else self.world.mask_bytes(data)
        if name == "Token":
            return "~" if self.bytes_() else ""
        if name in ("String", "Text", "Table"):
            text = self.bytes_().decode()
            if name == "Table":
                self.table = text
            return self.world.mask_text(text)
        if name == "Identity":
            return self.world.mask_identity(self.take(32)[::-1].hex())
        if name == "ConnectionId":
            return self.world.mask_connection(self.number(16))
        if name == "Timestamp":
            return mask_time(self.number(8, True))
        if name == "TimeDuration":
            return self.number(8, True)
        if name == "Uuid":
            return self.number(16)
        if name == "Bool":
            return bool(self.number(1))
        if name in ("F32", "F64"):
            return repr(struct.unpack("<f" if name == "F32" else "<d", self.take(int(name[1:]) // 8))[0])
        if path in self.world.masked_columns:
            self.take(int(name[1:]) // 8)
            return "~"
        return self.number(int(name[1:]) // 8, name[0] == "I")

    def rows(self) -> list[Any]:
        if self.number(1) == 0:
            size = self.number(2)
            data = self.bytes_()
            parts = [data[i : i + size] for i in range(0, len(data), size)]
        else:
            starts = [self.number(8) for _ in range(self.number(4))]
            data = self.bytes_()
            parts = [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)] if starts else []
        kind = self.schema.tables.get(self.table)
        values = []
        for part in parts:
            if kind is None:
                values.append(self.world.mask_bytes(part))
                continue
            inner = Decoder(part, self.schema, self.world)
            values.append(inner.decode(kind, self.table))
            if inner.at != len(part):
                raise ValueError(f"row of {self.table} has {len(part) - inner.at} bytes too many")
        return sorted(values, key=canonical)


def mask_time(value: int) -> int | str:
    return "<time>" if 1_500_000_000_000_000 < value < 4_100_000_000_000_000 else value


class World:
    """Who is who in one run: identities by name, and the masks that follow from them."""

    def __init__(self, identities: dict[str, str]) -> None:
        self.identities, self.masked_columns = dict(identities), set[str]()

    def names(self) -> dict[str, str]:
        return {value: name for name, value in self.identities.items()}

    def mask_identity(self, value: str) -> str:
        return f"<{self.names().get(value, 'identity')}>" if int(value, 16) else "0"

    @staticmethod
    def mask_connection(value: int) -> int | str:
        return "<connection>" if value >> 64 else value

    def mask_bytes(self, data: bytes) -> str:
        text = data.hex()
        for value, name in self.names().items():
            text = text.replace(bytes.fromhex(value)[::-1].hex(), f"<{name}>").replace(
                value.encode().hex(), f"<{name}>"
            )
        return text

    def mask_text(self, text: str) -> str:
        text = re.sub(r"(The module instance encountered a fatal error): .*", r"\1", text, flags=re.DOTALL)
        text = re.sub(r'("iat":)\d+', r"\1~", re.sub(r'("sub":)"[^"]*"', r"\1~", text))
        text = re.sub(r"(?<![0-9a-f])(?:0x)?([0-9a-f]{64})(?![0-9a-f])", lambda m: self.mask_identity(m[1]), text)
        return re.sub(
            r"ConnectionId\(([0-9a-f]{32})\)", lambda m: f"ConnectionId({self.mask_connection(int(m[1], 16))})", text
        )

    def mask_json(self, value: Any, key: str = "") -> Any:
        if key in (
            "token",
            "table_id",
            "energy_quanta_used",
            "total_duration_micros",
            "total_host_execution_duration",
            "total_host_execution_duration_micros",
            "old_module_hash",
            "new_module_hash",
        ):
            return "~"
        if isinstance(value, dict):
            return {name: self.mask_json(part, name) for name, part in value.items()}
        if isinstance(value, list):
            if key in ("inserts", "deletes", "rows") and value and all(isinstance(part, str) for part in value):
                value = [positional(json.loads(part)) for part in value]
            parts = [self.mask_json(part) for part in value]
            if len(parts) == 1 and isinstance(parts[0], int):
                parts = [self.mask_connection(parts[0])]  # a ConnectionId in array form
            return sorted(parts, key=canonical) if key in ("inserts", "deletes", "rows", "tables", "updates") else parts
        if isinstance(value, str):
            return self.mask_text(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return self.mask_connection(value) if key == "__connection_id__" else mask_time(value)
        return value


def positional(value: Any) -> Any:
    """The array form of a JSON row given in either form."""
    if isinstance(value, dict):
        value = list(value.values())
    return [positional(part) for part in value] if isinstance(value, list) else value
