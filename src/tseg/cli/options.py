"""Options and helpers that sub-commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

Output = Annotated[Path, typer.Option("--output", help="File to write; it appears only when complete.")]
Records = Annotated[Path, typer.Option("--records", help="Records written by `tseg prepare`.")]
Model = Annotated[Path, typer.Option("--model", help="The model.safetensors written by `tseg train`.")]
Patches = Annotated[
    Path | None,
    typer.Option("--patches", help="Tokens of the images, from `tseg encode`. Default: run the image encoder."),
]
Tracking = Annotated[
    Path | None, typer.Option("--tracking", help="File written by `tseg track`. Default: no tracking.")
]
Background = Annotated[
    float, typer.Option("--background", min=0, max=1, help="GAP and GMP: threshold on the max-normalised activation.")
]
Crf = Annotated[str, typer.Option("--crf", help="Dense CRF preset: none, psa, irn, deeplab or afa.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Number of CPU threads.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1; auto uses a GPU if available.")]


def parse_text(schema: Any, text: str, origin: str) -> Any:
    """Parse YAML `text` into `schema`. Raises ValueError that names `origin`."""
    from tseg.settings.validation import load_yaml, parse

    return parse(schema, load_yaml(text, origin), origin)


def read_settings(schema: Any, path: Path) -> Any:
    """Parse a YAML file into `schema`. Raises ValueError that names the file."""
    from tseg.settings.validation import parse, read_yaml

    return parse(schema, read_yaml(path, "give the path of a file that exists"), str(path))


def preset(name: str) -> str | None:
    """Return the CRF preset that --crf names, None for `none`. Raises ValueError if there is no such preset."""
    from tseg.inference.crf import PRESETS

    if name != "none" and name not in PRESETS:
        raise ValueError(f"--crf: there is no preset {name!r}; choose none, {', '.join(PRESETS)}")
    return None if name == "none" else name
