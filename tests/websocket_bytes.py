"""The client's side of WebSocket frames, written apart from `stdb.net.frames`, for the tests of it."""

from itertools import cycle


def client_frame(first: int, payload: bytes = b"", mask: bytes | None = b"\x0a\x0b\x0c\x0d") -> bytes:
    """Return one frame: `first` is flags and opcode; `mask` None leaves it unmasked."""
    size = len(payload)
    bit = 0 if mask is None else 0x80
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 65536:
        head = bytes((first, bit | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, bit | 127)) + size.to_bytes(8, "big")
    if mask is None:
        return head + payload
    if mask == bytes(4):
        return head + mask + payload
    return head + mask + bytes(byte ^ key for byte, key in zip(payload, cycle(mask), strict=False))


def server_frames(data: bytes) -> list[tuple[int, bytes]]:
    """Split what a server sent into (first byte, payload); the bytes must end with a frame."""
    frames = []
    offset = 0
    while offset < len(data):
        first, size = data[offset], data[offset + 1]
        offset += 2
        if size == 126:
            size = int.from_bytes(data[offset : offset + 2], "big")
            offset += 2
        elif size == 127:
            size = int.from_bytes(data[offset : offset + 8], "big")
            offset += 8
        assert size <= len(data) - offset, "a frame is cut"
        frames.append((first, data[offset : offset + size]))
        offset += size
    return frames
