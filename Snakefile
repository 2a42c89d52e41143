# The paper's workflow. `snakemake --cores all results/table3.csv` makes one table, `snakemake --cores all` makes everything.
from snakemake.utils import min_version

min_version("9.14")

# Files given with --configfile replace the default; they are not merged into it.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/slurm.smk"


rule all:
    default_target: True
    input:
        expand("<results>/{table}.csv", table=PLAN.tables),
        expand("<results>/figures/{figure}.png", figure=PLAN.figures),
        expand("<results>/curves/{table}.png", table=PLAN.tables),
        "<results>/datasets.csv",
        "<results>/overlaps.csv",
