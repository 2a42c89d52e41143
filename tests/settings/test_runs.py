"""A run holds the settings that determine its weights; its name lists the differences from the configuration."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import PositiveFloat

from tseg.model.pooling import POOLINGS, Pooling
from tseg.settings import runs
from tseg.settings.run_schema import PoolingSettings, RunSettings
from tseg.settings.runs import REFINEMENTS, Evaluation, Refinement, make_run, pretraining_run, vary
from tseg.settings.schema import Settings
from tseg.settings.validation import parse

CONFIG = Path(__file__).parents[2] / "config"


def default(**changes: Any) -> Settings:
    return parse(Settings, yaml.safe_load((CONFIG / "config.yaml").read_text()) | changes, "config.yaml")


GAP = PoolingSettings(name="gap")
MPA = PoolingSettings(name="mpa", options={"epsilon": 1.0, "size_lambda": 0.01, "size_power": 5})


def weak(settings: Settings, dataset: str, pooling: PoolingSettings, **varied: Any) -> RunSettings:
    return make_run(
        settings, dataset, "weak", pooling, {key.replace("__", "."): value for key, value in varied.items()}
    )


def with_options(**options: Any) -> RunSettings:
    return make_run(default(), "phrasecut", "weak", PoolingSettings(name="mpa", options=options), {})


def test_a_run_holds_only_the_settings_that_concern_it() -> None:
    before = default()
    after = vary(before, {"training.full.resolution": 64})
    assert weak(before, "refcoco", GAP) == weak(after, "refcoco", GAP)
    assert make_run(before, "refcoco", "full", None, {}) != make_run(after, "refcoco", "full", None, {})


def test_a_name_lists_what_differs_and_nothing_else() -> None:
    settings = default()
    assert weak(settings, "phrasecut", MPA).run == "phrasecut-mpa"
    assert weak(settings, "phrasecut", MPA, model__tau=5).run == "phrasecut-mpa+tau=5"
    assert weak(settings, "phrasecut", MPA, model__tau=settings.model.tau) == weak(settings, "phrasecut", MPA)
    assert make_run(settings, "refcoco", "full", None, {}).run == "refcoco-full"


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("loss", "sum", "loss=sum"),
        ("same_image_weight", 0.1, "same_image_weight=0.1"),
        ("ignore_similar", 0.8, "ignore_similar=0.8"),
        ("optimizer.rates.heads", 25, "heads=25"),
        ("optimizer.decay", "matrices", "decay=matrices"),
    ],
)
def test_settings_of_a_training_vary_a_run_and_show_in_its_name(key: str, value: Any, name: str) -> None:
    varied = {f"training.weak.{key}": value}
    run = make_run(default(), "phrasecut", "weak", MPA, varied)
    assert run.run == f"phrasecut-mpa+{name}"
    found = run.training.model_dump()
    for part in key.split("."):
        found = found[part]
    assert found == value
    full = make_run(default(), "phrasecut", "full", None, varied)
    assert full == make_run(default(), "phrasecut", "full", None, {})
    assert (full.training.targets, full.training.loss, full.training.same_image_weight) == (None, None, None)


@pytest.mark.parametrize("pooling", ["gap", "gmp", "spa"])
def test_masks_of_a_pooling_that_cannot_overlap_are_not_pushed_apart(pooling: str) -> None:
    varied = {"training.weak.same_image_weight": 0.1}
    complaint = f"training.weak.same_image_weight: the pooling {pooling} has no masks that could overlap; .* with mpa$"
    with pytest.raises(ValueError, match=complaint):
        make_run(default(), "phrasecut", "weak", PoolingSettings(name=pooling), varied)
    assert make_run(default(), "phrasecut", "weak", PoolingSettings(name=pooling), dict.fromkeys(varied, 0))


def test_options_that_differ_from_the_defaults_close_the_name_in_alphabetical_order() -> None:
    assert with_options(size_lambda=0.1).run == "phrasecut-mpa+size_lambda=0.1"
    assert with_options(size_power=0, size_lambda=0.0).run == "phrasecut-mpa+size_lambda=0+size_power=0"
    assert with_options(size_lambda=0.01, size_power=5.0) == weak(default(), "phrasecut", MPA)
    pooling = PoolingSettings(name="mpa", options={"epsilon": 0})
    narrow = make_run(default(), "phrasecut", "weak", pooling, {"training.weak.share": 0.5})
    assert narrow.run == "phrasecut-mpa+share=0.5+epsilon=0"


def test_options_that_are_not_set_have_the_paper_s_values() -> None:
    pooling = with_options(size_power="1").pooling
    assert pooling == PoolingSettings(name="mpa", options={"epsilon": 1.0, "size_lambda": 0.01, "size_power": 1.0})


@pytest.mark.parametrize(
    ("pooling", "options", "complaint"),
    [
        ("mpa", {"size_lamda": 0.1}, "options of the pooling mpa: unknown key size_lamda; did you mean size_lambda?"),
        ("mpa", {"size_lambda": -1}, "options of the pooling mpa: size_lambda: Input should be greater than or equal"),
        ("mpa", {"size_lambda": "x"}, "options of the pooling mpa: size_lambda: Input should be a valid number"),
        ("gap", {"size_lambda": 0.1}, "options of the pooling gap: unknown key size_lambda"),
    ],
)
def test_an_option_that_the_pooling_does_not_take_is_refused(
    pooling: str, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        PoolingSettings(name=pooling, options=options)


def test_an_option_with_a_default_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def lse(similarities: Any, *, temperature: PositiveFloat = 5.0, shift: int) -> Any: ...

    monkeypatch.setitem(POOLINGS, "lse", Pooling(lse, masks=None, exclusive=False))
    assert PoolingSettings(name="lse", options={"shift": 2}).options == {"temperature": 5.0, "shift": 2}
    with pytest.raises(
        ValueError, match=r"options of the pooling lse: temperature: .* greater than 0 .*; the key shift is"
    ):
        PoolingSettings(name="lse", options={"temperature": 0})


def test_a_varied_setting_that_does_not_concern_a_run_is_not_in_its_name() -> None:
    varied = {"training.weak.share": 0.5}
    assert make_run(default(), "refcoco", "full", None, varied) == make_run(default(), "refcoco", "full", None, {})


def test_a_varied_setting_reaches_the_run() -> None:
    run = weak(default(), "voc", GAP, model__image_encoder="wide_resnet38", model__text_encoder="classes")
    assert run.model.image_encoder.name == "wide_resnet38"
    assert run.model.text_encoder.model_dump()["classes"] == default().datasets["voc"].classes
    assert weak(default(), "phrasecut", MPA, training__weak__share=0.1).training.share == 0.1


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("model.embed_dims", 32, r"did you mean embed_dim\?"),
        ("model.embed_dim.x", 32, "embed_dim is not a group of keys"),
        ("model.embed_dim", -1, r"model\.embed_dim: "),
        ("model.image_encoder", "resnet", "image_encoders has no 'resnet'"),
        ("inference.crf", "irn", r"inference\.crf does not determine a run's weights; vary keys of model, "),
        ("image_encoders.vit.weights", "some/where.pth", "cannot be part of a run's name"),
        ("model.text_encoder", "classes", "the data set phrasecut has no classes"),
    ],
)
def test_an_invalid_key_or_value_is_refused(key: str, value: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make_run(default(), "phrasecut", "weak", MPA, {key: value})


def test_an_unknown_pooling_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no pooling 'mp'; did you mean mpa\?"):
        PoolingSettings(name="mp")


def test_a_data_set_without_iterations_is_refused() -> None:
    with pytest.raises(ValueError, match=r"training\.full\.batch_size lacks the data set voc"):
        make_run(default(), "voc", "full", None, {})


def test_box_pretraining_excludes_every_evaluation_split() -> None:
    settings = default()
    run = weak(settings, "phrasecut", MPA, training__weak__pretraining="refcoco")
    boxes = pretraining_run(settings, "refcoco", {"training.weak.pretraining": "refcoco"})
    assert run.pretraining == boxes.run == "refcoco-boxes"
    assert boxes.excluded_records == [
        f"data/records/{name}/val.parquet" for name in ("voc", "phrasecut", "refcoco", "refcoco+", "refcocog")
    ]
    kept = vary(settings, {"training.boxes.exclude_evaluation": False})
    assert not make_run(kept, "refcoco", "boxes", None, {}).excluded_records


def test_pretraining_has_the_architecture_of_the_run_that_starts_from_it() -> None:
    varied = {"training.weak.pretraining": "refcoco", "model.embed_dim": 32}
    pooling = PoolingSettings(name="mpa", options={"size_power": 1})
    run = make_run(default(), "phrasecut", "weak", pooling, varied)
    boxes = pretraining_run(default(), "refcoco", varied)
    assert boxes.run == run.pretraining == "refcoco-boxes+embed_dim=32"
    assert boxes.model == run.model


def test_a_very_long_name_is_cut_and_stays_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_NAME", 60)
    keys = [f"training.weak.optimizer.{key}" for key in ("learning_rate", "weight_decay", "poly_power", "warmup")]
    varied = [dict.fromkeys(keys, number) for number in (24, 48)]
    first, second = (make_run(default(), "phrasecut", "weak", MPA, each).run for each in varied)
    assert len(first) == len(second) == 60
    assert first != second
    assert first.startswith("phrasecut-mpa+learning_rate=24+")


def test_an_evaluation_is_named_by_what_differs() -> None:
    assert Evaluation("voc", "val").name == "voc-val"
    assert Evaluation("voc", "val", True, "better_words").name == "voc-val+multiscale+labels=better_words"


def test_names_of_refinements_are_distinct_and_have_no_hyphen() -> None:
    """A hyphen separates them from the name of the evaluation, which may have hyphens itself."""
    assert REFINEMENTS["plain"] == Refinement()
    assert REFINEMENTS["halfway+crf"] == Refinement("halfway", "crf")
    assert len(set(REFINEMENTS.values())) == 5 * 7
    assert not any("-" in name for name in REFINEMENTS)


def test_self_training_does_not_start_from_boxes() -> None:
    with pytest.raises(ValueError, match=r"^training\.weak\.pretraining: self-training knows no boxes"):
        make_run(default(), "phrasecut", "pseudo", MPA, {"training.weak.pretraining": "refcoco"})
