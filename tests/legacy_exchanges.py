"""Exchanges recorded from the real 0.11.1, sent again: placeholders are filled in with what this server answered."""

import base64
import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

from tests.http_harness import Answer

__all__ = ["ALIASES", "RECORDED", "Replay", "recording", "steps_of"]

RECORDED = Path(__file__).parent / "vectors" / "legacy"
_PLACEHOLDER = re.compile(r"\$\{(identity|address|hash|token|us|n|short)(?::(\w+))?\}")
_SHORT_ADDRESS = re.compile("database `[0-9a-f]{16}`")
_BAD_ARGUMENTS = re.compile(r"invalid arguments for reducer (\w+): ([^ ]+): \2: ")
_SHAPES = {
    "identity": "[0-9a-f]{64}",
    "hash": "[0-9a-f]{64}",
    "address": "[0-9a-f]{32}",
    "token": r"[\w-]+\.[\w-]+\.[\w-]+",
    "us": r"\d+",
    "n": r"-?\d+",
    "short": "[0-9a-f]{16}",
}
ALIASES = {"address:db": "address:1", "address:other": "address:9"}
"""The database of each of the two people has another name in requests than in the answer that told of it."""
_UNORDERED = {"identities", "rows", "misc_exports"}
_COMPARED = ("content-type", "allow", "cache-control", "spacetime-identity", "spacetime-identity-token")


def recording(name: str) -> dict[str, Any]:
    """Return a recording as it is kept, packed or not."""
    path = RECORDED / f"{name}.json"
    data = path.read_bytes() if path.exists() else gzip.decompress(path.with_suffix(".json.gz").read_bytes())
    document: dict[str, Any] = json.loads(data)
    return document


def steps_of(name: str) -> list[dict[str, Any]]:
    """Return the steps of a recording."""
    steps: list[dict[str, Any]] = recording(name)["steps"]
    return steps


class Replay:
    """What the placeholders of one recording stand for here, learned from the answers in turn."""

    def __init__(
        self,
        steps: list[dict[str, Any]],
        known: dict[str, str],
        suffix: str = "x1",
        aliases: Mapping[str, str] = ALIASES,
    ) -> None:
        self.steps = steps
        self.known = known
        self.suffix = suffix
        self.aliases = aliases

    def _named(self, match: re.Match[str]) -> str:
        """Return what a placeholder is known as."""
        name = f"{match[1]}:{match[2]}"
        return self.aliases.get(name, name)

    def filled(self, text: str) -> str:
        """Return a recorded text of a request as it is sent here."""
        encoded = base64.b64encode(f"token:{self.known.get('token:owner', '')}".encode()).decode()
        text = text.replace("${base64 of token:JWT}", encoded)
        return _PLACEHOLDER.sub(self._sent, text.replace("UUU", self.suffix))

    def _sent(self, match: re.Match[str]) -> str:
        """Return what a placeholder of a request stands for; an address that no answer told was the client's choice."""
        name = self._named(match)
        if name not in self.known:
            assert match[1] == "address", f"{match[0]} was told by no answer"
            self.known[name] = token_hex(16)
        return self.known[name]

    def headers(self, exchange: dict[str, Any]) -> dict[str, str]:
        headers = {name: self.filled(value) for name, value in exchange.get("headers", {}).items()}
        if auth := exchange.get("auth"):
            scheme, _, credentials = auth.partition(" ")
            headers["Authorization"] = f"{scheme} {base64.b64encode(self.filled(credentials).encode()).decode()}"
        return headers

    def differences(self, step: dict[str, Any], answer: Answer) -> list[str]:
        """Return how an answer differs from the recorded one; learn what is new in it."""
        reply, found = step["reply"], []
        if answer.status != reply["status"]:
            found.append(f"status {answer.status}, recorded {reply['status']}")
        recorded = reply.get("headers", {})
        for name in _COMPARED:
            if not self.matches(recorded.get(name, ""), answer.headers.get(name, "")):
                found.append(f"{name}: {answer.headers.get(name)!r}, recorded {recorded.get(name)!r}")
        body = reply.get("body") or ""
        if "body_as_step" in step.get("reply", {}) or "body_as_step" in step:
            place = step.get("body_as_step", step["reply"].get("body_as_step"))
            body = self.steps[place]["reply"].get("body") or ""
        if not self.same_body(body, answer.text):
            found.append(f"body {answer.text!r}, recorded {body!r}")
        return found

    def same_body(self, recorded: str, actual: str) -> bool:
        """Tell whether a body is the recorded one; of JSON, however members are ordered."""
        if self.matches(recorded, actual):
            return True
        try:
            documents = json.loads(_PLACEHOLDER.sub(_quoted_number, recorded)), json.loads(actual)
        except ValueError:
            return False
        return self._same_value(*documents)

    def _same_value(self, recorded: Any, actual: Any) -> bool:
        if isinstance(recorded, dict) and isinstance(actual, dict):
            return recorded.keys() == actual.keys() and all(
                self._same_value(*(map(self._sorted, pair) if k in _UNORDERED else pair))
                for k, pair in ((k, (recorded[k], actual[k])) for k in recorded)
            )
        if isinstance(recorded, list) and isinstance(actual, list):
            return len(recorded) == len(actual) and all(map(self._same_value, recorded, actual))
        if isinstance(recorded, str):
            return self.matches(recorded, actual if isinstance(actual, str) else str(actual))
        return bool(recorded == actual) and type(recorded) is type(actual)

    def _sorted(self, items: list[Any]) -> list[Any]:
        """Return a list whose order means nothing in one order; what placeholders stand for must be known."""
        return sorted(items, key=lambda item: _PLACEHOLDER.sub(self._known_or_blank, json.dumps(item)))

    def _known_or_blank(self, match: re.Match[str]) -> str:
        return self.known.get(self._named(match), "")

    def _known_text(self, text: str) -> str:
        return _PLACEHOLDER.sub(self._known_or_blank, text)

    def matches(self, recorded: str, actual: str) -> bool:
        """Tell whether a text is the recorded one, placeholders filled in; those that are new are learned.

        Of wrong arguments the words up to the reason count (spec 03 section 3.5).
        """
        pattern, last, names = "", 0, []
        recorded = _SHORT_ADDRESS.sub("database `${short}`", recorded.replace("UUU", self.suffix))
        if refused := _BAD_ARGUMENTS.match(recorded):
            return actual.startswith(self._known_text(refused[0]))
        for match in _PLACEHOLDER.finditer(recorded):
            pattern += re.escape(recorded[last : match.start()])
            last = match.end()
            name = self._named(match)
            if match[2] and name in self.known:
                pattern += re.escape(self.known[name])
            else:
                pattern += f"({_SHAPES[match[1]]})"
                names.append(name)
        found = re.fullmatch(pattern + re.escape(recorded[last:]), actual, flags=re.S)
        if found is None:
            return False
        for name, value in zip(names, found.groups(), strict=True):
            self.known.setdefault(name, value)
        return True


def _quoted_number(match: re.Match[str]) -> str:
    return f'"{match[0]}"' if match[1] in ("us", "n") else match[0]
