"""A WebSocket client that can also misbehave, for replays."""

import base64
import contextlib
import gzip
import os
import socket
import struct
from typing import Any

import brotli

__all__ = ["Peer", "unpack"]


class Peer:
    """A WebSocket client that can also misbehave."""

    def __init__(
        self,
        address: tuple[str, int],
        path: str,
        protocols: list[str] | str | None,
        headers: list[list[str]],
        timeout: float,
    ) -> None:
        self.socket = socket.create_connection(address, timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        offered = protocols if isinstance(protocols, str) else ", ".join(protocols) if protocols else None
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {address[0]}:{address[1]}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode(),
        ]
        lines += [f"Sec-WebSocket-Protocol: {offered}"] if offered is not None else []
        lines += [f"{name}: {value}" for name, value in headers]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.buffer, self.queue, self.partial, self.ended, self.tolerant = (
            b"",
            list[tuple[str, Any]](),
            list[Any](),
            False,
            False,
        )
        while b"\r\n\r\n" not in self.buffer:
            part = self.socket.recv(65536)
            if not part:
                break
            self.buffer += part
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin1").split("\r\n")
        self.status = int([*first.split(), "0", "0"][1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest)}
        self.protocol = self.headers.get("sec-websocket-protocol")
        if self.status != 101:
            length = int(self.headers.get("content-length", 0))
            while len(self.buffer) < length:
                self.buffer += self.socket.recv(65536)
            self.body = self.buffer.decode("utf-8", "replace")
            self.close()
        else:
            self.parse()

    def send(self, opcode: int, payload: bytes, *, fin: bool = True, mask: bool = True, rsv: int = 0) -> None:
        size, bit = len(payload), 0x80 if mask else 0
        head = bytes([(0x80 if fin else 0) | rsv | opcode])
        head += (
            bytes([bit | size])
            if size < 126
            else bytes([bit | 126]) + struct.pack(">H", size)
            if size < 65536
            else bytes([bit | 127]) + struct.pack(">Q", size)
        )
        if mask:
            key = os.urandom(4)
            stream = (key * (size // 4 + 1))[:size]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")
            head += key
        with contextlib.suppress(OSError):  # the other side has gone: what it said will be read
            self.socket.sendall(head + payload)

    def close(self, reset: bool = False) -> None:
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
        self.ended = True

    def feed(self) -> None:
        """Read what is there and turn it into events: ("data", (opcode, payload)), ("close", [code, reason]), …."""
        try:
            part = self.socket.recv(1 << 20)
        except OSError:
            part = b""
        if not part:
            self.close()
            if not self.queue or self.queue[-1][0] != "close":
                self.queue.append(("eof", True))
            return
        self.buffer += part
        self.parse()

    def parse(self) -> None:
        while (frame := self.frame()) is not None:
            fin, opcode, payload = frame
            if opcode == 9:
                self.send(10, payload)
            elif opcode == 10:
                self.queue.append(("pong", payload.hex()))
            elif opcode == 8:
                code = struct.unpack(">H", payload[:2])[0] if len(payload) >= 2 else None
                self.queue.append(("close", [code, payload[2:].decode("utf-8", "replace")]))
            else:
                self.partial.append((opcode, payload))
                if fin:
                    self.queue.append(("data", (self.partial[0][0], b"".join(part for _, part in self.partial))))
                    self.partial = []

    def frame(self) -> tuple[bool, int, bytes] | None:
        data = self.buffer
        if len(data) < 2:
            return None
        size, start = data[1] & 127, 2
        if size > 125:
            start = 4 if size == 126 else 10
            if len(data) < start:
                return None
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + size:
            return None
        self.buffer = data[start + size :]
        return bool(data[0] & 0x80), data[0] & 15, data[start : start + size]


def unpack(payload: bytes) -> bytes:
    """Return a message without the byte that tells its compression."""
    if payload[:1] == b"\x01":
        return bytes(brotli.decompress(payload[1:]))
    return gzip.decompress(payload[1:]) if payload[:1] == b"\x02" else payload[1:]
