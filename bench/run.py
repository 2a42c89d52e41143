"""Time every stage against the plain way to do it, and write bench/results.json and the table of docs/performance.md.

python bench/run.py                   all stages
python bench/run.py evaluation        some of them; the files stay as they are
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import torch
from harness import Timing, machine, measure
from stages import STAGES

RESULTS, PAGE = Path("bench/results.json"), Path("docs/performance.md")
START, END = "<!-- bench/run.py -->\n", "<!-- end -->\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="Default: all")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.stages if name not in STAGES]:
        parser.error(f"there is no stage {unknown[0]!r}; choose from {', '.join(STAGES)}")
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    timings: list[Timing] = []
    for name in arguments.stages or STAGES:
        with tempfile.TemporaryDirectory() as folder:
            timings.append(measure(STAGES[name](Path(folder), threads), arguments.rounds))
        print("\n".join(table(timings[-1:])[2 if len(timings) > 1 else 0 :]), flush=True)
    if arguments.stages:
        return
    described = {"machine": machine(), "rounds": arguments.rounds}
    RESULTS.write_text(json.dumps(described | {"stages": [each._asdict() for each in timings]}, indent=2) + "\n")
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(START)[0], text.partition(END)[2]
    named = ", ".join(f"{key} {value}" for key, value in described["machine"].items())
    found = "\n".join([*table(timings), "", f"{named}; medians of {arguments.rounds} rounds.", ""])
    PAGE.write_text(before + START + found + END + after, encoding="utf-8")


def table(timings: list[Timing]) -> list[str]:
    rows = [
        "| stage | a second | plain | ratio (lowest to highest) | aim | of the limit | results agree |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for each in timings:
        limit = "–" if each.of_limit is None else f"{each.of_limit:.0%}"
        ratio = f"{each.ratio:.2f} ({each.lowest_ratio:.2f} to {each.highest_ratio:.2f})"
        speed = f"{each.per_second:,.1f} {each.unit}"
        rows.append(
            f"| {each.stage} | {speed} | {each.plain_per_second:,.1f} | {ratio} | {each.at_least} | {limit} | "
            f"{each.agreement or '–'} |"
        )
    return rows


if __name__ == "__main__":
    main()
