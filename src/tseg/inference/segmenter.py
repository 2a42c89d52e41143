"""The public interface of a trained model: an image and phrases in, masks out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from tseg.expressions import clean_expression
from tseg.inference.masks import MaskRules, segment_masks
from tseg.inference.predict import Seen, predict_views
from tseg.inference.refinement import check_refinement
from tseg.inference.thresholds import FIXED, RULES
from tseg.model.tseg import TSEG, load_model
from tseg.settings.validation import check_known


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
        exclusive_activations: bool = True,
        threshold: str = "fixed",
        crf: str | None = None,
        window: int | None = None,
    ):
        """Segment with `model`.

        `pooling`: the pooling that trained the model; None if masks or boxes did. `resolution`: pixels to which the
        shorter side of an image is resized. `flip_words`: whether a flip swaps left and right in the phrases, as in
        training. `background`: the activation that a pixel must exceed (GAP and GMP only), and `exclusive_activations`:
        whether their masks exclude each other. `threshold`: a rule of `thresholds`. `crf`: a name in
        `refinement.REFINEMENTS`; None for no refinement. `window`: pixels of the side of the windows that the encoder
        sees; None for the whole image. Raises ValueError for an unknown rule or refinement, and for the oracle.
        """
        check_refinement(crf)
        check_known(threshold, [FIXED, *RULES], "threshold: there is no rule")
        self.model, self.resolution, self.window = model, resolution, window
        self.flip_words: Literal["swap", "keep"] = flip_words
        self.rules = MaskRules(pooling, background, exclusive_activations, threshold, crf)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        device: str = "cpu",
        resolution: int | None = None,
        threshold: str = "fixed",
        crf: str | None = None,
    ) -> "Segmenter":
        """Load the model that `tseg train` wrote to `path`. Default `resolution`: that of its training."""
        model, trained = load_model(path)
        return cls(
            model.to(device),
            pooling=trained.mask_pooling,
            resolution=resolution or trained.resolution,
            flip_words=trained.flip_words,
            threshold=threshold,
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
        # As `tseg prepare` cleans the expressions of training.
        expressions = [clean_expression(expression) for expression in expressions]
        if not all(expressions):
            raise ValueError("an expression is empty; name what to look for")
        seen = Seen(self.resolution, scales, flip, self.flip_words, self.window)
        views = predict_views(self.model, image, expressions, seen)
        masks = np.zeros((len(expressions), image.height, image.width), bool)
        for j, mask in enumerate(segment_masks([view.similarities for view in views], image, self.rules)):
            masks[j] = mask
        return masks
