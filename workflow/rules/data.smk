rule fetch:
    output:
        f"{DATA}/raw/{{source}}.json",
    log:
        f"{RESULTS}/logs/fetch/{{source}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fetch/{{source}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.fetch.threads
    resources:
        mem_mb=SETTINGS.resources.fetch.mem_mb,
        runtime=SETTINGS.resources.fetch.runtime,
        gpu=SETTINGS.resources.fetch.gpu,
    params:
        settings=lambda wildcards: as_json(
            CATALOGUE[wildcards.source].model_dump(mode="json")
        ),
        catalogue=SETTINGS.sources,
        dir=subpath(output[0], parent=True),
    shell:
        "tseg fetch {wildcards.source:q} --catalogue {params.catalogue:q} --dir {params.dir:q} > {log:q} 2>&1"


rule prepare:
    input:
        raw_inputs,
    output:
        records=f"{DATA}/records/{{dataset}}/{{split}}.parquet",
        skipped=f"{DATA}/records/{{dataset}}/{{split}}.skipped.csv",
    log:
        f"{RESULTS}/logs/prepare/{{dataset}}-{{split}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/prepare/{{dataset}}-{{split}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.prepare.threads
    resources:
        mem_mb=SETTINGS.resources.prepare.mem_mb,
        runtime=SETTINGS.resources.prepare.runtime,
        gpu=SETTINGS.resources.prepare.gpu,
    params:
        settings=lambda wildcards: as_json(
            SETTINGS.datasets[wildcards.dataset].model_dump(mode="json")
        ),
    shell:
        "tseg prepare {wildcards.dataset:q} {wildcards.split:q} --settings {params.settings:q} "
        "--threads {threads} --output {output.records:q} > {log:q} 2>&1"


rule describe:
    input:
        list(dict.fromkeys(TRAINING_RECORDS + EVALUATION_RECORDS)),
    output:
        csv=f"{RESULTS}/datasets.csv",
        markdown=f"{RESULTS}/datasets.md",
        html=report(
            f"{RESULTS}/datasets.html",
            category="5 Data",
            labels={"data": "counts"},
            caption="../report/datasets.rst",
        ),
        image=report(
            f"{RESULTS}/datasets.png",
            category="5 Data",
            labels={"data": "sizes and lengths"},
            caption="../report/datasets.rst",
        ),
    log:
        f"{RESULTS}/logs/describe.log",
    benchmark:
        f"{RESULTS}/benchmarks/describe.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.describe.threads
    resources:
        mem_mb=SETTINGS.resources.describe.mem_mb,
        runtime=SETTINGS.resources.describe.runtime,
        gpu=SETTINGS.resources.describe.gpu,
    shell:
        "tseg describe {input:q} --output {output.csv:q} > {log:q} 2>&1"


rule overlap:
    input:
        train=TRAINING_RECORDS,
        evaluation=EVALUATION_RECORDS,
    output:
        csv=f"{RESULTS}/overlaps.csv",
        markdown=f"{RESULTS}/overlaps.md",
        html=report(
            f"{RESULTS}/overlaps.html",
            category="5 Data",
            labels={"data": "overlaps"},
            caption="../report/overlaps.rst",
        ),
    log:
        f"{RESULTS}/logs/overlap.log",
    benchmark:
        f"{RESULTS}/benchmarks/overlap.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.overlap.threads
    resources:
        mem_mb=SETTINGS.resources.overlap.mem_mb,
        runtime=SETTINGS.resources.overlap.runtime,
        gpu=SETTINGS.resources.overlap.gpu,
    params:
        train=lambda wildcards, input: [f"--train={path}" for path in input.train],
        evaluation=lambda wildcards, input: [
            f"--evaluation={path}" for path in input.evaluation
        ],
    shell:
        "tseg overlap {params.train:q} {params.evaluation:q} --output {output.csv:q} > {log:q} 2>&1"
