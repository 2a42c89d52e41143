"""The sentences around a table: its data, how it was measured, and remarks on the published values."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pandas as pd

EMBEDDED = "shapes"
PAPER_WIDTH = 64  # channels of the paper's WideResNet38 at its first convolution
BEST = {"column": "Best of each column in bold.", "row": "Best of each row in bold.", "table": "Best in bold."}


def provenance(summaries: list[dict[str, Any]]) -> list[str]:
    """Name the data of pretraining, training and evaluation, with a warning if they are the embedded data set.

    The sentences head a CSV and therefore contain no commas and no quotes.
    """
    embedded = [step for step in ("trained", "evaluated") if any(is_embedded(each[f"{step}_on"]) for each in summaries)]
    warning = (
        f"The models were {' and '.join(embedded)} on the embedded data set {EMBEDDED}:"
        " these numbers are not those of the paper."
    )
    data = []
    for step in ("pretrained", "trained", "evaluated"):
        met = _listed(data_met(each[f"{step}_on"]) for each in summaries if each.get(f"{step}_on"))
        data += [f"{step.capitalize()} on {met}."] if met else []
    return [warning, *data] if embedded else data


def data_met(metadata: dict[str, Any]) -> str:
    """Return the data set, split and sources in the metadata of records."""
    return f"{split_name(metadata)} ({_sources(metadata)})"


def split_name(metadata: dict[str, Any]) -> str:
    """Return the data set and split in the metadata of records."""
    return f"{metadata['dataset']} {metadata['split']}"


def origins(splits: Iterable[dict[str, Any]]) -> list[str]:
    """Name the sources of each split, given their metadata.

    The sentences head a CSV and therefore contain no commas and no quotes.
    """
    names = defaultdict(list)
    for metadata in splits:
        own = " (drawn by this project and other data than is published under the name)"
        names[_sources(metadata) + (own if is_embedded(metadata) else "")].append(split_name(metadata))
    return [f"From {source}: {_listed(of_source)}." for source, of_source in names.items()]


def is_embedded(metadata: dict[str, Any]) -> bool:
    """Whether records with this metadata belong to the embedded data set."""
    return any(source.startswith(EMBEDDED) for source in metadata["sources"])


def how_measured(summaries: list[dict[str, Any]], best: str, num_missing: int) -> list[str]:
    """Describe means, seeds, masks and encoders, and count the images and records left out."""
    seeds = list(dict.fromkeys(each["seed"] for each in summaries))
    averaged = f"Seeds averaged: {_listed(seeds)}{', ± their sample standard deviation' if len(seeds) > 1 else ''}."
    means = _listed("classes and background" if "classes" in each else "records" for each in summaries)
    words = _listed(filter(None, (words_asked(each.get("labels")) for each in summaries)))
    left_out = [each for each in summaries if each.get("num_excluded") is not None]
    without_seen = [each for each in summaries if each.get("seen_excluded")]
    with_seen = [each for each in summaries if not each.get("seen_excluded")]
    excluded = _listed(f"{each['num_excluded']} ({each['run']})" for each in left_out)
    return [
        f"mIoU is averaged over {means}. {averaged} {BEST[best]}",
        f"Masks: {_listed(each['comparison'] for each in summaries)}."
        f" Resolution: {_listed(each['resolution'] for each in summaries)}.",
        f"Image encoders: {_listed(_encoder(each['image_encoder']) for each in summaries)}.",
        *([f"Label engineering: {words}."] if words else []),
        *([f"Images left out of box pretraining, as they are in an evaluation split: {excluded}."] if excluded else []),
        *_counted("Images left out of evaluation, as the run was trained on them", "num_seen", without_seen),
        *_counted("Images scored although the run was trained on them", "num_seen", with_seen),
        *_counted("Records without a mask, which have no score", "num_without_mask", summaries),
        *([f"{num_missing} values are missing (-): no record belongs to them."] if num_missing else []),
    ]


def _counted(sentence: str, key: str, summaries: Iterable[dict[str, Any]]) -> list[str]:
    """Append the non-zero counts under `key` to the `sentence`, each with its run and split. Empty if all are 0."""
    counts = _listed(
        f"{each[key]} ({each['run']} on {split_name(each['evaluated_on'])})" for each in summaries if each.get(key)
    )
    return [f"{sentence}: {counts}."] if counts else []


def remarks(printed: pd.DataFrame) -> list[str]:
    """List the notes on published results (columns source, row, column, note), each with the cells it applies to."""
    cells, noted = defaultdict(list), defaultdict(list)
    for source, row, column, text in printed[["source", "row", "column", "note"]].to_numpy():
        cells[source].append((row, column))
        for note in filter(None, text.split("; ")):
            noted[source, note].append((row, column))
    return [f"Published: {_labels(of_note, cells[source])}: {note}." for (source, note), of_note in noted.items()]


def _labels(noted: list[tuple[str, str]], cells: list[tuple[str, str]]) -> str:
    """Name the `noted` cells: by row or by column if those have no other `cells`, else by both."""
    others = set(cells) - set(noted)
    for axis in (0, 1):
        if not {cell[axis] for cell in noted} & {cell[axis] for cell in others}:
            return _listed(cell[axis] for cell in noted)
    return _listed(", ".join(cell) for cell in noted)


def words_asked(labels: dict[str, list[str]] | None) -> str:
    """List the classes that were queried with words other than their names (label engineering)."""
    engineered = {name: words for name, words in (labels or {}).items() if words != [name]}
    return ", ".join(f"{name} as {' or '.join(words)}" for name, words in engineered.items())


def _encoder(encoder: dict[str, Any]) -> str:
    options = ", ".join(f"{name} {value}" for name, value in encoder["options"].items())
    narrow = encoder["name"] == "wide_resnet38" and encoder["options"].get("width", PAPER_WIDTH) < PAPER_WIDTH
    stand_in = f", a narrow stand-in for the paper's, {PAPER_WIDTH} wide" if narrow else ""
    return f"{encoder['name']}{f' ({options})' if options else ''}{stand_in}"


def _sources(metadata: dict[str, Any]) -> str:
    return " and ".join(metadata["sources"]) or "files in place"


def _listed(items: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(map(str, items)))
