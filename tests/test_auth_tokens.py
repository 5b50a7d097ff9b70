"""Tokens: every recorded one is answered as the real server answered it; keys are made, kept and checked."""

import hashlib
import hmac
import json
import re
import stat
import time
from base64 import urlsafe_b64encode
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given, settings
from hypothesis import strategies as st

from stdb.errors import AuthError, StorageError
from stdb.net.claims import parse_claims, parse_header
from stdb.net.tokens import (
    Credentials,
    ServerKey,
    Tokens,
    load_or_make_key,
    load_or_make_operator,
    split_token,
)
from stdb.sats.special import Identity
from stdb.storage.data_directory import DataDirectory

RECORDED = json.loads((Path(__file__).parent / "vectors/recorded_http/tokens.json").read_text())
RECORDED_AT = 1795488778
KEY, OTHER_KEY = ServerKey.generate(), ServerKey.generate()
RSA_KEY = rsa.generate_private_key(65537, 2048)

OIDC = re.compile(r"oidc|wst of oidc|websocket token of an OIDC")
"""Asked of a listed issuer on loopback: `test_auth_issuers` builds these again with its own issuer."""
TRANSPORT = re.compile(r"transport ")
"""About headers and parameters, not tokens: `test_auth_http` asks them over HTTP."""
MODULE = re.compile(r"module sees|requests seen")
"""About what a module or the issuer saw."""


def encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def shifted(payload: Any) -> Any:
    """Move times near the recording to now, as the replay does."""
    if not isinstance(payload, dict):
        return payload
    moved = dict(payload)
    for name, value in payload.items():
        if isinstance(value, int | float) and abs(value - RECORDED_AT) < 200_000:
            moved[name] = value - RECORDED_AT + int(time.time())
        elif value == str(RECORDED_AT + 1000):
            moved[name] = str(int(time.time()) + 1000)
    return moved


def signed(header: str, payload: str, key: ServerKey) -> str:
    """Sign exactly these texts, whatever algorithm the header names."""
    message = f"{encode(header.encode())}.{encode(payload.encode())}"
    r, s = decode_dss_signature(key._private.sign(message.encode(), ec.ECDSA(SHA256())))
    return f"{message}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def special_token(name: str, entry: dict[str, Any]) -> str:
    """Make a token that is not simply signed by the server's own key, as its id describes it."""
    header, payload = entry.get("header") or '{"typ":"JWT","alg":"ES256"}', json.dumps(shifted(entry.get("payload")))
    good = signed(header, json.dumps(shifted(entry.get("payload")), separators=(",", ":")), KEY)
    first, second, third = good.split(".")
    message = f"{encode(header.encode())}.{encode(payload.encode())}".encode()
    if name.startswith("HS256"):
        secret = KEY.public_pem.encode() if "public" in name else b"secret"
        return f"{message.decode()}.{encode(hmac.new(secret, message, hashlib.sha256).digest())}"
    if name.startswith("RS256"):
        return f"{message.decode()}.{encode(RSA_KEY.sign(message, padding.PKCS1v15(), SHA256()))}"
    if name.startswith("other key"):
        return signed(header, json.dumps(shifted(entry["payload"]), separators=(",", ":")), OTHER_KEY)
    tokens = {
        "alg none": f"{first}.{second}.",
        "alg None empty sig ES": f"{first}.{second}.",
        "alg ES384 header": good,
        "alg lowercase": good,
        "no alg": good,
        "payload not json": signed(header, "x", KEY),
        "payload array": signed(header, "[]", KEY),
        "payload empty object": signed(header, "{}", KEY),
        "0.11 payload": signed(header, payload, KEY),
        "dup claim": signed(header, '{"sub":"a","sub":"b","iss":"localhost","iat":5}', KEY),
        "one part": "abc",
        "two parts": f"{first}.{second}",
        "four parts": f"{good}.x",
        "empty parts": "..",
        "tampered payload": f"{first}.{encode(payload.replace('s1', 's1', 1).encode())}.{third}",
        "tampered sig": f"{first}.{second}.{('A' if third[0] != 'A' else 'B') + third[1:]}",
        "padded": f"{first}.{second}=.{third}",
        "der signature": f"{first}.{second}.{encode(KEY._private.sign(b'x', ec.ECDSA(SHA256())))}",
        "space inside": f"{first} .{second}.{third}",
        "bad header b64": f"@{first}.{second}.{third}",
        "header not json": signed("x", payload, KEY),
    }
    return tokens[name]


def check(token: str, keys: ServerKey = KEY) -> Credentials | str:
    """Return who the token is, or the text of its refusal."""
    try:
        return trio.run(Tokens(keys).validate, token)
    except AuthError as error:
        return str(error)


def cases() -> list[Any]:
    skipped = [entry["id"] for entry in RECORDED["tokens"] if OIDC.match(entry["id"])]
    skipped += [
        entry["id"] for entry in RECORDED["tokens"] if TRANSPORT.match(entry["id"]) or MODULE.match(entry["id"])
    ]
    blanks = ["trailing space", "double space"]  # trimmed from the header before the token is looked at: test_auth_http
    chosen = [entry for entry in RECORDED["tokens"] if entry["id"] not in (*skipped, *blanks)]
    assert len(chosen) + len(skipped) + len(blanks) == 131
    return [pytest.param(entry, id=entry["id"]) for entry in chosen]


@pytest.mark.parametrize("entry", cases())
def test_a_recorded_token_is_answered_as_recorded(entry: dict[str, Any]) -> None:
    if entry.get("own_key"):
        token = signed(entry["header"], json.dumps(shifted(entry["payload"]), separators=(",", ":")), KEY)
    else:
        token = special_token(entry["id"], entry)
    answer = check(token)
    if entry["status"] == 200:
        assert isinstance(answer, Credentials)
        assert answer.hex == entry["identity"]
        assert answer.token == token
    else:
        assert isinstance(answer, str)
        assert re.sub(r"\d{10}", "0", answer) == re.sub(r"\d{10}", "0", entry["body"])


def test_every_token_of_the_servers_own_key_is_among_the_cases() -> None:
    assert sum(1 for entry in RECORDED["tokens"] if entry.get("own_key")) == 58


def test_a_minted_token_has_the_claims_in_order_and_no_expiry() -> None:
    minted = Tokens(KEY).mint()
    assert list(json.loads(minted.payload)) == ["hex_identity", "sub", "iss", "aud", "iat", "exp"]
    assert json.loads(minted.payload)["exp"] is None
    assert minted.hex.startswith("c200")
    assert split_token(minted.token).algorithm == "ES256"
    assert check(minted.token) == minted


def test_another_instance_refuses_our_tokens() -> None:
    assert check(Tokens(KEY).mint().token, OTHER_KEY) == "Invalid token: InvalidSignature"


def test_a_websocket_token_keeps_the_identity_and_extra_claims_for_a_minute() -> None:
    now = [1_800_000_000.0]
    tokens = Tokens(KEY, now_s=lambda: now[0])
    text = '{"iss":"https://example.com","sub":"x","iat":5,"nbf":7,"email":"a@b.c"}'

    async def mint() -> None:
        long = await tokens.validate(KEY.sign(text))
        short = await tokens.validate(tokens.mint_websocket_token(long))
        assert short.identity == long.identity
        assert short.claims.document["email"] == "a@b.c"
        assert short.claims.document["nbf"] == 7
        assert short.claims.issuer == "https://example.com"
        assert short.claims.expires_s == 1_800_000_060
        now[0] += 119
        await tokens.validate(short.token)
        now[0] += 2
        with pytest.raises(AuthError, match="ExpiredSignature"):
            await tokens.validate(short.token)

    trio.run(mint)


def test_keys_are_made_once_and_kept_private(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        made = load_or_make_key(directory)
        assert load_or_make_key(directory).public_pem == made.public_pem
        operator = load_or_make_operator(directory, Tokens(made))
        assert load_or_make_operator(directory, Tokens(made)) == operator
    for name in ("id_ecdsa", "id_ecdsa.pub", "operator.token"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert made.private_pem.startswith("-----BEGIN PRIVATE KEY-----")
    assert made.public_pem.startswith("-----BEGIN PUBLIC KEY-----")


def test_a_half_pair_or_a_wrong_pair_stops_the_start(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        load_or_make_key(directory)
        public = (tmp_path / "id_ecdsa.pub").read_text()
        (tmp_path / "id_ecdsa.pub").unlink()
        with pytest.raises(StorageError, match="Unable to read public key for JWT token verification"):
            load_or_make_key(directory)
        (tmp_path / "id_ecdsa.pub").write_text(OTHER_KEY.public_pem)
        with pytest.raises(StorageError, match="is not that of the private key"):
            load_or_make_key(directory)
        (tmp_path / "id_ecdsa.pub").write_text(public)
        (tmp_path / "id_ecdsa").unlink()
        with pytest.raises(StorageError, match="Unable to read private key for JWT token signing"):
            load_or_make_key(directory)
        (tmp_path / "id_ecdsa").write_text("nonsense")
        with pytest.raises(StorageError, match="not a PEM private key"):
            load_or_make_key(directory)


def test_a_foreign_operator_token_stops_the_start(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        directory.write_secret("operator.token", Tokens(OTHER_KEY).mint().token)
        with pytest.raises(StorageError, match="remove it to have a new operator made"):
            load_or_make_operator(directory, Tokens(KEY))


def test_the_cache_of_checked_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stdb.net.tokens.CACHED_TOKENS_MAX", 3)
    tokens = Tokens(KEY)

    async def fill() -> None:
        for _ in range(10):
            minted = tokens.mint()
            assert await tokens.validate(minted.token) is await tokens.validate(minted.token)
        assert len(tokens._cache) == 3

    trio.run(fill)


@pytest.mark.parametrize(
    ("issuer", "subject", "identity"),
    [
        ("localhost", "test-subject", "c200b3ce65d91b79ecfb7d881cd65bf8da2f647d590af1474ad19faa7aa87e38"),
        ("example.com", "123", "c200ef884364c1a99be0298dc68f2004e6b97c09d1b1658b7db22f51fb662059"),
    ],
)
def test_the_identity_follows_from_issuer_and_subject(issuer: str, subject: str, identity: str) -> None:
    assert Identity.derive(issuer, subject).hex() == identity


@given(st.one_of(st.binary(), st.text().map(str.encode), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["sub", "iss", "iat", "exp", "alg", "kid"]), inner),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_no_header_or_payload_does_more_than_be_refused(data: bytes) -> None:
    for parse in (parse_header, parse_claims):
        with suppress(AuthError):
            parse(data)


@pytest.mark.parametrize(
    "payload",
    [
        '{"sub":"\\ud800","iss":"localhost","iat":5}',
        '{"sub":"a","iss":"localhost","iat":' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"x":' * 100_000,
        '{"sub":NaN}',
        '{"sub":"a","iss":"localhost","iat":-0}',
    ],
    ids=["surrogate", "digits", "arrays", "objects", "nan", "minus zero"],
)
def test_an_evil_payload_is_refused_in_words(payload: str) -> None:
    answer = check(KEY.sign(payload))
    assert isinstance(answer, str)
    assert answer.startswith("Invalid token: JSON error: ")


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_no_text_is_a_token_by_chance(text: str) -> None:
    assert isinstance(check(text), str)
