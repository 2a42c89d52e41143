"""The public interface of a trained model: images and phrases in, masks out."""

import math
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from shutil import copyfile
from threading import Lock
from typing import Any, cast, overload

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
from PIL import Image
from torch import Tensor

from tseg.files import atomic_write
from tseg.inference.masks import FOREGROUND, MaskRules, each_probability, segment_masks
from tseg.inference.predict import IMAGES_AT_ONCE, Seen, Texts, embed_views, view_pixels
from tseg.inference.refinement import check_refinement
from tseg.inference.semantic import confidences
from tseg.inference.thresholds import FIXED, RULES
from tseg.model.device import open_device
from tseg.model.tseg import TSEG, load_model
from tseg.records import encode_mask
from tseg.segmenting.card import model_card
from tseg.segmenting.inputs import ImageLike, read_image, read_phrases
from tseg.segmenting.segmentation import Segmentation
from tseg.settings.validation import check_known
from tseg.transforms import each_view, mirror_words

MODEL_FILE = "model.safetensors"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
PHRASES_KEPT = 10_000
"""Phrases whose features are kept in memory."""


@dataclass(frozen=True, eq=False)
class EmbeddedImage:
    """An image that the encoder has seen: any phrases can be asked of it, fast."""

    image: Image.Image
    """RGB, turned and opaque as viewers show it."""
    patches: list[Tensor]
    """x, float32 (h, w, D), of each view."""
    seen: Seen
    """The views."""
    model: TSEG
    """The model whose encoder has seen it."""


class Segmenter(ModelHubMixin):
    """Segments any phrase in any image. Threads may share one.

    >>> segmenter = Segmenter.from_pretrained("results/runs/phrasecut-mpa/seed0")
    >>> found = segmenter("photo.jpg", ["red circle", "striped star"])
    >>> found.masks, found.scores, found.overlay()
    """

    def __init__(
        self,
        file: str | Path,
        *,
        device: str = "auto",
        resolution: int | None = None,
        window: int | None = None,
        background: float = 0.2,
        overlapping: bool = False,
    ):
        """Load the model that `tseg train` wrote to `file`.

        `device`: auto (a GPU if there is one), cpu or cuda:1. `resolution`: pixels to which the shorter side of an
        image is resized; default: as in training. `window`: pixels of the side of the windows that the encoder sees;
        None for the whole image. GAP and GMP only: `background` is the activation that a pixel must exceed, and
        `overlapping` says whether the masks of an image may overlap. Raises ValueError if `file` is no model, or if
        the machine has no such device.

        On a GPU, convolutions are in TF32 unless you choose otherwise (`torch.backends.cudnn.conv.fp32_precision`);
        the commands of `tseg` compute them in float32.
        """
        if self._hub_mixin_config is not None:  # what `save_pretrained` writes as config.json
            cast("dict[str, Any]", self._hub_mixin_config).pop("device", None)
        for name, value in {"resolution": resolution, "window": window}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name}: {value} is no number of pixels; give at least 1")
        self.file = Path(file)
        if self.file.is_dir():
            raise ValueError(f"{file} is a folder; use Segmenter.from_pretrained")
        model, self.trained = load_model(self.file)
        self.changed = self.file.stat().st_mtime_ns
        self.model = model.to(open_device(device))
        self.resolution, self.window = resolution or self.trained.resolution, window
        self.rules = MaskRules(self.trained.mask_pooling, background, not overlapping)
        self._texts: dict[str, Tensor] = {}
        self._lock = Lock()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "Segmenter":
        """Load a model file, a folder with one, or a model of the Hugging Face Hub, such as "owner/model".

        `options` are those of the constructor and, for the hub, `revision`, `token`, `cache_dir`, `force_download` and
        `local_files_only`. Raises ValueError if there is no such model.
        """
        path = Path(pretrained_model_name_or_path)
        if path.is_file():
            return cls(path, **options)
        if path.is_dir() and not (path / "config.json").exists():
            return cls(_file_in(path), **options)
        name = str(pretrained_model_name_or_path)
        if path.is_dir():
            return super().from_pretrained(name, **options)
        if not _HUB_NAME.fullmatch(name):
            raise ValueError(f"{name} is no file, no folder and no name on the Hugging Face Hub (owner/model)")
        try:
            return super().from_pretrained(name, **options)
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{name} cannot be fetched from the Hugging Face Hub: {reason}; check its name") from error

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: Any,
        cache_dir: Any,
        force_download: Any,
        local_files_only: Any,
        token: Any,
        **options: Any,
    ) -> "Segmenter":
        if Path(model_id).is_dir():
            return cls(_file_in(Path(model_id)), **options)
        how = {"revision": revision, "cache_dir": cache_dir, "force_download": force_download, "token": token}
        file = hf_hub_download(model_id, MODEL_FILE, local_files_only=local_files_only, **how)
        return cls(Path(file), **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        if self.file.stat().st_mtime_ns != self.changed:
            raise ValueError(f"{self.file} was changed since it was loaded; load it again")
        card = save_directory / "README.md"
        if card.exists():  # which the mixin would keep
            if "library_name: tseg" not in card.read_text(encoding="utf-8"):
                raise ValueError(f"{card} is not the card of a model of tseg; save to another folder")
            card.unlink()
        with atomic_write(save_directory / MODEL_FILE, remember=False) as partial:
            copyfile(self.file, partial)

    def generate_model_card(self, *_: Any, scores: Path | str | None = None, **__: Any) -> ModelCard:
        """The card of the model. `scores`: a summary that `tseg evaluate` wrote."""
        return model_card(self.trained, None if scores is None else Path(scores))

    @overload
    def embed(self, images: ImageLike, *, scales: Sequence[float] = ..., flip: bool = ...) -> EmbeddedImage: ...
    @overload
    def embed(
        self, images: Sequence[ImageLike], *, scales: Sequence[float] = ..., flip: bool = ...
    ) -> list[EmbeddedImage]: ...
    def embed(
        self, images: ImageLike | Sequence[ImageLike], *, scales: Sequence[float] = (1.0,), flip: bool = False
    ) -> EmbeddedImage | list[EmbeddedImage]:
        """Embed one or several images, those of one size together, in the views of `scales` and `flip`."""
        if isinstance(images, list | tuple):
            return self._embed([read_image(image) for image in images], scales, flip)
        (embedded,) = self._embed([read_image(cast("ImageLike", images))], scales, flip)
        return embedded

    @torch.inference_mode()
    def _embed(self, images: list[Image.Image], scales: object, flip: bool) -> list[EmbeddedImage]:
        factors = tuple(scales) if isinstance(scales, Iterable) else ()
        if not factors or not all(isinstance(each, Real) and 0 < float(each) < math.inf for each in factors):
            raise ValueError(f"scales: {scales}; give a list of numbers above 0, such as [0.75, 1, 1.25]")
        seen = Seen(self.resolution, factors, flip, self.trained.flip_words, self.window)
        patches: list[list[Tensor]] = [[] for _ in images]
        if images:
            for _, batch, of_batch in embed_views(
                self.model, [view_pixels(self.model, image, seen) for image in images], seen
            ):
                for index, of_image in zip(batch, of_batch, strict=True):
                    patches[index].append(of_image.clone())  # of which the batch is not kept
        return [EmbeddedImage(image, own, seen, self.model) for image, own in zip(images, patches, strict=True)]

    @overload
    def __call__(
        self,
        images: ImageLike | EmbeddedImage,
        phrases: str | Sequence[str],
        *,
        threshold: str = ...,
        crf: str | None = ...,
        scales: Sequence[float] = ...,
        flip: bool = ...,
    ) -> Segmentation: ...
    @overload
    def __call__(
        self,
        images: Sequence[ImageLike | EmbeddedImage],
        phrases: str | Sequence[str] | Sequence[Sequence[str]],
        *,
        threshold: str = ...,
        crf: str | None = ...,
        scales: Sequence[float] = ...,
        flip: bool = ...,
    ) -> list[Segmentation]: ...
    def __call__(
        self,
        images: ImageLike | EmbeddedImage | Sequence[ImageLike | EmbeddedImage],
        phrases: str | Sequence[str] | Sequence[Sequence[str]],
        *,
        threshold: str = FIXED,
        crf: str | None = None,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> Segmentation | list[Segmentation]:
        """Segment phrases in an image, or in each of a list of images.

        A string is one phrase. With a list of images, `phrases` are those of all, or a list of lists: those of each;
        `IMAGES_AT_ONCE` are read and embedded together.
        `threshold`: where to cut a map: fixed (as the paper does), halfway, relative or otsu. `crf`: none, a preset of
        the dense CRF, or pamr. `scales` and `flip` are the views of images that are not embedded yet. Raises
        ValueError or TypeError for an image, phrase or option that is none.
        """
        refinement = None if crf == "none" else crf
        check_refinement(refinement)
        check_known(threshold, [FIXED, *RULES], "threshold: there is no rule")
        rules = self.rules._replace(threshold=threshold, crf=refinement)
        if not isinstance(images, list | tuple):
            one = cast("ImageLike | EmbeddedImage", images)
            return self._segment(self._embedded([one], scales, flip)[0], read_phrases(cast("Any", phrases)), rules)
        of_each = _of_each(phrases, len(images))
        found: list[Segmentation] = []
        for start in range(0, len(images), IMAGES_AT_ONCE):
            some = slice(start, start + IMAGES_AT_ONCE)
            for image, own in zip(self._embedded(cast("Any", images[some]), scales, flip), of_each[some], strict=True):
                found.append(self._segment(image, own, rules))
        return found

    def encode(self, phrases: str | Sequence[str]) -> None:
        """Encode phrases ahead. Raises ValueError or TypeError for one that cannot be asked."""
        with torch.inference_mode():
            self._features(read_phrases(phrases), Seen(self.resolution))

    def _embedded(
        self, images: Sequence[ImageLike | EmbeddedImage], scales: Sequence[float], flip: bool
    ) -> list[EmbeddedImage]:
        """The images embedded, unless they are. Raises ValueError for one that another model has seen."""
        if any(isinstance(image, EmbeddedImage) and image.model is not self.model for image in images):
            raise ValueError("the image was embedded by another model; embed it by this one")
        new = iter(
            self._embed([read_image(image) for image in images if not isinstance(image, EmbeddedImage)], scales, flip)
        )
        return [image if isinstance(image, EmbeddedImage) else next(new) for image in images]

    @torch.inference_mode()
    def _segment(self, embedded: EmbeddedImage, phrases: list[str], rules: MaskRules) -> Segmentation:
        # Masks of some poolings exclude each other: a phrase must not compete with itself.
        distinct = list(dict.fromkeys(phrases))
        features = self._features(distinct, embedded.seen)
        views: list[Tensor] = []
        for (_, flipped), patches in zip(
            each_view(embedded.seen.scales, embedded.seen.flip), embedded.patches, strict=True
        ):
            similarities = self.model.compare(patches, features[flipped]).movedim(-1, 0).cpu()
            views.append(similarities.flip(-1) if flipped else similarities)
        run_lengths = [encode_mask(mask) for mask in segment_masks(views, embedded.image, rules)]
        scores = self._scores(views, embedded.image, rules)
        numbers = [distinct.index(phrase) for phrase in phrases]
        return Segmentation(
            embedded.image,
            phrases,
            scores[numbers],
            [run_lengths[number] for number in numbers],
            views,
            numbers,
            rules,
        )

    def _features(self, phrases: list[str], seen: Seen) -> dict[bool, Tensor]:
        """The unit vectors y (L, D) of phrases in an image, and in a mirror image if there is one."""
        words = {False: phrases}
        if seen.flip:
            words[True] = list(map(mirror_words, phrases)) if seen.flip_words == "swap" else phrases
        needed = list(dict.fromkeys(phrase for of_view in words.values() for phrase in of_view))
        with self._lock:
            known = {phrase: self._texts[phrase] for phrase in needed if phrase in self._texts}
        new = [phrase for phrase in needed if phrase not in known]
        if new:
            for loss in self.model.text_encoder.losses(new):
                warnings.warn(loss, stacklevel=5)
            texts = Texts(self.model, new, seen._replace(flip=False))
            known |= {phrase: texts.embedded[row] for phrase, row in texts.rows.items()}
            with self._lock:
                self._texts |= {phrase: known[phrase] for phrase in new}
                while len(self._texts) > PHRASES_KEPT:
                    del self._texts[next(iter(self._texts))]
        return {flipped: torch.stack([known[phrase] for phrase in own]) for flipped, own in words.items()}

    def _scores(self, views: list[Tensor], image: Image.Image, rules: MaskRules) -> np.ndarray:
        """How sure the model is that the image shows each phrase: float32 (L,).

        That is the sigmoid of the pooling's score (section 3.2). ASSUME: a model that no pooling trained has the mean
        probability of the pixels of each mask, before a refinement.
        """
        if self.trained.pooling is not None:
            return confidences(views, self.trained.pooling, self.trained.pooling_options).numpy()
        maps = (each.numpy() for each in each_probability(views, (image.height, image.width), rules))
        return np.array([inside.mean() if (inside := each[each > FOREGROUND]).size else 0 for each in maps], np.float32)


def _of_each(phrases: Any, number: int) -> list[list[str]]:
    """The phrases of each of several images."""
    if isinstance(phrases, str) or all(isinstance(each, str) for each in phrases):
        return [read_phrases(phrases)] * number
    if len(phrases) != number:
        raise ValueError(f"there are {number} images and {len(phrases)} lists of phrases; give a list for each image")
    return [read_phrases(own) for own in phrases]


def _file_in(folder: Path) -> Path:
    if not (folder / MODEL_FILE).exists():
        raise ValueError(f"{folder} holds no {MODEL_FILE}; give the folder that `tseg train` wrote to")
    return folder / MODEL_FILE
