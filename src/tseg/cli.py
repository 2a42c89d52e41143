"""`tseg`: one sub-command per rule of the workflow, and one for people with a picture.

The only place where settings become arguments. What a sub-command needs is imported inside it, so that help is instant.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from tseg.config import RunSettings

app = typer.Typer(
    help="Segmentation learned from words: weak training on pictures and phrases, masks for any phrase.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

SettingsText = Annotated[str, typer.Option("--settings", help="Its settings as YAML or JSON text.")]
Output = Annotated[Path, typer.Option("--output", help="File to write; it appears when it is whole.")]
Records = Annotated[Path, typer.Option("--records", help="Records that `tseg prepare` wrote.")]
Model = Annotated[Path, typer.Option("--model", help="The model.safetensors that `tseg train` wrote.")]
Tracking = Annotated[Path | None, typer.Option("--tracking", help="What `tseg track` wrote; absent: no tracking.")]
Background = Annotated[float, typer.Option("--background", help="GAP, GMP: what normalised activation must exceed.")]
Crf = Annotated[str, typer.Option("--crf", help="Dense CRF preset: none, psa, irn, deeplab or afa.")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Processor threads to use.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1; auto takes a GPU if there is one.")]


def main() -> None:
    """Run `tseg`; what the user can mend is one sentence on stderr and exit status 1, never a traceback."""
    try:
        app()
    except (ValueError, OSError) as error:
        print(f"tseg: {error}", file=sys.stderr)
        sys.exit(1)


@app.command()
def track(
    uri: Annotated[str, typer.Option(help="MLflow store: sqlite:///path or a server's address; empty: none.")],
    experiments: Annotated[list[str], typer.Argument(help="One experiment per data set.")],
    output: Output,
) -> None:
    """Create the MLflow store and its experiments once, before any run needs them, and note its address."""
    import warnings

    from tseg.tracking import create_store

    if uri:
        try:
            create_store(uri, experiments, output.parent / "mlflow_artifacts")
        except Exception as error:
            warnings.warn(f"MLflow store {uri}: {error}; runs will try again", stacklevel=1)
    _write_json(output, {"uri": uri or None})


@app.command()
def configure(settings: SettingsText, output: Output) -> None:
    """Check a run's settings and write them, complete, to its config.yaml."""
    import yaml

    from tseg.config import RunSettings
    from tseg.files import whole_file

    checked = _parse(RunSettings, settings, "--settings")
    with whole_file(output) as partial:
        partial.write_text(yaml.safe_dump(checked.model_dump(mode="json"), sort_keys=False))


@app.command()
def fetch(
    source: Annotated[str, typer.Argument(help="Name of the source.")], settings: SettingsText, output: Output
) -> None:
    """Bring a source's files into place: draw shapes, download and check an archive, or check files placed by hand.

    The files go into the folder beside --output that has its name without .json; --output itself says what is there.
    """
    from tseg.config import ArchiveSource, ShapesSource, Source
    from tseg.data import download

    counts: dict[str, int]
    wanted, dir = _parse(Source, settings, f"source {source}"), output.with_suffix("")
    match wanted:
        case ShapesSource():
            from tseg.data.shapes import draw_shapes

            counts = draw_shapes(dir, num_train=wanted.num_train, num_val=wanted.num_val, seed=wanted.seed)
        case ArchiveSource():
            counts = {"files": download.fetch_archive(wanted.url, wanted.checksum, dir)}
        case _:
            counts = {"files": download.check_placed(wanted.files, wanted.page, dir)}
    print(f"{source}: " + ", ".join(f"{count:,} {what}" for what, count in counts.items()))
    _write_json(output, {"source": source, "settings": wanted.model_dump(), "counts": counts})


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="Name of the data set.")],
    split: Annotated[str, typer.Argument(help="Split, as its format calls it; val+miniv joins two.")],
    settings: SettingsText,
    output: Output,
) -> None:
    """Turn a split of a data set in an official format into records.

    What is left out is counted, and listed with the reason in the .skipped.csv beside --output.
    """
    from tseg.config import DatasetSettings
    from tseg.data.prepare import prepare

    wanted = _parse(DatasetSettings, settings, f"data set {dataset}")
    prepare(
        dataset,
        split,
        format=wanted.format,
        annotations=Path(wanted.annotations),
        images=[Path(dir) for dir in wanted.images],
        split_by=wanted.split_by,
        sources=wanted.sources,
        output=output,
    )


@app.command()
def train(
    config: Annotated[Path, typer.Option("--config", help="The run's config.yaml, from `tseg configure`.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for model.safetensors, history.csv, last.ckpt.")],
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    tracking: Tracking = None,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Train a run by weak supervision: from pictures and expressions, without any mask.

    Killed and started again, it goes on from last.ckpt; on one machine the same command gives the same bytes.
    """
    import pandas as pd

    from tseg.config import RunSettings
    from tseg.files import whole_file
    from tseg.model.tseg import save_model
    from tseg.records import read_metadata
    from tseg.tracking import Tracker

    run = _parse(RunSettings, _read(config), str(config))
    trained_on = read_metadata(Path(run.records))
    tracker = Tracker(_tracking_uri(tracking))
    if (output / "last.ckpt").exists():
        tracker.join(output)
    if tracker.run_id is None:
        tracker.start(run.dataset, f"{run.run}/seed{seed}", run.model_dump() | {"seed": seed}, config, output)
    try:
        model, history = _train(run, seed, output, tracker, threads, _device(device, threads))
    except BaseException:
        tracker.end("FAILED")
        raise
    with whole_file(output / "history.csv") as partial:
        pd.DataFrame(history).to_csv(partial, index=False)
    about = {
        "run": run.run,
        "seed": seed,
        "pooling": run.pooling.name,
        "resolution": run.training.resolution,
        "trained_on": trained_on,
    }
    save_model(output / "model.safetensors", model, run.model.model_dump(), about)
    (output / "last.ckpt").unlink(missing_ok=True)
    tracker.end("FINISHED")


def _train(run: "RunSettings", seed: int, output: Path, tracker: Any, threads: int, device: "torch.device") -> Any:
    """Build what the loop needs from the settings of `run`, and run it."""
    import functools
    import hashlib

    import torch

    from tseg.data.batches import WeakBatches
    from tseg.model.image_encoder import MEAN, STD
    from tseg.model.pooling import POOLINGS
    from tseg.model.tseg import build_tseg
    from tseg.records import read_records
    from tseg.training.loop import train
    from tseg.training.schedule import poly_schedule

    settings, records = run.training, read_records(Path(run.records))
    torch.manual_seed(seed)
    tokenizer = _tokenizer(run, list(records["expression"]))
    model = build_tseg(**run.model.model_dump(), tokenizer=tokenizer).to(device)
    weighting = run.pooling.weighting.model_dump() if run.pooling.weighting else {}
    rate: dict[str, Any] = {"lr": settings.optimizer.learning_rate, "weight_decay": settings.optimizer.weight_decay}
    match settings.optimizer.name:
        case "sgd":
            optimizer = torch.optim.SGD(model.parameters(), momentum=settings.optimizer.momentum, **rate)
        case "adamw":
            optimizer = torch.optim.AdamW(model.parameters(), fused=True, **rate)
    what_decides = f"{run.model_dump_json()} {seed} {device.type}".encode() + Path(run.records).read_bytes()
    history = train(
        model,
        WeakBatches(
            records,
            batch_size=settings.batch_size,
            expressions_per_picture=settings.expressions_per_picture,
            resolution=settings.resolution,
            scale=settings.scale,
            flip=settings.flip,
            flip_words=settings.flip_words,
            mean=MEAN,
            std=STD,
            seed=seed,
        ),
        functools.partial(POOLINGS[run.pooling.name], **weighting),
        optimizer,
        poly_schedule(optimizer, settings.iterations, settings.optimizer.poly_power, settings.optimizer.warmup),
        iterations=settings.iterations,
        seed=seed,
        precision=getattr(torch, settings.precision),
        # On a GPU the other threads prepare batches; on processors they compute.
        num_workers=threads - 1 if device.type == "cuda" else 0,
        checkpoint=output / "last.ckpt",
        fingerprint=hashlib.sha256(what_decides).hexdigest(),
        log=lambda row: tracker.log({key: row[key] for key in ("loss", "learning_rate", "tau")}, row["iteration"]),
    )
    return model, history


@app.command()
def predict(
    model: Model,
    records: Records,
    output: Output,
    resolution: Annotated[int, typer.Option(min=1, help="Longer side of the picture in pixels.")],
    scales: Annotated[
        list[float] | None, typer.Option(help="Factors of --resolution to average over; repeat it.")
    ] = None,
    flip: Annotated[bool, typer.Option(help="Average over mirror images too.")] = False,
    threads: Threads = 1,
    device: Device = "auto",
) -> None:
    """Predict patch-level similarities of every record, float16, expressions of a picture together."""
    from tseg.inference.predict import predict_records
    from tseg.model.tseg import load_model
    from tseg.records import read_metadata, read_records, write_table

    loaded, about = load_model(model)
    loaded.to(_device(device, threads))
    views: dict[str, Any] = {"resolution": resolution, "scales": scales or [1.0], "flip": flip}
    predictions = predict_records(loaded, read_records(records), **views)
    write_table(output, predictions, about | views | {"evaluated_on": read_metadata(records)})


@app.command()
def refine(
    predictions: Annotated[Path, typer.Option(help="What `tseg predict` wrote.")],
    records: Records,
    output: Output,
    background: Background = 0.2,
    crf: Crf = "none",
) -> None:
    """Make masks of similarities at the pictures' own resolution, on request refined by a dense CRF."""
    from tseg.inference.masks import mask_records
    from tseg.records import read_metadata, read_records, read_table, write_table

    about = read_metadata(predictions, "predict")
    masks = mask_records(
        read_records(records),
        read_table(predictions),
        pooling=about["pooling"],
        background=background,
        crf=_crf(crf),
    )
    write_table(output, masks, about | {"crf": _crf(crf), "background": background})


@app.command()
def evaluate(
    masks: Annotated[Path, typer.Option(help="What `tseg refine` wrote.")],
    records: Records,
    output: Output,
    summary: Annotated[Path, typer.Option(help="JSON file for the metrics.")],
    num_bootstrap: Annotated[int, typer.Option(min=1, help="Resamplings behind the interval.")] = 1000,
    model_dir: Annotated[Path | None, typer.Option(help="Folder of the model, whose MLflow run this joins.")] = None,
    tracking: Tracking = None,
) -> None:
    """Score masks against the records: IoU per record to --output, the metrics to --summary and MLflow."""
    import pyarrow as pa

    from tseg.evaluation.iou import score_records, summarise
    from tseg.records import read_metadata, read_records, read_table, write_table
    from tseg.tracking import Tracker

    about = read_metadata(masks, "refine")
    scores = score_records(read_records(records), read_table(masks))
    metrics = summarise(scores, num_bootstrap, seed=0)
    evaluated_on = about["evaluated_on"]
    write_table(output, pa.Table.from_pandas(scores, preserve_index=False), about)
    _write_json(
        summary,
        {key: about[key] for key in ("run", "seed", "pooling", "crf", "trained_on", "evaluated_on")}
        | {"dataset": evaluated_on["dataset"], "split": evaluated_on["split"]}
        | {"comparison": "foreground probability > 0.5", "resolution": "the picture's own"}
        | metrics,
    )
    print(
        f"{masks.name}: mIoU {metrics['mIoU']:.2%} "
        f"(95% interval {metrics['mIoU_low']:.2%} to {metrics['mIoU_high']:.2%})"
    )
    if model_dir is not None:
        tracker = Tracker(_tracking_uri(tracking))
        tracker.join(model_dir)
        prefix = f"{evaluated_on['dataset']}-{evaluated_on['split']}/{about['crf'] or 'plain'}/"
        tracker.log({prefix + name: value for name, value in metrics.items()})
        tracker.end("FINISHED")


@app.command()
def tabulate(
    table: Annotated[str, typer.Argument(help="Name of the table in the experiments.")],
    summaries: Annotated[list[Path], typer.Argument(help="JSON files that `tseg evaluate` wrote.")],
    experiments: Annotated[Path, typer.Option(help="YAML file that lays the tables out.")],
    published: Annotated[Path, typer.Option(help="CSV file of published numbers.")],
    output: Annotated[Path, typer.Option(help="CSV file; .md, .tex, .html, .json and _detail.csv go beside it.")],
) -> None:
    """Write a table of the paper from the metrics of its runs, the published numbers beside them."""
    from tseg.config import Experiments
    from tseg.reporting.tables import write_table

    tables = _parse(Experiments, _read(experiments), str(experiments)).tables
    if table not in tables:
        raise ValueError(f"{experiments} lays out no table {table}; it has {', '.join(tables)}")
    layout = tables[table]
    write_table(
        summaries,
        output,
        datasets=layout.columns,
        rows=[row.model_dump() for row in layout.rows],
        table=layout.number,
        published=published,
    )


@app.command()
def draw_masks(
    records: Records,
    masks: Annotated[list[str], typer.Argument(help="LABEL=FILE of `tseg refine`, a column each.")],
    output: Output,
    num_panels: Annotated[int, typer.Option(min=1, help="Pictures to draw, chosen by lot.")] = 6,
) -> None:
    """Draw masks over pictures, beside the truth."""
    from tseg.records import read_metadata, read_records, read_table
    from tseg.reporting import figures

    about = read_metadata(records)
    figures.draw_masks(
        read_records(records),
        {label: read_table(path) for label, path in _labelled(masks)},
        output,
        num_panels=num_panels,
        title=f"{about['dataset']} {about['split']} ({', '.join(about['sources']) or 'files of yours'})",
    )


@app.command()
def draw_curves(
    histories: Annotated[list[str], typer.Argument(help="LABEL=FILE, a history.csv and so a curve each.")],
    output: Output,
) -> None:
    """Draw the learning curves of trainings."""
    import pandas as pd

    from tseg.reporting.figures import draw_learning_curves

    draw_learning_curves({label: pd.read_csv(path) for label, path in _labelled(histories)}, output)


@app.command()
def segment(
    model: Annotated[Path, typer.Argument(help="The model.safetensors that `tseg train` wrote.")],
    picture: Annotated[Path, typer.Argument(help="The picture.")],
    expressions: Annotated[list[str], typer.Argument(help="What to look for, such as 'red circle'; several at will.")],
    output: Annotated[Path, typer.Option(help="Folder for a black and white PNG and an overlay per phrase.")],
    crf: Crf = "none",
    resolution: Annotated[
        int | None, typer.Option(min=1, help="Longer side in pixels; absent: as in training.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Segment phrases in a picture of yours."""
    from PIL import Image, ImageOps

    from tseg.data.transforms import open_picture
    from tseg.files import whole_file
    from tseg.inference.segmenter import Segmenter
    from tseg.reporting.figures import PREDICTION, overlay

    segmenter = Segmenter.load(model, device=str(_device(device, 1)), resolution=resolution, crf=_crf(crf))
    # Unlike a data set, whose annotations are of the stored pixels, people see their photographs upright.
    opened = ImageOps.exif_transpose(open_picture(picture))
    for number, (expression, mask) in enumerate(zip(expressions, segmenter(opened, expressions), strict=True), 1):
        for kind, drawn in {"mask": Image.fromarray(mask), "overlay": overlay(opened, mask, PREDICTION)}.items():
            path = output / f"{picture.stem}-{number}-{kind}.png"
            with whole_file(path) as partial:
                drawn.save(partial)
            print(f"{path}: {expression}, {mask.mean():.1%} of the picture")


def _crf(name: str) -> str | None:
    """The preset that --crf names. Raises ValueError for a name that is none."""
    from tseg.inference.crf import PRESETS

    if name != "none" and name not in PRESETS:
        raise ValueError(f"--crf: there is no preset {name!r}; take none, {', '.join(PRESETS)}")
    return None if name == "none" else name


def _labelled(pairs: list[str]) -> list[tuple[str, Path]]:
    """LABEL=FILE texts as pairs."""
    for pair in pairs:
        if "=" not in pair:
            raise ValueError(f"{pair!r} is not LABEL=FILE; write for example TSEG={pair}")
    return [(label, Path(path)) for label, _, path in (pair.rpartition("=") for pair in pairs)]


def _parse(schema: Any, text: str, origin: str) -> Any:
    """YAML `text` as `schema`."""
    import yaml

    from tseg.config import parse

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{origin} is not YAML: {error}; mend the line it names") from None
    return parse(schema, values, origin)


def _read(path: Path) -> str:
    from tseg.files import existing

    return existing(path, "give the path of a file that exists").read_text()


def _write_json(path: Path, value: Any) -> None:
    from tseg.files import whole_file

    with whole_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def _tracking_uri(tracking: Path | None) -> str | None:
    return json.loads(_read(tracking))["uri"] if tracking else None


def _device(name: str, threads: int) -> "torch.device":
    """The device called `name`, torch set to `threads` threads and to computing the same bytes every time."""
    import torch

    # cuBLAS reads it when CUDA starts; without it the same sums come in another order.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}; take auto or cpu") from None


def _tokenizer(run: "RunSettings", expressions: list[str]) -> "Tokenizer":
    from tseg.model.text_encoder import learn_wordpiece, load_tokenizer

    text_encoder = run.model.text_encoder
    if text_encoder.weights is None:
        return learn_wordpiece(expressions, text_encoder.vocabulary_size)
    return load_tokenizer(text_encoder.weights)
