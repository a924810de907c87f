from __future__ import annotations

from pathlib import Path

import pytest

from cascade.errors import ConfigError, ModelUnavailable, UsageError
from cascade.models.manifest import find_manifest, read_manifest

OURS = Path(__file__).parents[2] / "models" / "manifest.yaml"


def test_our_manifest_is_valid_and_every_file_has_a_source_without_a_hub() -> None:
    manifest = read_manifest(OURS)
    assert {"minilm-int8", "qwen2.5-coder-0.5b"} <= {model.name for model in manifest.models}
    assert all(file.packages for model in manifest.models for file in model.files)


def test_every_model_has_a_card_that_names_its_licence() -> None:
    for model in read_manifest(OURS).models:
        card = (OURS.parent / "cards" / f"{model.name}.md").read_text()
        assert model.licence in card


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("about:", "abuot:", "unknown field `abuot`|missing required field `about`"),
        ("kind: llm", "kind: llama", "Invalid value 'llama'"),
        ("revision: ebb2015119c907b064c512bf053e945850b5875f", "revision: main", "regex"),
        ("name: smollm2-135m", "name: minilm-int8", "named twice"),
        ("name: smollm2-135m", "name: ../../etc/passwd", "regex"),
        ("models:", "models: [", "parsing|expected"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    path = tmp_path / "manifest.yaml"
    text = OURS.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=complaint):
        read_manifest(path)


def test_an_unknown_model_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="minilm-int8"):
        read_manifest(OURS).find("gpt-5")


def test_a_missing_manifest_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="CASCADE_MODELS"):
        read_manifest(tmp_path / "manifest.yaml")


def test_the_environment_comes_before_the_working_folder_and_what_comes_along(
    tmp_path: Path,
) -> None:
    assert find_manifest({}, tmp_path).samefile(OURS)
    here = tmp_path / "models" / "manifest.yaml"
    here.parent.mkdir()
    here.touch()
    assert find_manifest({}, tmp_path) == here
    chosen = tmp_path / "elsewhere" / "manifest.yaml"
    environ = {"CASCADE_MODELS": str(chosen.parent)}
    assert find_manifest(environ, tmp_path) == here
    chosen.parent.mkdir()
    chosen.touch()
    assert find_manifest(environ, tmp_path) == chosen
