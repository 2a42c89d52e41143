rule tabulate:
    input:
        summaries=summaries,
        experiments=SETTINGS.experiments,
        published=SETTINGS.published,
    output:
        csv=report(
            f"{RESULTS}/{{table}}.csv",
            category="Tables",
            labels={"table": "{table}", "format": "csv"},
            caption="../report/table.rst",
        ),
        markdown=f"{RESULTS}/{{table}}.md",
        latex=f"{RESULTS}/{{table}}.tex",
        html=report(
            f"{RESULTS}/{{table}}.html",
            category="Tables",
            labels={"table": "{table}", "format": "html"},
            caption="../report/table.rst",
        ),
        metrics=f"{RESULTS}/{{table}}.json",
        detail=report(
            f"{RESULTS}/{{table}}_detail.csv",
            category="Tables",
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
    shell:
        "tseg tabulate {wildcards.table:q} {input.summaries:q} --experiments {input.experiments:q} "
        "--published {input.published:q} --output {output.csv:q} > {log:q} 2>&1"


rule draw_masks:
    input:
        masks=lambda wildcards: masks(wildcards).values(),
        records=lambda wildcards: records_path(
            SETTINGS,
            wildcards.dataset,
            SETTINGS.datasets[wildcards.dataset].evaluation,
        ),
    output:
        report(
            f"{RESULTS}/figures/{{dataset}}-masks.png",
            category="Figures",
            labels={"figure": "masks", "data set": "{dataset}"},
            caption="../report/masks.rst",
        ),
    log:
        f"{RESULTS}/logs/draw_masks/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_masks/{{dataset}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.draw_masks.threads
    resources:
        mem_mb=SETTINGS.resources.draw_masks.mem_mb,
        runtime=SETTINGS.resources.draw_masks.runtime,
        gpu=SETTINGS.resources.draw_masks.gpu,
    params:
        masks=labelled(masks),
    shell:
        "tseg draw-masks {params.masks:q} --records {input.records:q} --output {output:q} > {log:q} 2>&1"


rule draw_curves:
    input:
        lambda wildcards: histories(wildcards).values(),
    output:
        report(
            f"{RESULTS}/figures/{{dataset}}-curves.png",
            category="Figures",
            labels={"figure": "learning curves", "data set": "{dataset}"},
            caption="../report/curves.rst",
        ),
    log:
        f"{RESULTS}/logs/draw_curves/{{dataset}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_curves/{{dataset}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.draw_curves.threads
    resources:
        mem_mb=SETTINGS.resources.draw_curves.mem_mb,
        runtime=SETTINGS.resources.draw_curves.runtime,
        gpu=SETTINGS.resources.draw_curves.gpu,
    params:
        histories=labelled(histories),
    shell:
        "tseg draw-curves {params.histories:q} --output {output:q} > {log:q} 2>&1"
