from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cascade.artifacts import check, check_folder, digest, publish_bytes, publish_folder, sha256_of
from cascade.errors import ChecksumMismatch, ModelUnavailable


def test_sha256_is_the_one_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()


def test_one_flipped_bit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    promised = {"file": sha256_of(tmp_path / "file")}
    check_folder(tmp_path, promised)
    (tmp_path / "file").write_bytes(b"abb")
    with pytest.raises(ChecksumMismatch, match="delete it"):
        check_folder(tmp_path, promised)


def test_a_missing_file_is_unavailable_not_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="cascade models pull"):
        check(tmp_path / "file", "0" * 64)


def test_digest_depends_on_where_a_part_ends() -> None:
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")
    assert digest("a") == digest("a")


def test_published_bytes_replace_the_old_and_leave_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    publish_bytes(path, b"old")
    publish_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_publication_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        publish_bytes(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_published_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    for name, file in {"draft": "new", "target": "old"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
    publish_folder(tmp_path / "draft", tmp_path / "target")
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
