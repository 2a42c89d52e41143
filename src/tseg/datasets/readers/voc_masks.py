"""Read the mask files of VOC 2012 and SBD: the class of each pixel."""

import io
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tseg.datasets.readers.annotations import RecordError
from tseg.images import MAX_PIXELS

VOID = 255
"""Value of pixels that evaluation ignores. 0 is the background, and i is the i-th class."""

COMPRESSED = b"\x0f\0\0\0"  # marks compressed data in a MATLAB file


def _colours() -> np.ndarray:
    colours, values = np.zeros((256, 3), np.uint8), np.arange(256)
    for bit in range(8):
        colours[:, bit % 3] |= ((values >> bit & 1) << 7 - bit // 3).astype(np.uint8)
    return colours


VOC_COLOURS = _colours()
"""VOC's colour map (256, 3): a value's bits, lowest first, go to red, green and blue in turn, highest bit first."""
_CODES = VOC_COLOURS @ (1 << 16, 1 << 8, 1)
_ORDER = np.argsort(_CODES)


def read_mask(path: Path) -> np.ndarray:
    """The value (H, W), uint8, of each pixel of a VOC or SBD mask. Raises RecordError."""
    try:
        return read_mat(path) if path.suffix == ".mat" else read_png(path)
    except RecordError:
        raise
    except Exception as error:  # Pillow and SciPy raise errors of many types
        raise RecordError(f"its mask cannot be read ({type(error).__name__}: {error}); fetch it again") from error


def read_mat(path: Path) -> np.ndarray:
    """Read the mask of an SBD file: GTcls.Segmentation."""
    from scipy.io import loadmat

    content = path.read_bytes()
    # A damaged file can crash SciPy, which skips the checksum of compressed data; zlib verifies it.
    if content[128:132] == COMPRESSED:
        zlib.decompress(content[136:])
    labels = loadmat(io.BytesIO(content), variable_names=["GTcls"])["GTcls"]["Segmentation"].item()
    if labels.dtype != np.uint8 or labels.ndim != 2 or labels.size > MAX_PIXELS:
        raise RecordError(f"its GTcls.Segmentation cannot be {labels.dtype} {labels.shape}; fetch SBD's file again")
    return labels


def read_png(path: Path) -> np.ndarray:
    """Read a mask from the values of a palette or greyscale PNG, or from VOC's colours in an RGB PNG."""
    with Image.open(path, formats=["PNG"]) as mask:
        if mask.width * mask.height > MAX_PIXELS:
            raise RecordError(f"its mask is too large ({mask.width} x {mask.height} pixels); scale it down")
        mask.verify()  # checks the CRCs, which decoding ignores
    with Image.open(path, formats=["PNG"]) as mask:
        values = np.array(mask)
        match mask.mode:
            case "L":
                return values
            case "P":
                return check_palette(values, np.reshape(mask.getpalette() or (), (-1, 3)))
            case "RGB":
                labels = by_colour(values)
                if (labels < 0).any():
                    colour = tuple(values[labels < 0][0].tolist())
                    raise RecordError(f"its mask has the colour {colour}, which is not one of VOC's; correct the mask")
                return labels.astype(np.uint8)
            case mode:
                raise RecordError(
                    f"its mask has Pillow's mode {mode}; save it as a palette, greyscale or RGB PNG of 8 bits"
                )


def by_colour(colours: np.ndarray) -> np.ndarray:
    """Look up colours (..., 3), 0 to 255, in VOC's colour map; return their values (...), -1 if not found."""
    codes = colours.astype(np.int64) @ (1 << 16, 1 << 8, 1)
    values = _ORDER[np.searchsorted(_CODES, codes, sorter=_ORDER).clip(max=255)]
    return np.where(_CODES[values] == codes, values, -1)


def check_palette(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return `labels`. Raises RecordError if the palette has VOC's colours in another order, as after some editors."""
    used = np.unique(labels)
    used = used[(used < len(palette)) & (used != VOID)]  # the colour of void varies or is missing
    values = by_colour(palette[used])
    if (values >= 0).all() and (values != used).any():
        raise RecordError("its mask has VOC's colours at other indices; save it as an RGB PNG")
    return labels
