"""Names of requests and decisions. Knows nothing that they name."""

from __future__ import annotations

import random
import secrets


class Ids:
    """Names that nobody else has given: 96 random bits, from a generator that the system seeded.

    They are no secrets. Asking the system for every one of them would be two calls of it a request.
    """

    def __init__(self) -> None:
        self._random = random.Random(secrets.randbits(256))

    def new(self, kind: str) -> str:
        """A fresh name.

        >>> Ids().new("dec").startswith("dec_")
        True
        """
        return f"{kind}_{self._random.getrandbits(96):024x}"
