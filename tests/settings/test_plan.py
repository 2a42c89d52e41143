"""The plan of a configuration: runs, files, options. No test needs snakemake."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tseg.settings.layout import CellLayout
from tseg.settings.plan import Plan

CONFIG = Path(__file__).parents[2] / "config"
SIZE_TERM = {"epsilon": 1.0, "size_lambda": 0.01, "size_power": 5}
METHODS = {"GAP": {"pooling": "gap"}, "TSEG": {"pooling": "mpa", "options": SIZE_TERM}}
ON_PHRASECUT = {"mIoU": {"dataset": "phrasecut"}}
CLASS_ENCODING = {"model.text_encoder": "classes"}
MakePlan = Callable[..., Plan]


@pytest.fixture
def make_plan(tmp_path: Path) -> MakePlan:
    """The plan of the default configuration with the given tables `own` and `other` and figure `own`."""

    def make(
        rows: dict[str, Any],
        columns: dict[str, Any] = ON_PHRASECUT,
        other: dict[str, Any] | None = None,
        figure: dict[str, Any] | None = None,
        **changed: Any,
    ) -> Plan:
        shared = {"number": "0", "title": "A title"}
        tables = {"own": shared | {"rows": rows, "columns": columns}}
        tables |= {"other": shared | {"rows": other, "columns": columns}} if other else {}
        figures = {"own": {"title": "", "caption": ""} | figure} if figure else {}
        described = {"methods": METHODS, "tables": tables, "figures": figures}
        (tmp_path / "experiments.yaml").write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
        return Plan(default() | {"experiments": str(tmp_path / "experiments.yaml")} | changed, "config.yaml")

    return make


def default() -> dict[str, Any]:
    values = yaml.safe_load((CONFIG / "config.yaml").read_text(encoding="utf-8"))
    return values | {key: str(CONFIG / Path(values[key]).name) for key in ("label_sets", "sources", "experiments")}


def in_place(folder: Path) -> dict[str, Any]:
    """The default data sets, with PhraseCut as pairs in `folder`."""
    pairs = {"format": "pairs", "annotations": str(folder), "images": [str(folder)], "train": "a", "evaluation": "b"}
    return default()["datasets"] | {"phrasecut": pairs}


@pytest.mark.parametrize("name", ["config.yaml", "paper.yaml"])
def test_a_configuration_of_the_repository_has_a_plan(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIG.parent)
    plan = Plan.read([f"config/{name}"])
    assert len(plan.runs) == 56
    assert {cell.run.run for cell in plan.cells} < set(plan.runs)  # pretrainings have no cell


def test_a_cell_of_two_tables_is_one_run_with_one_summary(make_plan: MakePlan) -> None:
    plan = make_plan({"{method}": {}, "TSEG again": {"method": "TSEG"}}, other={"TSEG": {"method": "TSEG"}})
    assert set(plan.runs) == {"phrasecut-gap", "phrasecut-mpa"}
    assert plan.summaries("own") == [
        f"results/scores/phrasecut-{pooling}/seed0/phrasecut-val-plain.json" for pooling in ("gap", "mpa")
    ]
    assert plan.summaries("other") == plan.summaries("own")[1:]
    assert list(plan.curves("other")) == ["results/runs/phrasecut-mpa/seed0/history.csv"]


def test_an_override_is_a_run_of_its_own_name_and_settings(make_plan: MakePlan) -> None:
    plan = make_plan({"TSEG": {"method": "TSEG"}, "wide": {"method": "TSEG", "settings": {"model.embed_dim": 1024}}})
    assert set(plan.runs) == {"phrasecut-mpa", "phrasecut-mpa+embed_dim=1024"}
    assert plan.runs["phrasecut-mpa+embed_dim=1024"].model.embed_dim == 1024


def test_a_pretrained_run_starts_from_the_model_of_the_same_seed(make_plan: MakePlan) -> None:
    boxes = {"method": "TSEG", "settings": {"training.weak.pretraining": "refcoco"}}
    plan = make_plan({"boxes first": boxes})
    assert set(plan.runs) == {"refcoco-boxes", "phrasecut-mpa+pretraining=refcoco"}
    start = ["results/runs/refcoco-boxes/seed7/model.safetensors"]
    assert plan.start("phrasecut-mpa+pretraining=refcoco", 7) == start
    assert plan.start("refcoco-boxes", 7) == []
    assert plan.curves("own") == {
        "results/runs/refcoco-boxes/seed0/history.csv": "box pretraining",
        "results/runs/phrasecut-mpa+pretraining=refcoco/seed0/history.csv": "weak supervision",
    }
    assert plan.training_records == ["data/records/phrasecut/train.parquet", "data/records/refcoco/train.parquet"]


def test_box_pretraining_excludes_the_images_of_every_split_that_a_table_evaluates(make_plan: MakePlan) -> None:
    boxes = {"method": "TSEG", "settings": {"training.weak.pretraining": "refcoco"}}
    by_default = make_plan({"boxes first": boxes}).runs["refcoco-boxes"].excluded_records
    columns = {name: {"dataset": "phrasecut", "split": name} for name in ("val", "val+miniv", "test")}
    figure = {"kind": "masks", "columns": {"TSEG": {"dataset": "refcoco", "method": "TSEG", "split": "testA"}}}
    plan = make_plan({"boxes first": boxes}, columns, figure=figure)
    (run,) = (run for name, run in plan.runs.items() if name.endswith("-boxes"))
    more = [f"data/records/{split}.parquet" for split in ("phrasecut/val+miniv", "phrasecut/test", "refcoco/testA")]
    assert run.excluded_records == [*by_default, *more]
    assert plan.records("phrasecut-val+miniv") == "data/records/phrasecut/val+miniv.parquet"
    boxes["settings"] |= {"training.boxes.exclude_evaluation": False}
    assert all(not run.excluded_records for run in make_plan({"boxes first": boxes}, columns).runs.values())


def test_a_student_learns_from_its_teachers_masks_of_the_training_images_at_the_same_seed(make_plan: MakePlan) -> None:
    plan = make_plan({"student": {"method": "TSEG", "supervision": "pseudo"}}, ON_PHRASECUT)
    assert set(plan.runs) == {"phrasecut-mpa", "phrasecut-mpa-pseudo"}
    student = plan.runs["phrasecut-mpa-pseudo"]
    assert (student.teacher, student.pooling) == ("phrasecut-mpa", plan.runs["phrasecut-mpa"].pooling)
    assert plan.pseudo_labels("phrasecut-mpa-pseudo", 3) == ["results/pseudo_labels/phrasecut-mpa-pseudo/seed3.parquet"]
    taught = "results/predictions/phrasecut-mpa/seed3/phrasecut-train.parquet"
    assert plan.taught_predictions("phrasecut-mpa-pseudo", 3) == taught
    assert plan.records("phrasecut-train") == student.records == "data/records/phrasecut/train.parquet"
    assert plan.evaluation_records == ["data/records/phrasecut/val.parquet"]  # nothing is scored on training images
    assert plan.pseudo_labels("phrasecut-mpa", 3) == []
    assert plan.pseudo_label_options("phrasecut-mpa-pseudo") == {
        "threshold": plan.settings.training.pseudo.pseudo_labels.threshold,
        "ignore_band": plan.settings.training.pseudo.pseudo_labels.ignore_band,
        "crf": "none",
    }


def test_a_teachers_masks_are_made_as_in_its_predictions(make_plan: MakePlan) -> None:
    student = {"student": {"method": "GAP", "supervision": "pseudo"}}
    plan = make_plan(student, inference=default()["inference"] | {"exclusive_activations": False})
    masks = plan.mask_options("phrasecut-gap", "phrasecut-val", "plain")
    taught = plan.pseudo_label_options("phrasecut-gap-pseudo")
    assert {name: taught[name] for name in ("background", "overlapping")} == {
        name: masks[name] for name in ("background", "overlapping")
    }


def test_a_teacher_shares_what_is_varied_of_weak_training(make_plan: MakePlan) -> None:
    varied = {"training.weak.loss": "sum", "training.pseudo.iterations": 5}
    plan = make_plan({"student": {"method": "TSEG", "supervision": "pseudo", "settings": varied}})
    assert set(plan.runs) == {"phrasecut-mpa+loss=sum", "phrasecut-mpa-pseudo+iterations=5+loss=sum"}


def test_classes_that_are_given_are_scored_as_records(make_plan: MakePlan) -> None:
    plan = make_plan(
        {"given": {"given": True, "method": "TSEG"}, "found": {"method": "TSEG"}}, {"": {"dataset": "voc"}}
    )
    assert set(plan.evaluations) == {"voc-val+given", "voc-val"}
    assert plan.labels("voc-val+given") == {}
    assert "confidence" not in plan.mask_options("voc-mpa", "voc-val+given", "plain")
    assert "confidence" in plan.mask_options("voc-mpa", "voc-val", "plain")
    with pytest.raises(ValueError, match="given is for data sets with classes"):
        make_plan({"given": {"given": True, "method": "TSEG"}})


def frozen(**training: Any) -> dict[str, Any]:
    """Settings with frozen encoders and fixed crops."""
    values = default()
    values["image_encoders"]["vit"] |= {"weights": "data/raw/own/vit.safetensors", "trainable": "heads"}
    values["language_model"] |= {"weights": "text", "trainable": "heads"}
    values["training"]["weak"] |= {"views": 2} | training
    return {key: values[key] for key in ("image_encoders", "language_model", "training")}


def test_runs_with_the_same_frozen_encoders_read_the_same_tokens(make_plan: MakePlan) -> None:
    plan = make_plan({"{method}": {}}, **frozen())
    for name in ("phrasecut-gap", "phrasecut-mpa"):
        assert plan.tokens(name) == plan.tokens("phrasecut-gap")
        assert plan.tokens(name, "phrasecut-val") == plan.tokens("phrasecut-gap", "phrasecut-val")
    files = {*plan.tokens("phrasecut-mpa").values(), *plan.tokens("phrasecut-mpa", "phrasecut-val").values()}
    assert files == {f"data/tokens/{name}.parquet" for name in plan.encodings} and len(files) == 3


def test_each_kind_of_view_has_tokens_of_its_own(make_plan: MakePlan) -> None:
    rows = {"one": {"method": "TSEG"}, "several": {"method": "TSEG", "multiscale": True}}
    plan = make_plan(rows | {"larger": {"method": "TSEG", "settings": {"training.weak.resolution": 108}}}, **frozen())
    crops = {name for name, encoding in plan.encodings.items() if encoding.kind == "patches" and "train" in name}
    whole = {name for name, encoding in plan.encodings.items() if encoding.kind == "patches" and "val" in name}
    assert len(crops) == len(whole) == 2


def test_without_fixed_crops_or_with_windows_the_encoder_runs(make_plan: MakePlan) -> None:
    assert set(make_plan({"{method}": {}}, **frozen(views=None)).tokens("phrasecut-mpa")) == {"texts"}
    inference = default()["inference"] | {"window": 96}
    plan = make_plan({"{method}": {}}, inference=inference, **frozen())
    assert plan.tokens("phrasecut-mpa", "phrasecut-val") == {}
    assert not make_plan({"{method}": {}}).encodings


def test_a_class_encoding_knows_the_classes_of_its_data_set(make_plan: MakePlan) -> None:
    plan = make_plan({"GAP": {"method": "GAP", "settings": CLASS_ENCODING}}, {"mIoU": {"dataset": "voc"}})
    classes = plan.settings.datasets["voc"].classes
    assert classes
    assert plan.runs["voc-gap+text_encoder=classes"].model.text_encoder.classes == classes
    assert plan.encoder_weights("voc-gap+text_encoder=classes") == []
    assert plan.labels("voc-val") == {"labels": {name: [name] for name in classes}}


def test_a_data_set_without_sources_is_read_from_its_annotation_files(make_plan: MakePlan, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    (folder / "folder.csv").mkdir(parents=True)
    for name in ("b.csv", "a.json", "image.jpg"):
        (folder / name).touch()
    plan = make_plan({"{method}": {}}, datasets=in_place(folder))
    assert plan.raw_inputs("phrasecut") == [str(folder / "a.json"), str(folder / "b.csv")]
    assert plan.raw_inputs("refcoco") == ["data/raw/shapes-coco.json"]


def test_an_empty_folder_is_refused_if_a_run_needs_it(make_plan: MakePlan, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    plan = make_plan({"{method}": {}}, datasets=in_place(folder))
    complaint = f"datasets.phrasecut.annotations: {folder} holds no annotation file; put them there"
    with pytest.raises(ValueError, match=complaint):
        plan.raw_inputs("phrasecut")
    make_plan({"{method}": {}}, {"mIoU": {"dataset": "refcoco"}}, datasets=in_place(folder))


def test_an_unknown_key_names_the_configuration_and_the_nearest_key(make_plan: MakePlan) -> None:
    with pytest.raises(ValueError, match=r"^config\.yaml: unknown key seed; did you mean seeds\?"):
        make_plan({"{method}": {}}, seed=3)


def test_an_unknown_method_names_its_cell_and_the_nearest_method(make_plan: MakePlan) -> None:
    complaint = r"experiments\.yaml: tables\.own: a row, mIoU: there is no method 'TSG'; did you mean TSEG\?"
    with pytest.raises(ValueError, match=complaint):
        make_plan({"a row": {"method": "TSG"}})


def test_a_file_that_is_missing_is_named_with_its_key(make_plan: MakePlan) -> None:
    with pytest.raises(ValueError, match=r"no\.yaml does not exist; set the key label_sets"):
        make_plan({"{method}": {}}, label_sets="no.yaml")


def test_encoder_weights_come_from_the_sources_whose_folders_hold_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIG.parent)
    plan = Plan.read(["config/paper.yaml"])
    needed = {name: set(plan.encoder_weights(name)) for name in plan.runs}
    vit, wide, bert = (f"data/paper/raw/{source}.json" for source in ("vit_small", "wide_resnet38", "bert_small"))
    assert needed["phrasecut-mpa"] == {vit, bert}
    assert {wide} in needed.values()  # class encoding has no language model
    assert {wide, bert} in needed.values()


def test_inference_options_are_those_that_apply(make_plan: MakePlan) -> None:
    rows = {
        "GAP": {"method": "GAP"},
        "classes": {"method": "TSEG", "evaluate": "voc", "multiscale": True, "labels": "better_words"},
        "full": {"supervision": "full"},
    }
    plan = make_plan(rows)
    inference, on_voc = plan.settings.inference, "voc-val+multiscale+labels=better_words"
    assert set(plan.evaluations) == {"phrasecut-val", on_voc}
    plain: dict[str, Any] = {"threshold": "fixed", "crf": "none"}
    activations = {"background": inference.background}
    assert plan.mask_options("phrasecut-gap", "phrasecut-val", "plain") == activations | plain
    psa = activations | {"confidence": inference.confidence, "threshold": "fixed", "crf": "psa", "crf_background": 4}
    assert plan.mask_options("phrasecut-gap", on_voc, "crf") == psa
    assert plan.mask_options("phrasecut-mpa", on_voc, "plain") == {"confidence": inference.confidence} | plain
    refined = {"threshold": "halfway", "crf": "pamr"}
    assert plan.mask_options("phrasecut-full", "phrasecut-val", "halfway+pamr") == refined
    weak, full = inference.resolution.weak, inference.resolution.full
    several = {"resolution": weak, "scales": inference.multiscale, "flip": True}
    assert plan.views("phrasecut-mpa", on_voc) == several
    assert plan.views("phrasecut-gap", "phrasecut-val") == {"resolution": weak, "scales": [1.0]}
    assert plan.views("phrasecut-full", "phrasecut-val") == {"resolution": full, "scales": [1.0]}
    assert plan.labels("phrasecut-val") == {}
    assert plan.labels(on_voc)["labels"]["cool thing"] == ["cyan thing", "blue thing"]


def test_inference_may_use_windows_overlapping_activations_and_a_constant_background(make_plan: MakePlan) -> None:
    changed = {"window": 96, "exclusive_activations": False, "crf_background": None}
    rows = {"GAP": {"method": "GAP"}, "on classes": {"method": "GAP", "evaluate": "voc"}}
    plan = make_plan(rows, inference=default()["inference"] | changed)
    weak = plan.settings.inference.resolution.weak
    assert plan.views("phrasecut-gap", "phrasecut-val") == {"resolution": weak, "scales": [1.0], "window": 96}
    options = plan.mask_options("phrasecut-gap", "voc-val", "crf")
    assert options["overlapping"] is True
    assert "crf_background" not in options


def test_any_row_may_use_several_views(make_plan: MakePlan) -> None:
    rows = {"TSEG": {"method": "TSEG"}, "TSEG, several scales": {"method": "TSEG", "multiscale": True}}
    plan = make_plan(rows | {"full": {"supervision": "full", "multiscale": True}})
    inference = plan.settings.inference
    once: dict[str, Any] = {"resolution": inference.resolution.weak, "scales": [1.0]}
    assert plan.views("phrasecut-mpa", "phrasecut-val") == once
    several = {"scales": inference.multiscale, "flip": True}
    assert plan.views("phrasecut-mpa", "phrasecut-val+multiscale") == once | several
    full = {"resolution": inference.resolution.full}
    assert plan.views("phrasecut-full", "phrasecut-val+multiscale") == full | several


def test_a_layout_has_a_summary_of_every_seed_in_each_cell(make_plan: MakePlan) -> None:
    plan = make_plan({"{method}": {}, "TSEG (CRF)": {"method": "TSEG", "crf": True}}, seeds=[0, 1])
    layout = plan.layout("own")
    assert (layout.table, layout.rows, layout.columns) == ("own", ["GAP", "TSEG", "TSEG (CRF)"], ["mIoU"])
    summaries = [f"results/scores/phrasecut-mpa/seed{seed}/phrasecut-val-crf.json" for seed in (0, 1)]
    assert layout.cells[-1] == CellLayout(row="TSEG (CRF)", column="mIoU", metric="mIoU", summaries=summaries)
    assert sorted(plan.summaries("own")) == sorted(path for cell in layout.cells for path in cell.summaries)


def test_a_figure_draws_masks_of_the_first_seed_and_names_its_columns(make_plan: MakePlan) -> None:
    on_voc = {"dataset": "phrasecut", "evaluate": "voc", "method": "TSEG"}
    columns = {"by name": {}, "better words": {"labels": "better_words"}}
    figure = {"kind": "classes", "cells": on_voc, "columns": columns, "seed": 3}
    plan = make_plan({"{method}": {}}, figure=figure, seeds=[4, 5])
    masks = "results/masks/phrasecut-mpa/seed4/voc-val"
    assert plan.drawn_files("own") == [f"{masks}-plain.parquet", f"{masks}+labels=better_words-plain.parquet"]
    assert plan.drawn_records("own") == "data/records/voc/val.parquet"
    choice = {"label": ["by name", "better words"], "only": ["cool thing"], "seed": 3, "num_panels": 6}
    assert plan.drawn_choice("own") == choice


def test_the_assignment_of_patches_is_drawn_from_predictions(make_plan: MakePlan) -> None:
    columns = {"TSEG": {"dataset": "phrasecut", "method": "TSEG"}}
    plan = make_plan({"{method}": {}}, figure={"kind": "assignment", "columns": columns})
    assert plan.drawn_files("own") == ["results/predictions/phrasecut-mpa/seed0/phrasecut-val.parquet"]
    assert plan.drawn_choice("own") == {}


def test_later_configuration_files_win_key_by_key(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(yaml.safe_dump(default()), encoding="utf-8")
    second.write_text("seeds: [1, 2]\nmodel: {embed_dim: 64}\n", encoding="utf-8")
    settings = Plan.read([first, second]).settings
    assert (settings.seeds, settings.model.embed_dim) == ([1, 2], 64)
    assert settings.model.image_encoder == default()["model"]["image_encoder"]
    second.write_text("seed: 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^{first} \+ {second}: unknown key seed"):
        Plan.read([first, second])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "holds no keys"), ("a: [1", "correct its YAML"), (None, "does not exist")],
)
def test_a_file_that_is_not_a_configuration_is_named(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "config.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"^{path}.*{complaint}"):
        Plan.read([path])


def test_local_weights_are_inputs_of_what_reads_them(make_plan: MakePlan, tmp_path: Path) -> None:
    (tmp_path / "bert").mkdir()
    files = [tmp_path / name for name in ("vit.safetensors", "bert/config.json", "bert/model.safetensors")]
    for file in files:
        file.touch()
    text = {"weights": str(tmp_path / "bert"), "pooling": "mean", "dropout": 0.0}
    encoders = default()["image_encoders"]
    encoders["vit"] |= {"weights": str(files[0])}
    plan = make_plan({"{method}": {}}, language_model=text, image_encoders=encoders)
    assert plan.encoder_weights("phrasecut-mpa") == [str(file) for file in files]
    text["weights"] = "on/the-hub"
    assert make_plan({"{method}": {}}, language_model=text).encoder_weights("phrasecut-mpa") == []


def test_what_concerns_other_splits_is_no_setting_of_a_split(make_plan: MakePlan) -> None:
    datasets = yaml.safe_load((CONFIG / "config.yaml").read_text())["datasets"]
    rows = {"TSEG": {"method": "TSEG"}}
    before = make_plan(rows, datasets=datasets).prepare_settings("phrasecut", "train")
    datasets["phrasecut"] |= {"evaluation": "test", "published": {"test": {"expressions": 5, "images": 5}}}
    assert make_plan(rows, datasets=datasets).prepare_settings("phrasecut", "train") == before
    datasets["phrasecut"]["published"]["train"] = {"expressions": 5, "images": 5}
    assert make_plan(rows, datasets=datasets).prepare_settings("phrasecut", "train") != before


def test_more_gpus_than_images_of_a_batch_are_refused(make_plan: MakePlan) -> None:
    resources = default()["resources"]
    resources["train"]["gpu"] = 17
    with pytest.raises(ValueError, match=r"resources\.train\.gpu: 17 GPUs cannot share the 16 images of a batch of"):
        make_plan({"{method}": {"methods": ["TSEG"]}}, resources=resources)


@pytest.mark.parametrize("name", ["own{x}", "{}", "-own", "a\nb"])
def test_a_name_that_paths_or_commands_cannot_hold_is_refused(make_plan: MakePlan, name: str) -> None:
    settings = default()
    settings["datasets"][name] = settings["datasets"]["phrasecut"]
    with pytest.raises(ValueError, match=r"the name '.*' starts with - or has a brace or a control character; rename"):
        make_plan({"{method}": {"methods": ["TSEG"]}}, datasets=settings["datasets"])


@pytest.mark.parametrize("name", ["(x)", "a,b", "it's", "a b", 'a"b', "ü", "x:y"])
def test_any_other_name_has_a_plan(make_plan: MakePlan, name: str) -> None:
    settings = default()
    settings["datasets"][name] = settings["datasets"]["phrasecut"]
    assert make_plan({"{method}": {"methods": ["TSEG"]}}, datasets=settings["datasets"]).settings.datasets[name]
