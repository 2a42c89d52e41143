"""The stages of the workflow beside the plain way to do each: one item after the other, in float32, with full decoding.

Both ways are given the same work. Ours is the product's own: `tseg.training.run`, `tseg.inference`, `tseg.evaluation`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from cost import without_weights
from harness import Stage
from inputs import HEIGHT, WIDTH, noise, photograph, phrase, save_photographs, smooth_map
from PIL import Image
from pycocotools import mask as coco_mask
from torch.nn.functional import multilabel_soft_margin_loss

from tseg.evaluation.iou import score_records
from tseg.inference import crf
from tseg.inference.predict import Seen, predict_records
from tseg.model.pooling import POOLINGS
from tseg.model.tseg import TSEG
from tseg.records import RECORDS, encode_mask
from tseg.settings.plan import Plan
from tseg.settings.run_schema import RunSettings
from tseg.threads import in_order
from tseg.training.loop import training_step
from tseg.training.run import build_batches, build_model, build_objective, build_optimizer

PER_IMAGE = 5
"""Expressions of an image."""


def paper_run() -> RunSettings:
    """TSEG's training on PhraseCut at the paper's scale, with random weights and a batch of eight images."""
    run = Plan.read(["config/paper.yaml"]).runs["phrasecut-mpa"]
    training = run.training.model_copy(update={"batch_size": 8})
    return run.model_copy(update={"model": without_weights(run.model), "training": training})


def training(folder: Path, threads: int) -> Stage:
    """A step of ViT-S/16 and BERT-Small at 384 pixels, eight images with three expressions each."""
    run, generator = paper_run(), np.random.default_rng(0)
    expressions = list(dict.fromkeys(f"{phrase(generator)} {number}" for number in range(24)))
    batch = noise(expressions, 8, run.training.resolution)
    images = (batch.images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    models = [build_model(run.model, expressions).train() for _ in range(2)]
    objective, optimizer = build_objective(run, expressions), build_optimizer(run.training, models[1])
    plain_optimizer = torch.optim.SGD(models[0].parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4, foreach=False)
    targets = torch.tensor([[float(each in own) for each in expressions] for own in batch.positives])

    def plain() -> None:
        similarities = models[0](images, expressions)
        loss = multilabel_soft_margin_loss(POOLINGS["mpa"].score(similarities), targets)
        plain_optimizer.zero_grad()
        loss.backward()
        plain_optimizer.step()
        loss.item()

    def ours() -> None:
        training_step(models[1], batch, objective, optimizer, torch.bfloat16)

    at_least = 2.5 if "amx_bf16" in Path("/proc/cpuinfo").read_text() else 1.5
    return Stage("training step, bfloat16", "images", 8, plain, ours, at_least)


def loading(folder: Path, threads: int) -> Stage:
    """From JPEG files of 640 x 480 pixels to a batch of random crops of 384, on one core.

    The plain way also normalises them; we do that on the model's device.
    """
    run, paths = paper_run(), save_photographs(folder, 16)
    table = records_of(paths, {path.stem: ["a cat"] for path in paths})
    batches = build_batches(run, 0, table.to_pandas(), None)
    side = run.training.resolution

    def plain() -> torch.Tensor:
        images: list[np.ndarray] = []
        for path in paths:
            image = Image.open(path).convert("RGB")
            scale = np.random.uniform(*run.training.scale) * side / min(image.size)
            image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
            left, top = (int(np.random.uniform(0, max(0, length - side))) for length in image.size)
            crop = np.asarray(image.crop((left, top, left + side, top + side)), np.float32) / 255
            crop = crop[:, ::-1] if np.random.random() < 0.5 else crop
            images.append(((crop - 0.5) / 0.5).transpose(2, 0, 1))
        return torch.from_numpy(np.stack(images))

    def decode() -> None:
        for path in paths:
            Image.open(path).convert("RGB").load()

    return Stage("loading of crops, one core", "images", 16, plain, lambda: [batches[0], batches[1]], 2.5, decode)


def refinement(folder: Path, threads: int) -> Stage:
    """The dense CRF of five expressions in each image of 640 x 480 pixels."""
    from pydensecrf.densecrf import DenseCRF2D

    generator = np.random.default_rng(0)
    images = [np.asarray(photograph(seed)) for seed in range(4)]
    maps = [[1 / (1 + np.exp(-2 * smooth_map(generator))) for _ in range(PER_IMAGE)] for _ in images]

    def plain() -> list[np.ndarray]:
        refined: list[np.ndarray] = []
        for image, of_image in zip(images, maps, strict=True):
            for foreground in of_image:
                field = DenseCRF2D(WIDTH, HEIGHT, 2)
                unary = -np.log(np.stack([1 - foreground, foreground]).clip(1e-5, 1)).reshape(2, -1)
                field.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
                field.addPairwiseGaussian(sxy=3, compat=3)
                field.addPairwiseBilateral(sxy=80, srgb=13, rgbim=image.copy(), compat=10)
                refined.append(np.array(field.inference(10))[1].reshape(HEIGHT, WIDTH))
        return refined

    def ours() -> list[np.ndarray]:
        torch.set_num_threads(1)  # as `tseg refine` does: each thread has its image
        pairs = zip(images, maps, strict=True)
        refined = in_order(lambda pair: list(crf.refine_masks(*pair, "psa")), pairs, threads)
        found = [probability for of_image in refined for probability in of_image]
        torch.set_num_threads(threads)
        return found

    found, expected = (np.stack(way()) > 0.5 for way in (ours, plain))
    agreement = f"{(found == expected).mean():.6f} of the pixels"
    return Stage(
        f"dense CRF, {threads} threads", "expressions", len(images) * PER_IMAGE, plain, ours, 6.0, None, agreement
    )


def evaluation(folder: Path, threads: int, number: int = 10_000) -> Stage:
    """The IoU of masks of 640 x 480 pixels."""
    generator = np.random.default_rng(0)
    drawn = [encode_mask(smooth_map(generator) > 0.7) for _ in range(400)]
    truths, predictions = (list(generator.choice(drawn, number)) for _ in range(2))
    ids = [f"{index:06}" for index in range(number)]
    size = {"height": [HEIGHT] * number, "width": [WIDTH] * number}
    columns = {"record_id": ids, "image_id": ids, "mask": truths, "ignore": [None] * number} | size
    records, masks = pa.table(columns), pa.table({"record_id": ids, "mask": predictions} | size)

    def plain() -> list[float]:
        ious: list[float] = []
        for counts in zip(truths, predictions, strict=True):
            of_truth, of_prediction = (
                coco_mask.decode({"counts": each.encode(), "size": [HEIGHT, WIDTH]}).astype(bool) for each in counts
            )
            union = (of_truth | of_prediction).sum()
            ious.append(float((of_truth & of_prediction).sum() / union) if union else 0.0)
        return ious

    def ours() -> list[float]:
        return score_records(records.to_batches(1000), masks.to_batches(1000), number)["iou"].tolist()

    def limit() -> None:
        for counts in zip(truths, predictions, strict=True):
            coco_mask.merge([{"counts": each.encode(), "size": [HEIGHT, WIDTH]} for each in counts], intersect=True)

    agreement = "equal" if plain() == ours() else "NOT EQUAL"
    return Stage("evaluation", "records", number, plain, ours, 20.0, limit, agreement)


def prediction(folder: Path, threads: int, precision: torch.dtype = torch.bfloat16) -> Stage:
    """ViT-S/16 at 384 pixels, from sixteen images of 640 x 480 pixels to the similarities of five expressions each."""
    generator = np.random.default_rng(0)
    paths = save_photographs(folder, 16)
    expressions = {path.stem: [phrase(generator) for _ in range(PER_IMAGE)] for path in paths}
    records = records_of(paths, expressions).to_pandas()
    model = build_model(paper_run().model, [each for of_image in expressions.values() for each in of_image]).eval()
    seen = Seen(384, precision=precision)

    def ours() -> np.ndarray:
        tables = predict_records(model, records, seen, words=None, num_threads=threads)
        return pa.concat_tables(tables)["similarities"].combine_chunks().flatten().to_numpy()

    found, expected = ours(), np.concatenate([each.ravel() for each in predict_one_by_one(model, paths, expressions)])
    agreement = f"{((found > 0) == (expected > 0)).mean():.4f} of the signs"
    plain = partial(predict_one_by_one, model, paths, expressions)
    name = f"prediction, {str(precision).removeprefix('torch.')}"
    return Stage(name, "images", len(paths), plain, ours, 1.5, None, agreement)


def prediction_float32(folder: Path, threads: int) -> Stage:
    return prediction(folder, threads, torch.float32)


@torch.inference_mode()
def predict_one_by_one(model: TSEG, paths: list[Path], expressions: dict[str, list[str]]) -> list[np.ndarray]:
    """The similarities of each image to its expressions, image by image, in float32."""
    found: list[np.ndarray] = []
    for path in paths:
        image = Image.open(path).convert("RGB").resize((512, 384), Image.Resampling.BILINEAR)
        values = (np.asarray(image, np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5
        distinct = list(dict.fromkeys(expressions[path.stem]))
        found.append(model(torch.from_numpy(values)[None], distinct)[0].T.numpy())
    return found


def records_of(paths: list[Path], expressions: dict[str, list[str]]) -> pa.Table:
    """Records, without masks, of images and their expressions."""
    rows = [
        {
            "record_id": f"{path.stem}-{number}",
            "image_id": path.stem,
            "file_name": str(path),
            "height": HEIGHT,
            "width": WIDTH,
            "expression": expression,
        }
        for path in paths
        for number, expression in enumerate(expressions[path.stem])
    ]
    return pa.Table.from_pylist(rows, RECORDS)


STAGES: dict[str, Callable[[Path, int], Stage]] = {
    each.__name__: each for each in (training, loading, prediction, prediction_float32, refinement, evaluation)
}
