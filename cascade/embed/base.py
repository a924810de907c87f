"""What an embedder is: texts in, unit vectors out, and a version that changes when they would.

The contract, which ``tests/embed`` holds every implementation to:

- ``encode`` returns one row a text, in the order given, float32, of length 1 (L2).
- A text's row does not depend on its neighbours in the call, up to 1e-6. Training embeds
  thousands at once and serving one at a time; a proxy must see the same point both times.
- ``version`` differs whenever the bytes of the model or the treatment of the text differ.
- Any ``str`` is embedded, also an empty one, a very long one or one with lone surrogates. What
  lies beyond ``max_tokens`` is not seen; ``count_tokens`` shows it.
- Both methods may be called from several threads at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Embedder(Protocol):
    """Texts to unit vectors.

    Attributes
    ----------
    name : what recipes call it, for example ``minilm-int8``.
    version : digest of model bytes and text treatment; part of a proxy's identity.
    dim : length of a vector.
    max_tokens : tokens it sees of a text, special tokens included.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; array of shape (n, dim), rows of length 1."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Tokens of each text, shape (n,), special tokens included.

        More than ``max_tokens`` means that ``encode`` does not see the end of the text.
        """
        ...
