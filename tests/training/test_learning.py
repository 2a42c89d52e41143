"""A small model learns masks, from masks and from words alone."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from tseg.images import normalised, open_image
from tseg.model.language_model import learn_wordpiece
from tseg.model.pooling import POOLINGS
from tseg.model.tseg import TSEG
from tseg.records import decode_mask, encode_mask
from tseg.training import objectives
from tseg.training.batches import Batch, PixelBatches, Sampling, WeakBatches
from tseg.training.loop import optimise
from tseg.training.objectives import Objective
from tseg.training.schedule import poly_schedule
from tseg.training.targets import identity_targets

from ..models import build_tseg

SIDE = 48
COLOURS = {"red": (210, 40, 40), "green": (40, 170, 40), "blue": (50, 60, 220), "yellow": (220, 210, 40)}


def draw_records(dir: Path, num_images: int, seed: int) -> pd.DataFrame:
    """Images with two or three things on noise, and a record per thing, such as "red disc"."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for index in range(num_images):
        image, things = draw_things(generator)
        file_name = str(dir / f"{seed}-{index}.png")
        image.save(file_name)
        for expression, mask in things.items():
            row = {"file_name": file_name, "image_id": file_name, "expression": expression, "mask": encode_mask(mask)}
            rows.append(row | {"height": SIDE, "width": SIDE, "ignore": None})
    return pd.DataFrame(rows)


def draw_things(generator: np.random.Generator) -> tuple[Image.Image, dict[str, np.ndarray]]:
    """An image and the masks of its things; each has its own colour and its own quarter of the image."""
    image = Image.fromarray(generator.integers(70, 190, (SIDE, SIDE, 3), dtype=np.uint8))
    things: dict[str, np.ndarray] = {}
    corners = generator.permutation([(0, 0), (0, 24), (24, 0), (24, 24)])
    colours = generator.permutation(list(COLOURS))[: generator.integers(2, 4)]
    for corner, colour in zip(corners, colours, strict=False):
        shape = generator.choice(["disc", "square"])
        size = int(generator.integers(12, 21))
        left, top = (int(start + generator.integers(0, 24 - size)) for start in corner)
        mask = Image.new("1", (SIDE, SIDE))
        for canvas, fill in ((image, COLOURS[colour]), (mask, 1)):
            draw = ImageDraw.Draw(canvas)
            outline = draw.ellipse if shape == "disc" else draw.rectangle
            outline((left, top, left + size - 1, top + size - 1), fill=fill)
        things[f"{colour} {shape}"] = np.asarray(mask)
    return image, things


def learn(
    records: pd.DataFrame,
    make_batches: Callable[[pd.DataFrame, Sampling], Dataset[Batch]],
    objective: Objective,
    checkpoint: Path,
    *,
    patch_size: int,
    batch_size: int,
    iterations: int,
    seed: int,
) -> TSEG:
    """A small model trained from random weights on images as they are."""
    torch.manual_seed(seed)
    sizes = {"img_size": SIDE, "patch_size": patch_size, "embed_dim": 64, "depth": 2, "num_heads": 2}
    words = {"hidden_size": 64, "num_layers": 1, "num_heads": 2, "vocabulary_size": 64}
    model = build_tseg(
        {"name": "vit_tiny_patch16_224", "options": sizes, "weights": None, "drop_path": 0.0},
        {"weights": None, "pooling": "first", "max_tokens": 8, "dropout": 0.0, "random": words},
        embed_dim=64,
        tau=10.0,
        tokenizer=learn_wordpiece(list(records["expression"]), 64),
    )
    sampling = Sampling(
        batch_size=batch_size,
        expressions_per_image=3,
        resolution=SIDE,
        scale=(1.0, 1.0),
        flip=False,
        flip_words="keep",
        seed=seed,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    optimise(
        model,
        make_batches(records, sampling),
        objective,
        optimizer,
        poly_schedule(optimizer, iterations, 0.9, warmup=20),
        iterations=iterations,
        seed=seed,
        precision=torch.float32,
        num_workers=0,
        checkpoint=checkpoint,
        fingerprint="",
        log=lambda row: None,
    )
    return model.eval()


@torch.no_grad()
def mean_iou(model: TSEG, records: pd.DataFrame, masks_of: Callable[[Tensor], Tensor]) -> float:
    """mIoU over the records; `masks_of` computes masks (L, SIDE, SIDE) from the similarities (L, h, h) of an image."""
    ious = []
    for file_name, own in records.groupby("file_name"):
        pixels = normalised(open_image(str(file_name)), model.image_encoder.mean, model.image_encoder.std)
        similarities = model(torch.from_numpy(pixels)[None], list(own["expression"]))[0].T
        side = SIDE // model.patch_size
        predicted = masks_of(similarities.unflatten(1, (side, side))).numpy()
        for mask, prediction in zip(own["mask"], predicted, strict=True):
            truth = decode_mask(mask, SIDE, SIDE)
            ious.append((truth & prediction).sum() / (truth | prediction).sum())
    return float(np.mean(ious))


def to_pixels(maps: Tensor) -> Tensor:
    return interpolate(maps[None], size=(SIDE, SIDE), mode="bilinear", align_corners=False)[0]


def thresholded(similarities: Tensor) -> Tensor:
    """Masks as in full supervision: the sigmoid of pixel-level similarities."""
    return to_pixels(similarities).sigmoid() > 0.5


def assigned(similarities: Tensor) -> Tensor:
    """Masks of MPA: eq. 6, interpolated to pixels."""
    return to_pixels(similarities.sigmoid()) > 0.5


def activated(similarities: Tensor) -> Tensor:
    """Masks of GAP: where the positive activation exceeds a fifth of its maximum."""
    activation = to_pixels(similarities.relu())
    return activation > 0.2 * activation.amax(dim=(1, 2), keepdim=True)


def test_full_supervision_overfits_four_images(tmp_path: Path) -> None:
    """Measured 0.94 to 0.96 over three sets of images and three seeds."""
    records = draw_records(tmp_path, 4, seed=0)
    model = learn(
        records,
        functools.partial(PixelBatches, region="mask"),
        objectives.full,
        tmp_path / "last.ckpt",
        patch_size=4,
        batch_size=4,
        iterations=200,
        seed=0,
    )
    assert mean_iou(model, records, thresholded) > 0.9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_from_words_alone_mpa_learns_better_masks_than_gap(tmp_path: Path, seed: int) -> None:
    """Scored on unseen images. Measured 0.69, 0.68, 0.57 against 0.28, 0.35, 0.29."""
    records, unseen = draw_records(tmp_path, 80, seed=1), draw_records(tmp_path, 32, seed=2)
    options = {"mpa": {"epsilon": 1.0, "size_lambda": 0.01, "size_power": 5.0}, "gap": {}}
    scores = {}
    for pooling, masks_of in (("mpa", assigned), ("gap", activated)):
        score = functools.partial(POOLINGS[pooling].score, **options[pooling])
        model = learn(
            records,
            WeakBatches,
            functools.partial(objectives.weak, score=score, targets=identity_targets),
            tmp_path / f"{pooling}.ckpt",
            patch_size=6,
            batch_size=16,
            iterations=100,
            seed=seed,
        )
        scores[pooling] = mean_iou(model, unseen, masks_of)
    assert scores["mpa"] > scores["gap"] + 0.15
