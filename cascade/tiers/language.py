"""A language model as a tier: the task's prompt out, a label and its probabilities back.

Knows a task, an endpoint and a price; knows no engine, no proxy and no threshold.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from cascade import reasons
from cascade.errors import TierRejected, TierUnavailable, UnreadableAnswer
from cascade.tasks import Task
from cascade.tiers.endpoint import Endpoint
from cascade.tiers.labels import read_response, usage_of
from cascade.types import Abstention, Answer, Message, Price, Query, Reply, Usage

TOP_LOGPROBS = 20  # the most that OpenAI and vLLM give
REASONING_TOKENS = 2048
WRONG_REQUEST = frozenset({400, 413, 415, 422})
"""Statuses that speak about the request. Other 4xx (a wrong key, an unknown model) speak about the
endpoint, and no other query would fare better."""


class LanguageTier:
    """Ask a language model a task's question, one request a query.

    Nothing of ``query.extra`` is passed on: the answer is a label, and tools, a seed or a
    temperature would make it another teacher's label. A query with several turns or with images is
    put behind the task's prefix as it is; the endpoint may refuse it.

    Completions are not constrained to the codes. On llama.cpp a grammar changes the text but not
    the log-probabilities (they are taken before it), so it would only turn an unreadable answer
    into a guess; and a ``json_schema`` makes the first token a quote, which hides them.

    Parameters
    ----------
    endpoint : owned by the caller, who closes it.
    """

    def __init__(self, name: str, task: Task, endpoint: Endpoint, price: Price) -> None:
        self.name = name
        self.task = task
        self.endpoint = endpoint
        self.price = price
        self._dialects = Dialects(most_tokens(task.codes))

    async def answer(self, queries: list[Query]) -> list[Reply]:
        """One reply a query, in order.

        ``scores`` are the label probabilities, empty when the endpoint gives no log-probabilities;
        ``confidence`` is the probability of the label it gave, 0 when unknown. It is raw:
        calibrated it is by the stacked tier, and by ``Teacher`` for the teacher.
        """
        # Queued here, not in the endpoint: ``usage.seconds`` is then the time of the request.
        free = asyncio.Semaphore(self.endpoint.concurrency)

        async def one(query: Query) -> Reply:
            async with free:
                return await self._answer_one(query)

        return list(await asyncio.gather(*map(one, queries)))

    async def _answer_one(self, query: Query) -> Reply:
        started = time.perf_counter()
        try:
            response = await self._ask(self.task.prompt(query))
        except TierRejected as exc:
            wrong = exc.status in WRONG_REQUEST
            reason = reasons.UNSUPPORTED_INPUT if wrong else reasons.TIER_UNAVAILABLE
            return self._abstention(reason, exc, started)
        except TierUnavailable as exc:
            return self._abstention(reasons.TIER_UNAVAILABLE, exc, started)
        usage = usage_of(response, self.price, time.perf_counter() - started)
        try:
            reading = read_response(response, self.task)
        except UnreadableAnswer as exc:
            return Abstention(self.name, reasons.UNREADABLE, usage, str(exc))
        return Answer(self.name, reading.label, reading.confidence, usage, reading.probabilities)

    async def _ask(self, messages: Sequence[Message]) -> dict[str, Any]:
        """Ask in the first dialect that the endpoint does not refuse; the last refusal stands."""
        refusal: TierRejected | None = None
        for dialect in self._dialects.candidates():
            try:
                response = await self.endpoint.chat({**dialect, "messages": list(messages)})
            except TierRejected as exc:
                if exc.status not in WRONG_REQUEST:
                    raise
                refusal = refusal or exc
            else:
                self._dialects.understood(dialect)
                return response
        assert refusal is not None  # there is always a candidate
        raise refusal

    def _abstention(self, reason: str, exc: Exception, started: float) -> Abstention:
        usage = Usage(seconds=time.perf_counter() - started)
        return Abstention(self.name, reason, usage, str(exc))


class Dialects:
    """The request fields besides the messages, from the richest form to the plainest.

    Engines disagree on what they accept, and a field that one needs another refuses with a 400:

    1. thinking off the way vLLM and llama.cpp (``chat_template_kwargs``) and newer OpenAI models
       (``reasoning_effort``) understand it;
    2. without these, for endpoints that refuse fields they do not know;
    3. without a temperature and log-probabilities and with room for hidden tokens, for reasoning
       models that refuse the former and cannot stop the latter.

    The first form that is accepted is kept, so only the first requests may be asked twice, and a
    later 400 is about the query.

    >>> dialects = Dialects(most_tokens=3)
    >>> [sorted(form) for form in dialects.candidates()][2]
    ['max_completion_tokens']
    >>> dialects.understood(dialects.candidates()[1])
    >>> len(dialects.candidates())
    1
    """

    def __init__(self, most_tokens: int) -> None:
        plain = {
            "max_tokens": most_tokens,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": TOP_LOGPROBS,
        }
        quiet = {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "none"}
        bare = {"max_completion_tokens": REASONING_TOKENS}
        self._forms: tuple[Mapping[str, Any], ...] = ({**plain, **quiet}, plain, bare)

    def candidates(self) -> Sequence[Mapping[str, Any]]:
        """The forms to try, in order."""
        return self._forms

    def understood(self, form: Mapping[str, Any]) -> None:
        """Keep to this form from now on."""
        self._forms = (form,)


def most_tokens(codes: Sequence[str]) -> int:
    """Room for the longest code in any tokenizer, and for little else.

    A token of a common word is at least three bytes; two more for a leading space and the end.

    >>> most_tokens(["yes", "no"]), most_tokens(["A", "B"]), most_tokens(["positive"])
    (3, 2, 4)
    """
    return 2 + max(len(code.encode()) for code in codes) // 3
