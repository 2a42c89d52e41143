"""What sub-commands share: options, files, the device."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

SettingsText = Annotated[str, typer.Option("--settings", help="Its settings as YAML or JSON text.")]
Output = Annotated[Path, typer.Option("--output", help="File to write; it appears when it is whole.")]
Records = Annotated[Path, typer.Option("--records", help="Records that `tseg prepare` wrote.")]
Model = Annotated[Path, typer.Option("--model", help="The model.safetensors that `tseg train` wrote.")]
Tracking = Annotated[Path | None, typer.Option("--tracking", help="What `tseg track` wrote; absent: no tracking.")]
Background = Annotated[
    float, typer.Option("--background", min=0, max=1, help="GAP, GMP: what normalised activation must exceed.")
]
Crf = Annotated[str, typer.Option("--crf", help="Dense CRF preset: none, psa, irn, deeplab or afa.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Processor threads to use.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1; auto takes a GPU if there is one.")]


def parse_text(schema: Any, text: str, origin: str) -> Any:
    """YAML `text` as `schema`. Raises ValueError naming `origin`."""
    import yaml

    from tseg.settings.validation import parse

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{origin} is not YAML: {' '.join(str(error).split())}; fix the line it names") from None
    return parse(schema, values, origin)


def read_text(path: Path) -> str:
    """The text of a file that the user named."""
    from tseg.files import require_file

    return require_file(path, "give the path of a file that exists").read_text(encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value`, its keys in order, whole or not at all."""
    from tseg.files import atomic_write

    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def tracking_uri(tracking: Path | None) -> str | None:
    """The store's address that `tseg track` noted."""
    return json.loads(read_text(tracking))["uri"] if tracking else None


def preset(name: str) -> str | None:
    """The CRF preset that --crf names. Raises ValueError for a name that is none."""
    from tseg.inference.crf import PRESETS

    if name != "none" and name not in PRESETS:
        raise ValueError(f"--crf: there is no preset {name!r}; take none, {', '.join(PRESETS)}")
    return None if name == "none" else name


def find_device(name: str, threads: int) -> "torch.device":
    """The device called `name`, torch set to `threads` threads and to computing the same bytes every time."""
    import torch

    # cuBLAS reads it when CUDA starts; without it the same sums come in another order.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}; take auto or cpu") from None
