"""Who asks, what each may ask, and how much of it. Knows keys and limits; no route and no body.

A tenant is the name of a key. ``x-tenant-id`` adds to it below a slash and can never replace it,
so nobody can write into another's log or spend another's money.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cascade.config import ApiKey, GatewayConfig
from cascade.errors import ConfigError
from cascade.gateway.keys import Keys
from cascade.gateway.limits import Bucket
from cascade.gateway.refusals import Refusal
from cascade.gateway.spending import BELOW, Spending
from cascade.shapes import Misfit, instead

LONGEST_CLAIM = 128
"""Characters of ``x-tenant-id`` that are kept."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """One holder of a key.

    name : empty for whoever asks a gateway without keys.
    tasks : what its ``model`` may be; None is everything.
    bucket : None without a rate. spend : dollars a day; None without a limit.
    """

    name: str = ""
    tasks: frozenset[str] | None = None
    bucket: Bucket | None = None
    spend: float | None = None

    def may(self, *names: str) -> bool:
        """Whether it may ask for this; of several names of one thing, any will do.

        >>> Tenant("acme", frozenset({"task/spam"})).may("task/spam")
        True
        """
        return self.tasks is None or not self.tasks.isdisjoint(names)

    def known_as(self, claim: str) -> str:
        """The tenant in the log. claim : what the caller says in ``x-tenant-id``.

        >>> Tenant("acme").known_as("zeta"), Tenant("acme").known_as(""), Tenant().known_as("zeta")
        ('acme/zeta', 'acme', 'zeta')
        """
        claim = claim[:LONGEST_CLAIM]
        return f"{self.name}{BELOW}{claim}" if self.name and claim else self.name or claim


ANYONE = Tenant()


class Held(NamedTuple):
    """The keys of one moment and who holds them; swapped together."""

    keys: Keys
    by_digest: Mapping[bytes, Tenant]


class Tenants:
    """Everybody who holds a key, and what each has used up.

    Parameters
    ----------
    keys : of ``gateway.yaml``; none means that anyone may ask anything.
    clock : seconds that never go back.

    Raises
    ------
    StoreError
        What was spent today cannot be read.
    """

    def __init__(
        self,
        keys: Iterable[ApiKey],
        spending: Spending,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spending = spending
        self._clock = clock
        self._held = Held(Keys([]), {})
        self.install(keys)

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self._held.by_digest.values())

    def install(self, keys: Iterable[ApiKey]) -> None:
        """From the next request on these keys count, and no others. Blocks: reads the store.

        A tenant whose rate did not change keeps its bucket, and every one what it has spent.
        """
        keys = list(keys)
        before = {one.name: one.bucket for one in self}
        self.spending.follow(one.tenant for one in keys)
        holders = {one.digest: self._tenant(one, before.get(one.tenant)) for one in keys}
        self._held = Held(Keys(one.key for one in keys), holders)

    def find(self, headers: Mapping[str, str]) -> Tenant:
        """Whose key came with a request.

        Raises
        ------
        Refusal
            401.
        """
        held = self._held
        return held.by_digest[held.keys.check(headers)] if held.keys else ANYONE

    def admit(self, tenant: Tenant) -> Mapping[str, str]:
        """Let one request in, within its limits.

        Returns
        -------
        Mapping
            ``x-ratelimit-*`` response headers, as OpenAI has them; none without a rate.

        Raises
        ------
        Refusal
            429, ``rate_limit_exceeded`` or ``insufficient_quota``, with ``retry-after``.
        """
        if tenant.spend is not None and self.spending.today(tenant.name) >= tenant.spend:
            raise _spent(tenant.spend, self.spending.seconds_left)
        if tenant.bucket is None:
            return {}
        if not tenant.bucket.take(self._clock()):
            raise _too_many(tenant.bucket)
        return _rate_headers(tenant.bucket)

    def _tenant(self, key: ApiKey, before: Bucket | None) -> Tenant:
        tasks = None if key.tasks is None else frozenset(key.tasks)
        return Tenant(key.tenant, tasks, self._bucket(key.rate, before), key.spend)

    def _bucket(self, rate: int | None, before: Bucket | None) -> Bucket | None:
        if rate is None:
            return None
        return before if before and before.per_minute == rate else Bucket.full(rate, self._clock())


def check_tasks(config: GatewayConfig, recipes: Iterable[str]) -> None:
    """Refuse a key that may ask what is not there; see ``task_misfits``.

    Raises
    ------
    ConfigError
        Names the tenant, and what there is.
    """
    for misfit in task_misfits(config, recipes):
        raise ConfigError(str(misfit))


def task_misfits(config: GatewayConfig, recipes: Iterable[str]) -> Iterator[Misfit]:
    """What keys may ask and is not there: a typing mistake would shut their holders out.

    recipes : the tasks' names.
    """
    tiers = {"small": config.tiers.small, "large": config.tiers.large}
    models = [name for tier, one in tiers.items() if one for name in (tier, one.model)]
    known = [*(f"task/{name}" for name in recipes), *models]
    for place, key in enumerate(config.callers):
        for number, name in enumerate(key.tasks or ()):
            if name not in known:
                message = f"{key.tenant}: there is no {name!r}{instead(name, known)}"
                yield Misfit(("api_keys", place, "tasks", number), message)


def _too_many(bucket: Bucket) -> Refusal:
    seconds = math.ceil(bucket.wait_seconds)
    message = f"Rate limit reached: {bucket.per_minute} requests a minute. Try again in {seconds} s"
    headers = {**_rate_headers(bucket), "retry-after": str(seconds)}
    return Refusal(429, "rate_limit_exceeded", message, headers=headers)


def _spent(dollars: float, seconds_left: float) -> Refusal:
    message = f"Today's ${dollars:g} are spent; the day ends at midnight UTC"
    headers = {"retry-after": str(math.ceil(seconds_left))}
    return Refusal(429, "insufficient_quota", message, headers=headers)


def _rate_headers(bucket: Bucket) -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": str(bucket.per_minute),
        "x-ratelimit-remaining-requests": str(bucket.left),
        "x-ratelimit-reset-requests": duration(bucket.full_in_seconds),
    }


def duration(seconds: float) -> str:
    """A time as OpenAI writes it in ``x-ratelimit-reset-requests``.

    >>> duration(0.12), duration(8.64), duration(360), duration(86.4), duration(0)
    ('120ms', '8.64s', '6m0s', '1m26.4s', '0s')
    """
    if 0 < seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{minutes:.0f}m{rest:.5g}s" if minutes else f"{rest:.5g}s"
