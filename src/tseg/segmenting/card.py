"""The card of a trained model, README.md on the Hugging Face Hub: what made it, what it scores, and its limits."""

from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from tseg.evaluation.score import Summary, read_summary
from tseg.provenance import ModelProvenance, RecordsProvenance

_CARD = """# {run}

Segments any phrase in an image, by [TSEG]({paper}): the similarities of image patches to a phrase become a mask.

```python
from tseg import Segmenter

segmenter = Segmenter.from_pretrained("owner/name of this model")
found = segmenter("photo.jpg", ["red umbrella", "cat"])
found.masks, found.scores, found.overlay()
```

## How it was trained

{facts}

## What it scores

{scores}

## Limits

{limits}
"""
_PAPER = "https://hal.science/hal-04071277"
_SUPERVISION = {
    "weak": "images and phrases alone, without masks or boxes",
    "full": "masks",
    "boxes": "boxes",
    "pseudo": "the masks that a weakly trained model made of its own training images",
}


def model_card(trained: ModelProvenance, scores: Path | None) -> ModelCard:
    """The card of a model. `scores` is a summary that `tseg evaluate` wrote.

    Raises ValueError if the summary belongs to another model.
    """
    summary = None if scores is None else read_summary(scores)
    if summary and summary.model != trained:
        raise ValueError(
            f"{scores} has the scores of {summary.model.run}, seed {summary.model.seed}; give this model's"
        )
    data = ModelCardData(
        library_name="tseg", pipeline_tag="image-segmentation", tags=["weakly-supervised", "referring-expressions"]
    )
    facts = {
        "learnt from": _SUPERVISION.get(trained.supervision, trained.supervision),
        "images and phrases": _described(trained.trained_on),
        "pretrained on": _described(trained.pretrained_on) if trained.pretrained_on else None,
        "pooling": trained.pooling,
        "image encoder": trained.image_encoder.name,
        "resolution": f"{trained.resolution} pixels",
        "seed": str(trained.seed),
    }
    classes = trained.trained_on.classes
    limits = [
        "It knows the words and things of its training data; a phrase of other words has an arbitrary mask.",
        "Masks follow the patches of the image encoder, and miss what is smaller.",
        f"It was trained on the class names {', '.join(classes)}." if classes else "",
        "The weights carry the terms of the data that they were trained on; see the sources above.",
    ]
    content = _CARD.format(
        run=trained.run,
        paper=_PAPER,
        facts=_listed([f"{name}: {fact}" for name, fact in facts.items() if fact]),
        scores=_listed(_measured(summary)) if summary else "Not stated.",
        limits=_listed(filter(None, limits)),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{content}")


def _described(records: RecordsProvenance) -> str:
    sources = f", of {', '.join(records.sources)}" if records.sources else ", the user's own"
    return f"{records.num_images:,} images of {records.dataset} {records.split}{sources}"


def _measured(summary: Summary) -> list[str]:
    evaluated, metrics = summary.predictions.evaluated_on, summary.metrics
    interval = f"{100 * metrics['mIoU_low']:.2f} to {100 * metrics['mIoU_high']:.2f}"
    return [
        f"mIoU {100 * metrics['mIoU']:.2f} (95 %: {interval}) on {summary.num_images:,} images of {evaluated.dataset} "
        f"{evaluated.split}, at a shorter side of {summary.predictions.resolution} pixels",
        f"a pixel belongs to a mask by: {summary.masks.comparison}; refinement: {summary.masks.crf or 'none'}",
    ]


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
