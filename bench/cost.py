"""Estimate the cost of the tables: count operations on tensors without data, and derive GPU-hours from an assumed rate.

python bench/cost.py [--configfile config/paper.yaml] [--teraflops 40]
"""

import argparse
from functools import cache
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from tseg.settings.plan import Plan
from tseg.settings.run_schema import RunModelSettings, RunSettings
from tseg.settings.schema import LanguageModelSettings, RandomLanguageModelSettings
from tseg.training.run import build_model

EXPRESSION = "the striped circle to the left of the red star"
BERT_SMALL = RandomLanguageModelSettings(hidden_size=512, num_layers=4, num_heads=8, vocabulary_size=30522)
"""The sizes that stand for those of pretrained weights, which are not read here."""
NUM_IMAGES = 2  # every image costs the same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configfile", type=Path, default=Path("config/paper.yaml"))
    parser.add_argument("--teraflops", type=float, default=40.0, help="sustained operations per second, in 10^12")
    arguments = parser.parse_args()
    plan = Plan.read([arguments.configfile])
    print("| Table | Trainings | PFLOP | GPU-hours |\n| --- | ---: | ---: | ---: |")
    everything: dict[str, RunSettings] = {}
    for table in plan.tables:
        runs = plan.table_runs(table)
        everything |= runs
        print_row(table, runs, arguments.teraflops)
    print_row("all, shared runs once", everything, arguments.teraflops)


def print_row(name: str, runs: dict[str, RunSettings], teraflops: float) -> None:
    petaflop = sum(petaflop_of(run) for run in runs.values())
    print(f"| {name} | {len(runs)} | {petaflop:,.0f} | {petaflop * 1000 / teraflops / 3600:,.0f} |")


def petaflop_of(run: RunSettings) -> float:
    """Operations of a training, forward and backward, in units of 10^15."""
    training = run.training
    model = without_weights(run.model).model_dump_json()
    per_image = flop_of_step(model, training.resolution, training.expressions_per_image)
    return training.iterations * training.batch_size * per_image / 1e15


def without_weights(model: RunModelSettings) -> RunModelSettings:
    """The same architecture with random weights, which cost as much and need no file."""
    encoders = {"image_encoder": model.image_encoder.model_copy(update={"weights": None})}
    if isinstance(model.text_encoder, LanguageModelSettings):
        sizes = model.text_encoder.random or BERT_SMALL
        encoders["text_encoder"] = model.text_encoder.model_copy(update={"weights": None, "random": sizes})
    return model.model_copy(update=encoders)


@cache
def flop_of_step(model_json: str, resolution: int, expressions_per_image: int) -> float:
    """Operations of one iteration per image, including its expressions."""
    settings = RunModelSettings.model_validate_json(model_json)
    is_language = isinstance(settings.text_encoder, LanguageModelSettings)
    expressions = [EXPRESSION] * NUM_IMAGES * expressions_per_image if is_language else settings.text_encoder.classes
    model = build_model(settings, expressions)
    # Only the images have no data: transformers reads the values of its attention mask.
    model.image_encoder.to("meta")
    model.project_patches.to("meta")
    images = torch.empty(NUM_IMAGES, 3, resolution, resolution, device="meta")
    with FlopCounterMode(display=False) as counter:
        model.embed_patches(images).sum().backward()
        model.embed_expressions(expressions).sum().backward()
    return counter.get_total_flops() / NUM_IMAGES


if __name__ == "__main__":
    main()
