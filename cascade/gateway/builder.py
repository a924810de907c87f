"""Make a lane from a proxy's folder: may it answer here, and with which tiers?

Knows what makes a champion valid: its identity, and a stream certificate that its own evidence
proves. Whatever is missing, the lane is the teacher's, and says why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cascade import certify, reasons
from cascade.benches import LARGE, PROXY, SMALL, Bench
from cascade.certify import Certificate
from cascade.errors import CertificateError
from cascade.gateway.batches import Batched
from cascade.gateway.lanes import Lane
from cascade.policies import Ladder, Straight
from cascade.router import Router
from cascade.tiers.artifact import Artifact
from cascade.tiers.proxy import Proxy, ProxyTier
from cascade.tiers.stacked import StackedTier
from cascade.types import SKIP, Tier, for_label

SURE, NEVER = 1.0, 2.0
"""The highest confidence, and a threshold above it: that tier is not worth asking."""


class Watching(Protocol):
    """Wraps tiers in whatever watches them."""

    def __call__(self, tiers: Mapping[str, Tier], /) -> Mapping[str, Tier]: ...


@dataclass(frozen=True)
class LaneBuilder:
    """Makes the lane of every task.

    watching : applied to the tiers of every lane; ``threads`` : cores for one proxy batch.
    """

    benches: Mapping[str, Bench]
    watching: Watching
    threads: int = 1

    def blank(self, task: str) -> Lane:
        """The teacher answers: nothing is promoted."""
        bench = self.benches[task]
        router = Router(self.watching(bench.language), Straight(LARGE, reasons.NO_CHAMPION))
        return Lane(bench.task, router, LARGE, bench.models, reason=reasons.NO_CHAMPION)

    def build(self, task: str, version: str, folder: Path) -> Lane:
        """The lane of one version.

        Raises
        ------
        RegistryError
            The folder is no whole proxy. A whole one that may not answer is no error: its lane
            is the teacher's, with a reason.
        """
        artifact = Artifact.load(folder)
        proxy, bench = Proxy(artifact, self.threads), self.benches[task]
        differing = proxy.differences(bench.identity)
        if differing:
            detail = f"version {version} was made for another {', '.join(differing)}: train again"
            return self.blank(task).without_champion(reasons.IDENTITY_MISMATCH, detail)
        try:
            certificate = proven(artifact)
        except CertificateError as exc:
            detail = f"version {version} may not answer: {exc}"
            return self.blank(task).without_champion(reasons.NO_CHAMPION, detail)
        return self._lane(bench, proxy, version, certificate)

    def _lane(self, bench: Bench, proxy: Proxy, version: str, certificate: Certificate) -> Lane:
        tiers = self.watching(_tiers(bench, proxy))
        certified = certify.certified_rungs(certificate)
        rungs = tuple(_ladder(rung.thresholds, tiers) for rung in certified)
        return Lane(
            task=bench.task,
            router=Router(tiers, rungs[-1]),
            teacher=LARGE,
            models={**bench.models, PROXY: f"{bench.task.name}@{version}"},
            version=version,
            certificate=certificate,
            rungs=rungs,
            rung=len(rungs) - 1,
        )


def _tiers(bench: Bench, proxy: Proxy) -> dict[str, Tier]:
    """Cheapest first. A small tier without a stack has no calibrated confidence: left out."""
    first = ProxyTier(PROXY, proxy, bench.embedder, bench.task)
    tiers: dict[str, Tier] = {PROXY: Batched(first)}
    stack = proxy.manifest.stack
    if bench.small is not None and stack is not None:
        tiers[SMALL] = StackedTier(SMALL, bench.task, bench.small, first, stack)
    return {**tiers, LARGE: bench.large}


def _ladder(certified: Mapping[str, float], tiers: Mapping[str, Tier]) -> Ladder:
    # the proxy is asked even where it may never answer: its gates guard the small tier too
    own = {key: at for key, at in certified.items() if key.startswith(for_label(PROXY, ""))}
    thresholds = {PROXY: certified[PROXY], **own}
    if SMALL in tiers and certified.get(SMALL, NEVER) <= SURE:
        thresholds |= {SMALL: certified[SMALL], SKIP: certified.get(SKIP, 0.0)}
    return Ladder(thresholds, LARGE)


def proven(artifact: Artifact) -> Certificate:
    """The artifact's certificate, won again from its own evidence.

    Raises
    ------
    CertificateError
        Absent, changed, for something else than a stream, or not the policy of the artifact.
    """
    if artifact.certificate is None:
        raise CertificateError("it has no certificate: run 'cascade certify'")
    certificate = certify.from_json(artifact.certificate)
    certify.verify(certificate)
    certify.require(certificate, certify.STREAM)
    if certificate.thresholds != artifact.manifest.thresholds:
        raise CertificateError("its certificate is for other thresholds: certify it again")
    return certificate
