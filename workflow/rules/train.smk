rule track:
    output:
        f"{RESULTS}/tracking.json",
    log:
        f"{RESULTS}/logs/track.log",
    benchmark:
        f"{RESULTS}/benchmarks/track.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.track.threads
    resources:
        mem_mb=SETTINGS.resources.track.mem_mb,
        runtime=SETTINGS.resources.track.runtime,
        gpu=SETTINGS.resources.track.gpu,
    params:
        # In one word: quoting leaves nothing of an empty one.
        uri=f"--uri={SETTINGS.tracking_uri or ''}",
        experiments=sorted(TRAINED),
    shell:
        "tseg track {params.uri:q} {params.experiments:q} --output {output:q} > {log:q} 2>&1"


rule configure:
    output:
        report(
            f"{RESULTS}/runs/{{run}}/config.yaml",
            category="4 Settings",
            labels={"run": "{run}"},
            caption="../report/settings.rst",
        ),
    log:
        f"{RESULTS}/logs/configure/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/configure/{{run}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.configure.threads
    resources:
        mem_mb=SETTINGS.resources.configure.mem_mb,
        runtime=SETTINGS.resources.configure.runtime,
        gpu=SETTINGS.resources.configure.gpu,
    params:
        settings=lambda wildcards: as_json(RUNS[wildcards.run].model_dump(mode="json")),
    shell:
        "tseg configure --settings {params.settings:q} --output {output:q} > {log:q} 2>&1"


rule train:
    input:
        config=f"{RESULTS}/runs/{{run}}/config.yaml",
        records=lambda wildcards: RUNS[wildcards.run].records,
        excluded=lambda wildcards: RUNS[wildcards.run].excluded_records,
        start=pretraining,
        encoders=encoder_weights,
        # The store's address is no reason to train again.
        tracking=ancient(f"{RESULTS}/tracking.json"),
    output:
        model=f"{SEED_DIR}/model.safetensors",
        history=f"{SEED_DIR}/history.csv",
        images=f"{SEED_DIR}/images.csv",
    log:
        f"{RESULTS}/logs/train/{{run}}-seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{run}}-seed{{seed}}.tsv"
    conda:
        "../../environment.yml"
    threads: SETTINGS.resources.train.threads
    resources:
        mem_mb=SETTINGS.resources.train.mem_mb,
        runtime=SETTINGS.resources.train.runtime,
        gpu=SETTINGS.resources.train.gpu,
    params:
        dir=subpath(output.model, parent=True),
        device=device("train"),
        start=lambda wildcards, input: [f"--start={path}" for path in input.start],
    shell:
        "tseg train --config {input.config:q} --seed {wildcards.seed} --tracking {input.tracking:q} {params.start:q} "
        "--device {params.device} --threads {threads} --output {params.dir:q} > {log:q} 2>&1"
