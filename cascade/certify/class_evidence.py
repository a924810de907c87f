"""What proves the agreement of one class of a table. Knows a finished audit; buys nothing.

The audit inside is an ordinary table audit whose table is the class: the rows that the policy
answers with one label. Which rows those are was frozen before the first draw, so its proof applies
word for word (see ``table``). C audits at delta / C each are all right together with probability at
least 1 - delta (Bonferroni 1936; they need not be independent).
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from cascade.certify.claim import AGREEMENT, Claim
from cascade.certify.table import Ledger, TableEvidence


@dataclass(frozen=True)
class ClassLedger:
    """A class's ledger, which also knows the class's name."""

    label: str
    classes: int
    ledger: Ledger

    @property
    def highest(self) -> NDArray[np.float64]:
        """(G,) the largest log wealth of each rung."""
        return self.ledger.highest

    def claim(self) -> Claim:
        """The ledger's claim, about this class only. Raises ``CertificateError`` where none is."""
        won = self.ledger.claim()
        method = f"{won.method}; one of {self.classes} classes that share delta"
        return won._replace(metric=f"{AGREEMENT}:{self.label}", method=method)


class ClassEvidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="class"):
    """Everything needed to win a class's certificate again, offline.

    label : the policy's answer on all rows of this class.
    classes : how many classes share the whole delta; this one's is in its audit's guarantee.
    audit : of the class alone; its rows are counted within the class.
    """

    label: str
    classes: int
    audit: TableEvidence

    @property
    def log_wealths(self) -> list[float]:
        """(G,) as recorded; a replay must find the same."""
        return self.audit.log_wealths

    def replay(self) -> ClassLedger:
        """Run the class's audit again. Raises ``CertificateError`` on impossible draws."""
        return ClassLedger(self.label, self.classes, self.audit.replay())
