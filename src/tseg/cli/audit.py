"""`tseg audit`: whether results are those that were committed."""

from pathlib import Path
from typing import Annotated

import typer


def audit(
    scratch: Annotated[
        Path | None,
        typer.Option(help="Also make everything again from nothing, in a clone of the last commit in this folder."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Points by which a score may differ on another processor.")
    ] = 8.0,
) -> None:
    """Compare all results with the manifests in results/stages.

    Every file is identical, within tolerance, different or missing. What
    differs is named: files that were changed, settings, code, versions of
    libraries, the processor. On the processor of the manifests every byte must
    be the same. On another one, IoUs, precisions, accuracies and the means of
    tables may differ by the tolerance, and other files are judged by the scores
    that they lead to. The exit code is 1 if a file is different or missing.

    tseg audit --scratch .audit
    """
    from tseg.reporting.audit import audit_results

    if not audit_results(scratch, tolerance):
        raise typer.Exit(1)
