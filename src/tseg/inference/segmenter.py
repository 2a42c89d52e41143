"""The public interface of a trained model: an image and phrases in, masks out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from tseg.inference.masks import segment_masks
from tseg.inference.predict import predict_similarities
from tseg.model.tseg import TSEG, load_model


class Segmenter:
    """Segments any phrase in any image.

    >>> segmenter = Segmenter.load(Path("results/runs/phrasecut-mpa/seed0/model.safetensors"))
    >>> masks = segmenter(Image.open("photo.jpg").convert("RGB"), ["red circle", "striped star"])
    """

    def __init__(
        self,
        model: TSEG,
        *,
        pooling: str | None,
        resolution: int,
        flip_words: Literal["swap", "keep"] = "keep",
        background: float = 0.2,
        crf: str | None = None,
    ):
        """Segment with `model`.

        `pooling`: the pooling that trained the model; None after full supervision. `resolution`: pixels to which the
        longer side of an image is resized. `flip_words`: whether a flip swaps left and right in the phrases, as in
        training. `background`: the activation that a pixel must exceed (GAP and GMP only). `crf`: a name in
        `crf.PRESETS`; None for no refinement.
        """
        self.model, self.pooling, self.resolution = model, pooling, resolution
        self.flip_words: Literal["swap", "keep"] = flip_words
        self.background, self.crf = background, crf

    @classmethod
    def load(
        cls, path: Path, *, device: str = "cpu", resolution: int | None = None, crf: str | None = None
    ) -> "Segmenter":
        """Load the model that `tseg train` wrote to `path`. Default `resolution`: that of its training."""
        model, trained = load_model(path)
        return cls(
            model.to(device),
            pooling=trained.pooling,
            resolution=resolution or trained.resolution,
            flip_words=trained.flip_words,
            crf=crf,
        )

    def __call__(
        self,
        image: Image.Image,
        expressions: Sequence[str],
        *,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> np.ndarray:
        """Masks, bool (L, H, W), of L phrases in an RGB image of W x H pixels."""
        if not all(expression.strip() for expression in expressions):
            raise ValueError("an expression is empty; name what to look for")
        similarities = predict_similarities(
            self.model,
            image,
            list(expressions),
            resolution=self.resolution,
            scales=scales,
            flip=flip,
            flip_words=self.flip_words,
        )
        return segment_masks(similarities, image, pooling=self.pooling, background=self.background, crf=self.crf)
