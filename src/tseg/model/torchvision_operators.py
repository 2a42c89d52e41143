"""Make timm and transformers importable with any build of torch and torchvision.

Both import torchvision. On import, it registers fake kernels for its operators `nms` and `qnms`, which its compiled
library defines. A library built for CUDA does not load beside a CPU build of torch, and the import then fails:
"operator torchvision::nms does not exist". On some machines, a plain `pip install` of pinned versions installs such a
pair. Declaring the two operators without a kernel lets the import succeed; this project never calls them. If the
library loads, nothing is declared and torchvision stays intact.

Importing this module is enough. A module that imports timm or transformers imports this one first.
"""

import importlib.util
from pathlib import Path

import torch

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _torchvision_library_loads() -> bool:
    """Whether torchvision's compiled operators can be loaded beside this torch (True without torchvision)."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    try:
        for library in Path(spec.origin).parent.glob("_C*.so"):
            torch.ops.load_library(library)
    except OSError:
        return False
    return True


if not _torchvision_library_loads():
    # The declaration lives as long as this object.
    declared = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        declared.define(operator + _SIGNATURE)
