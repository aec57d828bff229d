"""Keys and signatures, with the vectors of the released clients."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kachery import signing
from kachery.errors import InvalidInput
from kachery.signing import ClientKeys

SEED = bytes(range(32))
CLIENT = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
KEYS = ClientKeys.from_seed(SEED)
HASH = "b971c6ef19b1d70ae8f0feb989b106c319b36230"

VECTORS: list[tuple[dict[str, Any], str, str, str]] = [
    (
        {"type": "addClient"},
        '{"type":"addClient"}',
        "b7cfdb7c5482991b2ea05b7f8bc5e16411397276",
        "a07d6de55bdd733e9dd561448d0ae34c78f712e7d395bb37e5f19de735b2f258"
        "9027a1928fa63a4e015f4b053b71e07c3e12683e9f9c2778f0126cae95918703",
    ),
    (
        {"type": "findFile", "hashAlg": "sha1", "hash": HASH, "zone": "default", "timestamp": 1700000000000},
        f'{{"hash":"{HASH}","hashAlg":"sha1","timestamp":1700000000000,"type":"findFile","zone":"default"}}',
        "1f26e855fcdfcb403efa2adf7be50439b4f4edc7",
        "f264c100f8452a1f764d98896cd772b4040c495794ad02a274aa040dd0da7403"
        "5a214f8e5c2a03567989d80b54f90ec4fdd703192ff9ac8a737448359414b604",
    ),
    (
        {
            "type": "initiateFileUpload",
            "size": 13,
            "hashAlg": "sha1",
            "hash": HASH,
            "zone": "default",
            "timestamp": 1700000000000,
        },
        f'{{"hash":"{HASH}","hashAlg":"sha1","size":13,"timestamp":1700000000000,"type":"initiateFileUpload","zone":"default"}}',
        "b0dc37c07b3613c24b4c8a17e3211dc2a9feef9c",
        "81b85fcfabe2c3ba784cfa72b512a777418d3909b3a382e7e8b434e9bd30a342"
        "446faaef879527e74f7a8b4695f9d1b6e7c5abbfebe0a21b616626a5b5200000",
    ),
    (
        {
            "type": "finalizeFileUpload",
            "objectKey": f"sha1/b9/71/c6/{HASH}",
            "hashAlg": "sha1",
            "hash": HASH,
            "size": 13,
            "zone": "default",
            "timestamp": 1700000000000,
        },
        f'{{"hash":"{HASH}","hashAlg":"sha1","objectKey":"sha1/b9/71/c6/{HASH}","size":13,"timestamp":1700000000000,'
        '"type":"finalizeFileUpload","zone":"default"}',
        "15025063ced3f8f5d804d0b8de10621d9967d7d6",
        "2fdb3d2711fd3b87b8c4643724e8791f053e5da24279aac19b65145ee6c6480d"
        "5c559ffc17dabf94d45d58059257f9a1c2d2663f8d8a0337019e20c87fdc3a03",
    ),
]
LEGACY = (
    "fda2139a900174b69d1be5029c67e1f240a8e7cc3972ee8e7b7bcd8e29776fab"
    "d5b87453d5043e22cb4b156f1398decfcf78f89e00802dc79ed67b0ffe67ea0b"
)


def test_keys_of_the_worked_vector() -> None:
    assert KEYS.client_id == CLIENT
    assert KEYS.public_pem() == (
        "-----BEGIN PUBLIC KEY-----\n"
        "MCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=\n"
        "-----END PUBLIC KEY-----"
    )
    assert KEYS.private_pem() == (
        "-----BEGIN PRIVATE KEY-----\n"
        "MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
        "-----END PRIVATE KEY-----"
    )
    assert (len(KEYS.private_pem()), len(KEYS.public_pem())) == (118, 112)
    assert ClientKeys.from_pem(KEYS.private_pem()) == KEYS
    assert ClientKeys.from_pem(KEYS.private_pem().replace("\n", "\r\n") + "\r\n") == KEYS
    assert ClientKeys.from_hex(CLIENT.upper(), SEED.hex()) == KEYS


@pytest.mark.parametrize(("payload", "text", "sha1", "signature"), VECTORS)
def test_worked_vectors(payload: dict[str, Any], text: str, sha1: str, signature: str) -> None:
    assert signing.canonical_json(payload) == text
    assert signing.javascript_json(payload) == text
    assert signing.payload_digest(payload).hex() == sha1
    assert KEYS.sign(payload) == signature
    assert signing.verify(CLIENT, payload, signature)
    assert signing.verify(CLIENT.upper(), payload, signature.upper())


def test_the_old_form_is_accepted_only_where_it_is_asked_for() -> None:
    assert signing.verify(CLIENT, {"type": "addClient"}, LEGACY, legacy=True)
    assert not signing.verify(CLIENT, {"type": "addClient"}, LEGACY)
    assert not signing.verify(CLIENT, {"type": "addclient"}, LEGACY, legacy=True)


def test_the_payload_on_which_two_languages_differ() -> None:
    payload = {"type": "setMutable", "mutableKey": "k", "value": "é", "timestamp": 1700000000000}

    assert signing.payload_digest(payload).hex() == "eb5c7e37b5f7b3df2a5be42ad9a74fe637e1256d"
    javascript = signing.javascript_json(payload).encode()
    assert hashlib.sha1(javascript).hexdigest() == "f00343d7a8a8d80312819f87350ee618898bae65"
    # upstream's gateway accepts the second alone, ours both
    assert signing.verify(CLIENT, payload, KEYS.sign(payload))
    assert signing.verify(CLIENT, payload, _signed(javascript))


@pytest.mark.parametrize(
    ("value", "python", "javascript"),
    [
        ("\x7f", '"\\u007f"', '"\x7f"'),
        ('\x1f\b\n"\\/', '"\\u001f\\b\\n\\"\\\\/"', '"\\u001f\\b\\n\\"\\\\/"'),
        ("\u2028", '"\\u2028"', '"\u2028"'),
        ("\U0001f600", '"\\ud83d\\ude00"', '"\U0001f600"'),
        ("\ud800x", '"\\ud800x"', '"\\ud800x"'),
        (1.0, "1.0", "1"),
        (-0.0, "-0.0", "0"),
        (1.5, "1.5", "1.5"),
        (1e-7, "1e-07", "1e-7"),
        (1.5e-7, "1.5e-07", "1.5e-7"),
        (1e-5, "1e-05", "0.00001"),
        (1.25e-6, "1.25e-06", "0.00000125"),
        (1e16, "1e+16", "10000000000000000"),
        (1e21, "1e+21", "1e+21"),
        (1.5e300, "1.5e+300", "1.5e+300"),
        (123456789.125, "123456789.125", "123456789.125"),
        (2**53 + 1, "9007199254740993", "9007199254740992"),
        ({"\ue000": 1, "\U00010000": 2}, '{"\\ue000":1,"\\ud800\\udc00":2}', '{"\U00010000":2,"\ue000":1}'),
        (
            {"b": [True, None, {"d": 2.0, "c": 1}], "a": ()},
            '{"a":[],"b":[true,null,{"c":1,"d":2.0}]}',
            '{"a":[],"b":[true,null,{"c":1,"d":2}]}',
        ),
    ],
)
def test_both_canonical_forms(value: Any, python: str, javascript: str) -> None:
    assert signing.canonical_json(value) == python
    assert signing.javascript_json(value) == javascript


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_what_is_signed_is_verified_after_its_way_through_json(payload: dict[str, Any]) -> None:
    signature = KEYS.sign(payload)

    assert signing.verify(CLIENT, json.loads(json.dumps(payload)), signature)
    assert not signing.verify(CLIENT, {**payload, "timestamp ": 1}, signature)


@given(JSON)
def test_javascripts_form_is_the_same_value(value: Any) -> None:
    parsed = json.loads(signing.javascript_json(value))
    assert json.loads(signing.javascript_json(parsed)) == parsed


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x", {"a": float("-inf")}])
def test_what_json_does_not_have_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput):
        signing.canonical_json(value)
    with pytest.raises(InvalidInput):
        signing.javascript_json(value)


@pytest.mark.parametrize(
    ("client", "signature"),
    [
        ("", ""),
        ("zz", "zz"),
        (CLIENT, ""),
        (CLIENT, "00" * 64),
        ("00" * 32, VECTORS[0][3]),
        (CLIENT[:-2], VECTORS[0][3]),
    ],
)
def test_nonsense_is_not_a_signature(client: str, signature: str) -> None:
    assert not signing.verify(client, {"type": "addClient"}, signature)


def test_a_signature_has_one_spelling() -> None:
    signature = VECTORS[0][3]
    spaced = signature[:2] + " " + signature[2:]
    assert not signing.verify(CLIENT, {"type": "addClient"}, spaced)
    assert not signing.verify(CLIENT[:2] + " " + CLIENT[2:], {"type": "addClient"}, signature)


def test_damaged_keys_are_refused() -> None:
    good = KEYS.private_pem()
    for text in [
        "",
        good[:-5],
        good.replace("PRIVATE", "PUBLIC"),
        good.replace("MC4C", "MC4!"),
        KEYS.public_pem(),
        "-----",
    ]:
        with pytest.raises(InvalidInput):
            ClientKeys.from_pem(text)
    with pytest.raises(InvalidInput):
        ClientKeys.from_hex(CLIENT, "zz")
    with pytest.raises(InvalidInput):
        ClientKeys.from_hex("00" * 32, SEED.hex())
    with pytest.raises(InvalidInput):
        ClientKeys.from_seed(b"short")


def test_the_private_key_is_not_shown() -> None:
    assert SEED.hex() not in repr(KEYS)
    assert repr(SEED) not in repr(KEYS)


def test_new_keys_are_new() -> None:
    one, other = ClientKeys.generate(), ClientKeys.generate()

    assert one != other
    assert signing.verify(one.client_id, {"a": 1}, one.sign({"a": 1}))
    assert not signing.verify(other.client_id, {"a": 1}, one.sign({"a": 1}))


def _signed(text: bytes) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(SEED).sign(hashlib.sha1(text).digest()).hex()
