rule predict:
    input:
        model=f"{SEED_DIR}/model.safetensors",
        records=evaluation_records,
    output:
        f"{RESULTS}/predictions/{{run}}/seed{{seed}}.parquet",
    log:
        f"{RESULTS}/logs/predict/{{run}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict/{{run}}-seed{{seed}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.predict.threads
    resources:
        mem_mb=SETTINGS.resources.predict.mem_mb,
        runtime=SETTINGS.resources.predict.runtime,
        gpu=SETTINGS.resources.predict.gpu,
    params:
        resolution=SETTINGS.inference.resolution,
        scales=[f"--scales={scale}" for scale in SETTINGS.inference.scales],
        device=device("predict"),
        flip="--flip" if SETTINGS.inference.flip else "--no-flip",
    shell:
        "tseg predict --model {input.model:q} --records {input.records:q} --resolution {params.resolution} "
        "{params.scales} {params.flip} --device {params.device} --threads {threads} --output {output:q} > {log:q} 2>&1"


rule refine:
    input:
        predictions=f"{RESULTS}/predictions/{{run}}/seed{{seed}}.parquet",
        records=evaluation_records,
    output:
        f"{RESULTS}/masks/{{run}}/seed{{seed}}-{{refinement}}.parquet",
    log:
        f"{RESULTS}/logs/refine/{{run}}-seed{{seed}}-{{refinement}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/refine/{{run}}-seed{{seed}}-{{refinement}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.refine.threads
    resources:
        mem_mb=SETTINGS.resources.refine.mem_mb,
        runtime=SETTINGS.resources.refine.runtime,
        gpu=SETTINGS.resources.refine.gpu,
    params:
        background=background,
        crf=lambda wildcards: (
            SETTINGS.inference.crf if wildcards.refinement == "crf" else "none"
        ),
    shell:
        "tseg refine --predictions {input.predictions:q} --records {input.records:q} "
        "{params.background} --crf {params.crf} --output {output:q} > {log:q} 2>&1"


rule evaluate:
    input:
        masks=f"{RESULTS}/masks/{{run}}/seed{{seed}}-{{refinement}}.parquet",
        records=evaluation_records,
        model=f"{SEED_DIR}/model.safetensors",
        tracking=ancient(f"{RESULTS}/tracking.json"),
    output:
        scores=f"{RESULTS}/scores/{{run}}/seed{{seed}}-{{refinement}}.parquet",
        summary=f"{RESULTS}/scores/{{run}}/seed{{seed}}-{{refinement}}.json",
    log:
        f"{RESULTS}/logs/evaluate/{{run}}-seed{{seed}}-{{refinement}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate/{{run}}-seed{{seed}}-{{refinement}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.evaluate.threads
    resources:
        mem_mb=SETTINGS.resources.evaluate.mem_mb,
        runtime=SETTINGS.resources.evaluate.runtime,
        gpu=SETTINGS.resources.evaluate.gpu,
    params:
        num_bootstrap=SETTINGS.num_bootstrap,
        model_dir=subpath(input.model, parent=True),
    shell:
        "tseg evaluate --masks {input.masks:q} --records {input.records:q} --num-bootstrap {params.num_bootstrap} "
        "--model-dir {params.model_dir:q} --tracking {input.tracking:q} "
        "--output {output.scores:q} --summary {output.summary:q} > {log:q} 2>&1"
