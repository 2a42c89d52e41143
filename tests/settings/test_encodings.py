"""Only an encoder that no training changes has tokens."""

import pytest

from tseg.settings.encodings import PatchEncoding, TextEncoding
from tseg.settings.schema import ImageEncoderSettings, LanguageModelSettings
from tseg.settings.validation import parse

VIEWS = {"kind": "whole", "resolution": 32, "scales": [1.0], "flip": False}
IMAGE = {"name": "vit_small_patch16_384", "weights": "a.safetensors", "drop_path": 0.0, "trainable": "heads"}
TEXT = {"weights": "bert", "dropout": 0.0, "trainable": "heads"}


@pytest.mark.parametrize("changed", [{"trainable": "all"}, {"trainable": 2}, {"weights": None}])
def test_an_encoder_that_is_not_fixed_has_no_tokens(changed: dict[str, object]) -> None:
    assert ImageEncoderSettings.model_validate(IMAGE).is_fixed
    assert LanguageModelSettings.model_validate(TEXT).is_fixed
    patches = {"records": "r.parquet", "encoder": IMAGE, "views": VIEWS}
    texts = {"records": "r.parquet", "encoder": TEXT, "mirrored": True}
    for schema, values in ((PatchEncoding, patches), (TextEncoding, texts)):
        parse(schema, values, "--settings")
        random = {"hidden_size": 4, "num_layers": 1, "num_heads": 1, "vocabulary_size": 9}
        encoder = values["encoder"] | changed | ({"random": random} if schema is TextEncoding else {})
        with pytest.raises(ValueError, match=r"^--settings: .*encoder.*no training changes; set trainable: heads"):
            parse(schema, values | {"encoder": encoder}, "--settings")
