"""The gateway's log: a line a record, for people or for programs.

Knows records; decides nothing. No line holds a prompt or a key: an exception tells its kind and
where it came from, but not its message, which may quote what a caller sent.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Any

import msgspec

from cascade.config import GatewayConfig, LogForm

Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

CAUSES = 8
"""Exceptions of one chain that are told of."""


class Lines(logging.Formatter):
    """Common to both forms: what may be said.

    Parameters
    ----------
    secrets : texts that are blotted out wherever they turn up.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = [secret for secret in secrets if secret]

    def formatException(self, ei: Raised) -> str:
        """Kinds and places of an exception and its causes, the last one first."""
        told: list[str] = []
        error = ei[1]
        while error is not None and len(told) < CAUSES:
            frames = traceback.extract_tb(error.__traceback__)
            where = ", ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
            told.append(f"{type(error).__qualname__} at {where}")
            error = error.__cause__ or error.__context__
        return "; from ".join(told)

    def clean(self, text: str) -> str:
        """Without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class TextLines(Lines):
    """For people. What a caller sent cannot pass for a record of its own.

    >>> record = logging.LogRecord("cascade.x", logging.WARNING, "", 0, "a%sb", ("\\n",), None)
    >>> TextLines().format(record)[-23:]
    'WARNING cascade.x: a\\\\nb'
    """

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, who, what; the exception below it."""
        text = f"{_moment(record)} {record.levelname} {record.name}: "
        text += self.clean(record.getMessage())
        if record.exc_info:
            text += f"\n  {self.clean(self.formatException(record.exc_info))}"
        return text

    def clean(self, text: str) -> str:
        """Without secrets, and on one line."""
        return super().clean(text).replace("\r", "\\r").replace("\n", "\\n")


class JsonLines(Lines):
    """For programs: one object a line.

    >>> record = logging.LogRecord("cascade.x", logging.WARNING, "", 0, "a%sb", ("\\n",), None)
    >>> msgspec.json.decode(JsonLines(["b"]).format(record))["message"]
    'a\\n***'
    """

    def format(self, record: logging.LogRecord) -> str:
        """``at`` in UTC, ``level``, ``logger``, ``message`` and perhaps ``exception``."""
        line: dict[str, Any] = {
            "at": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.clean(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = self.clean(self.formatException(record.exc_info))
        return msgspec.json.encode(line).decode()


def form_of(config: GatewayConfig, stream: IO[str]) -> LogForm:
    """What the file says; else text on a terminal, JSON where a program reads."""
    return config.log or ("text" if stream.isatty() else "json")


@contextmanager
def logging_to(stream: IO[str], config: GatewayConfig) -> Iterator[None]:
    """Send every record to ``stream``; afterwards all is as it was before."""
    forms = {"text": TextLines, "json": JsonLines}
    handler = logging.StreamHandler(stream)
    handler.setFormatter(forms[form_of(config, stream)](secrets_of(config)))
    root, ours, tiers = (logging.getLogger(name) for name in ("", "cascade", "cascade.tiers"))
    before = [(one, one.level) for one in (root, ours, tiers)]
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.INFO)
    tiers.setLevel(logging.WARNING)  # below that it repeats what an engine said of a request
    try:
        yield
    finally:
        root.removeHandler(handler)
        for logger, level in before:
            logger.setLevel(level)


def secrets_of(config: GatewayConfig) -> list[str]:
    """Every key of the file in plain text."""
    tiers = [tier for tier in (config.tiers.small, config.tiers.large) if tier]
    keys = [tier.api_key for tier in tiers] + [one.key for one in config.callers]
    return [key for key in [*keys, config.admin_key] if key]


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
