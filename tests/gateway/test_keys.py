"""Which keys open: the right ones, whole, and nothing that merely looks like them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cascade.api_keys import digest_of, new_key, read_digest, written
from cascade.gateway.keys import HALF, Keys
from cascade.gateway.refusals import Refusal

KEY = new_key()
DIGEST = digest_of(KEY.encode())
KNOWN = Keys([written(DIGEST), "ключ"])


def opens(authorization: str) -> bool:
    try:
        KNOWN.check({"authorization": authorization})
    except Refusal as refusal:
        assert refusal.status == 401 and refusal.headers["www-authenticate"] == "Bearer"
        assert KEY not in refusal.message
        return False
    return True


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_any_spelling_of_the_scheme(scheme: str) -> None:
    assert opens(f"{scheme} {KEY}") and opens(f"{scheme}   {KEY}  ")


@pytest.mark.parametrize("scheme", ["Basic", "Token", "", "Bearer:"])
def test_no_other_scheme(scheme: str) -> None:
    assert not opens(f"{scheme} {KEY}") and not opens(f"{scheme}{KEY}")


def test_the_very_bytes_count() -> None:
    """A header is bytes: as UTF-8 it is the key of the file, in another encoding it is not."""
    assert opens("Bearer " + "ключ".encode().decode("latin-1"))
    assert not opens("Bearer " + "ключ".encode("cp1251").decode("latin-1"))


@given(st.binary(max_size=300).map(lambda raw: raw.decode("latin-1")))
def test_whatever_is_sent_is_a_401(authorization: str) -> None:
    assert not opens(authorization) and not opens(f"Bearer {authorization}")


@given(st.integers(0, len(KEY) - 1), st.integers(1, 255))
def test_one_wrong_character(place: int, other: int) -> None:
    changed = chr((ord(KEY[place]) + other) % 256)
    assert not opens(f"Bearer {KEY[:place]}{changed}{KEY[place + 1 :]}")


def test_half_a_digest_is_not_enough() -> None:
    half_right = DIGEST[:HALF] + bytes(32 - HALF)
    assert not Keys([written(half_right)]).hold(KEY)


def test_no_key_is_kept() -> None:
    assert KEY not in str(vars(Keys([KEY])))


def test_nobody_holds_no_keys() -> None:
    assert not Keys([]) and not Keys([]).hold("") and Keys(["x"])


LETTERS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(LETTERS.filter(lambda text: text.strip() and not text.strip().lower().startswith("sha256:")))
def test_plain_and_written_are_the_same_key(key: str) -> None:
    digest = read_digest(key)
    assert read_digest(written(digest)) == digest == digest_of(key.strip().encode())
