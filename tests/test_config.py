"""Every configuration file is valid; every mistake is one sentence that names the key and the nearest valid one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tseg.config import Experiments, Settings, parse, run_settings

CONFIG = Path(__file__).parents[1] / "config"


def default() -> dict[str, Any]:
    return yaml.safe_load((CONFIG / "config.yaml").read_text())


@pytest.mark.parametrize("name", ["config.yaml", "paper.yaml"])
def test_a_configuration_of_the_repository_is_valid(name: str) -> None:
    parse(Settings, yaml.safe_load((CONFIG / name).read_text()), name)


def test_the_tables_name_data_sets_that_both_configurations_have() -> None:
    experiments = parse(Experiments, yaml.safe_load((CONFIG / "experiments.yaml").read_text()), "experiments.yaml")
    for name in ("config.yaml", "paper.yaml"):
        known = yaml.safe_load((CONFIG / name).read_text())["datasets"]
        assert all(set(table.columns) <= set(known) for table in experiments.tables.values())


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
        (("weighting", "size_lambda"), "unknown key weighting.size_lambdax; did you mean size_lambda?"),
        (
            ("model", "image_encoder", "drop_path"),
            "unknown key model.image_encoder.drop_pathx; did you mean drop_path?",
        ),
        (("datasets", "refcoco+", "images"), "unknown key datasets.refcoco+.imagesx; did you mean images?"),
        (("sources", "shapes", "num_val"), "num_valx; did you mean num_val?"),
        (
            ("training", "optimizer", "poly_power"),
            "unknown key training.optimizer.poly_powerx; did you mean poly_power?",
        ),
        (("resources", "train", "mem_mb"), "unknown key resources.train.mem_mbx; did you mean mem_mb?"),
    ],
)
def test_a_misspelt_key_is_named_with_the_one_that_was_meant(path: tuple[str, ...], hint: str) -> None:
    settings = default()
    rename(*path)(settings)
    with pytest.raises(ValueError) as refusal:
        parse(Settings, settings, "mine.yaml")
    assert str(refusal.value).startswith("mine.yaml: ")
    assert hint in str(refusal.value)


def test_a_missing_key_and_a_wrong_value_are_both_named() -> None:
    settings = default()
    del settings["weighting"]["epsilon"]
    settings["inference"]["crf"] = "pas"
    with pytest.raises(ValueError, match=r"the key weighting\.epsilon is missing; inference\.crf: .*'psa'.*'pas'"):
        parse(Settings, settings, "mine.yaml")


def test_a_data_set_names_sources_that_exist() -> None:
    settings = default()
    settings["datasets"]["refcoco"]["sources"] = ["shape"]
    with pytest.raises(
        ValueError, match=r"datasets\.refcoco\.sources: there is no source 'shape'; did you mean shapes\?"
    ):
        parse(Settings, settings, "mine.yaml")


def test_a_run_holds_nothing_that_does_not_concern_it() -> None:
    changed = default()
    changed["weighting"]["size_lambda"] = 0.5
    changed["inference"]["crf"] = "irn"
    before, after = (parse(Settings, settings, "") for settings in (default(), changed))
    assert run_settings(before, "refcoco", "gap") == run_settings(after, "refcoco", "gap")
    assert run_settings(before, "refcoco", "mpa") != run_settings(after, "refcoco", "mpa")
