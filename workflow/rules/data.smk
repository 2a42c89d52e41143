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
            SETTINGS.sources[wildcards.source].model_dump(mode="json")
        ),
    shell:
        "tseg fetch {wildcards.source:q} --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


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
        "--output {output.records:q} > {log:q} 2>&1"
