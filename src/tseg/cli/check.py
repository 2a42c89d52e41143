"""`tseg check`: build the encoders of a run."""

from typing import Annotated

import typer

from tseg.cli.options import Output, parse_text


def check(
    encoders: Annotated[str, typer.Option(help="The encoders of a run as YAML or JSON text.")], output: Output
) -> None:
    """Build the encoders of a run, print and write what they are, or tell all mistakes.

    A description has normalisation, patch size, grid, class and register
    tokens, size of a token, pooling and limit of a text, and numbers of
    parameters. The workflow does this once for runs with equal encoders,
    before their settings are written.
    """
    from tseg.settings.encoders import UsedEncoders
    from tseg.training.check import check_encoders, summarise

    for description in check_encoders(parse_text(UsedEncoders, encoders, "--encoders"), output):
        print(summarise(description))
