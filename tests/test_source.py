"""The hash of the code that a result depends on, tried by edits of a copy of the package."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tseg import source
from tseg.settings import code

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/tseg"


def forget() -> None:
    """Empty the caches of the sources that were read."""
    for function in (source._find, source._read, source._uses, source._text, source._digest):
        function.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package whose sources are hashed."""
    shutil.copytree(PACKAGE, tmp_path / "tseg", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(source, "ROOT", tmp_path / "tseg")
    forget()
    yield tmp_path / "tseg"
    forget()


ENCODERS = {"image_encoder": "vit", "text_encoder": "language_model"}
WIDE = {"image_encoder": "wide_resnet38", "text_encoder": "classes"}


def training(pooling: str, supervision: str) -> Callable[[], str]:
    return lambda: code.code_of("train", {"supervision": supervision} | ENCODERS, {f"tseg.model.pooling.{pooling}"})


def masks(pooling: str, threshold: str, crf: str, truth: str) -> Callable[[], str]:
    chosen = {f"tseg.model.pooling.{pooling}", f"tseg.inference.thresholds.{threshold}"}
    return lambda: code.code_of("refine", {"crf": crf, "truth": truth}, chosen)


RESULTS: dict[str, Callable[[], str]] = {
    "draw shapes": code.shapes_code,
    "prepare phrasecut": lambda: code.code_of("prepare", {"format": "phrasecut"}),
    "prepare refer": lambda: code.code_of("prepare", {"format": "refer"}),
    "train gap": training("gap", "weak"),
    "train spa": training("spa", "weak"),
    "train mpa": training("mpa", "weak"),
    "train full": training("POOLINGS", "full"),
    "train boxes": training("POOLINGS", "boxes"),
    "train wide": lambda: code.code_of("train", {"supervision": "weak"} | WIDE, {"tseg.model.pooling.gap"}),
    "predict": lambda: code.code_of("predict", ENCODERS),
    "refine plain": masks("mpa", "FIXED", "none", "records"),
    "refine otsu": masks("mpa", "otsu", "none", "records"),
    "refine crf": masks("mpa", "FIXED", "lattice", "records"),
    "refine pydensecrf": masks("mpa", "FIXED", "pydensecrf", "records"),
    "refine pamr": masks("mpa", "FIXED", "pamr", "records"),
    "refine classes": masks("mpa", "FIXED", "none", "classes"),
    "evaluate records": lambda: code.code_of("evaluate", {"truth": "records"}),
    "evaluate classes": lambda: code.code_of("evaluate", {"truth": "classes"}),
    "tabulate": lambda: code.code_of("tabulate"),
    "draw masks": lambda: code.code_of("draw.masks"),
    "draw curves": lambda: code.code_of("draw.curves"),
}
WEAK = {"train gap", "train spa", "train mpa", "train wide"}
TRAININGS = WEAK | {"train full", "train boxes"}
REFINEMENTS = {name for name in RESULTS if name.startswith("refine")}

NEUTRAL_EDITS = [
    ("model/pooling.py", "s_bg, the background's constant similarity", "another docstring"),
    ("model/pooling.py", "# Without the clamp", "# Another comment"),
    ("training/loop.py", "the loss is {loss}", "another error with {loss}"),
    ("cli/train.py", "Seed of initial weights", "Another help of seeds"),
    ("tracking.py", "SECONDS_AFTER_FAILURE = 60", "SECONDS_AFTER_FAILURE = 61"),
    ("fetching/download.py", "import", "import typing as _\nimport"),
]
EDITED = {
    ("datasets/shapes/draw.py", "def draw_shapes("): {"draw shapes"},
    ("model/pooling.py", "def mpa("): {"train mpa", *REFINEMENTS},
    ("model/pooling.py", "def size_penalty("): {"train spa", "train mpa", *REFINEMENTS},
    ("training/losses.py", "def dice_loss("): {"train full"},
    ("training/batches.py", "class WeakBatches("): WEAK,
    ("training/loop.py", "def training_step("): TRAININGS,
    ("model/wide_resnet38.py", "def build_wide_resnet38("): {"train wide"},
    ("datasets/readers/phrasecut.py", "def open_phrasecut("): {"prepare phrasecut"},
    ("datasets/readers/polygons.py", "def fill_polygons("): {"prepare phrasecut"},
    ("datasets/shards.py", "def read_shards("): {"prepare phrasecut", "prepare refer"},
    ("inference/crf.py", "def refine_masks("): {"refine crf"},
    ("inference/crf.py", "class Preset("): {"refine crf", "refine pydensecrf"},
    ("inference/lattice.py", "def build_lattice("): {"refine crf"},
    ("inference/reference_crf.py", "def refine_masks("): {"refine pydensecrf"},
    ("inference/pamr.py", "def refine_maps("): {"refine pamr"},
    ("inference/thresholds.py", "@rule\ndef otsu("): {"refine otsu"},
    ("inference/semantic.py", "def label_records("): {"refine classes"},
    ("evaluation/voc_miou.py", "def score_labels("): {"evaluate classes"},
    ("evaluation/iou.py", "def score_records("): {"evaluate records"},
    ("reporting/tables/formats.py", "def write_texts("): {"tabulate"},
    ("reporting/figures/curves.py", "def draw_learning_curves("): {"draw curves"},
}
"""File and definition to the results that its edit concerns."""


def concerned(package: Path, file: str, before: str, after: str) -> set[str]:
    """The results whose hash an edit changes."""
    hashes = {name: hash_of() for name, hash_of in RESULTS.items()}
    text = (package / file).read_text(encoding="utf-8")
    assert before in text
    (package / file).write_text(text.replace(before, after, 1), encoding="utf-8")
    forget()
    return {name for name, hash_of in RESULTS.items() if hash_of() != hashes[name]}


@pytest.mark.parametrize(("file", "before", "after"), NEUTRAL_EDITS)
def test_a_comment_a_docstring_a_message_or_the_log_concerns_no_result(
    package: Path, file: str, before: str, after: str
) -> None:
    assert concerned(package, file, before, after) == set()


@pytest.mark.parametrize(("file", "definition"), EDITED)
def test_an_edit_concerns_what_uses_it_and_nothing_else(package: Path, file: str, definition: str) -> None:
    edited = f"@(lambda each: each)\n{definition}"
    assert concerned(package, file, definition, edited) == EDITED[file, definition]


def test_a_name_of_another_library_counts_where_it_is_used(package: Path) -> None:
    before, after = "import SGD, AdamW, Optimizer", "import SGD, Adam as AdamW, Optimizer"
    assert concerned(package, "training/run.py", before, after) == TRAININGS


def test_each_choice_names_definitions_that_exist_and_that_its_command_uses() -> None:
    commands = {"format": "prepare", "supervision": "train", "image_encoder": "train", "text_encoder": "train"}
    for choice, definitions in code.ONLY_FOR.items():
        found = source.used(f"tseg.cli.{commands[choice]}.{commands[choice]}") if choice in commands else set()
        for definition in definitions:
            exists = source._find(definition)
            assert choice not in commands or exists in found, definition


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the package has no tseg\.model\.pooling\.xyz"):
        source.digest("tseg.cli.train.train", chosen={"tseg.model.pooling.xyz"})
