"""`tseg encode`: compute the tokens of a frozen encoder, once."""

from typing import Annotated

import typer

from tseg.cli.options import Device, Output, Threads, parse_text


def encode(
    settings: Annotated[str, typer.Option(help="What to encode: records, encoder and views, as YAML or JSON text.")],
    output: Output,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Compute the tokens of a frozen encoder for a split.

    Trainings and predictions read them instead of running the encoder. They
    lie, as float16, in a folder beside --output; an interrupted command goes
    on where it stopped.
    """
    from tseg.encoding.encode import encode_split
    from tseg.model.device import select_device
    from tseg.settings.encodings import Encoding

    encode_split(parse_text(Encoding, settings, "--settings"), output, select_device(device, threads))
