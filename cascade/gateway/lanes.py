"""How each typed task is answered right now. Knows no registry, no file and no HTTP.

A lane is immutable and is swapped whole: a request takes it once and keeps it to its end, so a new
champion never changes a request that is under way.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from cascade import reasons
from cascade.certify import Certificate
from cascade.policies import Straight
from cascade.router import Router
from cascade.tasks import Task
from cascade.types import Policy


@dataclass(frozen=True)
class Lane:
    """One task with the tiers and the policy that answer it.

    teacher : the name of the last tier.
    models : what stands behind each tier, for people.
    version : the proxy's version in the registry; None when there is none.
    certificate : what the proxy's answers promise; None without a proxy.
    rungs : every certified policy, the most careful first. rung : the one that ``router`` follows.
    reason, detail : why the champion is not used; empty when it is.
    """

    task: Task
    router: Router
    teacher: str
    models: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    certificate: Certificate | None = None
    rungs: tuple[Policy, ...] = ()
    rung: int = 0
    reason: str = ""
    detail: str = ""

    def without_champion(self, reason: str, detail: str) -> Lane:
        """The same lane, answered by the teacher alone."""
        router = Router(self.router.tiers, Straight(self.teacher, reason))
        return replace(self, router=router, reason=reason, detail=detail)

    def on_rung(self, rung: int | None, why: str) -> Lane:
        """The same lane on another of its certified rungs; None is the teacher alone."""
        if rung is None:
            return self.without_champion(reasons.DEMOTED, why)
        if rung == self.rung:
            return self
        return replace(self, router=Router(self.router.tiers, self.rungs[rung]), rung=rung)

    def forced(self, tier: str) -> Router:
        """Ask this tier and no other."""
        return Router(self.router.tiers, Straight(tier, reasons.FORCED))


class Switchboard(Protocol):
    """Remembers which champions were taken out, so that a restart does not bring them back."""

    def read(self) -> Mapping[str, Mapping[str, str]]:
        """``{task: {"version", "why"}}`` of every demotion in force."""
        ...

    def write(self, task: str, demotion: Mapping[str, str] | None) -> None:
        """Durable on return; None lifts the demotion."""
        ...


class Forgetful:
    """A switchboard for tests and for a gateway without a store."""

    def read(self) -> Mapping[str, Mapping[str, str]]:
        """Nothing is known."""
        return {}

    def write(self, task: str, demotion: Mapping[str, str] | None) -> None:
        """Nothing is kept."""


EVERY_TASK = "*"
"""The off switch, as a task name that no recipe can have."""


class Lanes:
    """The lane of every task; reads need no lock, changes happen one at a time.

    Parameters
    ----------
    lanes : the starting lane of every task, without champion as a rule.
    switchboard : keeps demotions over a restart.
    """

    def __init__(self, lanes: Mapping[str, Lane], switchboard: Switchboard | None = None) -> None:
        self._switchboard = switchboard or Forgetful()
        self._installed = dict(lanes)
        self._demotions = {task: dict(one) for task, one in self._switchboard.read().items()}
        self._unwritten: set[str] = set()  # demotions that only this process knows
        self._lock = threading.Lock()
        self._serving = self._effective()

    def names(self) -> list[str]:
        """The tasks, in their order."""
        return list(self._serving)

    def get(self, task: str) -> Lane | None:
        """The lane to use for a request that arrives now."""
        return self._serving.get(task)

    def installed(self, task: str) -> Lane:
        """The lane as it would be without demotions."""
        return self._installed[task]

    @property
    def off(self) -> bool:
        """Whether the off switch sends everything to the teacher."""
        return EVERY_TASK in self._demotions

    def install(self, lane: Lane) -> None:
        """Swap in a new lane. A demotion lasts for the version it was spoken against."""
        with self._lock:
            self._installed[lane.task.name] = lane
            demotion = self._demotions.get(lane.task.name)
            if demotion and lane.version and demotion["version"] != lane.version:
                self._lift(lane.task.name)
            self._serving = self._effective()

    def remove(self, task: str) -> None:
        """From the next request on there is no such task."""
        with self._lock:
            self._installed.pop(task, None)
            self._serving = self._effective()

    def serve(self, task: str, version: str, rung: int | None, why: str) -> None:
        """From the next request on this rung answers, or with None the teacher.

        version : the one that is meant; nothing happens where another one is in place. Whoever
            says so remembers it: a restart asks again.
        """
        with self._lock:
            lane = self._installed.get(task)  # an audit may outlive its task
            if lane is not None and lane.version == version:
                self._installed[task] = lane.on_rung(rung, why)
                self._serving = self._effective()

    def demote(self, task: str, why: str) -> None:
        """From the next request on the teacher answers; lasts until another version comes."""
        version = self._installed[task].version
        if version is not None:
            self._speak(task, {"version": version, "why": why})

    def reinstate(self, task: str) -> None:
        """Lift a demotion."""
        with self._lock:
            self._lift(task)
            self._serving = self._effective()

    def switch_off(self, why: str) -> None:
        """The teacher answers every task."""
        self._speak(EVERY_TASK, {"version": "", "why": why})

    def switch_on(self) -> None:
        """Undo ``switch_off``; single demotions stay."""
        self.reinstate(EVERY_TASK)

    def heed(self) -> None:
        """Take over what other gateways of the same switchboard have said. Blocks."""
        with self._lock:
            own = {task: self._demotions[task] for task in self._unwritten & set(self._demotions)}
            said = {task: dict(one) for task, one in self._switchboard.read().items()} | own
            if said != self._demotions:
                self._demotions = said
                self._serving = self._effective()

    def _speak(self, task: str, demotion: dict[str, str]) -> None:
        with self._lock:
            # effective before durable: a full disk must not keep a harmful champion in
            self._demotions[task] = demotion
            self._serving = self._effective()
            self._unwritten.add(task)
            self._switchboard.write(task, demotion)
            self._unwritten.discard(task)

    def _lift(self, task: str) -> None:
        if self._demotions.pop(task, None) is not None:
            self._switchboard.write(task, None)

    def _effective(self) -> dict[str, Lane]:
        return {name: self._demoted(name, lane) for name, lane in self._installed.items()}

    def _demoted(self, name: str, lane: Lane) -> Lane:
        demotion = self._demotions.get(EVERY_TASK) or self._demotions.get(name)
        if demotion is None or lane.reason:
            return lane
        if demotion["version"] not in ("", lane.version):
            return lane
        return lane.without_champion(reasons.DEMOTED, demotion["why"])
