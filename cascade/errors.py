"""Every way Cascade refuses, as one tree. Messages end with the next step.

CascadeError
├── UsageError              wrong use: exit code 2, HTTP 400
│   ├── ConfigError         gateway.yaml or a CASCADE_* variable
│   └── RecipeError         a training recipe
├── MissingExtra            a heavy library is not installed
├── ModelError              an embedded model file
│   ├── ModelUnavailable    no source answered
│   └── ChecksumMismatch    the bytes are not the ones that were promised
├── TierError               a tier could not answer
│   ├── TierUnavailable     connection, timeout, 5xx, 429 after retries
│   ├── TierRejected        the endpoint says the request is wrong (4xx)
│   └── UnreadableAnswer    the completion is not one of the task's labels
├── StoreError              labels or decisions could not be written or read
├── BudgetExceeded          a spend or label limit was reached
├── DistillError            no proxy came out, and why
│   ├── NotEnoughSignal     one class only, or a minority that is too small
│   └── ParityError         the exported model answers differently from the fitted one
├── CertificateError        a certificate is missing, forged or of the wrong kind
├── PromotionRefused        the promotion rule said no
└── RegistryError           no such version or alias, or an artifact that does not verify
"""

from __future__ import annotations


class CascadeError(Exception):
    """Root of the tree. ``str(error)`` is one sentence that a user can act on."""


class UsageError(CascadeError):
    """The caller asked for something that cannot be."""


class ConfigError(UsageError):
    """gateway.yaml or an environment variable is wrong."""


class RecipeError(UsageError):
    """A training recipe is wrong."""


class MissingExtra(CascadeError):
    """A heavy library that comes as an extra is not installed."""

    def __init__(self, purpose: str, extra: str) -> None:
        super().__init__(f"{purpose} needs an extra: pip install 'cascade-router[{extra}]'")


class ModelError(CascadeError):
    """An embedded model file cannot be used."""


class ModelUnavailable(ModelError):
    """No source of a model file answered."""


class ChecksumMismatch(ModelError):
    """Bytes differ from the checksum that was promised for them."""


class TierError(CascadeError):
    """A tier could not answer a query."""


class TierUnavailable(TierError):
    """The endpoint did not answer in time, or kept failing."""


class TierRejected(TierError):
    """The endpoint refused the request as wrong; asking again would not help."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class UnreadableAnswer(TierError):
    """A completion is not one of the task's labels, and nobody guesses."""


class StoreError(CascadeError):
    """Labels or decisions could not be written or read."""


class BudgetExceeded(CascadeError):
    """A spend or label limit was reached; what was bought is kept."""


class DistillError(CascadeError):
    """No proxy came out of a distillation."""


class NotEnoughSignal(DistillError):
    """The labels have one class only, or a minority too small to learn from."""


class ParityError(DistillError):
    """An exported model does not answer like the one that was fitted."""


class CertificateError(CascadeError):
    """A certificate is missing, does not verify, or is for something else."""


class PromotionRefused(CascadeError):
    """The promotion rule said no; the message says which condition failed."""


class RegistryError(CascadeError):
    """A version or alias does not exist, or its artifact does not verify."""
