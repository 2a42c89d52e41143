rule tabulate:
    input:
        summaries=summaries,
        published=SETTINGS.published,
    output:
        csv=report(
            f"{RESULTS}/{{table}}.csv",
            category="1 Tables",
            labels={"table": "{table}", "format": "csv"},
            caption="../report/table.rst",
        ),
        markdown=f"{RESULTS}/{{table}}.md",
        latex=f"{RESULTS}/{{table}}.tex",
        html=report(
            f"{RESULTS}/{{table}}.html",
            category="1 Tables",
            labels={"table": "{table}", "format": "html"},
            caption="../report/table.rst",
        ),
        metrics=f"{RESULTS}/{{table}}.json",
        detail=report(
            f"{RESULTS}/{{table}}_detail.csv",
            category="1 Tables",
            labels={"table": "{table}", "format": "detail"},
            caption="../report/table.rst",
        ),
    log:
        f"{RESULTS}/logs/tabulate/{{table}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate/{{table}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.tabulate.threads
    resources:
        mem_mb=SETTINGS.resources.tabulate.mem_mb,
        runtime=SETTINGS.resources.tabulate.runtime,
        gpu=SETTINGS.resources.tabulate.gpu,
    params:
        layout=layout,
    shell:
        "tseg tabulate --layout {params.layout:q} --published {input.published:q} --output {output.csv:q} > {log:q} 2>&1"


rule draw:
    input:
        files=drawn_files,
        records=drawn_records,
    output:
        report(
            f"{RESULTS}/figures/{{figure}}.png",
            category="2 Figures",
            labels={"figure": "{figure}"},
            caption="../report/figure.rst",
        ),
    log:
        f"{RESULTS}/logs/draw/{{figure}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw/{{figure}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.draw.threads
    resources:
        mem_mb=SETTINGS.resources.draw.mem_mb,
        runtime=SETTINGS.resources.draw.runtime,
        gpu=SETTINGS.resources.draw.gpu,
    params:
        figure=lambda wildcards: EXPERIMENTS.figures[wildcards.figure].model_dump(
            include={"kind", "title", "caption"}
        ),
        choice=drawn_choice,
    shell:
        "tseg draw {params.figure[kind]} {input.files:q} --records {input.records:q} {params.choice:q} "
        "--title {params.figure[title]:q} --caption {params.figure[caption]:q} --output {output:q} > {log:q} 2>&1"


rule draw_curves:
    input:
        histories,
    output:
        report(
            f"{RESULTS}/curves/{{table}}.png",
            category="3 Learning curves",
            labels={"table": "{table}"},
            caption="../report/curves.rst",
        ),
    log:
        f"{RESULTS}/logs/draw_curves/{{table}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_curves/{{table}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.draw.threads
    resources:
        mem_mb=SETTINGS.resources.draw.mem_mb,
        runtime=SETTINGS.resources.draw.runtime,
        gpu=SETTINGS.resources.draw.gpu,
    params:
        panels=panels,
    shell:
        "tseg draw curves {input:q} --panels {params.panels:q} --output {output:q} > {log:q} 2>&1"
