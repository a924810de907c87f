"""A recipe: the shipped ones load and fit together; every wrong one is refused in a sentence."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from cascade.errors import RecipeError
from cascade.recipes import Recipe, load_recipe, load_recipes

ROOT = Path(__file__).parents[1]
SHIPPED = load_recipes(ROOT / "training/recipes")

FILTER = """
name: tone
kind: filter
prompt: Is it good?
source: {table: t.csv, text: text}
"""
CLASSIFY = FILTER.replace("filter", "classify")


def write(folder: Path, text: str, name: str = "one.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_shipped_recipes_are_the_five_of_the_readme() -> None:
    assert set(SHIPPED) == {
        "bbc-topic",
        "even-words",
        "newsgroups-topic",
        "review-positive",
        "spam",
    }


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_recipe_is_named_after_its_file(name: str) -> None:
    assert load_recipe(ROOT / "training/recipes" / f"{name}.yaml").name == name


@pytest.mark.parametrize("recipe", SHIPPED.values(), ids=SHIPPED.keys())
def test_a_shipped_recipe_buys_no_more_than_it_reads(recipe: Recipe) -> None:
    wanted = recipe.buy.train + recipe.buy.certify + recipe.buy.evaluate
    assert recipe.source.limit is None or wanted <= recipe.source.limit


def test_labels_that_share_a_beginning_are_answered_with_letters() -> None:
    assert SHIPPED["newsgroups-topic"].task.codes == tuple("ABCDEFGHIJKLMNOPQRST")


@pytest.mark.parametrize(("table", "name"), [("reviews", "review-positive"), ("spam", "spam")])
def test_a_sample_has_the_columns_and_labels_of_its_recipe(table: str, name: str) -> None:
    source = SHIPPED[name].source
    with (ROOT / f"data/samples/{table}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row[source.column.column] for row in rows}) == len(rows) == 40
    assert source.gold is not None
    assert {row[source.gold] for row in rows} == set(SHIPPED[name].task_labels)


def test_a_filter_answers_yes_or_no_unless_told_otherwise(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, FILTER)).task.labels == ("yes", "no")
    own = load_recipe(write(tmp_path, FILTER + "labels: [good, bad]\n"))
    assert own.task.labels == ("good", "bad")


def test_the_text_window_becomes_part_of_the_task(tmp_path: Path) -> None:
    text = FILTER.replace("text: text", "text: {column: body, head_tokens: 3}")
    recipe = load_recipe(write(tmp_path, text))
    assert recipe.source.column.column == "body"
    assert recipe.task.window.crop("one two three four") == "one two three"


def test_examples_become_part_of_the_prompt(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, FILTER + "examples: [{text: Lovely., label: 'yes'}]\n"))
    assert [message["content"] for message in recipe.task.prefix[1:]] == ["Lovely.", "yes"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (FILTER + "labels: [good, Good]\n", "labels occur twice: good"),
        (FILTER + "labels: [a, b, c]\n", "a filter has exactly two labels"),
        (CLASSIFY + "labels: [one]\n", "1 labels: a task has 2 to 150"),
        (CLASSIFY, "0 labels: a task has 2 to 150"),
        (CLASSIFY + f"labels: {[f'l{i}' for i in range(151)]}\n", "151 labels"),
        (FILTER + "colour: red\n", "colour: unknown key"),
        (FILTER.replace("text: text", "text: text, lines: 3"), "source.lines: unknown key"),
        (FILTER.replace("filter", "rank"), "refused: no gateway serves a ranking"),
        (FILTER.replace("filter", "chat"), "refused: free text has no closed set of labels"),
        (FILTER.replace("filter", "multilabel"), "refused: several labels for one text"),
        (FILTER.replace("filter", "poem"), "kind 'poem' is none of filter, classify"),
        (FILTER.replace("tone", "Tone of voice"), "use lower-case letters, digits and hyphens"),
        (FILTER.replace("tone", "-tone"), "use lower-case letters, digits and hyphens"),
        (FILTER.replace("tone", "tön"), "use lower-case letters, digits and hyphens"),
        (FILTER.replace("Is it good?", "' '"), "prompt is empty"),
        (FILTER + "labels: ['', bad]\n", "a label is empty"),
        (FILTER + "labels: ['good ', bad]\n", "white space around it"),
        (FILTER + "labels: [yes, no]\n", "put it in quotes"),
        (FILTER + "labels: [a, b]\nlabels: [c, d]\n", "one.yaml:7:1: labels: occurs twice"),
        (FILTER + "allow_missed: [maybe]\n", "allow_missed has unknown labels: maybe"),
        (FILTER + "teacher: small\n", "teacher"),
        (FILTER + "buy: {certify: 0}\n", "buy.certify"),
        (FILTER + "seed: -1\n", "seed"),
        (FILTER.replace("text: text", "text: {column: c, head_tokens: 0}"), "head_tokens"),
        (FILTER.replace("text: text", "text: text, limit: 0"), "limit"),
        (FILTER.replace("prompt: Is it good?", ""), "the key `prompt` is missing"),
        (FILTER + "examples: [{text: Meh., label: maybe}]\n", "unknown labels: maybe"),
        (FILTER + "guarantee: {target: 1.5}\n", "target"),
        (FILTER + "guarantee: {per_class: true}\n", "per_class is for kind classify"),
        (FILTER + "guarantee: {per_class: 2}\n", "expected true or false, got a whole number"),
        (CLASSIFY + "labels: [a, '*']\nguarantee: {per_class: true}\n", "no label may be *"),
        (FILTER + "buy: {train: many}\n", "expected a whole number, got a text"),
        (FILTER.replace("t.csv", "'${NOWHERE}'"), "${NOWHERE} is not set"),
        ("name: [unclosed\n", "is not YAML"),
        ("", "one.yaml"),
    ],
)
def test_a_wrong_recipe_is_refused_with_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        load_recipe(write(tmp_path, text), environment={})
    assert says in str(refusal.value)
    assert "one.yaml" in str(refusal.value)


def test_every_class_may_be_held_to_the_target(tmp_path: Path) -> None:
    text = CLASSIFY + "labels: [a, b]\nguarantee: {target: 0.9, delta: 0.1, per_class: true}\n"
    assert load_recipe(write(tmp_path, text)).guarantee.per_class
    assert not load_recipe(write(tmp_path, CLASSIFY + "labels: [a, b]\n")).guarantee.per_class


def test_the_most_labels_are_accepted(tmp_path: Path) -> None:
    text = CLASSIFY + f"labels: {[f'l{i}' for i in range(150)]}\n"
    assert len(load_recipe(write(tmp_path, text)).task.codes) == 150


def test_a_missing_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "absent.yaml")


def test_two_recipes_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, FILTER, "a.yaml")
    write(tmp_path, FILTER, "b.yaml")
    with pytest.raises(RecipeError, match="another recipe is already called tone"):
        load_recipes(tmp_path)
