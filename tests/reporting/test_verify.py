"""`tseg verify` on runs that are drawn at random: what is inside the envelope, and what is named when it is not."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tseg.evaluation.score import Summary
from tseg.files import hash_file
from tseg.lineage import machine, machine_name, note_path, versions
from tseg.reporting.reference import Reference, read_reference
from tseg.reporting.verify import envelopes, measure, verify_runs
from tseg.settings.plan import Plan
from tseg.settings.run_schema import RunSettings, write_run

from ..provenances import masks_provenance, write_records

ROOT = Path(__file__).parents[2]
RUNS = ("refcoco-gap", "refcoco-mpa", "refcoco-spa")
RUN, SUMMARY = "refcoco-mpa", "refcoco-val-plain.json"
SEEDS = range(5)


def draw_losses(random: np.random.Generator) -> pd.Series:
    """A curve whose height and noise depend on the seed."""
    iterations = np.arange(3, 603, 3)
    height = 0.2 + 0.01 * random.standard_normal()
    losses = height + np.exp(-iterations / 100) + 0.02 * random.standard_normal(200)
    return pd.Series(losses, index=pd.Index(iterations, name="iteration"))


@pytest.fixture(scope="module")
def settings() -> dict[str, RunSettings]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(ROOT)
        return Plan.read(["config/config.yaml"]).runs


@pytest.fixture
def project(settings: dict[str, RunSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the reference of three runs and, in `results`, the training of one of them with seed 0."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    records = Path(settings[RUN].records)
    records.parent.mkdir(parents=True)
    write_records(records, [])
    for run in RUNS:
        losses = pd.DataFrame({seed: draw_losses(random) for seed in SEEDS})
        scores = {seed: float(20 + random.standard_normal()) for seed in SEEDS}
        reference = Reference(
            versions={name: [version] for name, version in versions().items()},
            machines=[machine_name(machine())],
            settings=settings[run],
            records={str(records): hash_file(records)},
            summary=SUMMARY,
            scores=scores,
        )
        (tmp_path / "reference").mkdir(exist_ok=True)
        (tmp_path / f"reference/{run}.json").write_text(reference.model_dump_json())
        losses.to_csv(tmp_path / f"reference/{run}.csv")
    write_training(seed=0)
    return tmp_path


def write_training(
    seed: int, change: Callable[[pd.Series], pd.Series] = lambda losses: losses, points: float = 0
) -> None:
    """Write the training of `RUN` with the reference's losses for seed 0, changed, and a score `points` higher."""
    reference, losses = read_reference(Path(f"reference/{RUN}.json"))
    folder = Path(f"results/runs/{RUN}/seed{seed}")
    folder.mkdir(parents=True, exist_ok=True)
    write_run(reference.settings, folder.parent / "config.yaml")
    change(losses[0]).rename("loss").to_frame().assign(tau=10.0).to_csv(folder / "history.csv")
    metrics = {"mIoU": (reference.scores[0] + points) / 100, "overall_IoU": 0.5}
    summary = Path(f"results/scores/{RUN}/seed{seed}/{SUMMARY}")
    summary.parent.mkdir(parents=True, exist_ok=True)
    summary.write_text(Summary(masks=masks_provenance(), metrics=metrics, num_images=4).model_dump_json())


def verify(capsys: pytest.CaptureFixture[str], inside: bool) -> str:
    assert verify_runs(Path("results"), Path("reference")) == inside
    return capsys.readouterr().out


def test_a_training_that_only_rounds_otherwise_is_inside(project: Path, capsys) -> None:
    write_training(0, lambda losses: losses * (1 + 1e-5))
    told = verify(capsys, inside=True)
    assert "1.0e-05" in told and "Not as the reference" not in told
    assert "1 of 1 trainings are inside the envelope; 2 runs of the reference are not trained here" in told


def test_another_setting_is_named_by_its_key(project: Path, capsys) -> None:
    write_training(0, lambda losses: losses * np.linspace(1, 3, len(losses)))
    config = Path(f"results/runs/{RUN}/config.yaml")
    settings = yaml.safe_load(config.read_text())
    settings["training"]["optimizer"]["learning_rate"] = 0.01
    config.write_text(yaml.safe_dump(settings))
    told = verify(capsys, inside=False)
    for fault in (
        ", seed 0: its first losses are not those of seed 0",
        ", seed 0: the course of its losses is outside",
        ": training.optimizer.learning_rate is 0.01, was 0.002",
    ):
        assert f"{RUN}{fault}\n" in told
    assert "changed code" not in told


def test_a_setting_that_moves_nothing_is_named_too(project: Path, capsys) -> None:
    config = Path(f"results/runs/{RUN}/config.yaml")
    config.write_text(config.read_text().replace("decay: all", "decay: matrices"))
    assert f"{RUN}: training.optimizer.decay is matrices, was all\n" in verify(capsys, inside=True)


def test_a_seed_that_begins_otherwise_is_outside_though_its_course_is_not(project: Path, capsys) -> None:
    write_training(0, lambda losses: losses * 1.002)
    told = verify(capsys, inside=False)
    assert f"{RUN}, seed 0: its first losses are not those of seed 0\n" in told
    assert "settings and records are the reference's; `tseg audit` names changed code" in told
    assert "course of its losses is outside" not in told


def test_a_seed_that_the_reference_lacks_is_judged_by_course_and_score(project: Path, capsys) -> None:
    write_training(7, lambda losses: losses * 1.002)
    assert "2 of 2 trainings" in verify(capsys, inside=True)
    write_training(7, points=20)
    assert f"{RUN}, seed 7: its score is outside\n" in verify(capsys, inside=False)
    write_training(7, lambda losses: losses * 2)
    assert f"{RUN}, seed 7: the course of its losses is outside\n" in verify(capsys, inside=False)


def test_a_training_without_a_score_is_judged_by_its_losses(project: Path, capsys) -> None:
    Path(f"results/scores/{RUN}/seed0/{SUMMARY}").unlink()
    assert "1 of 1 trainings" in verify(capsys, inside=True)


def test_a_loss_that_is_no_number_is_outside(project: Path, capsys) -> None:
    write_training(0, lambda losses: losses.where(losses.index != 6))
    told = verify(capsys, inside=False)
    assert "its first losses are not" in told and "the course of its losses is outside" in told


def test_a_training_of_other_length_is_outside(project: Path, capsys) -> None:
    write_training(0, lambda losses: losses.head(150))
    assert "its history has other iterations than the reference's" in verify(capsys, inside=False)


def test_other_records_are_named(project: Path, capsys) -> None:
    records = next(project.glob("data/records/*/*.parquet"))
    write_records(records, [], num_images=5)
    assert f"{RUN}: {records.relative_to(project)} has other records\n" in verify(capsys, inside=True)


def test_another_library_and_another_processor_are_named_once(project: Path, capsys) -> None:
    history = Path(f"results/runs/{RUN}/seed0/history.csv")
    note = {
        "sha256": hash_file(history),
        "command": ["tseg", "train"],
        "stdin": None,
        "settings": "",
        "inputs": {},
        "folder": "/",
        "revision": "unknown",
        "versions": versions() | {"torch": "1.0"},
        "machine": {"processor": "Abacus"},
        "started": "2026-01-01T00:00:00+00:00",
        "seconds": 1.0,
        "warnings": [],
    }
    note_path(history).parent.mkdir()
    note_path(history).write_text(json.dumps(note))
    told = verify(capsys, inside=True)
    assert f"  torch is 1.0, was {versions()['torch']}\n" in told
    assert f"  the processor is Abacus, was {machine_name(machine())}\n" in told


def test_a_training_of_another_run_is_counted(project: Path, capsys) -> None:
    shutil.copytree(f"results/runs/{RUN}", "results/runs/mine")
    assert "1 trainings of other runs have no reference" in verify(capsys, inside=True)


def test_what_cannot_be_verified_is_an_error_that_names_the_file(project: Path) -> None:
    with pytest.raises(ValueError, match="nowhere has no reference"):
        verify_runs(Path("results"), Path("nowhere"))
    with pytest.raises(ValueError, match="nowhere/runs has no finished training"):
        verify_runs(Path("nowhere"), Path("reference"))
    history = Path(f"results/runs/{RUN}/seed0/history.csv")
    for content in ("", "iteration,tau\n3,10.0\n"):
        history.write_text(content)
        with pytest.raises(ValueError, match=re.escape(f"{history} is no history")):
            verify_runs(Path("results"), Path("reference"))
    Path(f"reference/{RUN}.json").write_text("{}")
    with pytest.raises(ValueError, match=re.escape(f"reference/{RUN}.json is no reference of this version")):
        verify_runs(Path("results"), Path("reference"))


def test_an_envelope_holds_further_seeds_and_no_shift() -> None:
    random = np.random.default_rng(1)
    losses = [[draw_losses(random).to_numpy() for _ in range(6)] for _ in range(200)]
    scores = 20 + random.standard_normal((200, 6))
    measures = np.array(
        [[measure(*each) for each in zip(*run, strict=True)] for run in zip(losses, scores, strict=True)]
    )
    expected = envelopes({str(run): seeds[:-1] for run, seeds in enumerate(measures)})
    distances = np.stack([expected[str(run)].distance(seeds[-1]) for run, seeds in enumerate(measures)])
    shifted = np.stack(
        [expected[str(run)].distance(seeds[-1] + [0, 0, 0, 0, 0, 20]) for run, seeds in enumerate(measures)]
    )
    assert (distances > 1).mean() < 0.01
    assert (shifted[:, -1] > 1).mean() > 0.99


def test_an_envelope_does_not_depend_on_units() -> None:
    measures = {name: np.random.default_rng(seed).standard_normal((5, 6)) for seed, name in enumerate("abc")}
    plain, scaled = envelopes(measures), envelopes({name: 3 * seeds + 1 for name, seeds in measures.items()})
    for name in measures:
        np.testing.assert_allclose(scaled[name].centre, 3 * plain[name].centre + 1)
        np.testing.assert_allclose(scaled[name].width, 3 * plain[name].width)
