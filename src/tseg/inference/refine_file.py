"""`tseg refine`: from similarities to masks or label maps, from files to files. No model is loaded."""

from pathlib import Path

from tseg.inference.masks import MaskRules, comparison, mask_records
from tseg.inference.refinement import LATTICE, check_refinement
from tseg.inference.semantic import LabelRules, label_records
from tseg.inference.semantic import comparison as label_comparison
from tseg.inference.similarities import Similarities
from tseg.inference.thresholds import ORACLE
from tseg.parts import in_parts
from tseg.provenance import MasksProvenance, PredictionsProvenance
from tseg.records import LABELS, MASKS, read_columns, read_provenance, write_tables


def refine_file(
    predictions: Path,
    records: Path,
    output: Path,
    *,
    background: float,
    exclusive_activations: bool,
    threshold: str,
    confidence: float,
    crf: str | None,
    crf_backend: str = LATTICE,
    crf_background: float | None,
    num_threads: int = 1,
) -> None:
    """Write the mask of every record, or the label map of every image, at the image's own resolution.

    For the options see `masks.MaskRules` and `semantic.LabelRules`. Raises ValueError for a data set with classes and a
    model without a pooling, and for a refinement that cannot be computed here.
    """
    check_refinement(crf, crf_backend)
    predicted = read_provenance(predictions, PredictionsProvenance)
    of_truth = ["mask"] if threshold == ORACLE else []
    columns = ["record_id", "image_id", "file_name", "height", "width", "expression", *of_truth]
    rows, _ = read_columns(records, columns)
    model, labels = predicted.model, predicted.labels
    if labels is not None and model.pooling is None:
        raise ValueError(
            f"{predictions}: a model of {model.supervision} supervision cannot score classes; use a weakly trained one"
        )
    provenance = MasksProvenance(
        predictions=predicted,
        crf=crf,
        crf_backend=crf_backend,
        crf_background=crf_background,
        background=background,
        exclusive_activations=exclusive_activations,
        threshold=threshold,
        comparison=comparison(threshold) if labels is None else label_comparison(confidence, threshold),
    )
    rules = MaskRules(model.mask_pooling, background, exclusive_activations, threshold, crf, crf_backend)
    with in_parts(output, f"{__name__}.refine_file", predictions, records, how=provenance.to_json()) as parts:
        similarities = Similarities(predictions)
        if labels is None:
            masks = mask_records(rows, similarities, rules, parts, num_threads)
        else:
            # ASSUME: a student's label maps are made as its teacher's, whose pooling scores the words.
            rules = rules._replace(pooling=model.pooling)
            of_words = LabelRules(rules, model.pooling_options, confidence, crf_background)
            masks = label_records(
                rows, similarities, labels=labels, rules=of_words, parts=parts, num_threads=num_threads
            )
        write_tables(output, MASKS if labels is None else LABELS, masks, provenance)
