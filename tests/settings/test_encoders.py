"""The encoders of all runs, each once, by the keys that describe them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tseg.settings.encoders import UsedEncoders, used_encoders
from tseg.settings.run_schema import PoolingSettings
from tseg.settings.runs import make_run
from tseg.settings.schema import ImageEncoderSettings, LanguageModelSettings, Settings
from tseg.settings.validation import parse

CONFIG = Path(__file__).parents[2] / "config"
MPA = PoolingSettings(name="mpa")
VIT: dict[str, Any] = {"name": "vit_tiny_patch16_224", "weights": None, "drop_path": 0.0}


def default() -> Settings:
    return parse(Settings, yaml.safe_load((CONFIG / "config.yaml").read_text(encoding="utf-8")), "config.yaml")


def used(varied: dict[str, Any], supervision: Any = "weak", dataset: str = "phrasecut") -> UsedEncoders:
    return used_encoders(
        default(), make_run(default(), dataset, supervision, MPA if supervision == "weak" else None, varied)
    )


def test_runs_with_equal_encoders_share_a_name() -> None:
    names = {used(varied).name for varied in ({}, {"model.embed_dim": 8}, {"training.weak.optimizer.learning_rate": 1})}
    assert len(names) == 1
    others = [
        used({"model.image_encoder": "wide_resnet38"}).name,
        used({"training.weak.resolution": 120}).name,
        used({"image_encoders.vit.options.depth": 2}).name,
        used({"language_model.dropout": 0.5}).name,
        used({}, "full").name,
    ]
    assert len({*names, *others}) == 6


@pytest.mark.parametrize(
    ("varied", "image_key", "text_key"),
    [
        ({}, "image_encoders.vit", "language_model"),
        ({"model.image_encoder": "wide_resnet38"}, "image_encoders.wide_resnet38", "language_model"),
        ({"image_encoders.vit.options.depth": 2}, "phrasecut-mpa+depth=2: image_encoders.vit", "language_model"),
        ({"language_model.dropout": 0.5}, "image_encoders.vit", "phrasecut-mpa+dropout=0.5: language_model"),
    ],
)
def test_a_key_is_the_one_that_the_user_wrote(varied: dict[str, Any], image_key: str, text_key: str) -> None:
    assert (used(varied).image_key, used(varied).text_key) == (image_key, text_key)


def test_the_resolution_is_that_of_the_supervision() -> None:
    assert (used({}, "full").resolution_key, used({}, "full").resolution) == ("training.full.resolution", 120)
    assert (used({}).resolution_key, used({}).resolution) == ("training.weak.resolution", 96)


def test_a_class_encoding_has_no_language_model() -> None:
    assert used({"model.text_encoder": "classes"}, dataset="voc").language_model is None


def test_random_sizes_are_no_part_of_a_run_with_pretrained_weights() -> None:
    """Naming weights is enough, and other random sizes cause no new training."""
    settings = default()
    random = settings.language_model.random
    assert random is not None
    pretrained = settings.model_copy(
        update={"language_model": settings.language_model.model_copy(update={"weights": "lab/words"})}
    )
    text = make_run(pretrained, "phrasecut", "weak", MPA, {}).model.text_encoder
    assert isinstance(text, LanguageModelSettings)
    assert (text.weights, text.random) == ("lab/words", None)
    own = make_run(settings, "phrasecut", "weak", MPA, {}).model.text_encoder
    assert isinstance(own, LanguageModelSettings)
    assert own.random == random
    assert used_encoders(pretrained, make_run(pretrained, "phrasecut", "weak", MPA, {})).text_key == "language_model"


def test_a_class_encoding_needs_a_size() -> None:
    settings = default()
    without = settings.model_copy(update={"model": settings.model.model_copy(update={"class_features": None})})
    with pytest.raises(ValueError, match=r"^model\.class_features is missing"):
        make_run(without, "voc", "weak", MPA, {"model.text_encoder": "classes"})


def test_null_clears_the_options_of_an_earlier_file() -> None:
    assert parse(ImageEncoderSettings, VIT | {"options": None}, "mine.yaml").options == {}
    assert parse(ImageEncoderSettings, VIT, "mine.yaml").options == {}


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"mean": (0.5, 0.5, 0.5)}, "mean and std belong together"),
        ({"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.0, 0.5)}, r"std: \(0\.5, 0\.0, 0\.5\) is not positive"),
        ({"mean": (0.5, 0.5), "std": (0.5, 0.5)}, r"mean\.2"),
        ({"trainable": 0}, "trainable"),
        ({"trainable": "head"}, "'head'"),
        ({"positions": "nearest"}, "'bilinear' or 'bicubic'"),
    ],
)
def test_a_wrong_image_encoder_is_refused(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(ImageEncoderSettings, VIT | wrong, "mine.yaml")


def test_a_language_model_without_weights_needs_sizes() -> None:
    with pytest.raises(ValueError, match="without weights it needs sizes; add random, or name weights"):
        parse(LanguageModelSettings, {"weights": None, "dropout": 0.0}, "mine.yaml")
    parse(LanguageModelSettings, {"weights": "lab/words", "dropout": 0.0}, "mine.yaml")
