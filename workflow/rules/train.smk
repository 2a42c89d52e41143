rule track:
    output:
        "<results>/tracking.json",
    log:
        "<logs>/track.log",
    localrule: True
    conda:
        "../envs/tseg.yml"
    params:
        # One word with its option: :q would drop an empty one.
        uri=f"--uri={SETTINGS.tracking_uri or ''}",
        experiments=sorted(PLAN.trained),
    shell:
        "tseg track {params.uri:q} {params.experiments:q} --output {output:q} > {log:q} 2>&1"


# Its file is named by the encoders, so that a change of one run's encoders does not concern the other runs.
rule check:
    input:
        lambda wildcards: PLAN.encoder_weights(RUN_OF_ENCODERS[wildcards.encoders]),
    output:
        "<results>/encoders/{encoders}.json",
    log:
        "<logs>/check/{encoders}.log",
    # Before other rules that can run: it takes seconds, and finds mistakes that cost hours.
    priority: 100
    localrule: True
    conda:
        "../envs/tseg.yml"
    params:
        encoders=lambda wildcards: as_json(
            PLAN.encoders[RUN_OF_ENCODERS[wildcards.encoders]].model_dump(mode="json")
        ),
    shell:
        "tseg check --encoders - --output {output:q} <<< {params.encoders:q} > {log:q} 2>&1"


rule configure:
    input:
        lambda wildcards: f"<results>/encoders/{PLAN.encoders[wildcards.run].name}.json",
    output:
        report(
            "<results>/runs/{run}/config.yaml",
            category="4 Settings",
            labels={"run": "{run}"},
            caption="../report/settings.rst",
        ),
    log:
        "<logs>/configure/{run}.log",
    localrule: True
    conda:
        "../envs/tseg.yml"
    params:
        settings=lambda wildcards: as_json(
            PLAN.runs[wildcards.run].model_dump(mode="json")
        ),
    shell:
        "tseg configure --settings - --output {output:q} <<< {params.settings:q} > {log:q} 2>&1"


rule train:
    input:
        config="<results>/runs/{run}/config.yaml",
        records=lambda wildcards: PLAN.runs[wildcards.run].records,
        excluded=lambda wildcards: PLAN.runs[wildcards.run].excluded_records,
        start=lambda wildcards: PLAN.start(wildcards.run, wildcards.seed),
        encoders=lambda wildcards: PLAN.encoder_weights(wildcards.run),
        tokens=lambda wildcards: PLAN.tokens(wildcards.run).values(),
        pseudo_labels=lambda wildcards: PLAN.pseudo_labels(
            wildcards.run, wildcards.seed
        ),
        # A new address of the store must not cause a new training.
        tracking=ancient("<results>/tracking.json"),
    output:
        model="<results>/runs/{run}/seed{seed}/model.safetensors",
        history="<results>/runs/{run}/seed{seed}/history.csv",
        images="<results>/runs/{run}/seed{seed}/images.csv",
    log:
        "<logs>/train/{run}-seed{seed}.log",
    benchmark:
        "<benchmarks>/train/{run}-seed{seed}.tsv"
    conda:
        "../envs/tseg.yml"
    threads: THREADS["train"]
    resources:
        **RESOURCES["train"],
    params:
        code=lambda wildcards: train_code(PLAN.runs[wildcards.run]),
        dir=subpath(output.model, parent=True),
        device=device("train"),
        given=lambda wildcards, input: options(
            start=input.start,
            pseudo_labels=input.pseudo_labels,
            **PLAN.tokens(wildcards.run),
        ),
    shell:
        "tseg train --config {input.config:q} --seed {wildcards.seed} --tracking {input.tracking:q} {params.given:q} "
        "--device {params.device} --gpus {resources.gpu} --threads {threads} "
        "--checkpoint-minutes {resources.checkpoint_minutes} "
        "--output {params.dir:q} > {log:q} 2>&1"


rule pseudo_label:
    input:
        predictions=lambda wildcards: PLAN.taught_predictions(
            wildcards.run, wildcards.seed
        ),
        records=lambda wildcards: PLAN.runs[wildcards.run].records,
    output:
        "<results>/pseudo_labels/{run}/seed{seed}.parquet",
    log:
        "<logs>/pseudo_label/{run}-seed{seed}.log",
    benchmark:
        "<benchmarks>/pseudo_label/{run}-seed{seed}.tsv"
    conda:
        "../envs/tseg.yml"
    threads: THREADS["refine"]
    resources:
        **RESOURCES["refine"],
    params:
        code=lambda wildcards: PLAN.pseudo_label_code(wildcards.run),
        how=lambda wildcards: options(**PLAN.pseudo_label_options(wildcards.run)),
    shell:
        "tseg pseudo-label --predictions {input.predictions:q} --records {input.records:q} {params.how} "
        "--threads {threads} --output {output:q} > {log:q} 2>&1"
