"""Every configuration file is valid; every error is one sentence with the key and the nearest valid one."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tseg.settings.schema import Settings
from tseg.settings.validation import parse

CONFIG = Path(__file__).parents[2] / "config"


def default() -> dict[str, Any]:
    return yaml.safe_load((CONFIG / "config.yaml").read_text())


@pytest.mark.parametrize("name", ["config.yaml", "paper.yaml"])
def test_a_configuration_of_the_repository_is_valid(name: str) -> None:
    parse(Settings, yaml.safe_load((CONFIG / name).read_text()), name)


def rename(*path: str) -> Callable[[dict[str, Any]], None]:
    """A change that appends a letter to the last key of `path`."""

    def change(settings: dict[str, Any]) -> None:
        for key in path[:-1]:
            settings = settings[key]
        settings[path[-1] + "x"] = settings.pop(path[-1])

    return change


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        (("seeds",), "unknown key seedsx; did you mean seeds?"),
        (("model", "embed_dim"), "unknown key model.embed_dimx; did you mean embed_dim?"),
        (
            ("image_encoders", "vit", "drop_path"),
            "unknown key image_encoders.vit.drop_pathx; did you mean drop_path?",
        ),
        (("datasets", "refcoco+", "images"), "unknown key datasets.refcoco+.imagesx; did you mean images?"),
        (
            ("training", "full", "resolution"),
            "unknown key training.full.resolutionx; did you mean resolution?",
        ),
        (("resources", "train", "mem_mb"), "unknown key resources.train.mem_mbx; did you mean mem_mb?"),
    ],
)
def test_a_misspelt_key_is_named_with_the_nearest_valid_key(path: tuple[str, ...], hint: str) -> None:
    settings = default()
    rename(*path)(settings)
    with pytest.raises(ValueError) as refusal:
        parse(Settings, settings, "mine.yaml")
    assert str(refusal.value).startswith("mine.yaml: ")
    assert hint in str(refusal.value)


def test_a_missing_key_and_a_wrong_value_are_both_named() -> None:
    settings = default()
    del settings["model"]["tau"]
    settings["inference"]["crf"] = "pas"
    with pytest.raises(ValueError, match=r"the key model\.tau is missing; inference\.crf: .*'psa'.*'pas'"):
        parse(Settings, settings, "mine.yaml")


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("model", "image_encoder"), "vit_s", "image_encoders has no 'vit_s'; did you mean vit?"),
        (("training", "weak", "pretraining"), "refcocco", "there is no data set 'refcocco'; did you mean refcoco?"),
        (("datasets", "voc", "classes"), None, "format voc needs masks and classes"),
        (("datasets", "voc", "classes"), ["cat", "cat"], "classes has a duplicate"),
        (("datasets", "refcoco", "split_by"), None, "format refer needs split_by"),
        (("seeds",), [1, 1], "seeds: [1, 1] has a duplicate"),
    ],
)
def test_inconsistent_names_are_refused(path: tuple[str, ...], value: Any, complaint: str) -> None:
    settings = default()
    node = settings
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(ValueError, match=re.escape(complaint)):
        parse(Settings, settings, "mine.yaml")
