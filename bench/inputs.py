"""What the benchmarks work on: images like photographs, smooth maps, and batches of noise. All are drawn."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from tseg.training.batches import Batch

WIDTH, HEIGHT = 640, 480
WORDS = ["red", "green", "blue", "small", "large", "striped", "left", "right", "man", "cat", "bus", "tree", "chair"]


def photograph(seed: int, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Noise with the spectrum of photographs: amplitudes fall with the frequency."""
    generator = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 9):
        shape = -(-height * 2**octave // 512) + 1, -(-width * 2**octave // 512) + 1, 3
        coarse = torch.from_numpy(generator.standard_normal(shape, np.float32)).permute(2, 0, 1)[None]
        fine = interpolate(coarse, size=(height, width), mode="bicubic")[0].permute(1, 2, 0).numpy()
        total += fine / 1.6**octave
    return Image.fromarray((128 + 90 * total).clip(0, 255).astype(np.uint8))


def save_photographs(folder: Path, number: int, width: int = WIDTH, height: int = HEIGHT) -> list[Path]:
    """Write JPEG files of the size and quality of COCO's."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed:06}.jpg" for seed in range(number)]
    for seed, path in enumerate(paths):
        photograph(seed, width, height).save(path, quality=90)
    return paths


def smooth_map(generator: np.random.Generator, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A map, float32 (height, width), that is bilinear between patches of 16 pixels, as a prediction is."""
    coarse = torch.from_numpy(generator.standard_normal((1, 1, 4, 5), np.float32))
    patches = interpolate(coarse, size=(height // 16, width // 16), mode="bicubic")
    return interpolate(patches, size=(height, width), mode="bilinear")[0, 0].numpy()


def phrase(generator: np.random.Generator) -> str:
    """A phrase of two to six words."""
    return " ".join(generator.choice(WORDS, int(generator.integers(2, 7))))


def noise(expressions: list[str], batch_size: int, resolution: int) -> Batch:
    """Noise images with the expressions distributed among them; each pair's mask is the upper half."""
    per_image = max(1, len(expressions) // batch_size)
    pairs = torch.tensor([(i // per_image, i) for i in range(batch_size * per_image)])
    pairs %= torch.tensor([batch_size, len(expressions)])
    masks = torch.zeros(len(pairs), resolution, resolution, dtype=torch.bool)
    masks[:, : resolution // 2] = True
    return Batch(
        torch.randint(256, (batch_size, resolution, resolution, 3), dtype=torch.uint8),
        expressions,
        [frozenset(expressions[i * per_image : (i + 1) * per_image]) for i in range(batch_size)],
        pairs=pairs,
        masks=masks,
        counted=torch.ones_like(masks),
    )
