"""The command line: help is instant, and every mistake is one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


SEGMENT = ["segment", "--model", "{text}", "--output", "x"]


def tseg(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tseg.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "timm", "transformers", "pandas", "mlflow", "matplotlib")
    probe = f"import sys, tseg.cli; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_rule_of_the_workflow_is_a_sub_command() -> None:
    rules = {
        line.split()[1].rstrip(":")
        for path in (ROOT / "workflow/rules").glob("*.smk")
        for line in path.read_text().splitlines()
        if line.startswith("rule ")
    }
    shown = tseg("--help").stdout
    assert rules
    names = [(rule.replace("_", "-"), rule.partition("_")[0]) for rule in rules]  # draw_curves is `draw curves`
    assert all(any(f" {name} " in shown for name in pair) for pair in names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config", "nowhere.yaml", "--output", "x"], "nowhere.yaml does not exist"),
        (
            [*SEGMENT, "{image}", "--phrase", "cat", "--model", "nowhere"],
            "nowhere is no file, no folder and no name on",
        ),
        ([*SEGMENT, "{image}", "--phrase", "cat"], "text is not a model of `tseg train`"),
        ([*SEGMENT, "{image}", "--phrase", "cat", "--crf", "psa2"], "there is no preset 'psa2'"),
        ([*SEGMENT, "{image}", "--phrase", "cat", "--threshold", "ots"], "'ots'; did you mean otsu?"),
        (
            [*SEGMENT, "{image}", "red circle", "--phrase", "cat"],
            "red circle: there is no such image; correct its path",
        ),
        ([*SEGMENT, "{image}"], "there is no phrase; add --phrase"),
        ([*SEGMENT, "{image}", "--phrase", "\u200b"], "is empty; name what to look for"),
        ([*SEGMENT, "{image}", "--phrase", "cat", "--device", "foo"], "device foo: "),
        (["draw", "masks", "{text}", "--label", "a", "--records", "{text}", "--output", "x.png"], "`tseg prepare`"),
        (["draw", "curves", "run/seed0/history.csv", "--output", "x.png"], "run/seed0/history.csv"),
        (["check", "--encoders", "{{}}", "--output", "x.json"], "--encoders: the key image_key is missing"),
        (["configure", "--settings", "{{", "--output", "x.yaml"], "--settings is not YAML"),
        (["fetch", "web", "--catalogue", "{text}"], "text: tables: "),
        (["prepare", "own", "train", "--settings", "{{format: coco}}", "--output", "x.parquet"], "data set own: "),
        (["tabulate", "--layout", "[]", "--published", "x", "--output", "x.csv"], "--layout: "),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_status_1(tmp_path: Path, arguments: list[str], message: str) -> None:
    text, image = tmp_path / "text", tmp_path / "image.png"
    text.write_text("tables: 3")
    Image.new("RGB", (8, 8)).save(image)
    refused = tseg(*(argument.format(text=text, image=image) for argument in arguments))
    assert refused.returncode == 1
    assert message in refused.stderr
    assert refused.stderr.startswith("tseg: ")
    assert "Traceback" not in refused.stderr
    assert not refused.stdout


def test_a_package_of_an_extra_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    """Python finds no module whose place in `sys.modules` holds None."""
    history = tmp_path / "run/seed0/history.csv"
    history.parent.mkdir(parents=True)
    history.write_text("iteration,loss,learning_rate,tau,foreground,empty\n1,0.5,0.1,10,0.2,0.1\n")
    code = "import sys; sys.modules['matplotlib'] = None; from tseg.cli import main; main()"
    command = [sys.executable, "-c", code, "draw", "curves", str(history), "--output", str(tmp_path / "x.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == 'tseg: this needs matplotlib; run `pip install "tseg[workflow]"`\n'
