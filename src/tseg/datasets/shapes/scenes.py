"""Draw the scenes of the embedded data set *shapes*."""

import colorsys
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

IMAGE_SIZES = ((128, 128), (128, 96), (96, 128))  # width, height in pixels
RADII = {"small": (13.0, 17.0), "large": (23.0, 31.0)}  # pixels; the gap keeps the two sizes distinct
# Degrees.
HUES = {"red": 0, "orange": 28, "yellow": 54, "green": 115, "cyan": 178, "blue": 222, "purple": 273, "pink": 318}
TEXTURES = ("plain", "striped", "dotted")
NUM_THINGS = (3, 6)
NUM_PLACEMENTS = 40  # attempts per image
LEAST_VISIBLE = 0.6  # least fraction of a thing's pixels that later things leave visible
SUPERSAMPLING = 4  # outlines are drawn at this scale and reduced, for soft edges

_TURN = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_CIRCLE = np.stack([np.sin(_TURN), -np.cos(_TURN)], axis=1)
_HEART_Y = 13 * np.cos(_TURN) - 5 * np.cos(2 * _TURN) - 2 * np.cos(3 * _TURN) - np.cos(4 * _TURN)
_HALF_CROSS = np.array([(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1)]) / 3

# Polygons (K, 2) roughly within the unit circle, y downwards; the second, if any, is cut out of the first.
OUTLINES: dict[str, list[np.ndarray]] = {
    "circle": [_CIRCLE],
    "square": [np.array([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)])],
    "triangle": [np.array([(0, -1), (0.95, 0.75), (-0.95, 0.75)])],
    "star": [_CIRCLE[np.arange(10) * 48 // 10] * np.tile([1.0, 0.45], 5)[:, None]],
    "ring": [_CIRCLE, 0.55 * _CIRCLE],
    "cross": [np.concatenate([_HALF_CROSS, -_HALF_CROSS])],
    "heart": [np.stack([16 * np.sin(_TURN) ** 3, -_HEART_Y - 2.5], axis=1) / 16],
    "crescent": [_CIRCLE, 0.8 * _CIRCLE + (0.5, 0)],
    "arrow": [np.array([(-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)])],
}


@dataclass(frozen=True, eq=False)
class Thing:
    """One drawn object.

    `words`: its size, colour, texture (unless plain) and category, in the order of speech.
    `visible`: bool (H, W), those of its `num_pixels` drawn pixels that no later thing covers.
    """

    words: tuple[str, ...]
    visible: np.ndarray
    num_pixels: int

    @property
    def category(self) -> str:
        """Its category, a key of `OUTLINES`."""
        return self.words[-1]

    @property
    def colour(self) -> str:
        """Its colour, a key of `HUES`."""
        return next(word for word in self.words if word in HUES)

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width, height of the visible region, in pixels."""
        x, y = np.flatnonzero(self.visible.any(axis=0)), np.flatnonzero(self.visible.any(axis=1))
        return int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1)

    @cached_property
    def centre(self) -> tuple[float, float]:
        """x, y of the centre of `box`, in pixels."""
        x, y, width, height = self.box
        return x + width / 2, y + height / 2


def draw_scene(rng: np.random.Generator) -> tuple[Image.Image, list[Thing]]:
    """Draw one image and its things, in drawing order; later things cover earlier ones.

    A thing that would hide too much of an earlier one is not drawn.
    """
    width, height = IMAGE_SIZES[rng.integers(len(IMAGE_SIZES))]
    image = _background(rng, height, width)
    # Few categories and colours per image, so that things share words and expressions must distinguish them.
    categories, colours = (rng.choice(list(words), 3, replace=False).tolist() for words in (OUTLINES, HUES))
    num_things, things = rng.integers(NUM_THINGS[0], NUM_THINGS[1] + 1), []
    for _ in range(NUM_PLACEMENTS):
        size, texture = str(rng.choice(list(RADII))), str(rng.choice(TEXTURES))
        category, colour = categories[rng.integers(3)], colours[rng.integers(3)]
        coverage = _coverage(rng, category, rng.uniform(*RADII[size]), height, width)
        solid = coverage > 0.5
        covered = [replace(thing, visible=thing.visible & ~solid) for thing in things]
        if any(thing.visible.sum() < LEAST_VISIBLE * thing.num_pixels for thing in covered):
            continue
        words = tuple(word for word in (size, colour, texture, category) if word != "plain")
        things = [*covered, Thing(words, solid, int(solid.sum()))]
        image += coverage[..., None] * (_surface(rng, colour, texture, height, width) - image)
        if len(things) == num_things:
            break
    return _photograph(rng, image), things


def _coverage(rng: np.random.Generator, category: str, radius: float, height: int, width: int) -> np.ndarray:
    """The fraction of each pixel that a randomly placed thing covers, (H, W); it is rotated by up to 20 degrees."""
    angle = rng.uniform(-np.pi / 9, np.pi / 9)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = rng.uniform((radius, radius), (width - radius, height - radius))
    canvas = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    for fill, outline in zip((255, 0), OUTLINES[category], strict=False):
        corners = (outline @ rotation * radius + centre) * SUPERSAMPLING
        ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in corners], fill=fill)
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.float64) / 255


def _surface(rng: np.random.Generator, colour: str, texture: str, height: int, width: int) -> np.ndarray:
    """A textured colour, (H, W, 3) in [0, 255]; the second tone of the texture is paler or darker."""
    first = _rgb(rng, HUES[colour] + rng.uniform(-7, 7), (0.65, 1.0), (0.7, 1.0))
    second = 0.35 * first + 0.65 * rng.choice([0, 255])
    return np.where(_pattern(rng, texture, height, width)[..., None], second, first) * _light(rng, height, width)


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Smooth patches in a few dull colours under a faint pattern, (H, W, 3) in [0, 255]."""
    num_patches = rng.integers(2, 9)
    hues = rng.uniform(0, 360, 3)
    patches = [_rgb(rng, hues[rng.integers(3)], (0.05, 0.55), (0.25, 0.9)) for _ in range(num_patches**2)]
    grid = np.array(patches, dtype=np.uint8).reshape(num_patches, num_patches, 3)
    smooth = np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    faint = _pattern(rng, str(rng.choice(TEXTURES)), height, width)[..., None]
    return smooth * (1 - rng.uniform(0.1, 0.35) * faint)


def _pattern(rng: np.random.Generator, texture: str, height: int, width: int) -> np.ndarray:
    """The pixels with the second tone of a texture, bool (H, W)."""
    if texture == "plain":
        return np.zeros((height, width), dtype=bool)
    angle, scale = rng.uniform(0, np.pi), 2 * np.pi / rng.uniform(5, 9)
    y, x = np.mgrid[:height, :width] * scale
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.cos(along) > 0.2 if texture == "striped" else np.cos(along) * np.cos(across) > 0.35


def _rgb(
    rng: np.random.Generator, hue: float, saturation: tuple[float, float], value: tuple[float, float]
) -> np.ndarray:
    """A random colour (3,) in [0, 255] with the given hue in degrees."""
    return 255 * np.array(colorsys.hsv_to_rgb(hue / 360 % 1, rng.uniform(*saturation), rng.uniform(*value)))


def _light(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Factors (H, W, 1) of light from one side."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return 1 + 0.15 * (x * np.cos(angle) + y * np.sin(angle))[..., None]


def _photograph(rng: np.random.Generator, image: np.ndarray) -> Image.Image:
    """The image under uneven light and with sensor noise."""
    height, width, _ = image.shape
    noisy = image * _light(rng, height, width) + rng.normal(0, 6, image.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
