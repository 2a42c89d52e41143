"""Refinement of probabilities by the colours of the image: a dense CRF (sections 4.3 and 4.5) or PAMR."""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec

import numpy as np

from tseg.inference import crf, pamr

PAMR = "pamr"

REFINEMENTS = (*crf.PRESETS, PAMR)
"""Names of refinements: the presets of the dense CRF, and PAMR."""


def check_refinement(name: str | None) -> None:
    """Raise ValueError unless `name` is a refinement that can be computed here; None is always one."""
    if name is None:
        return
    if name not in REFINEMENTS:
        raise ValueError(f"there is no preset {name!r}; choose none, {', '.join(REFINEMENTS)}")
    if name != PAMR and find_spec("pydensecrf") is None:
        raise ValueError(f"the dense CRF {name} needs the package pydensecrf2; install it, or choose none or {PAMR}")


def refine_masks(image: np.ndarray, probabilities: Iterable[np.ndarray], name: str | None) -> Iterator[np.ndarray]:
    """Refine foreground probabilities, float32 (H, W), one by one. None leaves them unchanged."""
    if name is None:
        yield from probabilities
    elif name == PAMR:
        yield from pamr.refine_maps(image, probabilities)
    else:
        yield from crf.refine_masks(image, probabilities, name)


def refine_labels(image: np.ndarray, probabilities: np.ndarray, name: str) -> np.ndarray:
    """Refine the probabilities, float32 (K + 1, H, W), of mutually exclusive labels."""
    if name == PAMR:
        return np.stack(list(pamr.refine_maps(image, probabilities)))
    return crf.refine_labels(image, probabilities, name)
