# Only what needs Snakemake: configuration, paths, wildcards, command lines, resources. tseg.settings.plan does the rest.
import json
import os
import re
import shlex
from contextlib import ExitStack
from pathlib import Path

from snakemake.exceptions import WorkflowError

from tseg.lineage import warnings_of
from tseg.locks import exclusive
from tseg.settings.catalogue import content_of
from tseg.settings.code import code_of, predict_code, prepare_code, train_code
from tseg.settings.plan import Plan
from tseg.settings.runs import REFINEMENTS
from tseg.settings.stages import STAGES, stage_files
from tseg.settings.verified import verified_files

try:
    PLAN = Plan(config, " + ".join(map(str, workflow.configfiles)) or "--config")
except ValueError as error:
    raise WorkflowError(str(error)) from None

SETTINGS = PLAN.settings


def growing(amount):
    """A resource that grows with each attempt, for a job that was killed for want of it."""
    return lambda wildcards, attempt: amount * attempt


RUN_OF_ENCODERS = {PLAN.encoders[run].name: run for run in PLAN.runs}
THREADS = {name: asked.threads for name, asked in SETTINGS.resources}
RESOURCES = {
    name: asked.model_dump(exclude={"threads", "mem_mb", "runtime"})
    | {kind: growing(getattr(asked, kind)) for kind in ("mem_mb", "runtime")}
    for name, asked in SETTINGS.resources
}
LOCK = ExitStack()
BY_RUN = ["runs", "predictions", "masks", "scores", "pseudo_labels"]

# JSON reaches a command by standard input (<<<): an argument holds at most 128 kB.
# Every command ends when this process is killed: exec makes it a child of this process, which it recognises.
STARTED = ["snakemake"] + [
    f"--configfile={path}" for path in workflow.overwrite_configfiles
]
shell.prefix(
    f"exec env TSEG_DRIVER={os.getpid()} TSEG_WORKFLOW={shlex.quote(' '.join(STARTED))} "
)
limit = getattr(workflow.global_resources.get("gpu"), "value", None)
if limit is not None and limit < SETTINGS.resources.train.gpu:
    raise WorkflowError(
        f"resources.train.gpu: {SETTINGS.resources.train.gpu} GPUs are more than {limit}, which the profile allows; "
        "use --workflow-profile profiles/gpus, or --resources gpu=N"
    )


# Snakemake's own lock outlives a killed process; the profiles switch it off.
onstart:
    folder = Path(SETTINGS.results_dir)
    try:
        LOCK.enter_context(
            exclusive(folder / ".snakemake.lock", "runs this workflow")
        )
    except ValueError as error:
        raise WorkflowError(str(error)) from None
    executor = workflow.scheduler._executor
    if type(executor).__module__ == "snakemake_executor_plugin_slurm":
        use_slurm(executor, folder / ".slurm_run")


def show_warnings():
    """Repeat what jobs that went well warned of in their logs, of this workflow's runs and data sets."""
    results, records = Path(SETTINGS.results_dir), Path(SETTINGS.data_dir) / "records"
    folders = [records / name for name in SETTINGS.datasets]
    folders += [results / kind / run for kind in BY_RUN for run in PLAN.runs]
    folders += [Path(PLAN.raw_dir) / ".made", results / ".made"]
    for text, paths in warnings_of(*folders).items():
        more = f" and {len(paths) - 1} more files" if len(paths) > 1 else ""
        logger.warning(f"Warning, of {paths[0]}{more}: {text}")


onsuccess:
    show_warnings()


onerror:
    show_warnings()


# Wildcards stay out of these: Snakemake would not constrain them.
pathvars:
    raw=PLAN.raw_dir,
    records=f"{SETTINGS.data_dir}/records",
    tokens=PLAN.token_dir,
    results=SETTINGS.results_dir,
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",


def one_of(names):
    """A wildcard constraint: exactly one of `names`."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    source=one_of(PLAN.catalogue),
    dataset=one_of(SETTINGS.datasets),
    run=one_of(PLAN.runs),
    evaluation=one_of(PLAN.evaluations),
    table=one_of(PLAN.tables),
    figure=one_of(PLAN.figures),
    encoders=one_of(RUN_OF_ENCODERS),
    seed="[0-9]+",
    split="[^/]+",
    refinement=one_of(REFINEMENTS),
    encoding=one_of(PLAN.encodings),
    stage=one_of(STAGES),


def as_json(value):
    """JSON for a command line, independent of the order of keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def options(**values):
    """Command-line options. A list repeats its option, True makes a flag, a mapping becomes JSON."""
    words = []
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        else:
            items = value if isinstance(value, (list, tuple)) else [value]
            words += [
                f"{option}={as_json(item) if isinstance(item, dict) else item}"
                for item in items
            ]
    return words


def device(rule):
    """auto for a rule whose resources include a GPU; else cpu, even if the machine has one."""
    return "auto" if RESOURCES[rule]["gpu"] else "cpu"
