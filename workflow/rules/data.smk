rule fetch:
    output:
        "<raw>/{source}.json",
    log:
        "<logs>/fetch/{source}.log",
    localrule: True
    conda:
        "../envs/tseg.yml"
    params:
        code=lambda wildcards: PLAN.fetch_code(wildcards.source),
        settings=lambda wildcards: as_json(content_of(PLAN.catalogue[wildcards.source])),
        catalogue=SETTINGS.sources,
        dir=subpath(output[0], parent=True),
    shell:
        "tseg fetch {wildcards.source:q} --catalogue {params.catalogue:q} --dir {params.dir:q} > {log:q} 2>&1"


rule prepare:
    input:
        lambda wildcards: PLAN.raw_inputs(wildcards.dataset),
    output:
        records="<records>/{dataset}/{split}.parquet",
        skipped="<records>/{dataset}/{split}.skipped.csv",
    log:
        "<logs>/prepare/{dataset}-{split}.log",
    benchmark:
        "<benchmarks>/prepare/{dataset}-{split}.tsv"
    conda:
        "../envs/tseg.yml"
    threads: THREADS["prepare"]
    resources:
        **RESOURCES["prepare"],
    params:
        code=lambda wildcards: prepare_code(SETTINGS.datasets[wildcards.dataset]),
        settings=lambda wildcards: as_json(
            PLAN.prepare_settings(wildcards.dataset, wildcards.split)
        ),
    shell:
        "tseg prepare {wildcards.dataset:q} {wildcards.split:q} --settings - "
        "--threads {threads} --output {output.records:q} <<< {params.settings:q} > {log:q} 2>&1"


rule describe:
    input:
        list(dict.fromkeys(PLAN.training_records + PLAN.evaluation_records)),
    output:
        csv="<results>/datasets.csv",
        markdown="<results>/datasets.md",
        html=report(
            "<results>/datasets.html",
            category="5 Data",
            labels={"data": "counts"},
            caption="../report/datasets.rst",
        ),
        image=report(
            "<results>/datasets.png",
            category="5 Data",
            labels={"data": "sizes and lengths"},
            caption="../report/datasets.rst",
        ),
    log:
        "<logs>/describe.log",
    localrule: True
    conda:
        "../envs/tseg.yml"
    params:
        code=code_of("describe"),
    shell:
        "tseg describe {input:q} --output {output.csv:q} > {log:q} 2>&1"


rule overlap:
    input:
        train=PLAN.training_records,
        evaluation=PLAN.evaluation_records,
    output:
        csv="<results>/overlaps.csv",
        markdown="<results>/overlaps.md",
        html=report(
            "<results>/overlaps.html",
            category="5 Data",
            labels={"data": "overlaps"},
            caption="../report/overlaps.rst",
        ),
    log:
        "<logs>/overlap.log",
    localrule: True
    conda:
        "../envs/tseg.yml"
    params:
        code=code_of("overlap"),
        records=lambda wildcards, input: options(
            train=input.train, evaluation=input.evaluation
        ),
    shell:
        "tseg overlap {params.records:q} --output {output.csv:q} > {log:q} 2>&1"


rule encode:
    input:
        records=lambda wildcards: PLAN.encodings[wildcards.encoding].records,
        encoders=lambda wildcards: PLAN.weights(
            PLAN.encodings[wildcards.encoding].encoder
        ),
    output:
        "<tokens>/{encoding}.parquet",
    log:
        "<logs>/encode/{encoding}.log",
    benchmark:
        "<benchmarks>/encode/{encoding}.tsv"
    conda:
        "../envs/tseg.yml"
    threads: THREADS["encode"]
    resources:
        **RESOURCES["encode"],
    params:
        code=code_of("encode"),
        settings=lambda wildcards: PLAN.encodings[wildcards.encoding].model_dump_json(),
        device=device("encode"),
    shell:
        "tseg encode --settings - --device {params.device} --threads {threads} "
        "--output {output:q} <<< {params.settings:q} > {log:q} 2>&1"
