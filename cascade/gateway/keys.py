"""Who may ask. Keeps only sha256 digests of the keys and compares in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

from cascade.gateway.refusals import Refusal


class Keys:
    """A set of accepted keys.

    >>> keys = Keys(["secret"])
    >>> keys.hold("secret"), keys.hold("guess")
    (True, False)
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def hold(self, key: str) -> bool:
        """Whether the key is one of them; takes as long for a wrong one as for a right one."""
        given = _digest(key)
        # a list, not a generator: every key is compared, whichever matches
        return any([hmac.compare_digest(given, one) for one in self._digests])

    def check(self, headers: Mapping[str, str]) -> None:
        """Refuse a request without a valid ``authorization: Bearer <key>``.

        Raises
        ------
        Refusal
            401.
        """
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.hold(key.strip()):
            message = "missing or unknown key: send `authorization: Bearer <key>`"
            raise Refusal(401, "invalid_api_key", message)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
