"""The library and the specification's vectors agree; the vectors come from an implementation of their own."""

from typing import Any

import make_vectors
import msgspec
import pytest
from samples import Clock, load

from atoll_token import Claims, PublicKey, TokenError, Verifier, open_key_set, scope_allows

KEYS = {name: PublicKey.from_raw(bytes.fromhex(key["public"])) for name, key in load("keys.json").items()}
KEY_SET = {key.kid: key for name, key in KEYS.items() if load("keys.json")[name]["in_key_set"]}
KEY_SETS = load("key-sets.json")


def name_of(case: Any) -> str:
    return str(case["name"])


def verifier_of(case: Any) -> Verifier:
    expects = dict(case["expects"])
    return Verifier(KEY_SET.get, clock=Clock(expects.pop("now")), **expects)


def test_committed_vectors_are_the_generated_ones() -> None:
    for name, text in make_vectors.documents().items():
        assert (make_vectors.VECTORS / name).read_text(encoding="utf-8") == text, "run: python tests/make_vectors.py"


@pytest.mark.parametrize("name", KEYS)
def test_kid_is_derived_from_the_key(name: str) -> None:
    assert KEYS[name].kid == load("keys.json")[name]["kid"]


@pytest.mark.parametrize("case", load("valid.json"), ids=name_of)
def test_valid_token_is_accepted(case: Any) -> None:
    assert verifier_of(case).verify(case["token"]) == msgspec.convert(case["claims"], Claims)


@pytest.mark.parametrize("case", load("invalid.json"), ids=name_of)
def test_invalid_token_is_refused_with_its_code(case: Any) -> None:
    with pytest.raises(TokenError) as caught:
        verifier_of(case).verify(case["token"])
    assert caught.value.code == case["error"]


@pytest.mark.parametrize("case", KEY_SETS["valid"], ids=name_of)
def test_valid_key_set_is_accepted(case: Any) -> None:
    key_set = open_key_set(case["document"], KEYS["root"], KEY_SETS["minimum_version"])
    assert (key_set.version, list(key_set.keys)) == (case["version"], case["kids"])


@pytest.mark.parametrize("case", KEY_SETS["invalid"], ids=name_of)
def test_invalid_key_set_is_refused_with_its_code(case: Any) -> None:
    with pytest.raises(TokenError) as caught:
        open_key_set(case["document"], KEYS["root"], KEY_SETS["minimum_version"])
    assert caught.value.code == case["error"]


@pytest.mark.parametrize("case", load("scopes.json"), ids=lambda case: f"{case['granted']} > {case['needed']}")
def test_scope_rule(case: Any) -> None:
    assert scope_allows(case["granted"], case["needed"]) is case["allowed"]
    assert scope_allows(frozenset(case["granted"].split(" ")), case["needed"]) is case["allowed"]
