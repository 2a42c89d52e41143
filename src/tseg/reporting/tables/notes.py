"""What stands below a table: which data made its numbers, how they were measured, what was said of the published."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pandas as pd

EMBEDDED = "shapes"
PAPER_WIDTH = 64  # channels of the paper's WideResNet38 at its first convolution
BEST = {"column": "Best of each column in bold.", "row": "Best of each row in bold.", "table": "Best in bold."}


def provenance(summaries: list[dict[str, Any]]) -> list[str]:
    """Which data the models met, in sentences without commas or quotes: they head a CSV."""
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
    """The data set, split and sources that the metadata of records tell."""
    return f"{split_name(metadata)} ({_sources(metadata)})"


def split_name(metadata: dict[str, Any]) -> str:
    """The data set and split that the metadata of records tell."""
    return f"{metadata['dataset']} {metadata['split']}"


def origins(splits: Iterable[dict[str, Any]]) -> list[str]:
    """Where records come from, by their metadata, in sentences without commas or quotes: they head a CSV."""
    names = defaultdict(list)
    for metadata in splits:
        own = " (drawn by this project and other data than is published under the name)"
        names[_sources(metadata) + (own if is_embedded(metadata) else "")].append(split_name(metadata))
    return [f"From {source}: {_listed(of_source)}." for source, of_source in names.items()]


def is_embedded(metadata: dict[str, Any]) -> bool:
    """Whether the records of which `metadata` tells are of the embedded data set."""
    return any(source.startswith(EMBEDDED) for source in metadata["sources"])


def how_measured(summaries: list[dict[str, Any]], best: str, num_missing: int) -> list[str]:
    """Means, seeds, masks, encoders, and what was left out."""
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
        *([f"Images left out of box pretraining, as an evaluation has them: {excluded}."] if excluded else []),
        *_counted("Images left out of evaluation, as the run was trained on them", "num_seen", without_seen),
        *_counted("Images scored although the run was trained on them", "num_seen", with_seen),
        *_counted("Records without a mask, which have no score", "num_without_mask", summaries),
        *([f"{num_missing} values are missing (-): no record has a part in them."] if num_missing else []),
    ]


def _counted(sentence: str, key: str, summaries: Iterable[dict[str, Any]]) -> list[str]:
    """The `sentence` with the counts under `key` that are not 0, and what each is of; nothing where all are."""
    counts = _listed(
        f"{each[key]} ({each['run']} on {split_name(each['evaluated_on'])})" for each in summaries if each.get(key)
    )
    return [f"{sentence}: {counts}."] if counts else []


def remarks(printed: pd.DataFrame) -> list[str]:
    """What is said of published results (source, row, column, note), with the rows, columns or cells it is said of."""
    places, noted = defaultdict(list), defaultdict(list)
    for source, row, column, text in printed[["source", "row", "column", "note"]].to_numpy():
        places[source].append((row, column))
        for note in filter(None, text.split("; ")):
            noted[source, note].append((row, column))
    return [f"Published: {_whose(of_note, places[source])}: {note}." for (source, note), of_note in noted.items()]


def _whose(noted: list[tuple[str, str]], places: list[tuple[str, str]]) -> str:
    """The labels of the rows or columns that `noted` is the whole of, or else of its places."""
    others = set(places) - set(noted)
    for axis in (0, 1):
        if not {place[axis] for place in noted} & {place[axis] for place in others}:
            return _listed(place[axis] for place in noted)
    return _listed(", ".join(place) for place in noted)


def words_asked(labels: dict[str, list[str]] | None) -> str:
    """The words that stand for classes whose names were not asked."""
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
