"""An API key: how it is made, and what is kept of it. Knows no file, no tenant and no HTTP.

What is kept is a plain SHA-256. Passwords need a salt and a slow hash, because people choose them
and a dictionary finds them. A key from ``new_key`` has 256 random bits: whoever steals digests
still has 2**256 keys to try, no two of them are alike without a salt, and a slow hash would slow
down every request and no thief.
"""

from __future__ import annotations

import hashlib
import re
import secrets

PREFIX = "sk-cascade-"
"""Marks a key for the scanners that look for leaked secrets."""

RANDOM_BYTES = 32

WRITTEN = "sha256:"
DIGEST = re.compile(WRITTEN + "([0-9a-f]{64})")


def new_key() -> str:
    """A key that nobody had before, from the system's entropy.

    >>> len(new_key()), new_key() == new_key()
    (54, False)
    """
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def digest_of(key: bytes) -> bytes:
    """The 32 bytes that are kept of a key.

    >>> digest_of(b"abc").hex()[:12]
    'ba7816bf8f01'
    """
    return hashlib.sha256(key).digest()


def written(digest: bytes) -> str:
    """A digest as ``gateway.yaml`` holds it.

    >>> written(digest_of(b"abc"))[:19]
    'sha256:ba7816bf8f01'
    """
    return WRITTEN + digest.hex()


def read_digest(secret: str) -> bytes:
    """The digest that a line of ``gateway.yaml`` stands for: of a key, or written out.

    Raises
    ------
    ValueError
        Empty, or begins like a digest and is none.

    >>> read_digest(written(digest_of(b"abc"))) == read_digest("abc") == digest_of(b"abc")
    True
    """
    secret = secret.strip()  # a variable that was filled from a file ends in a line break
    if not secret:  # "authorization: Bearer " would open the door
        raise ValueError("a key is empty: is its environment variable filled in?")
    if not secret.lower().startswith(WRITTEN):
        return digest_of(secret.encode())
    found = DIGEST.fullmatch(secret.lower())
    if found is None:  # half a digest must not become a key that somebody could send
        raise ValueError(f"{WRITTEN} needs 64 hex digits after it: run 'cascade keys new'")
    return bytes.fromhex(found[1])
