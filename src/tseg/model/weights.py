"""Pretrained weights: read without running code from the file, and loaded completely or not at all."""

import tseg.model.torchvision_operators  # noqa: F401  (before timm is imported)

# isort: split
import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from timm.models import load_state_dict
from torch import Tensor, nn

from tseg.files import remember_read


class ArgumentError(ValueError):
    """An encoder cannot be built. `argument` names the argument of its builder that is at fault."""

    def __init__(self, argument: str, message: str):
        super().__init__(message)
        self.argument = argument


class MissingWeightsError(ArgumentError):
    """The weights are not on this machine and cannot be downloaded. A caller that knows a source can suggest it."""

    def __init__(self, message: str):
        super().__init__("weights", message)


class UnfitWeightsError(ArgumentError):
    """The weights are damaged or belong to another encoder."""

    def __init__(self, message: str):
        super().__init__("weights", message)


def read_weights(file: str) -> Mapping[str, object]:
    """Tensors by name, on the CPU, from a `.safetensors` or PyTorch (`.pth`, `.bin`) file.

    In a training checkpoint, they are the entry "state_dict" or "model". Raises MissingWeightsError if there is no
    such file, and UnfitWeightsError if it is damaged or loading it would run code.
    """
    if not Path(file).is_file():
        raise MissingWeightsError(f"the weights {file!r} are not a file")
    remember_read(Path(file))
    with parsing(f"the weights {file!r} cannot be read"):
        return load_state_dict(file, weights_only=True)


def load_strictly(module: nn.Module, found: Mapping[str, object], *, ignored: str, weights: str) -> None:
    """Copy the tensors `found` into `module`, or raise the error of `check_fit` and leave it unchanged."""
    needed = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    check_fit({name: _shape(tensor) for name, tensor in found.items()}, needed, ignored=ignored, weights=weights)
    module.load_state_dict({name: tensor for name, tensor in found.items() if not re.search(ignored, name)})


def check_fit(found: Mapping[str, object], needed: Mapping[str, object], *, ignored: str, weights: str) -> None:
    """Raise UnfitWeightsError with the first differences unless the shapes `found` are exactly those `needed`.

    `ignored` is a regular expression: matching names, such as a classifier's, are excluded on both sides. `weights`
    names the weights in the message: a file or a name on a hub.
    """
    names = [name for name in {**needed, **found} if not re.search(ignored, name)]
    wrong = [name for name in names if needed.get(name) != found.get(name)]
    if wrong:
        first = [f"{name} is {found.get(name, 'missing')}, expected {needed.get(name, 'none')}" for name in wrong[:3]]
        raise UnfitWeightsError(
            f"the weights {weights!r} do not fit the encoder in {len(wrong)} of its tensors: {'; '.join(first)}"
        )


def _shape(tensor: object) -> object:
    """The shape of a dense floating-point tensor on the CPU; a description of anything else."""
    if not isinstance(tensor, Tensor):
        return f"of type {type(tensor).__name__}"
    # On the meta device a tensor has a shape and no values.
    usable = tensor.is_floating_point() and tensor.is_cpu and not tensor.is_sparse
    return tuple(tensor.shape) if usable else f"of {tensor.dtype}, {tensor.layout}, on {tensor.device}"


@contextmanager
def parsing(complaint: str, kind: Callable[[str], ValueError] = UnfitWeightsError) -> Generator[None, None, None]:
    """Re-raise any error as a `kind`, with `complaint`, a colon and the first sentence of the error as its message.

    For libraries that read a possibly damaged file: they raise errors of many types, with messages of many lines.
    """
    try:
        yield
    except Exception as error:
        sentence = re.split(r"\.\s|\n", str(error).strip(), maxsplit=1)[0][:200].rstrip(".") or type(error).__name__
        raise kind(f"{complaint}: {sentence}") from error
