"""Pretrained weights: read without running a file's code, and taken whole or not at all."""

import tseg.model.torchvision_operators  # noqa: F401  (before timm is imported)

# isort: split
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from timm.models import load_state_dict
from torch import Tensor, nn


def read_weights(file: str, origin: str) -> Mapping[str, object]:
    """What a `.safetensors` or a PyTorch file (`.pth`, `.bin`) holds, by name, on the CPU.

    Of a training's checkpoint it is the entry "state_dict" or "model", as timm takes it. Raises ValueError, which
    `origin` opens, where there is no such file, where it is damaged and where loading it would run code.
    """
    if not Path(file).is_file():
        raise ValueError(f"{origin} is no file; `tseg fetch --list` says how to come by it")
    with parsing(f"{origin} is no readable file of weights"):
        return load_state_dict(file, weights_only=True)


def load_strictly(
    module: nn.Module, weights: Mapping[str, object], *, ignored: str, origin: str, architecture: str
) -> None:
    """Fill `module` with `weights`, or raise the ValueError of `check_fit` and leave it as it is."""
    needed = {name: tuple(weight.shape) for name, weight in module.state_dict().items()}
    found = {name: _shape(weight) for name, weight in weights.items()}
    check_fit(found, needed, ignored=ignored, origin=origin, architecture=architecture)
    module.load_state_dict({name: weight for name, weight in weights.items() if not re.search(ignored, name)})


def check_fit(
    found: Mapping[str, object], needed: Mapping[str, object], *, ignored: str, origin: str, architecture: str
) -> None:
    """Raise ValueError with the first names that differ unless the shapes `found` are just those `needed`.

    `ignored` is a regular expression; names in which it is found, such as a classifier's, count on neither side.
    `origin` opens the sentence and says where the weights come from; `architecture` is what they ought to fit.
    """
    names = [name for name in {**needed, **found} if not re.search(ignored, name)]
    wrong = [name for name in names if needed.get(name) != found.get(name)]
    if wrong:
        first = [f"{name} is {found.get(name, 'missing')}, not {needed.get(name, 'absent')}" for name in wrong[:3]]
        raise ValueError(f"{origin} does not fit {architecture} in {len(wrong)} of its weights: {'; '.join(first)}")


def _shape(weight: object) -> object:
    """The shape of an array of floating-point numbers; of anything else, what it is."""
    if not isinstance(weight, Tensor):
        return f"of type {type(weight).__name__}"
    # On the meta device an array has a shape and no numbers.
    numbers = weight.is_floating_point() and weight.is_cpu and not weight.is_sparse
    return tuple(weight.shape) if numbers else f"of {weight.dtype}, {weight.layout}, on {weight.device}"


@contextmanager
def parsing(complaint: str, hint: str = "") -> Iterator[None]:
    """Turn any error into a ValueError: `complaint`, the first sentence of the error, `hint`.

    For libraries at work on a file that may be damaged: they raise errors of many kinds, of many lines.
    """
    try:
        yield
    except Exception as error:
        said = re.split(r"\.\s|\n", str(error).strip(), maxsplit=1)[0][:200].rstrip(".") or type(error).__name__
        raise ValueError(f"{complaint}: {said}{hint}") from error
