"""The commands that make, judge and move proxies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cascade.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, RecipePath, TaskName
from cascade.cli.output import print_fields, print_json, print_table, progress
from cascade.config import load_config
from cascade.errors import CertificateError
from cascade.recipes import load_recipe, load_recipes

if TYPE_CHECKING:
    from cascade.distill.pipeline import Outcome
    from cascade.registry import Registry

Limit = Annotated[float, typer.Option("--limit-dollars", help="Most to spend on labels now.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would take; buy nothing.")]
UNLIMITED = float("inf")

certificate = typer.Typer(help="Certificates: show, verify.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (label, train, certify, promote, rollback, evaluate, status):
        app.command()(command)
    app.add_typer(certificate, name="certificate")


def label(
    recipe: RecipePath,
    config: ConfigPath = DEFAULT_CONFIG,
    limit_dollars: Limit = UNLIMITED,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Buy the teacher's labels of a recipe's training rows. Stop and go on as you like.

    Example: cascade label training/recipes/spam.yaml --dry-run
    """
    from cascade.distill.steps import buy_labels, plan_labels

    step = plan_labels if dry_run else buy_labels
    _show(_in_shop(config, recipe, step, limit_dollars), as_json)


def train(
    recipe: RecipePath,
    config: ConfigPath = DEFAULT_CONFIG,
    limit_dollars: Limit = UNLIMITED,
    promote: Annotated[bool, typer.Option(help="Certify and promote as well.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Distil a proxy and register it as challenger; with --promote, all the way to champion.

    Example: cascade train training/recipes/spam.yaml --promote
    """
    from cascade.distill import pipeline
    from cascade.distill.steps import plan_labels

    if dry_run:
        _show(_in_shop(config, recipe, plan_labels, limit_dollars), as_json)
        return
    step = pipeline.promote if promote else pipeline.train
    _show(_summary(_in_shop(config, recipe, step, limit_dollars)), as_json)


def certify(
    recipe: RecipePath,
    config: ConfigPath = DEFAULT_CONFIG,
    limit_dollars: Limit = UNLIMITED,
    as_json: AsJson = False,
) -> None:
    """Audit the proxy on fresh draws and register the challenger with its certificate.

    Example: cascade certify training/recipes/spam.yaml
    """
    from cascade.distill import pipeline

    outcome = _in_shop(config, recipe, pipeline.certify, limit_dollars)
    _show(_summary(outcome), as_json)
    if outcome.certificate is None:
        raise CertificateError(outcome.certified.refusal)


def promote(
    recipe: RecipePath,
    config: ConfigPath = DEFAULT_CONFIG,
    limit_dollars: Limit = UNLIMITED,
    as_json: AsJson = False,
) -> None:
    """Make the certified challenger the champion, if the promotion rule says yes.

    Example: cascade promote training/recipes/spam.yaml
    """
    from cascade.distill import pipeline

    _show(_summary(_in_shop(config, recipe, pipeline.promote, limit_dollars)), as_json)


def evaluate(
    recipe: RecipePath,
    config: ConfigPath = DEFAULT_CONFIG,
    limit_dollars: Limit = UNLIMITED,
    as_json: AsJson = False,
) -> None:
    """Compare the champion with the teacher on the held-back rows (their labels are bought).

    Example: cascade evaluate training/recipes/spam.yaml --json
    """
    from cascade.distill.evaluation import evaluate as measure

    _show(_in_shop(config, recipe, measure, limit_dollars), as_json)


def rollback(task: TaskName, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Give the champion's place back to the version before. Gateways notice within seconds.

    Example: cascade rollback spam
    """
    typer.echo(f"{task}: champion is version {_registry(config).rollback(task)} again")


def status(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Champion and challenger of every recipe.

    Example: cascade status
    """
    registry = _registry(config)
    names = load_recipes(Path(load_config(config).tasks))
    aliases = ("champion", "challenger")
    found = {name: {alias: registry.version(name, alias) for alias in aliases} for name in names}
    if as_json:
        print_json(found)
    else:
        rows = [[name, *(each or "-" for each in one.values())] for name, one in found.items()]
        print_table("tasks", ["task", *aliases], rows)


@certificate.command()
def show(task: TaskName, config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """The champion's certificate, in words or as JSON (the file that `verify` reads).

    Example: cascade certificate show spam --json > spam.certificate.json
    """
    from cascade import certify
    from cascade.distill.card import claim_in_words

    content = _certificate_of(task, config)
    if as_json:
        typer.echo(content.decode())
    else:
        typer.echo(claim_in_words(certify.from_json(content)))


@certificate.command()
def verify(file: Annotated[Path, typer.Argument(help="A certificate as JSON.")]) -> None:
    """Win a certificate's claim again from its own evidence, offline.

    Example: cascade certificate verify spam.certificate.json
    """
    from cascade import certify

    try:
        found = certify.from_json(file.read_bytes())
    except OSError as exc:
        raise CertificateError(f"{file} cannot be read: {exc.strerror}") from exc
    certify.verify(found)
    typer.echo(
        f"valid for {found.valid_for}: {found.metric} >= {found.bound:.3f}, delta {found.delta}"
    )


def _in_shop(config: Path, recipe: Path, step: Any, limit_dollars: float) -> Any:
    """Run one step of a distillation with everything it needs."""
    from cascade.distill.opening import in_workshop

    loaded, task = load_config(config), load_recipe(recipe)
    opened = in_workshop(loaded, task, step, progress=progress, limit_dollars=limit_dollars)
    return asyncio.run(opened)


def _registry(config: Path) -> Registry:
    from cascade.registry import open_registry

    return open_registry(load_config(config).registry)


def _certificate_of(task: str, config: Path) -> bytes:
    from tempfile import TemporaryDirectory

    from cascade.tiers.artifact import Artifact

    registry = _registry(config)
    version = registry.champion(task)
    if version is None:
        raise CertificateError(f"{task} has no champion: cascade train <recipe> --promote")
    with TemporaryDirectory() as folder:
        content = Artifact.load(registry.load(task, version, Path(folder))).certificate
    if content is None:
        raise CertificateError(f"{task} version {version} has no certificate: certify it")
    return content


def _summary(outcome: Outcome) -> dict[str, Any]:
    """What a step came to, for people and for programs."""
    from cascade.certify import label_thresholds

    report, certificate = outcome.distilled.report, outcome.certificate
    found: dict[str, Any] = {
        "task": report.task,
        "version": outcome.version,
        "mlflow_run_id": outcome.run,
        "answerer": report.params["answerer"],
        "training_labels": sum(report.label_counts.values()),
        "proxy_agreement": round(report.agreement, 4),
        **{name: round(value, 4) for name, value in report.metrics.items()},
    }
    if certificate is not None:
        found |= {"target": certificate.target, "delta": certificate.delta}
        found |= {"thresholds": certificate.thresholds}
        found |= _by_label(label_thresholds(certificate.thresholds), report.identity.labels)
    if outcome.verdict is not None:
        found["promotion"] = [one.reason for one in outcome.verdict.conditions]
    return found


def _by_label(own: Mapping[str, float], labels: Sequence[str]) -> dict[str, Any]:
    """Where labels are certified one by one: which ones, and which only the teacher may give."""
    if not own:
        return {}
    left = [label for label in labels if label not in own]
    return {"certified_labels": list(own), "left_to_teacher": left}


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        print_fields(found)
