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
Overlapping = Annotated[bool, typer.Option("--overlapping", help="GAP and GMP: let the masks of an image overlap.")]
Crf = Annotated[str, typer.Option("--crf", help="Refinement: none, a dense CRF (psa, irn, deeplab or afa) or pamr.")]
CrfBackend = Annotated[
    str, typer.Option("--crf-backend", help="What computes the dense CRF: lattice, or pydensecrf, which is slower.")
]
Threshold = Annotated[
    str, typer.Option("--threshold", help="Where to cut a map: fixed (s > 0), halfway, relative or otsu.")
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Number of CPU threads.")]
ImageThreads = Annotated[int, typer.Option("--threads", min=1, help="Images at once; each takes memory of its own.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1; auto uses a GPU if available.")]


def parse_text(schema: Any, text: str, origin: str) -> Any:
    """Parse YAML `text`, or standard input for `-`, into `schema`. Raises ValueError that names `origin`."""
    from tseg.files import read_stdin
    from tseg.settings.validation import load_yaml, parse

    return parse(schema, load_yaml(read_stdin() if text == "-" else text, origin), origin)


def read_settings(schema: Any, path: Path) -> Any:
    """Parse a YAML file into `schema`. Raises ValueError that names the file."""
    from tseg.settings.validation import parse, read_yaml

    return parse(schema, read_yaml(path, "give the path of a file that exists"), str(path))


def preset(name: str, backend: str = "lattice") -> str | None:
    """Return the refinement that --crf names, None for `none`. Raises ValueError if --crf-backend cannot compute it."""
    from tseg.inference.refinement import BACKENDS, REFINEMENTS, check_refinement
    from tseg.settings.validation import check_known, prefix_errors

    check_known(backend, BACKENDS, "--crf-backend: there is no backend")
    refinement = None if name == "none" else name
    with prefix_errors("--crf-backend" if name in REFINEMENTS else "--crf"):
        check_refinement(refinement, backend)
    return refinement


def threshold_rule(name: str) -> str:
    """Return the rule that --threshold names. Raises ValueError if there is no such rule."""
    from tseg.inference.thresholds import FIXED, ORACLE, RULES
    from tseg.settings.validation import check_known

    check_known(name, [FIXED, *RULES, ORACLE], "--threshold: there is no rule")
    return name
