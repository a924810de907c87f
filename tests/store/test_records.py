"""Decisions, audits, monitors, attempts and flags: the same battery over both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import pytest

from cascade.errors import StoreError
from cascade.store import AuditRecord, DecisionRecord, Said, Store

DECISION = DecisionRecord(
    id="d1",
    at=100.0,
    task="good",
    reason="certified",
    tenant="acme",
    tier="proxy",
    model="minilm",
    proxy_version="3",
    label="yes",
    confidence=0.97,
    prompt_tokens=12,
    cached_tokens=3,
    output_tokens=1,
    seconds=0.004,
    overhead_seconds=0.001,
    dollars=0.00001,
)
AUDIT = AuditRecord("d1", 100.0, "good", "proxy", "yes", propensity=0.02, proxy_version="3")


def at(seconds: float, **changes: object) -> DecisionRecord:
    return msgspec.structs.replace(DECISION, id=f"d{seconds}", at=seconds, **changes)


def test_a_decision_comes_back_whole(store: Store) -> None:
    store.decisions.append([DECISION])
    assert store.decisions.get("d1") == DECISION
    assert store.decisions.get("d2") is None


def test_texts_are_kept_only_when_given(store: Store) -> None:
    store.decisions.append([DECISION, at(99.0, text="my secret")])
    assert [one.text for one in store.decisions.recent(2)] == [None, "my secret"]


def test_a_trail_comes_back_whole(store: Store) -> None:
    trail = (
        Said("proxy", 0.004, 0.0, label="yes", confidence=0.6, needed=0.9, worth_next=0.3),
        Said("small", 0.2, 0.001, reason="unreadable"),
        Said("large", 0.9, 0.01, label="no", confidence=1.0),
    )
    store.decisions.append([msgspec.structs.replace(DECISION, trail=trail)])
    found = store.decisions.get("d1")
    assert found is not None and found.trail == trail
    assert store.decisions.recent(1)[0].trail == trail


def test_a_hostile_label_in_a_trail(store: Store) -> None:
    hostile = Said("large", 0.1, 0.0, label="a\x00b\u2028'; DROP TABLE cascade_decisions; --")
    store.decisions.append([msgspec.structs.replace(DECISION, trail=(hostile,))])
    found = store.decisions.get("d1")
    assert found is not None and found.trail == (hostile,)


def test_a_decision_without_an_answer(store: Store) -> None:
    nobody = DecisionRecord("d9", 1.0, "good", "tier_unavailable")
    store.decisions.append([nobody])
    assert store.decisions.get("d9") == nobody


def test_recent_is_newest_first_and_limited(store: Store) -> None:
    store.decisions.append([at(1.0), at(3.0), at(2.0)])
    assert [one.at for one in store.decisions.recent(2)] == [3.0, 2.0]


def test_recent_of_a_task_or_a_tenant(store: Store) -> None:
    store.decisions.append([at(1.0), at(2.0, task="spam"), at(3.0, tenant="zeta")])
    assert [one.at for one in store.decisions.recent(9, "spam")] == [2.0]
    assert [one.at for one in store.decisions.recent(9, "good")] == [3.0, 1.0]
    assert [one.at for one in store.decisions.recent(9, tenant="acme")] == [2.0, 1.0]


def test_a_tenant_comes_with_what_is_below_it_and_with_no_other(store: Store) -> None:
    tenants = ["acme", "acme/team", "acme/team/ann", "acme2", "ACME/team", "acme_/x", "", "acm"]
    store.decisions.append([at(float(i), tenant=one) for i, one in enumerate(tenants)])
    below = [one.tenant for one in store.decisions.recent(9, tenant="acme")]
    assert below == ["acme/team/ann", "acme/team", "acme"]
    deeper = [one.tenant for one in store.decisions.recent(9, tenant="acme/team")]
    assert deeper == ["acme/team/ann", "acme/team"]
    assert store.decisions.recent(9, tenant="acme/%") == []
    assert store.decisions.recent(9, tenant="a\x00") == []


def test_spent_is_the_sum_by_tenant_from_one_moment_up_to_another(store: Store) -> None:
    assert store.decisions.spent(0.0, 9.0) == {}
    store.decisions.append(
        [
            at(1.0, dollars=100.0),
            at(2.0, dollars=0.5),
            at(3.0, dollars=0.25),
            at(3.5, dollars=7.0, tenant="zeta"),
            at(4.0, dollars=100.0),
        ]
    )
    assert store.decisions.spent(2.0, 4.0) == {"acme": 0.75, "zeta": 7.0}


def test_a_batch_may_be_sent_again(store: Store) -> None:
    store.decisions.append([at(1.0)])
    store.decisions.append([at(1.0), at(2.0)])
    assert len(store.decisions.recent(9)) == 2


def test_an_empty_batch_is_nothing(store: Store) -> None:
    store.decisions.append([])
    assert store.decisions.recent(9) == []


def test_a_hostile_text_does_not_take_its_batch_with_it(store: Store) -> None:
    hostile = at(2.0, text="a\x00b\ud800", tenant="x\x00")
    store.decisions.append([at(1.0), hostile, at(3.0)])
    assert len(store.decisions.recent(9)) == 3
    found = store.decisions.get("d2.0")
    assert found is not None
    assert (found.text, found.tenant) == ("a\ufffdb?", "x\ufffd")


def test_a_million_characters(store: Store) -> None:
    store.decisions.append([at(1.0, text="x" * 1_000_000)])
    found = store.decisions.get("d1.0")
    assert found is not None and found.text == "x" * 1_000_000


def test_an_audit_is_pending_until_it_is_settled(store: Store) -> None:
    store.audits.open(AUDIT)
    assert store.audits.pending("good", 9) == [AUDIT]
    assert AUDIT.wrong is None
    assert store.audits.settle("d1", "no", at=105.0)
    assert store.audits.pending("good", 9) == []
    (settled,) = store.audits.settled("good", 9)
    assert settled == replace(AUDIT, teacher_answer="no", settled_at=105.0)
    assert settled.wrong is True


def test_an_unreadable_teacher_counts_as_wrong(store: Store) -> None:
    store.audits.open(AUDIT)
    store.audits.settle("d1", None, at=105.0)
    (settled,) = store.audits.settled("good", 9)
    assert settled.wrong is True


def test_an_agreeing_teacher(store: Store) -> None:
    store.audits.open(AUDIT)
    store.audits.settle("d1", "yes", at=105.0)
    assert store.audits.settled("good", 9)[0].wrong is False


def test_only_the_first_settling_counts(store: Store) -> None:
    store.audits.open(AUDIT)
    assert store.audits.settle("d1", "yes", at=105.0)
    assert not store.audits.settle("d1", "no", at=106.0)
    assert store.audits.settled("good", 9)[0].teacher_answer == "yes"


def test_an_unknown_audit_cannot_be_settled(store: Store) -> None:
    with pytest.raises(StoreError, match="never opened"):
        store.audits.settle("nobody", "yes", at=1.0)


def test_opening_an_audit_again_does_not_unsettle_it(store: Store) -> None:
    store.audits.open(AUDIT)
    store.audits.settle("d1", "yes", at=105.0)
    store.audits.open(AUDIT)
    assert store.audits.pending("good", 9) == []


def test_audits_by_task_oldest_pending_and_newest_settled_first(store: Store) -> None:
    for i in range(4):
        store.audits.open(replace(AUDIT, decision_id=f"d{i}", at=float(i)))
    store.audits.open(replace(AUDIT, decision_id="other", task="spam"))
    assert [one.at for one in store.audits.pending("good", 2)] == [0.0, 1.0]
    for i in (2, 0, 3):
        store.audits.settle(f"d{i}", "yes", at=10.0 + i)
    assert [one.settled_at for one in store.audits.settled("good", 2)] == [13.0, 12.0]


def test_a_monitor_remembers_its_last_state(store: Store) -> None:
    assert store.monitors.load("good") is None
    store.monitors.save("good", {"wealth": [1.0, 0.5], "epoch": 3})
    store.monitors.save("good", {"wealth": [1.0], "epoch": 4})
    store.monitors.save("spam", {})
    assert store.monitors.load("good") == {"wealth": [1.0], "epoch": 4}
    assert store.monitors.load("spam") == {}


def test_attempts_are_counted_by_task_and_once_each(store: Store) -> None:
    places = [store.attempts.open("good", digest) for digest in "abacb"]
    assert places == [0, 1, 0, 2, 1]
    assert store.attempts.open("spam", "c") == 0


def test_attempts_of_several_processes_have_places_of_their_own(store: Store) -> None:
    def opened(digest: int) -> int:
        return store.attempts.open("good", str(digest))

    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(opened, range(12)))
    assert sorted(places) == list(range(12))
    assert [opened(digest) for digest in range(12)] == places


def test_flags_go_up_and_down(store: Store) -> None:
    assert store.flags.all() == {}
    store.flags.set("good", "off", "by ann")
    store.flags.set("good", "off", "by bob")
    store.flags.set("good", "demoted", "alarm")
    store.flags.set("spam", "off", "by ann")
    assert store.flags.all() == {
        "good": {"off": "by bob", "demoted": "alarm"},
        "spam": {"off": "by ann"},
    }
    store.flags.clear("good", "off")
    store.flags.clear("good", "off")
    assert store.flags.all() == {"good": {"demoted": "alarm"}, "spam": {"off": "by ann"}}
