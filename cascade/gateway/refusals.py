"""What a caller is told when a request cannot be answered. Knows HTTP statuses, no ASGI.

The shape is OpenAI's: ``{"error": {"message", "type", "param", "code"}}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from cascade import reasons
from cascade.errors import CascadeError, TierRejected, TierUnavailable, UsageError
from cascade.tiers.language import WRONG_REQUEST
from cascade.types import Decision

KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Refusal(Exception):
    """A request that ends in an error answer.

    status : HTTP status. code : stable and machine-readable. param : the field to correct.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = headers or {}

    @property
    def body(self) -> bytes:
        """The JSON answer.

        >>> Refusal(404, "not_found", "no such path").body[:34]
        b'{"error":{"message":"no such path"'
        """
        error = {
            "message": self.message,
            "type": _kind(self.status),
            "param": self.param,
            "code": self.code,
        }
        return msgspec.json.encode({"error": error})


def _kind(status: int) -> str:
    default = "invalid_request_error" if status < 500 else "server_error"
    return KINDS.get(status, default)


def bad_request(message: str, *, param: str | None = None, code: str = "invalid_value") -> Refusal:
    """The caller's mistake: 400."""
    return Refusal(400, code, message, param=param)


def unknown_model(asked: str, known: Iterable[str]) -> Refusal:
    """A model, tier or task that is not there: 404, with what is."""
    listing = ", ".join(known)
    message = f"The model {asked[:100]!r} does not exist here. There are: {listing}"
    return Refusal(404, "model_not_found", message, param="model")


def refusal_of(error: CascadeError) -> Refusal:
    """How an error of the tree looks from outside.

    >>> refusal_of(TierRejected("context is too long", 413)).status
    400
    """
    if isinstance(error, TierRejected):
        return _rejected(error)
    if isinstance(error, TierUnavailable):
        return Refusal(503, reasons.TIER_UNAVAILABLE, str(error) or "the tier did not answer")
    if isinstance(error, UsageError):
        return bad_request(str(error))
    return Refusal(500, "internal_error", str(error))


def _rejected(error: TierRejected) -> Refusal:
    """An engine's 400 is the caller's; its 401 or 404 blames the gateway's configuration."""
    if error.status in WRONG_REQUEST:
        return bad_request(str(error), code=reasons.UNSUPPORTED_INPUT)
    return Refusal(503, reasons.TIER_UNAVAILABLE, str(error))


UNANSWERED = {
    reasons.TIER_UNAVAILABLE: (503, "no tier could answer; try again later"),
    reasons.UNREADABLE: (502, "the model's completion is not one of the task's labels"),
}


def refusal_of_decision(decision: Decision, headers: Mapping[str, str] | None = None) -> Refusal:
    """The error for a decision without an answer.

    The teacher being down is 503, an unreadable completion 502; anything else means that the
    request itself cannot be answered by the tier that had to: 400.
    """
    status, message = UNANSWERED.get(decision.reason, (400, "the tier cannot answer this request"))
    detail = f": {decision.detail}" if decision.detail else ""
    return Refusal(status, decision.reason, message + detail, headers=headers)
