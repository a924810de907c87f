"""Demotions, the off switch, and what a new version does to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from cascade.certify import Certificate
from cascade.gateway.lanes import Lanes
from cascade.gateway.observe import Metrics
from cascade.gateway.switches import StoredSwitches
from cascade.store import open_store

from .conftest import lane_of, on_two_rungs


@pytest.fixture
def lanes(certificate: Certificate) -> Lanes:
    return Lanes({"mood": lane_of(certificate, Metrics())})


def reason(lanes: Lanes) -> str:
    lane = lanes.get("mood")
    assert lane is not None
    return lane.reason


def test_demotion_lasts_for_the_version_it_was_spoken_against(
    lanes: Lanes, certificate: Certificate
) -> None:
    lanes.demote("mood", "it harms")
    assert reason(lanes) == "demoted"
    lanes.install(lane_of(certificate, Metrics(), version="1"))
    assert reason(lanes) == "demoted"
    lanes.install(lane_of(certificate, Metrics(), version="2"))
    assert reason(lanes) == ""


def test_reinstating_lifts_a_demotion(lanes: Lanes) -> None:
    lanes.demote("mood", "a mistake")
    lanes.reinstate("mood")
    lanes.reinstate("mood")
    assert reason(lanes) == ""


def test_off_switch_covers_new_versions_and_leaves_demotions(
    lanes: Lanes, certificate: Certificate
) -> None:
    lanes.demote("mood", "it harms")
    lanes.switch_off("holiday")
    assert lanes.off and lanes.get("mood").detail == "holiday"  # type: ignore[union-attr]
    lanes.switch_on()
    assert not lanes.off and reason(lanes) == "demoted"
    lanes.switch_off("holiday")
    lanes.install(lane_of(certificate, Metrics(), version="2"))
    assert reason(lanes) == "demoted"


def test_a_lane_without_champion_keeps_its_own_reason(
    lanes: Lanes, certificate: Certificate
) -> None:
    blank = lane_of(certificate, Metrics()).without_champion("no_champion", "nothing promoted")
    lanes.install(blank)
    lanes.switch_off("holiday")
    assert reason(lanes) == "no_champion"


def test_demotions_survive_a_restart(tmp_path: Path, certificate: Certificate) -> None:
    with open_store(f"sqlite:///{tmp_path}/s.db") as store:
        first = Lanes({"mood": lane_of(certificate, Metrics())}, StoredSwitches(store.flags))
        first.demote("mood", "it harms")
        first.switch_off("holiday")
        second = Lanes({"mood": lane_of(certificate, Metrics())}, StoredSwitches(store.flags))
        assert second.off
        second.switch_on()
        assert reason(second) == "demoted"
        second.install(lane_of(certificate, Metrics(), version="2"))
        third = Lanes({"mood": lane_of(certificate, Metrics())}, StoredSwitches(store.flags))
        assert reason(third) == ""


def test_demotion_is_in_force_even_if_it_cannot_be_written(certificate: Certificate) -> None:
    class FullDisk:
        def read(self) -> Mapping[str, Mapping[str, str]]:
            return {}

        def write(self, task: str, demotion: Mapping[str, str] | None) -> None:
            raise OSError("full")

    lanes = Lanes({"mood": lane_of(certificate, Metrics())}, FullDisk())
    with pytest.raises(OSError, match="full"):
        lanes.demote("mood", "it harms")
    assert reason(lanes) == "demoted"


def test_nothing_to_demote_is_no_demotion(certificate: Certificate) -> None:
    blank = lane_of(certificate, Metrics(), version=None)  # type: ignore[arg-type]
    lanes = Lanes({"mood": blank})
    lanes.demote("mood", "why not")
    assert reason(lanes) == ""


def test_another_rung_serves_until_another_version_comes(certificate: Certificate) -> None:
    lanes = Lanes({"mood": on_two_rungs(lane_of(certificate, Metrics()))})
    lanes.serve("mood", "1", 0, "evidence grows")
    lane = lanes.get("mood")
    assert lane is not None and lane.rung == 0 and lane.router.policy == lane.rungs[0]
    lanes.serve("mood", "7", None, "of a version that has gone")
    assert reason(lanes) == ""
    lanes.serve("mood", "1", None, "it harms")
    assert reason(lanes) == "demoted"
    lanes.install(lane_of(certificate, Metrics(), version="2"))
    assert reason(lanes) == ""


def test_a_demotion_is_heard_by_every_gateway_of_the_store(
    tmp_path: Path, certificate: Certificate
) -> None:
    with open_store(f"sqlite:///{tmp_path}/cascade.db") as store:
        one, other = (
            Lanes({"mood": lane_of(certificate, Metrics())}, StoredSwitches(store.flags))
            for _ in range(2)
        )
        one.demote("mood", "it harms")
        other.heed()
        assert reason(other) == "demoted"
        other.switch_off("holiday")
        other.reinstate("mood")
        one.heed()
        assert one.off
        other.switch_on()
        one.heed()
        assert reason(one) == "" and not one.off


class FullDisk:
    """A switchboard that can be read, and not written."""

    def read(self) -> Mapping[str, Mapping[str, str]]:
        return {}

    def write(self, task: str, demotion: Mapping[str, str] | None) -> None:
        raise OSError("no space left")


def test_a_demotion_that_could_not_be_written_is_not_forgotten(certificate: Certificate) -> None:
    lanes = Lanes({"mood": lane_of(certificate, Metrics())}, FullDisk())
    with pytest.raises(OSError, match="no space"):
        lanes.demote("mood", "it harms")
    lanes.heed()
    assert reason(lanes) == "demoted"
