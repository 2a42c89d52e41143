rule predict:
    input:
        model="<results>/runs/{run}/seed{seed}/model.safetensors",
        records=lambda wildcards: PLAN.records(wildcards.evaluation),
        tokens=lambda wildcards: PLAN.tokens(
            wildcards.run, wildcards.evaluation
        ).values(),
    output:
        "<results>/predictions/{run}/seed{seed}/{evaluation}.parquet",
    log:
        "<logs>/predict/{run}/seed{seed}/{evaluation}.log",
    benchmark:
        "<benchmarks>/predict/{run}/seed{seed}/{evaluation}.tsv"
    conda:
        "../envs/tseg.yml"
    threads: THREADS["predict"]
    resources:
        **RESOURCES["predict"],
    params:
        code=lambda wildcards: predict_code(PLAN.runs[wildcards.run]),
        views=lambda wildcards: options(
            **PLAN.views(wildcards.run, wildcards.evaluation)
        ),
        labels=lambda wildcards: options(**PLAN.labels(wildcards.evaluation)),
        tokens=lambda wildcards: options(
            **PLAN.tokens(wildcards.run, wildcards.evaluation)
        ),
        device=device("predict"),
    shell:
        "tseg predict --model {input.model:q} --records {input.records:q} {params.views} "
        "{params.labels:q} {params.tokens:q} --device {params.device} --threads {threads} --output {output:q} > {log:q} 2>&1"


rule refine:
    input:
        predictions="<results>/predictions/{run}/seed{seed}/{evaluation}.parquet",
        records=lambda wildcards: PLAN.records(wildcards.evaluation),
    output:
        "<results>/masks/{run}/seed{seed}/{evaluation}-{refinement}.parquet",
    log:
        "<logs>/refine/{run}/seed{seed}/{evaluation}-{refinement}.log",
    benchmark:
        "<benchmarks>/refine/{run}/seed{seed}/{evaluation}-{refinement}.tsv"
    conda:
        "../envs/tseg.yml"
    threads: THREADS["refine"]
    resources:
        **RESOURCES["refine"],
    params:
        code=lambda wildcards: PLAN.mask_code(
            wildcards.run, wildcards.evaluation, wildcards.refinement
        ),
        options=lambda wildcards: options(
            **PLAN.mask_options(
                wildcards.run, wildcards.evaluation, wildcards.refinement
            )
        ),
    shell:
        "tseg refine --predictions {input.predictions:q} --records {input.records:q} "
        "{params.options} --threads {threads} --output {output:q} > {log:q} 2>&1"


rule evaluate:
    input:
        masks="<results>/masks/{run}/seed{seed}/{evaluation}-{refinement}.parquet",
        records=lambda wildcards: PLAN.records(wildcards.evaluation),
        model="<results>/runs/{run}/seed{seed}/model.safetensors",
        images="<results>/runs/{run}/seed{seed}/images.csv",
        tracking=ancient("<results>/tracking.json"),
    output:
        scores="<results>/scores/{run}/seed{seed}/{evaluation}-{refinement}.parquet",
        summary="<results>/scores/{run}/seed{seed}/{evaluation}-{refinement}.json",
    log:
        "<logs>/evaluate/{run}/seed{seed}/{evaluation}-{refinement}.log",
    benchmark:
        "<benchmarks>/evaluate/{run}/seed{seed}/{evaluation}-{refinement}.tsv"
    conda:
        "../envs/tseg.yml"
    threads: THREADS["evaluate"]
    resources:
        **RESOURCES["evaluate"],
    params:
        code=lambda wildcards: PLAN.score_code(wildcards.evaluation),
        num_bootstrap=SETTINGS.num_bootstrap,
        seen="exclude" if SETTINGS.exclude_seen else "keep",
        model_dir=subpath(input.model, parent=True),
    shell:
        "tseg evaluate --masks {input.masks:q} --records {input.records:q} --num-bootstrap {params.num_bootstrap} "
        "--images {input.images:q} --{params.seen}-seen "
        "--model-dir {params.model_dir:q} --tracking {input.tracking:q} "
        "--output {output.scores:q} --summary {output.summary:q} > {log:q} 2>&1"
