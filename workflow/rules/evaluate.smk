rule predict:
    input:
        model=f"{SEED_DIR}/model.safetensors",
        records=evaluation_records,
    output:
        f"{RESULTS}/predictions/{CELL}.parquet",
    log:
        f"{RESULTS}/logs/predict/{CELL}.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict/{CELL}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.predict.threads
    resources:
        mem_mb=SETTINGS.resources.predict.mem_mb,
        runtime=SETTINGS.resources.predict.runtime,
        gpu=SETTINGS.resources.predict.gpu,
    params:
        resolution=resolution,
        views=views,
        labels=asked_labels,
        device=device("predict"),
    shell:
        "tseg predict --model {input.model:q} --records {input.records:q} --resolution {params.resolution} "
        "{params.views} {params.labels:q} --device {params.device} --threads {threads} --output {output:q} > {log:q} 2>&1"


rule refine:
    input:
        predictions=f"{RESULTS}/predictions/{CELL}.parquet",
        records=evaluation_records,
    output:
        f"{RESULTS}/masks/{CELL}-{{refinement}}.parquet",
    log:
        f"{RESULTS}/logs/refine/{CELL}-{{refinement}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/refine/{CELL}-{{refinement}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.refine.threads
    resources:
        mem_mb=SETTINGS.resources.refine.mem_mb,
        runtime=SETTINGS.resources.refine.runtime,
        gpu=SETTINGS.resources.refine.gpu,
    params:
        thresholds=thresholds,
        crf=lambda wildcards: (
            SETTINGS.inference.crf if wildcards.refinement == "crf" else "none"
        ),
    shell:
        "tseg refine --predictions {input.predictions:q} --records {input.records:q} "
        "{params.thresholds} --crf {params.crf} --output {output:q} > {log:q} 2>&1"


rule evaluate:
    input:
        masks=f"{RESULTS}/masks/{CELL}-{{refinement}}.parquet",
        records=evaluation_records,
        model=f"{SEED_DIR}/model.safetensors",
        images=f"{SEED_DIR}/images.csv",
        tracking=ancient(f"{RESULTS}/tracking.json"),
    output:
        scores=f"{RESULTS}/scores/{CELL}-{{refinement}}.parquet",
        summary=f"{RESULTS}/scores/{CELL}-{{refinement}}.json",
    log:
        f"{RESULTS}/logs/evaluate/{CELL}-{{refinement}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate/{CELL}-{{refinement}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.evaluate.threads
    resources:
        mem_mb=SETTINGS.resources.evaluate.mem_mb,
        runtime=SETTINGS.resources.evaluate.runtime,
        gpu=SETTINGS.resources.evaluate.gpu,
    params:
        num_bootstrap=SETTINGS.num_bootstrap,
        seen="exclude" if SETTINGS.exclude_seen else "keep",
        model_dir=subpath(input.model, parent=True),
    shell:
        "tseg evaluate --masks {input.masks:q} --records {input.records:q} --num-bootstrap {params.num_bootstrap} "
        "--images {input.images:q} --{params.seen}-seen "
        "--model-dir {params.model_dir:q} --tracking {input.tracking:q} "
        "--output {output.scores:q} --summary {output.summary:q} > {log:q} 2>&1"
