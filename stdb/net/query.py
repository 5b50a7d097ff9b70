"""Query parameters of a request, each read at its type with the reference's refusals.

Responsible for: decoding a query string, flags, numbers, choices, durations.
Not responsible for: which parameters a route has, credentials (`auth`).

Source: spec 05 section 1.1 and 1.3. Unknown parameters are ignored; one that a route reads must not come twice.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

from stdb.datastore.history import Moment
from stdb.errors import RequestError
from stdb.storage.settings import parse_duration

__all__ = ["Query", "QueryStringError"]


class QueryStringError(RequestError):
    """A query parameter that does not parse (400)."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"Failed to deserialize query string: {detail}")


class Query:
    """The parameters of one request."""

    def __init__(self, text: str) -> None:
        self.pairs = parse_qsl(text, keep_blank_values=True)

    def text(self, *names: str) -> str | None:
        """Return the value of the parameter, which may have several names, or None.

        Raises:
            QueryStringError: It is there twice.
        """
        values = [value for name, value in self.pairs if name in names]
        if len(values) > 1:
            raise QueryStringError(f"duplicate field `{names[0]}`")
        return values[0] if values else None

    def flag(self, name: str, default: bool) -> bool:
        """Return a boolean parameter. Raises QueryStringError."""
        value = self.text(name)
        if value is None:
            return default
        if value not in ("true", "false"):
            raise QueryStringError("provided string was not `true` or `false`")
        return value == "true"

    def number(self, name: str, bits: int = 32) -> int | None:
        """Return an unsigned parameter of so many bits, or None. Raises QueryStringError."""
        value = self.text(name)
        if value is None:
            return None
        digits = value.removeprefix("+")
        if not digits:
            raise QueryStringError("cannot parse integer from empty string" if not value else _BAD_DIGIT)
        if not (digits.isascii() and digits.isdigit()):
            raise QueryStringError(_BAD_DIGIT)
        if len(digits.lstrip("0")) > 40 or int(digits) >= 1 << bits:
            raise QueryStringError("number too large to fit in target type")
        return int(digits)

    def choice(self, name: str, known: Sequence[str], *aliases: str) -> str | None:
        """Return a parameter that is one of a few words, or None. Raises QueryStringError."""
        value = self.text(name, *aliases)
        if value is None or value in known:
            return value
        words = [f"`{word}`" for word in known]
        expected = " or ".join(words) if len(words) == 2 else f"one of {', '.join(words)}"
        raise QueryStringError(f"unknown variant `{value}`, expected {expected}")

    def duration(self, name: str) -> float | None:
        """Return a duration in seconds, or None. Raises QueryStringError."""
        value = self.text(name)
        try:
            return None if value is None else parse_duration(value)
        except ValueError as error:
            raise QueryStringError(str(error)) from error

    def moment(self, name: str) -> Moment | None:
        """Return an offset, or a time as in ISO 8601 (UTC unless it says otherwise), or None."""
        value = self.text(name)
        if value is None:
            return None
        if value.isascii() and value.isdigit():
            return Moment(offset=self.number(name, 64))
        try:
            time = datetime.fromisoformat(value)
            time = time if time.tzinfo else time.replace(tzinfo=UTC)
            return Moment(timestamp_us=(time - _EPOCH) // timedelta(microseconds=1))
        except (ValueError, OverflowError) as error:
            raise QueryStringError(
                f"`{name}` is neither an offset nor a time such as 2026-11-28T07:30:00Z: `{value}`"
            ) from error

    def hash(self, name: str) -> bytes | None:
        """Return a hash written as `0x` and hex digits of a little-endian number, 32 bytes, or None."""
        value = self.text(name)
        if value is None:
            return None
        try:
            number = int(value.removeprefix("0x"), 16) if value.startswith("0x") and value[2:].isalnum() else -1
            return number.to_bytes(32, "little")
        except (ValueError, OverflowError) as error:
            raise QueryStringError(_BAD_DIGIT) from error


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BAD_DIGIT = "invalid digit found in string"
