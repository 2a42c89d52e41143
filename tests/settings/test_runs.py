"""A run holds what decides its weights, and its name says what is not the scale's."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tseg.settings.runs import Evaluation, make_run, pretraining_run, vary
from tseg.settings.schema import RunSettings, Settings
from tseg.settings.validation import parse

CONFIG = Path(__file__).parents[2] / "config"


def default(**changes: Any) -> Settings:
    return parse(Settings, yaml.safe_load((CONFIG / "config.yaml").read_text()) | changes, "config.yaml")


def weak(settings: Settings, dataset: str, pooling: str, **varied: Any) -> RunSettings:
    return make_run(
        settings, dataset, "weak", pooling, {key.replace("__", "."): value for key, value in varied.items()}
    )


def test_a_run_holds_nothing_that_does_not_concern_it() -> None:
    before = default()
    after = vary(before, {"weighting.size_lambda": 0.5, "training.full.resolution": 64})
    assert weak(before, "refcoco", "gap") == weak(after, "refcoco", "gap")
    assert weak(before, "refcoco", "mpa") != weak(after, "refcoco", "mpa")
    assert make_run(before, "refcoco", "full", None, {}) != make_run(after, "refcoco", "full", None, {})


def test_a_name_says_what_differs_from_the_scale_and_nothing_else() -> None:
    settings = default()
    assert weak(settings, "phrasecut", "mpa").run == "phrasecut-mpa"
    assert weak(settings, "phrasecut", "mpa", weighting__size_lambda=0.1).run == "phrasecut-mpa+size_lambda=0.1"
    as_the_scale = weak(settings, "phrasecut", "mpa", weighting__size_lambda=settings.weighting.size_lambda)
    assert as_the_scale == weak(settings, "phrasecut", "mpa")
    both = weak(settings, "phrasecut", "mpa", weighting__size_power=0, weighting__size_lambda=0.0)
    assert both.run == "phrasecut-mpa+size_lambda=0+size_power=0"
    assert make_run(settings, "refcoco", "full", None, {}).run == "refcoco-full"


def test_a_varied_setting_that_does_not_concern_a_run_is_not_in_its_name() -> None:
    assert weak(default(), "phrasecut", "gap", weighting__size_lambda=0.5) == weak(default(), "phrasecut", "gap")


def test_a_varied_setting_reaches_the_run() -> None:
    run = weak(default(), "voc", "gap", model__image_encoder="wide_resnet38", model__text_encoder="classes")
    assert run.model.image_encoder.name == "wide_resnet38"
    assert run.model.text_encoder.model_dump()["classes"] == default().datasets["voc"].classes
    assert weak(default(), "phrasecut", "mpa", training__weak__share=0.1).training.share == 0.1


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("weighting.size_lamda", 0.1, "did you mean size_lambda?"),
        ("weighting.size_lambda.x", 0.1, "its part size_lambda leads nowhere"),
        ("weighting.size_lambda", -1, "weighting.size_lambda: "),
        ("model.image_encoder", "resnet", "image_encoders has no 'resnet'"),
        ("inference.crf", "irn", r"inference\.crf does not decide a run's weights; vary keys of model, "),
        ("image_encoders.vit.weights", "some/where.pth", "cannot be part of a run's name"),
        ("model.text_encoder", "classes", "the data set phrasecut has no classes"),
    ],
)
def test_a_key_or_value_that_is_none_is_refused(key: str, value: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make_run(default(), "phrasecut", "weak", "mpa", {key: value})


def test_a_pooling_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"there is no pooling 'mp'.*did you mean mpa\?"):
        weak(default(), "phrasecut", "mp")


def test_a_data_set_without_iterations_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training\.full\.batch_size lacks the data set voc"):
        make_run(default(), "voc", "full", None, {})


def test_box_pretraining_excludes_every_evaluation_split() -> None:
    settings = default()
    run = weak(settings, "phrasecut", "mpa", training__weak__pretraining="refcoco")
    boxes = pretraining_run(settings, "refcoco", {"training.weak.pretraining": "refcoco"})
    assert run.pretraining == boxes.run == "refcoco-boxes"
    assert boxes.excluded_records == [
        f"data/records/{name}/val.parquet" for name in ("voc", "phrasecut", "refcoco", "refcoco+", "refcocog")
    ]
    kept = vary(settings, {"training.boxes.exclude_evaluation": False})
    assert not make_run(kept, "refcoco", "boxes", None, {}).excluded_records


def test_pretraining_has_the_architecture_of_the_run_that_starts_from_it() -> None:
    varied = {"training.weak.pretraining": "refcoco", "model.embed_dim": 32, "weighting.size_power": 1}
    run = make_run(default(), "phrasecut", "weak", "mpa", varied)
    boxes = pretraining_run(default(), "refcoco", varied)
    assert boxes.run == run.pretraining == "refcoco-boxes+embed_dim=32"
    assert boxes.model == run.model


def test_an_evaluation_is_named_by_what_differs() -> None:
    assert Evaluation("voc", "val").name == "voc-val"
    assert Evaluation("voc", "val", True, "better_words").name == "voc-val+multiscale+labels=better_words"
