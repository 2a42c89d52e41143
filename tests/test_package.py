"""`import tseg` is instant and typed, and exports the main class."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import tseg

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "timm", "transformers", "numpy", "pandas", "pydantic", "mlflow", "matplotlib"}


def imported_by(code: str) -> set[str]:
    """The top-level modules that a new interpreter has imported after `code`."""
    probe = f"import atexit, sys; atexit.register(lambda: print('\\n', *sys.modules)); {code}"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "code", ["import tseg", "from tseg.cli import app; app(['--help'])", "from tseg.cli import app; app(['--version'])"]
)
def test_import_help_and_version_import_nothing_heavy(code: str) -> None:
    imported = imported_by(code)
    assert "tseg" in imported
    assert not imported & HEAVY


def test_the_package_exports_the_segmenter_of_inference() -> None:
    from tseg.segmenting.segmenter import Segmenter

    assert tseg.Segmenter is Segmenter


def test_the_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    command = [sys.executable, "-c", "from tseg.cli import app; app(['--version'])"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert (tseg.__version__, printed) == (version, f"tseg {version}\n")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version} " in (ROOT / "CHANGELOG.md").read_text()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        _ = tseg.Segmentor  # type: ignore[attr-defined]


def test_the_package_is_typed() -> None:
    assert (Path(tseg.__file__).parent / "py.typed").exists()
