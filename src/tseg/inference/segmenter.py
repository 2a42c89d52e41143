"""A trained model as people use it: a picture and phrases in, masks out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tseg.inference.masks import segment
from tseg.inference.predict import predict_similarities
from tseg.model.tseg import TSEG, load_model


class Segmenter:
    """Segments any phrase in any picture.

    >>> segmenter = Segmenter.load(Path("results/runs/phrasecut-mpa/seed0/model.safetensors"))
    >>> masks = segmenter(Image.open("photo.jpg").convert("RGB"), ["red circle", "striped star"])
    """

    def __init__(
        self, model: TSEG, *, pooling: str | None, resolution: int, background: float = 0.2, crf: str | None = None
    ):
        """`resolution`: longer side in pixels at which the encoder sees a picture; `crf`: a name in `crf.PRESETS`."""
        self.model, self.pooling, self.resolution = model, pooling, resolution
        self.background, self.crf = background, crf

    @classmethod
    def load(
        cls, path: Path, *, device: str = "cpu", resolution: int | None = None, crf: str | None = None
    ) -> "Segmenter":
        """The model that `tseg train` wrote to `path`, at the resolution it was trained at unless another is given."""
        model, about = load_model(path)
        return cls(model.to(device), pooling=about["pooling"], resolution=resolution or about["resolution"], crf=crf)

    def __call__(
        self,
        picture: Image.Image,
        expressions: Sequence[str],
        *,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> np.ndarray:
        """Masks, bool (L, H, W), of L phrases in an RGB picture of W x H pixels."""
        if not all(expression.strip() for expression in expressions):
            raise ValueError("an expression is empty; say what to look for")
        similarities = predict_similarities(
            self.model, picture, list(expressions), resolution=self.resolution, scales=scales, flip=flip
        )
        return segment(similarities, picture, pooling=self.pooling, background=self.background, crf=self.crf)
