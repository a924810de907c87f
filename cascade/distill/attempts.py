"""What the next audit of a task must claim, after all audits before it. Buys nothing.

Every audit that is opened may certify something false with its own delta, whatever came of the
others. So the first one has the recipe's, and the j-th after it delta 6 / (pi j)^2: all of them
together are wrong with probability at most 2 delta (union bound), however often somebody retrains,
draws afresh and tries again. On draws that an earlier audit has seen, that holds as long as nothing
was learned from them but that it failed: then what is tried j-th is fixed before any draw.
"""

from __future__ import annotations

import hashlib

import msgspec

from cascade.certify import Guarantee, reopened
from cascade.distill.distil import Distilled
from cascade.distill.workshop import Workshop


def open_audit(shop: Workshop, distilled: Distilled) -> Guarantee:
    """Count this audit among its task's; the guarantee that it is to win.

    An audit with the same policy, guarantee and draws is the same audit, so one that is resumed or
    repeated counts once. Falls to the teacher count too: the monitor may know of more of them than
    the store has audits.
    """
    recipe, store = shop.recipe, shop.store
    asked = Guarantee(recipe.guarantee.target, recipe.guarantee.delta)
    watched = store.monitors.load(recipe.name) or {}
    falls = watched.get("falls", 0)
    earlier = store.attempts.open(recipe.name, _digest(shop, distilled, falls))
    opened = reopened(asked, max(earlier, falls))
    if not falls:
        return opened
    # the least that a gateway asks of a policy that comes back
    back = reopened(Guarantee(asked.target, watched.get("delta", asked.delta)), falls)
    return min(opened, back, key=lambda one: one.delta)


def _digest(shop: Workshop, distilled: Distilled, falls: int) -> str:
    """Of all that the outcome hangs on; the texts in the order of drawing."""
    texts = [hashlib.sha256(text.encode()).hexdigest() for text in shop.texts(shop.pools.certify)]
    audit = (distilled.artifact.digest, shop.recipe.guarantee, falls, texts)
    return hashlib.sha256(msgspec.json.encode(audit)).hexdigest()
