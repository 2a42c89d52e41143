# The paper's workflow. `snakemake --cores all results/table3.csv` makes one table, `snakemake --cores all` makes everything.
from snakemake.utils import min_version

min_version("9.0")

# A configuration file is complete: one given with --configfile takes the place of the default, it is not merged into it.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        expand(f"{RESULTS}/{{table}}.csv", table=TABLES),
        expand(f"{RESULTS}/figures/{{figure}}.png", figure=FIGURES),
        expand(f"{RESULTS}/curves/{{table}}.png", table=TABLES),
        f"{RESULTS}/datasets.csv",
        f"{RESULTS}/overlaps.csv",
