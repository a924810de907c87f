"""Labels that were bought, by what was asked of whom. Knows no teacher and no training."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import Row, func, select

from cascade.store.database import Database
from cascade.store.schema import labels
from cascade.tasks import Task
from cascade.types import Usage

MOST_KEYS = 500
"""Keys in one statement; SQLite allows 999 parameters in its older builds."""


@dataclass(frozen=True, slots=True)
class LabelKey:
    """The address of a label: a hash of all that its teacher was told, and the teacher.

    teacher : the model, not the place it has in a cascade.
    """

    task_digest: str
    teacher: str
    text_sha256: str

    @classmethod
    def of(cls, task: Task, teacher: str, text: str) -> LabelKey:
        """The address of one text; what lies outside the task's window does not count."""
        seen = task.window.crop(text).encode("utf-8", "surrogatepass")
        return cls(task_digest(task), teacher, hashlib.sha256(seen).hexdigest())


@dataclass(frozen=True, slots=True)
class Label:
    """What a teacher said about one text.

    answer : one of the task's labels; None when the completion was unreadable.
    scores : the teacher's probability of each label, in the task's order; may be empty.
    bought_at : Unix seconds.
    """

    key: LabelKey
    answer: str | None
    scores: tuple[float, ...] = ()
    usage: Usage = Usage()
    bought_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Spent:
    """What some labels cost together.

    dearest : dollars of the most expensive one.
    """

    labels: int
    usage: Usage
    dearest: float


class LabelStore:
    """Every label by its key. The first one that is put stays: certificates rest on it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, label: Label) -> None:
        """Keep a label; it is on the disk when this returns."""
        row = {
            **asdict(label.key),
            **msgspec.structs.asdict(label.usage),
            "answer": label.answer,
            "scores": msgspec.json.encode(label.scores).decode(),
            "bought_at": label.bought_at,
        }
        with self._database.writing() as connection:
            connection.execute(self._database.insert(labels).values(row).on_conflict_do_nothing())

    def get_many(self, keys: Iterable[LabelKey]) -> dict[LabelKey, Label]:
        """The labels that are there; a key without one is absent."""
        books: dict[tuple[str, str], set[str]] = defaultdict(set)
        for key in keys:
            books[key.task_digest, key.teacher].add(key.text_sha256)
        found: dict[LabelKey, Label] = {}
        for (digest, teacher), texts in books.items():
            found |= {label.key: label for label in self._read(digest, teacher, texts)}
        return found

    def _read(self, digest: str, teacher: str, texts: Iterable[str]) -> Iterator[Label]:
        book = select(labels).where(labels.c.task_digest == digest, labels.c.teacher == teacher)
        with self._database.reading() as connection:
            for some in _batches(texts):
                rows = connection.execute(book.where(labels.c.text_sha256.in_(some)))
                yield from map(_label, rows)

    def spent(self, task_digest: str, teacher: str) -> Spent:
        """What all labels of one task and teacher cost."""
        sums = [func.sum(labels.c[name]) for name in Usage.__struct_fields__]
        of_task = labels.c.task_digest == task_digest, labels.c.teacher == teacher
        query = select(func.count(), func.max(labels.c.dollars), *sums).where(*of_task)
        with self._database.reading() as connection:
            count, dearest, *totals = connection.execute(query).one()
        return Spent(count, Usage(*totals) if count else Usage(), dearest or 0.0)


def task_digest(task: Task) -> str:
    """sha256 of what decides a task's labels: the prompt, the labels and the window."""
    told = (task.prompt_digest, task.labels, task.window.head_tokens)
    return hashlib.sha256(msgspec.json.encode(told)).hexdigest()


def _batches(texts: Iterable[str]) -> Iterator[Sequence[str]]:
    rest = iter(texts)
    while batch := list(islice(rest, MOST_KEYS)):
        yield batch


def _label(row: Row[Any]) -> Label:
    return Label(
        key=LabelKey(row.task_digest, row.teacher, row.text_sha256),
        answer=row.answer,
        scores=msgspec.json.decode(row.scores, type=tuple[float, ...]),
        usage=Usage(
            row.prompt_tokens, row.cached_tokens, row.output_tokens, row.seconds, row.dollars
        ),
        bought_at=row.bought_at,
    )
