"""What the tables cost at a scale: operations counted, not timed, on tensors without data; hours from an assumed rate.

python bench/cost.py [--configfile config/paper.yaml] [--teraflops 40]
"""

import argparse
from functools import cache
from pathlib import Path

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from tseg.model.text_encoder import learn_wordpiece
from tseg.model.tseg import build_tseg
from tseg.settings.plan import Plan
from tseg.settings.schema import LanguageModelSettings, RunSettings

EXPRESSION = "the striped circle to the left of the red star"
NUM_IMAGES = 2  # counted; the others of a batch cost as much


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
    """Operations of a training, forward and backward, in 10^15."""
    training = run.training
    per_image = flop_of_step(run.model.model_dump_json(), training.resolution, training.expressions_per_image)
    return training.iterations * training.batch_size * per_image / 1e15


@cache
def flop_of_step(model: str, resolution: int, expressions_per_image: int) -> float:
    """Operations per image of one iteration, with its expressions."""
    described = yaml.safe_load(model)
    described["image_encoder"]["weights"] = None
    is_language = "hidden_size" in described["text_encoder"]
    num_expressions = NUM_IMAGES * expressions_per_image
    expressions = [EXPRESSION] * num_expressions if is_language else described["text_encoder"]["classes"]
    if is_language:
        described["text_encoder"] = LanguageModelSettings(**described["text_encoder"]).model_dump() | {"weights": None}
    built = build_tseg(**described, tokenizer=learn_wordpiece([EXPRESSION], 100) if is_language else None)
    # Only images go without data: transformers looks into its attention mask.
    built.image_encoder.to("meta")
    built.project_patches.to("meta")
    images = torch.empty(NUM_IMAGES, 3, resolution, resolution, device="meta")
    with FlopCounterMode(display=False) as counter:
        built.embed_patches(images).sum().backward()
        built.embed_expressions(expressions).sum().backward()
    return counter.get_total_flops() / NUM_IMAGES


if __name__ == "__main__":
    main()
