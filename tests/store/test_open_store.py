"""What can be wrong with a store, and what its user is told."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from cascade.errors import MissingExtra, StoreError, UsageError
from cascade.store import DecisionRecord, Label, LabelKey, Said, Store, open_store
from cascade.store.database import open_database
from cascade.store.schema import SCHEMA_VERSION

WAIT_SECONDS = 0.5
LABEL = Label(LabelKey("task", "teacher", "text"), "yes")


def numbered(i: int) -> Label:
    return Label(LabelKey("task", "teacher", f"{i:064d}"), "yes", scores=(0.5,) * 20)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("data/cascade.db", "not a database URL"),
        ("", "not a database URL"),
        ("postgresql://u:secret@host:port/x", "not a database URL"),
        ("mysql://host/x", "'mysql'"),
        ("postgres://host/x", "'postgres'"),
        ("sqlite://", "would be lost"),
        ("sqlite:///:memory:", "would be lost"),
        ("sqlite:///file:x.db?uri=true", "would be lost"),
    ],
)
def test_a_wrong_url_is_wrong_use(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        open_store(url)
    assert "sqlite:///" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_folders_are_made(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/a/b/store.db"):
        assert (tmp_path / "a/b/store.db").is_file()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="folder cannot be made"):
        open_store(f"sqlite:///{tmp_path}/file/store.db")


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="check the path"):
        open_store(f"sqlite:///{tmp_path}")


def test_some_other_file(tmp_path: Path) -> None:
    other = tmp_path / "store.db"
    other.write_text("this is a diary, and nobody may overwrite it" * 100)
    with pytest.raises(StoreError, match="something else"):
        open_store(f"sqlite:///{other}")
    assert other.read_text().startswith("this is a diary")


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is the server running") as raised:
        open_store(f"postgresql://ann:secret@/x?host={tmp_path}", wait_seconds=WAIT_SECONDS)
    assert "secret" not in str(raised.value)


def test_no_such_database_on_the_server(store_url: str) -> None:
    url = make_url(store_url)
    if url.get_backend_name() == "sqlite":
        pytest.skip("SQLite makes its own")
    nowhere = url.set(database="nowhere").render_as_string(hide_password=False)
    with pytest.raises(StoreError, match="nowhere"):
        open_store(nowhere)


def test_postgresql_without_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match="postgres"):
        open_store("postgresql://host/x")


def test_a_newer_store_is_refused_and_left_alone(store_url: str) -> None:
    open_store(store_url).close()
    engine = create_engine(store_url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE cascade_schema SET version = {SCHEMA_VERSION + 1}"))
    with pytest.raises(StoreError, match="pip install --upgrade"):
        open_store(store_url)
    with engine.begin() as connection:
        versions = list(connection.scalars(text("SELECT version FROM cascade_schema")))
    engine.dispose()
    assert versions == [SCHEMA_VERSION + 1]


def aged(store_url: str) -> None:
    """Make a store, with a decision in it, what it was at version 1."""
    with open_store(store_url) as store:
        store.decisions.append([DecisionRecord("d1", 1.0, "t", "certified")])
    engine = create_engine(store_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE cascade_decisions DROP COLUMN trail"))
        connection.execute(text("UPDATE cascade_schema SET version = 1"))
    engine.dispose()


def test_an_older_store_is_brought_up(store_url: str) -> None:
    aged(store_url)
    for _ in range(2):  # and only once
        with open_store(store_url) as store:
            kept = store.decisions.get("d1")
            assert kept is not None and kept.trail == ()
    told = DecisionRecord("d2", 2.0, "t", "certified", trail=(Said("proxy", 0.1, 0.0, "yes"),))
    with open_store(store_url) as store:
        store.decisions.append([told])
        assert store.decisions.get("d2") == told


def test_several_programs_bring_an_older_store_up_at_the_same_time(store_url: str) -> None:
    aged(store_url)
    with ThreadPoolExecutor(4) as pool:
        for store in pool.map(lambda _: open_store(store_url), range(4)):
            assert store.decisions.get("d1") is not None
            store.close()


def test_a_locked_store_waits_and_then_says_so(store_url: str, store: Store) -> None:
    engine = create_engine(store_url)
    lock = "BEGIN IMMEDIATE" if engine.name == "sqlite" else "LOCK TABLE cascade_labels"
    with engine.connect() as connection:
        connection.exec_driver_sql(lock)
        started = time.monotonic()
        with pytest.raises(StoreError, match="holds a lock"):
            store.labels.put(LABEL)
        waited = time.monotonic() - started
        connection.rollback()
    engine.dispose()
    assert WAIT_SECONDS * 0.9 <= waited < WAIT_SECONDS + 3
    store.labels.put(LABEL)
    assert store.labels.get_many([LABEL.key])


def test_readers_go_on_beside_a_writer(store_url: str, store: Store) -> None:
    engine = create_engine(store_url)
    begin = "BEGIN IMMEDIATE" if engine.name == "sqlite" else "BEGIN"
    with engine.connect() as connection:
        connection.exec_driver_sql(begin)
        connection.exec_driver_sql("INSERT INTO cascade_flags VALUES ('t', 'off', 'x')")
        assert store.flags.all() == {}
        connection.rollback()
    engine.dispose()


def test_a_failed_batch_leaves_nothing(store: Store) -> None:
    good = DecisionRecord("d1", 1.0, "t", "certified")
    bad = DecisionRecord("d2", 1.0, None, "certified")  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        store.decisions.append([good, bad])
    assert store.decisions.recent(9) == []


def test_a_lost_table_is_told(store_url: str, store: Store) -> None:
    engine = create_engine(store_url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE cascade_labels"))
    engine.dispose()
    with pytest.raises(StoreError, match="cascade_labels"):
        store.labels.put(LABEL)


def test_sqlite_is_durable(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path}/store.db", WAIT_SECONDS)
    with database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
    database.close()


OPENER = """
import sys
from cascade.store import Label, LabelKey, open_store
with open_store(sys.argv[1]) as store:
    store.labels.put(Label(LabelKey("task", "teacher", sys.argv[2]), "yes"))
"""


def test_first_starts_at_the_same_time(store_url: str) -> None:
    command = [sys.executable, "-c", OPENER, store_url]
    openers = [subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE) for i in range(5)]
    complaints = [opener.communicate(timeout=60)[1].decode() for opener in openers]
    assert [opener.returncode for opener in openers] == [0] * 5, complaints
    with open_store(store_url) as store:
        assert store.labels.spent("task", "teacher").labels == 5


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small tmpfs can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_what_was_there(small_disk: Path) -> None:
    url, kept = f"sqlite:///{small_disk}/store.db", []
    with open_store(url) as store:
        with pytest.raises(StoreError, match="free some space|full"):
            for i in range(10_000):
                store.labels.put(numbered(i))
                kept.append(numbered(i).key)
        assert len(kept) > 20
        assert set(store.labels.get_many(kept)) == set(kept)
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    with open_store(url) as store:
        assert set(store.labels.get_many(kept)) == set(kept)
        store.labels.put(numbered(10_001))


def test_no_room_for_a_store_at_all(small_disk: Path) -> None:
    (small_disk / "filler").write_bytes(b"x" * 510 * 1024)
    with pytest.raises(StoreError, match="full"):
        open_store(f"sqlite:///{small_disk}/store.db")


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with open_store(f"sqlite:///{path}") as store:
        for i in range(200):
            store.labels.put(numbered(i))
    sqlite3.connect(path).execute("PRAGMA wal_checkpoint(TRUNCATE)").connection.close()
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 200_000)
    with (
        pytest.raises(StoreError, match="damaged"),
        open_store(f"sqlite:///{path}") as store,
    ):
        store.labels.get_many([numbered(i).key for i in range(200)])
