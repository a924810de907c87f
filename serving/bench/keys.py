"""What a key costs a request: CPU microseconds to find its tenant and to keep its limits.

A wrong key that is right but for its last character stands beside one that is wrong from its
first: the two must not differ.

    python serving/bench/keys.py --json -
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from cascade.api_keys import digest_of, new_key, written
from cascade.config import ApiKey
from cascade.gateway.refusals import Refusal
from cascade.gateway.spending import Spending
from cascade.gateway.tenants import Tenants

CALLS = 5_000
MUCH = 10**9  # requests a minute, dollars a day: no limit is met


def gateway_with(key: str, keys: int, **limits: float) -> Tenants:
    """Tenants of which the last holds ``key``."""
    others = [ApiKey(written(digest_of(new_key().encode())), f"t{i}") for i in range(keys - 1)]
    mine = ApiKey(written(digest_of(key.encode())), "mine", **limits)
    return Tenants([*others, mine], Spending(lambda since, until: {}))


def check(tenants: Tenants, headers: Mapping[str, str]) -> None:
    """What every request goes through before its body is read."""
    try:
        tenants.admit(tenants.find(headers))
    except Refusal as refusal:
        assert refusal.status == 401


def microseconds(work: Callable[[], object]) -> float:
    """CPU time of one call, over many."""
    started = time.process_time()
    for _ in range(CALLS):
        work()
    return 1e6 * (time.process_time() - started) / CALLS


def cases() -> dict[str, Callable[[], object]]:
    """What is measured, by its name."""
    key = new_key()
    right, near, far = (
        {"host": "x", "authorization": f"Bearer {one}"} for one in (key, key[:-1] + "!", new_key())
    )
    one, many = gateway_with(key, 1), gateway_with(key, 10_000)
    limited = gateway_with(key, 10_000, rate=MUCH, spend=MUCH)
    return {
        "no keys": partial(check, Tenants([], Spending(lambda since, until: {})), right),
        "1 key": partial(check, one, right),
        "10,000 keys": partial(check, many, right),
        "10,000 keys, rate and spend": partial(check, limited, right),
        "count an answer's dollars": partial(limited.spending.add, "mine/team", 1e-6),
        "wrong key": partial(check, many, far),
        "wrong key, last character only": partial(check, many, near),
    }


def main() -> None:
    """Measure every case in turn, many rounds, so that a busy neighbour is in all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--json", metavar="FILE", help="write the rows as JSON; - for stdout")
    args = parser.parse_args()
    measured = cases()
    rounds = [[microseconds(work) for work in measured.values()] for _ in range(args.rounds)]
    quartiles = np.percentile(rounds, [25, 50, 75], axis=0).T.tolist()  # (cases, 3)
    found = {
        name: dict(zip(("p25_us", "p50_us", "p75_us"), row, strict=True))
        for name, row in zip(measured, quartiles, strict=True)
    }
    if args.json == "-":
        print(json.dumps(found))
    elif args.json:
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")
    table = sys.stderr if args.json == "-" else sys.stdout
    for name, row in found.items():
        print(f"{name:<32}" + "".join(f"{us:8.2f}" for us in row.values()), file=table)


if __name__ == "__main__":
    main()
