"""The sentences around a table: its data, how it was measured, and remarks on the published values."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from tseg.evaluation.score import Summary
from tseg.provenance import EncoderProvenance, PredictionsProvenance, RecordsProvenance

EMBEDDED = "shapes"
PAPER_WIDTH = 64  # channels of the paper's WideResNet38 at its first convolution
RESOLUTION = "the image's own"  # at which masks are scored
BEST = {"column": "Best of each column in bold.", "row": "Best of each row in bold.", "table": "Best in bold."}


def describe_data(summaries: Sequence[Summary]) -> list[str]:
    """Name the data of pretraining, training and evaluation, with a warning if they are the embedded data set.

    The sentences head a CSV and therefore contain no commas and no quotes.
    """
    data = {
        "pretrained": [each.model.pretrained_on for each in summaries if each.model.pretrained_on],
        "trained": [each.model.trained_on for each in summaries],
        "evaluated": [each.predictions.evaluated_on for each in summaries],
    }
    sentences = [
        f"{step.capitalize()} on {_listed(map(name_with_sources, splits))}." for step, splits in data.items() if splits
    ]
    embedded = [step for step in ("trained", "evaluated") if any(map(is_embedded, data[step]))]
    warning = (
        f"The models were {' and '.join(embedded)} on the embedded data set {EMBEDDED}:"
        " these numbers are not those of the paper."
    )
    return [warning, *sentences] if embedded else sentences


def name_with_sources(split: RecordsProvenance) -> str:
    """Name a data set, its split and its sources."""
    return f"{split_name(split)} ({_sources(split)})"


def split_name(split: RecordsProvenance) -> str:
    """Name a data set and its split."""
    return f"{split.dataset} {split.split}"


def origins(splits: Iterable[RecordsProvenance]) -> list[str]:
    """Name the sources of each split.

    The sentences head a CSV and therefore contain no commas and no quotes.
    """
    names = defaultdict(list)
    for split in splits:
        own = " (drawn by this project and other data than is published under the name)"
        names[_sources(split) + (own if is_embedded(split) else "")].append(split_name(split))
    return [f"From {source}: {_listed(of_source)}." for source, of_source in names.items()]


def is_embedded(split: RecordsProvenance) -> bool:
    """Whether a split belongs to the embedded data set."""
    return any(source.startswith(EMBEDDED) for source in split.sources)


def how_measured(summaries: Sequence[Summary], best: str, num_missing: int) -> list[str]:
    """Describe means, seeds, masks and encoders, and count the images and records left out."""
    seeds = list(dict.fromkeys(each.model.seed for each in summaries))
    averaged = f"Seeds averaged: {_listed(seeds)}{', ± their sample standard deviation' if len(seeds) > 1 else ''}."
    means = _listed("records" if each.classes is None else "classes and background" for each in summaries)
    words = _listed(filter(None, (engineered_labels(each.predictions.labels) for each in summaries)))
    given = any(each.classes is None and each.predictions.evaluated_on.classes for each in summaries)
    models = [each.model for each in summaries if each.model.num_excluded is not None]
    excluded = _listed(f"{model.num_excluded} ({model.run})" for model in models)
    left_out = [(each, each.num_seen) for each in summaries if each.seen_excluded]
    scored = [(each, each.num_seen) for each in summaries if not each.seen_excluded]
    without_mask = [(each, each.num_without_mask) for each in summaries]
    return [
        f"mIoU is averaged over {means}. {averaged} {BEST[best]}",
        f"Masks: {_listed(each.masks.comparison for each in summaries)}. Resolution: {RESOLUTION}.",
        f"Input at inference: {_listed(_input(each.predictions) for each in summaries)}.",
        f"Image encoders: {_listed(_encoder(each.model.image_encoder) for each in summaries)}.",
        *(["The labels of each image say which classes to look for in it."] if given else []),
        *([f"Label engineering: {words}."] if words else []),
        *([f"Images left out of box pretraining, as they are in an evaluation split: {excluded}."] if excluded else []),
        *_counted("Images left out of evaluation, as the run was trained on them", left_out),
        *_counted("Images scored although the run was trained on them", scored),
        *_counted("Records without a mask, which have no score", without_mask),
        *([f"{num_missing} values are missing (-): no record belongs to them."] if num_missing else []),
    ]


def category_ranks(summaries: Sequence[Summary]) -> list[str]:
    """Name the files by which PhraseCut's categories are ranked."""
    files = _listed(filter(None, (each.predictions.evaluated_on.name_ranks for each in summaries)))
    return [f"Categories are ranked by their counts in {files}."] if files else []


def _counted(sentence: str, counts: Iterable[tuple[Summary, int | None]]) -> list[str]:
    """Complete the `sentence` with the non-zero counts, each with its run and split. Empty if there are none."""
    found = _listed(
        f"{count} ({each.model.run} on {split_name(each.predictions.evaluated_on)})" for each, count in counts if count
    )
    return [f"{sentence}: {found}."] if found else []


def remarks(published: pd.DataFrame) -> list[str]:
    """List the notes on published results and their access to more than images and expressions, each with its cells.

    Columns: source, row, column, access, note.
    """
    cells, noted = defaultdict(list), defaultdict(list)
    for source, row, column, access, text in published[["source", "row", "column", "access", "note"]].to_numpy():
        cells[source].append((row, column))
        for note in filter(None, (f"access: {access.replace('; ', ', ')}" if access else "", *text.split("; "))):
            noted[source, note].append((row, column))
    return [f"Published: {_labels(of_note, cells[source])}: {note}." for (source, note), of_note in noted.items()]


def _labels(noted: list[tuple[str, str]], cells: list[tuple[str, str]]) -> str:
    """Name the `noted` cells: by row if their rows contain no other `cells`, else by column likewise, else by both."""
    others = set(cells) - set(noted)
    for axis in (0, 1):
        if not {cell[axis] for cell in noted} & {cell[axis] for cell in others}:
            return _listed(cell[axis] for cell in noted)
    return _listed(", ".join(cell) for cell in noted)


def engineered_labels(labels: dict[str, list[str]] | None) -> str:
    """List the classes that were queried with words other than their names (label engineering)."""
    engineered = {name: words for name, words in (labels or {}).items() if words != [name]}
    return ", ".join(f"{name} as {' or '.join(words)}" for name, words in engineered.items())


def _input(predictions: PredictionsProvenance) -> str:
    """What the encoder sees of an image."""
    scales = ", ".join(f"{scale:g}" for scale in predictions.scales)
    views = f", scales {scales}" if predictions.scales != [1] else ""
    flips = ", each mirrored too" if predictions.flip else ""
    windows = f", windows of {predictions.window} pixels" if predictions.window else ""
    return f"shorter side of {predictions.resolution} pixels{views}{flips}{windows}"


def _encoder(encoder: EncoderProvenance) -> str:
    options = ", ".join(f"{name} {value}" for name, value in encoder.options.items())
    narrow = encoder.name == "wide_resnet38" and encoder.options.get("width", PAPER_WIDTH) < PAPER_WIDTH
    stand_in = f", a narrow stand-in for the paper's, {PAPER_WIDTH} wide" if narrow else ""
    return f"{encoder.name}{f' ({options})' if options else ''}{stand_in}"


def _sources(split: RecordsProvenance) -> str:
    return " and ".join(split.sources) or "files in place"


def _listed(items: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(map(str, items)))
