"""Which keys are known. Keeps only their digests; knows nothing of who holds them.

Nothing can be learnt from how long a wrong key takes. What a caller sends is hashed first, so that
no comparison ever sees it; a digest is found by its first half, in a dict whose own hashing is
secret to the process, and then compared whole in constant time. And the digest alone would open
nothing: it has to be met by a key of 256 random bits.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping

from cascade.api_keys import digest_of, read_digest
from cascade.gateway.refusals import Refusal

HALF = 16


class Keys:
    """A set of accepted keys.

    Parameters
    ----------
    keys : each plain, or ``sha256:<hex>``.

    >>> keys = Keys(["secret"])
    >>> keys.hold("secret"), keys.hold("guess")
    (True, False)
    """

    def __init__(self, keys: Iterable[str]) -> None:
        digests = map(read_digest, keys)
        self._digests = {digest[:HALF]: digest for digest in digests}

    def __bool__(self) -> bool:
        return bool(self._digests)

    def hold(self, key: str) -> bool:
        """Whether the key is one of them."""
        return self._hold(digest_of(key.encode()))

    def check(self, headers: Mapping[str, str]) -> bytes:
        """The digest of the key in ``authorization: Bearer <key>``.

        Raises
        ------
        Refusal
            401: no key, or none of these.
        """
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = digest_of(key.strip().encode("latin-1"))  # the very bytes that were sent
        if not self._hold(given) or scheme.lower() != "bearer":
            message = "missing or unknown key: send `authorization: Bearer <key>`"
            challenge = {"www-authenticate": "Bearer"}
            raise Refusal(401, "invalid_api_key", message, headers=challenge)
        return given

    def _hold(self, given: bytes) -> bool:
        known = self._digests.get(given[:HALF])
        return known is not None and hmac.compare_digest(given, known)
