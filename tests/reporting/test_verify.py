"""`tseg reference` and `tseg verify` on runs that are drawn at random: what is inside, what is named when it is not."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tseg.evaluation.score import Summary
from tseg.files import hash_file
from tseg.lineage import machine, machine_name, note_path, versions
from tseg.reporting.reference import read_reference, write_reference
from tseg.reporting.verify import WIDTH, envelopes, measure, verify_runs
from tseg.settings.plan import Plan
from tseg.settings.run_schema import RunSettings, write_run
from tseg.settings.verified import SEEDS, VerifiedFiles

from ..provenances import masks_provenance

ROOT = Path(__file__).parents[2]
RUN, STARTED = "refcoco-mpa", "phrasecut-mpa+pretraining=refcoco"
RUNS = (RUN, STARTED, "refcoco-spa")
SUMMARY = "val-plain.json"


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
    for run in RUNS:
        for seed in SEEDS:
            write_training(Path("five"), settings[run], seed, draw_losses(random), 20 + random.standard_normal())
        write_reference(settings[run], files_of(Path("five"), run, SEEDS), Path(f"reference/{run}.json"))
    retrain(0)
    return tmp_path


def draw_losses(random: np.random.Generator) -> pd.Series:
    """A curve of 210 rows whose height and noise depend on the seed."""
    iterations = np.arange(3, 633, 3)
    height = 0.2 + 0.01 * random.standard_normal()
    losses = height + np.exp(-iterations / 100) + 0.02 * random.standard_normal(len(iterations))
    return pd.Series(losses, index=pd.Index(iterations, name="iteration"), name="loss")


def files_of(results: Path, run: str, seeds: Iterable[int]) -> dict[int, VerifiedFiles]:
    return {
        seed: VerifiedFiles(
            history=results / f"runs/{run}/seed{seed}/history.csv",
            summary=results / f"scores/{run}/seed{seed}/{SUMMARY}",
        )
        for seed in seeds
    }


def write_training(results: Path, settings: RunSettings, seed: int, losses: pd.Series, score: float) -> None:
    """Write the settings, history and summary of a training, with their notes."""
    files = files_of(results, settings.run, [seed])[seed]
    assert files.summary
    for path in (files.history, files.summary):
        path.parent.mkdir(parents=True, exist_ok=True)
    config = files.history.parents[1] / "config.yaml"
    write_run(settings, config)
    losses.to_frame().assign(tau=10.0).to_csv(files.history)
    summary = Summary(masks=masks_provenance(), metrics={"mIoU": score / 100}, num_images=4)
    files.summary.write_text(summary.model_dump_json())
    records = dict.fromkeys([settings.records, *settings.excluded_records], "0" * 64)
    write_note(files.history, inputs={str(config): hash_file(config)} | records)
    write_note(files.summary)


def write_note(path: Path, **changes: Any) -> None:
    """Write the note of a file, with `changes`."""
    usual = {"sha256": hash_file(path), "command": ["tseg"], "stdin": None, "settings": "", "inputs": {}, "folder": "/"}
    usual |= {"revision": "unknown", "versions": versions(), "machine": machine(), "seconds": 1.0, "warnings": []}
    note_path(path).parent.mkdir(exist_ok=True)
    note_path(path).write_text(json.dumps(usual | {"started": "2026-01-01T00:00:00+00:00"} | changes))


def retrain(
    seed: int,
    change: Callable[[pd.Series], pd.Series] = lambda losses: losses,
    *,
    run: str = RUN,
    points: float = 0,
    **settings: Any,
) -> None:
    """Write a training with the losses of the reference's seed 0, changed, and a score `points` higher."""
    reference, _ = read_reference(Path(f"reference/{run}.json"))
    losses = pd.read_csv(f"five/runs/{run}/seed0/history.csv", index_col="iteration")["loss"]
    changed = reference.settings.model_copy(update=settings)
    write_training(Path("results"), changed, seed, change(losses), reference.scores[0] + points)


def verify(capsys: pytest.CaptureFixture[str], inside: bool) -> str:
    assert verify_runs(Path("results"), Path("reference")) == inside
    return capsys.readouterr().out


def test_a_reference_keeps_what_the_trainings_wrote(project: Path, settings: dict[str, RunSettings]) -> None:
    reference, losses = read_reference(project / f"reference/{RUN}.json")
    assert reference.settings == settings[RUN] and reference.summary == SUMMARY
    assert reference.machines == [machine_name(machine())] and reference.versions["torch"] == [versions()["torch"]]
    assert reference.records == {settings[RUN].records: "0" * 64}
    assert list(losses) == list(reference.scores) == list(SEEDS) and len(losses) == 200
    for seed in SEEDS:
        history = pd.read_csv(f"five/runs/{RUN}/seed{seed}/history.csv", index_col="iteration")
        np.testing.assert_allclose(losses[seed], history["loss"].head(200), rtol=1e-8)


def test_a_reference_of_a_run_without_a_summary_has_no_scores(project: Path, settings: dict[str, RunSettings]) -> None:
    files = {
        seed: VerifiedFiles(history=each.history, summary=None)
        for seed, each in files_of(Path("five"), RUN, SEEDS).items()
    }
    write_reference(settings[RUN], files, project / f"reference/{RUN}.json")
    reference, _ = read_reference(project / f"reference/{RUN}.json")
    assert reference.summary is None and reference.scores == {}


def test_no_reference_is_made_of_files_of_unknown_origin(project: Path, settings: dict[str, RunSettings]) -> None:
    files = files_of(Path("five"), RUN, SEEDS)
    with files[1].history.open("a") as history:
        history.write("633,0.1,10.0\n")
    with pytest.raises(ValueError, match=re.escape(f"{files[1].history} was changed after it was made; remove it")):
        write_reference(settings[RUN], files, Path("new.json"))
    note_path(files[1].history).unlink()
    with pytest.raises(ValueError, match=re.escape(f"{files[1].history} has no note of what made it; remove it")):
        write_reference(settings[RUN], files, Path("new.json"))
    assert not Path("new.json").exists()


def test_a_training_that_only_rounds_otherwise_is_inside(project: Path, capsys) -> None:
    retrain(0, lambda losses: losses * (1 + 1e-5))
    told = verify(capsys, inside=True)
    assert "1e-05" in told and "Not as" not in told and "Reasons" not in told and "Changed" not in told
    assert "Trainings: 1 of 1 inside the envelope; 2 of 3 runs not trained here\n" in told


def test_another_setting_is_named_by_its_key(project: Path, settings: dict[str, RunSettings], capsys) -> None:
    training = settings[RUN].training
    faster = training.model_copy(update={"optimizer": training.optimizer.model_copy(update={"learning_rate": 0.01})})
    retrain(0, lambda losses: losses * np.linspace(1, 3, len(losses)), training=faster)
    told = verify(capsys, inside=False)
    for reason in (
        "its first losses are not those of seed 0",
        "the course of its losses is outside",
        "training.optimizer.learning_rate is 0.01, was 0.002",
    ):
        assert f"{RUN}, seed 0: {reason}\n" in told
    assert "; 1 outside the envelope" in told


def test_a_setting_that_moves_nothing_is_named_too(project: Path, capsys) -> None:
    retrain(0, dataset="mine")
    assert f"{RUN}, seed 0: dataset is mine, was refcoco\n" in verify(capsys, inside=True)


def test_a_seed_that_begins_otherwise_is_outside_though_its_course_is_not(project: Path, capsys) -> None:
    retrain(0, lambda losses: losses * 1.002)
    told = verify(capsys, inside=False)
    assert f"{RUN}, seed 0: its first losses are not those of seed 0\n" in told
    assert "course of its losses is outside" not in told


def test_first_losses_after_another_training_are_not_judged(project: Path, capsys) -> None:
    retrain(0, lambda losses: losses * 1.002, run=STARTED)
    assert "2e-03" in verify(capsys, inside=True)


def test_a_score_must_be_that_of_the_same_losses(project: Path, capsys) -> None:
    retrain(0, points=0.4)
    verify(capsys, inside=True)
    retrain(0, points=0.6)
    told = verify(capsys, inside=False)
    assert f"{RUN}, seed 0: its score is not that of seed 0, but its losses are\n" in told
    assert "its score is outside" not in told
    retrain(0, lambda losses: losses.where(losses.index < 300, losses * 1.01), points=0.6)
    verify(capsys, inside=True)


def test_a_seed_that_the_reference_lacks_is_judged_by_course_and_score(project: Path, capsys) -> None:
    retrain(7, lambda losses: losses * 1.002)
    assert "Trainings: 2 of 2 inside" in verify(capsys, inside=True)
    retrain(7, points=20)
    assert f"{RUN}, seed 7: its score is outside\n" in verify(capsys, inside=False)
    retrain(7, lambda losses: losses * 2)
    assert f"{RUN}, seed 7: the course of its losses is outside\n" in verify(capsys, inside=False)


def test_a_training_without_a_score_is_judged_by_its_losses_and_counted(project: Path, capsys) -> None:
    Path(f"results/scores/{RUN}/seed0/{SUMMARY}").unlink()
    assert "Trainings: 1 of 1 inside the envelope; 1 without a score here;" in verify(capsys, inside=True)


def test_a_loss_that_is_no_number_is_outside(project: Path, capsys) -> None:
    retrain(0, lambda losses: losses.where(losses.index != 6))
    told = verify(capsys, inside=False)
    assert "its first losses are not" in told and "the course of its losses is outside" in told


def test_a_training_of_other_length_is_outside(project: Path, capsys) -> None:
    retrain(0, lambda losses: losses.head(150))
    assert "its history has other iterations than the reference's" in verify(capsys, inside=False)


def test_what_trained_a_run_is_read_from_its_note(project: Path, settings: dict[str, RunSettings], capsys) -> None:
    history, records = Path(f"results/runs/{RUN}/seed0/history.csv"), settings[RUN].records
    write_note(history, versions=versions() | {"torch": "1.0"}, machine={"processor": "Abacus"}, inputs={records: "1"})
    told = verify(capsys, inside=True)
    assert f"  torch is 1.0, was {versions()['torch']}\n" in told
    assert f"  the processor is Abacus, was {machine_name(machine())}\n" in told
    assert f"{RUN}, seed 0: {records} had other bytes\n" in told
    assert f"{RUN}, seed 0: config.yaml was changed after the training\n" in told
    write_note(history, sha256="0")
    assert f"{RUN}, seed 0: history.csv was changed after the training\n" in verify(capsys, inside=True)
    note_path(history).unlink()
    assert f"{RUN}, seed 0: no note says what trained it\n" in verify(capsys, inside=True)


def test_a_training_without_a_reference_is_counted(project: Path, capsys) -> None:
    shutil.copytree(f"results/runs/{RUN}", "results/runs/mine")
    shutil.copytree(f"results/runs/{RUN}/seed0", f"results/runs/{RUN}/seed0_old")
    assert "; 2 of other runs, without a reference;" in verify(capsys, inside=True)


def test_code_that_changed_since_the_reference_is_named(project: Path, capsys) -> None:
    retrain(0, lambda losses: losses * 2)
    assert "  unknown: git " in verify(capsys, inside=False)
    Path("src").mkdir()
    Path("src/model.py").write_text("old")
    identity = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    for words in (["init"], ["add", "src", "reference"], [*identity, "commit", "--message=Reference"]):
        subprocess.run(["git", *words], check=True, capture_output=True)
    Path("src/model.py").write_text("new")
    assert "  src/model.py has changed (not committed)\n" in verify(capsys, inside=False)


def test_what_cannot_be_verified_is_an_error_that_says_where(project: Path) -> None:
    with pytest.raises(ValueError, match="nowhere has no reference"):
        verify_runs(Path("results"), Path("nowhere"))
    with pytest.raises(ValueError, match="nowhere/runs has no finished training"):
        verify_runs(Path("nowhere"), Path("reference"))


@pytest.mark.parametrize("content", ["", "iteration,tau\n3,10.0\n", "iteration,loss\n3,low\n", "iteration,loss\nx,1\n"])
def test_a_damaged_history_is_named(project: Path, content: str) -> None:
    history = Path(f"results/runs/{RUN}/seed0/history.csv")
    history.write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{history} is no history")):
        verify_runs(Path("results"), Path("reference"))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("json", "{}"),
        ("json", '{"versions"'),
        ("json", None),
        ("csv", None),
        ("csv", ""),
        ("csv", "<<<<<<< ours\niteration,0,1\n3,0.1,0.1\n"),
        ("csv", "iteration,0,x\n3,0.1,0.1\n"),
        ("csv", "iteration,0\n3,0.1\n"),
        ("csv", "iteration,0,1\n3,0.1\n"),
        ("csv", "iteration,0,1\n3,0.1,0.2\n"),
    ],
)
def test_a_damaged_reference_is_named(project: Path, kind: str, content: str | None) -> None:
    path = Path(f"reference/{RUN}.{kind}")
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} .*restore it by git"):
        verify_runs(Path("results"), Path("reference"))


def test_an_envelope_is_the_formula_of_its_module() -> None:
    calm, wild, alone = (
        [[x, x, x, x, x, y] for x, y in zip(*each, strict=True)]
        for each in (
            ((0.0, 1.0, 2.0), (10.0, 10.0, 10.0)),  # standard deviations 1 and 0
            ((0.0, 4.0, 8.0), (10.0, 12.0, 14.0)),  # 4 and 2
            ((3.0, 5.0, 7.0), (np.nan, np.nan, np.nan)),  # 2, and no score
        )
    )
    expected = envelopes({name: np.array(each) for name, each in {"calm": calm, "wild": wild, "alone": alone}.items()})
    by_hand = {"calm": (2.0, 1.0), "wild": (4.0, 2.0)}  # the median of (1, 4, 2), and of (0, 2)
    for name, (losses, score) in by_hand.items():
        widths = WIDTH * np.sqrt(4 / 3) * np.array([losses] * 5 + [score])
        np.testing.assert_allclose(expected[name].width, widths)
        centre = np.mean({"calm": calm, "wild": wild}[name], axis=0)
        np.testing.assert_allclose(expected[name].distance(centre + widths * 1.01), 1.01)
    assert np.isnan(expected["alone"].distance(np.zeros(6))[-1])


def test_blocks_are_means_of_equal_parts() -> None:
    found = measure(np.repeat([1.0, 2.0, 3.0, 4.0, 5.0], 40), 12.5)
    np.testing.assert_allclose(found, [*np.log([1, 2, 3, 4, 5]), 12.5])


def test_few_further_seeds_are_outside() -> None:
    random = np.random.default_rng(1)
    spread = np.exp(random.standard_normal(500))  # the runs differ in how much their seeds differ
    measures = {str(run): each * random.standard_normal((6, 6)) for run, each in enumerate(spread)}
    expected = envelopes({run: seeds[:-1] for run, seeds in measures.items()})
    outside = np.stack([expected[run].distance(seeds[-1]) > 1 for run, seeds in measures.items()])
    assert 0 < outside.mean() < 0.01


def test_the_committed_reference_is_of_the_committed_settings_and_results(settings: dict[str, RunSettings]) -> None:
    references = {path.stem: read_reference(path) for path in (ROOT / "results/reference").glob("*.json")}
    assert {run: reference.settings for run, (reference, _) in references.items()} == settings
    evaluated = json.loads((ROOT / "results/stages/evaluation.json").read_text())["files"]
    for run, (reference, losses) in references.items():
        assert list(losses) == list(SEEDS), run
        if reference.summary:
            scores = evaluated[f"results/scores/{run}/seed0/{reference.summary}"]["scores"]
            assert reference.scores[0] == scores["mIoU"], run
