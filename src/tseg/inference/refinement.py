"""Refinement of probabilities by the colours of the image: a dense CRF (sections 4.3 and 4.5) or PAMR."""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec

import numpy as np

from tseg.inference import crf, pamr, reference_crf
from tseg.settings.validation import check_known

PAMR = "pamr"

REFINEMENTS = (*crf.PRESETS, PAMR)
"""Names of refinements: the presets of the dense CRF, and PAMR."""


LATTICE, PYDENSECRF = "lattice", "pydensecrf"
BACKENDS = {
    LATTICE: (crf.refine_masks, crf.refine_labels),
    PYDENSECRF: (reference_crf.refine_masks, reference_crf.refine_labels),
}
"""What computes the dense CRF of masks and of label maps."""


def check_refinement(name: str | None, backend: str = LATTICE) -> None:
    """Raise ValueError unless `name` is a refinement that `backend` can compute here; None is always one."""
    check_known(backend, BACKENDS, "there is no backend")
    if name is None:
        return
    if name not in REFINEMENTS:
        raise ValueError(f"there is no preset {name!r}; choose none, {', '.join(REFINEMENTS)}")
    if name != PAMR and backend == PYDENSECRF and find_spec(PYDENSECRF) is None:
        raise ValueError(f"the backend {PYDENSECRF} needs the package pydensecrf2; install it, or choose {LATTICE}")


def refine_masks(
    image: np.ndarray, probabilities: Iterable[np.ndarray], name: str | None, backend: str = LATTICE
) -> Iterator[np.ndarray]:
    """Refine foreground probabilities, float32 (H, W), one by one. None leaves them unchanged."""
    if name is None:
        yield from probabilities
    elif name == PAMR:
        yield from pamr.refine_maps(image, probabilities)
    else:
        yield from BACKENDS[backend][0](image, probabilities, name)


def refine_labels(image: np.ndarray, probabilities: np.ndarray, name: str, backend: str = LATTICE) -> np.ndarray:
    """Refine the probabilities, float32 (K + 1, H, W), of mutually exclusive labels."""
    if name == PAMR:
        return np.stack(list(pamr.refine_maps(image, probabilities)))
    return BACKENDS[backend][1](image, probabilities, name)
