"""The model card: what a proxy is, may and cannot, in words for people. Pure; writes no file."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan

from cascade.certify.certificate import STREAM, Certificate
from cascade.certify.every_label import BY_LABEL, label_thresholds
from cascade.distill.report import DistillReport


def model_card(report: DistillReport, certificate: Certificate | None = None) -> str:
    """Markdown, after Mitchell et al. 2019, "Model Cards for Model Reporting".

    certificate : as issued for this proxy; None for a challenger that has none yet.
    """
    sections = [
        _head(report, certificate),
        _identity(report),
        _data(report),
        _figures(report),
        _claim(report, certificate),
        _limits(report, certificate),
        _rollback(report),
    ]
    return "\n\n".join(sections) + "\n"


def claim_in_words(certificate: Certificate) -> str:
    """What a champion's certificate, always one of agreement, promises; as one paragraph."""
    labels = label_thresholds(certificate.thresholds)
    return _of_each(certificate, labels) if labels else _of_all(certificate)


def _of_each(certificate: Certificate, labels: Iterable[str]) -> str:
    return (
        f"With probability at least {1 - certificate.delta:.0%}, **each** of these labels holds: "
        f"{_codes(labels)}. Among the requests that get it without the teacher, the teacher would "
        f"have given the same label to at least **{certificate.target:.0%}**, "
        f"{_scope(certificate)}; and so to at least as many of all requests. Every other label is "
        f"left to the teacher. It rests on {certificate.labels:,} teacher labels; method: "
        f"{certificate.method}. Among the answers given without the teacher, "
        f"{certificate.conditional.estimate:.1%} agreed."
    )


def _of_all(certificate: Certificate) -> str:
    return (
        f"With probability at least {1 - certificate.delta:.0%}, at least "
        f"**{certificate.target:.0%}** of all final answers are the ones that the teacher would "
        f"have given (lower bound {certificate.bound:.1%}), {_scope(certificate)}. It rests on "
        f"{certificate.labels:,} teacher labels among {certificate.n:,} draws; method: "
        f"{certificate.method}. Among the answers given without the teacher alone, "
        f"{certificate.conditional.estimate:.1%} agreed "
        f"(lower bound {certificate.conditional.bound:.1%})."
    )


def _scope(certificate: Certificate) -> str:
    if certificate.valid_for == STREAM:
        return "for requests that arrive like the ones it was certified on"
    digest = certificate.valid_for.partition(":")[2]
    return f"for the rows of one table only (sha256 `{digest[:12]}`)"


def _head(report: DistillReport, certificate: Certificate | None) -> str:
    labels = ", ".join(f"`{label}`" for label in report.identity.labels)
    state = "certified" if certificate else "**not certified: it must not answer alone**"
    return (
        f"# Proxy `{report.task}`\n\n"
        f"Answers one question about a text with one of {labels}, in place of "
        f"`{report.identity.teacher}`, whose answers it was trained on. It is {state}."
    )


def _identity(report: DistillReport) -> str:
    one = report.identity
    window = "the whole text" if one.window is None else f"the first {one.window} words"
    rows = {
        "kind": one.kind,
        "prompt (sha256)": f"`{one.prompt[:16]}`",
        "reads": window,
        "teacher": f"`{one.teacher}`",
        "embedder": f"`{one.embedder}`",
    }
    return (
        "## Valid for exactly\n\n"
        + _table("part", "value", rows.items())
        + ("\n\nIf any of these differs, it is not used and the request goes on to the next tier.")
    )


def _data(report: DistillReport) -> str:
    total = sum(report.label_counts.values())
    rows = ((f"`{label}`", f"{count:,}") for label, count in report.label_counts.items())
    return (
        f"## Training data\n\n{report.dataset}: {total:,} texts labelled by the teacher "
        f"(sha256 `{report.dataset_digest[:16]}`).\n\n" + _table("label", "texts", rows)
    )


def _figures(report: DistillReport) -> str:
    named = {name.replace("_", " "): f"{value:.4g}" for name, value in report.metrics.items()}
    figures = {"agreement with the teacher, alone": f"{report.agreement:.1%}", **named}
    text = "## Measured\n\n" + _table("figure", "value", figures.items())
    missed = [label for label, recall in report.recalls.items() if recall == 0]
    if missed:
        text += "\n\n**Never given where the teacher gives it:** " + _codes(missed) + "."
    return text


def _claim(report: DistillReport, certificate: Certificate | None) -> str:
    if certificate is None:
        return "## Certificate\n\nNone. Every request goes on to the next tier."
    labels = label_thresholds(certificate.thresholds)
    if labels:
        rows = ((f"`{label}`", _from(labels.get(label))) for label in report.identity.labels)
    else:
        rows = ((f"`{tier}`", _from(least)) for tier, least in certificate.thresholds.items())
    return (
        f"## Certificate\n\n{claim_in_words(certificate)}\n\n"
        + _table("label" if labels else "tier", "answers from confidence", rows)
        + f"\n\nPredicted share answered without the teacher: {certificate.share:.0%} (no claim)."
    )


def _from(least: float | None) -> str:
    return "left to the teacher" if least is None else f"{least:.3f}"


def _limits(report: DistillReport, certificate: Certificate | None) -> str:
    by_label = certificate is not None and certificate.metric == BY_LABEL
    of_whom = "each label that it gives" if by_label else "all requests together"
    not_of = "each group of texts" if by_label else "each label or group of texts"
    unseen = [label for label, recall in report.recalls.items() if isnan(recall)]
    lines = [
        "It imitates the teacher, mistakes included: agreement is not correctness.",
        f"The claim is about {of_whom}, not about {not_of}.",
        "It passes on what it cannot judge: novel or over-long texts, several turns, tools.",
        "It says nothing about requests that differ from those it was certified on; audits watch "
        "for that and take it out.",
    ]
    if unseen:
        lines.append(f"The evaluation held no text with {_codes(unseen)}.")
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _rollback(report: DistillReport) -> str:
    return (
        "## Taking it out\n\n"
        f"`cascade rollback {report.task}` gives the champion's place back to the version before; "
        "gateways notice within seconds and drop no request."
    )


def _codes(labels: Iterable[str]) -> str:
    return ", ".join(f"`{label}`" for label in labels)


def _table(left: str, right: str, rows: Iterable[tuple[str, str]]) -> str:
    """A Markdown table with two columns; a bar in a cell would start a third."""
    lines = [f"| {left} | {right} |", "|---|---|"]
    lines += [f"| {_cell(one)} | {_cell(other)} |" for one, other in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
