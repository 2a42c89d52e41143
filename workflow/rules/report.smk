rule tabulate:
    input:
        summaries=lambda wildcards: PLAN.summaries(wildcards.table),
        published=SETTINGS.published,
    output:
        csv=report(
            "<results>/{table}.csv",
            category="1 Tables",
            labels={"table": "{table}", "format": "csv"},
            caption="../report/table.rst",
        ),
        markdown="<results>/{table}.md",
        latex="<results>/{table}.tex",
        html=report(
            "<results>/{table}.html",
            category="1 Tables",
            labels={"table": "{table}", "format": "html"},
            caption="../report/table.rst",
        ),
        metrics="<results>/{table}.json",
        detail=report(
            "<results>/{table}_detail.csv",
            category="1 Tables",
            labels={"table": "{table}", "format": "detail"},
            caption="../report/table.rst",
        ),
    log:
        "<logs>/tabulate/{table}.log",
    localrule: True
    conda:
        "../envs/tseg.yml"
    params:
        code=code_of("tabulate"),
        layout=lambda wildcards: PLAN.layout(wildcards.table).model_dump_json(),
    shell:
        "tseg tabulate --layout - --published {input.published:q} --output {output.csv:q} "
        "<<< {params.layout:q} > {log:q} 2>&1"


rule draw:
    input:
        files=lambda wildcards: PLAN.drawn_files(wildcards.figure),
        records=lambda wildcards: PLAN.drawn_records(wildcards.figure),
    output:
        report(
            "<results>/figures/{figure}.png",
            category="2 Figures",
            labels={"figure": "{figure}"},
            caption="../report/figure.rst",
        ),
    log:
        "<logs>/draw/{figure}.log",
    benchmark:
        "<benchmarks>/draw/{figure}.tsv"
    conda:
        "../envs/tseg.yml"
    threads: THREADS["draw"]
    resources:
        **RESOURCES["draw"],
    params:
        code=lambda wildcards: code_of(
            f"draw.{PLAN.experiments.figures[wildcards.figure].kind}"
        ),
        figure=lambda wildcards: PLAN.experiments.figures[wildcards.figure].model_dump(
            include={"kind", "title", "caption"}
        ),
        choice=lambda wildcards: options(**PLAN.drawn_choice(wildcards.figure)),
    shell:
        "tseg draw {params.figure[kind]} {input.files:q} --records {input.records:q} {params.choice:q} "
        "--title {params.figure[title]:q} --caption {params.figure[caption]:q} --output {output:q} > {log:q} 2>&1"


rule draw_curves:
    input:
        lambda wildcards: list(PLAN.curves(wildcards.table)),
    output:
        report(
            "<results>/curves/{table}.png",
            category="3 Learning curves",
            labels={"table": "{table}"},
            caption="../report/curves.rst",
        ),
    log:
        "<logs>/draw_curves/{table}.log",
    localrule: True
    conda:
        "../envs/tseg.yml"
    params:
        code=code_of("draw.curves"),
        panels=lambda wildcards: json.dumps(PLAN.curves(wildcards.table)),
    shell:
        "tseg draw curves --panels - --output {output:q} <<< {params.panels:q} > {log:q} 2>&1"


# What a stage of dvc.yaml makes; `tseg audit` compares with it.
rule manifest:
    input:
        lambda wildcards: stage_files(PLAN, wildcards.stage),
    output:
        "<results>/stages/{stage}.json",
    log:
        "<logs>/manifest/{stage}.log",
    localrule: True
    conda:
        "../envs/tseg.yml"
    params:
        code=code_of("manifest"),
        files=lambda wildcards, input: json.dumps(list(input)),
    shell:
        "tseg manifest --files - --output {output:q} <<< {params.files:q} > {log:q} 2>&1"


# What `tseg verify` compares with: `make reference`.
rule reference:
    input:
        lambda wildcards: [
            str(path)
            for files in verified_files(PLAN, wildcards.run).values()
            for path in (files.history, files.summary)
            if path
        ],
        config="<results>/runs/{run}/config.yaml",
    output:
        reference="<results>/reference/{run}.json",
        losses="<results>/reference/{run}.csv",
    log:
        "<logs>/reference/{run}.log",
    localrule: True
    conda:
        "../envs/tseg.yml"
    params:
        code=code_of("reference"),
        seeds=lambda wildcards: as_json(
            {
                seed: files.model_dump(mode="json")
                for seed, files in verified_files(PLAN, wildcards.run).items()
            }
        ),
    shell:
        "tseg reference --config {input.config:q} --seeds - --output {output.reference:q} <<< {params.seeds:q} > {log:q} 2>&1"


rule all_references:
    input:
        expand("<results>/reference/{run}.json", run=PLAN.runs),
    localrule: True
