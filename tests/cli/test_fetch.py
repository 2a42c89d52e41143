import json
import subprocess
import sys
from pathlib import Path

import pytest

from tseg.cli.fetch import fetch

ROOT = Path(__file__).parents[2]
LICENCE = "none stated, except that the terms of each image bind whoever copies it"
CATALOGUE = f"""
small: {{kind: shapes, sets: [voc], num_train: 2, num_val: 1, seed: 0}}
things:
  kind: files
  title: Some things
  page: https://example.org/things
  licence: "{LICENCE}"
  citation: Nobody, 2022
  files:
    one.txt: {{size: 3}}
    two.txt: {{size: 5_000_000}}
  becomes: [one.txt, two.txt]
lonely:
  kind: files
  title: One file
  page: https://example.org/lonely
  licence: CC BY 4.0
  citation: Nobody, 2023
  files: {{alone.txt: {{}}}}
  becomes: [alone.txt]
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "sources.yaml"
    path.write_text(CATALOGUE)
    return path


def tseg(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from tseg.cli import main; main()", "fetch", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_shapes_are_drawn_with_a_manifest_of_settings_and_counts(catalogue, tmp_path: Path, capsys) -> None:
    fetch(["small"], catalogue, tmp_path / "raw")
    manifest = json.loads((tmp_path / "raw/small.json").read_text())
    assert manifest["source"] == "small"
    assert manifest["settings"] == {"kind": "shapes", "sets": ["voc"], "num_train": 2, "num_val": 1, "seed": 0}
    images = list((tmp_path / "raw/small/VOCdevkit/VOC2012/JPEGImages").iterdir())
    assert len(images) == manifest["counts"]["voc train_aug images"] + manifest["counts"]["voc val images"] == 3
    assert "small: 2 voc train_aug images" in capsys.readouterr().out


def test_the_log_lists_origin_licence_citation_and_pin(catalogue, tmp_path: Path, capsys) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/alone.txt").write_text("abc")
    fetch(["lonely"], catalogue, tmp_path / "raw", tmp_path / "lab")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", from FIPS 180
    assert capsys.readouterr().out.splitlines() == [
        "lonely: One file; licence: CC BY 4.0; cite: Nobody, 2023",
        f"lonely: alone.txt, 3 bytes, linked to {tmp_path}/lab/alone.txt",
        f"lonely: no published checksum for alone.txt; pinned in {tmp_path}/raw/downloads/lonely.sha256",
        f"lonely: alone.txt has sha256 {sha256}",
        "lonely: 1 files",
    ]
    assert json.loads((tmp_path / "raw/lonely.json").read_text()) == {
        "source": "lonely",
        "files": {"alone.txt": {"size": 3, "sha256": sha256}},
        "counts": {"files": 1},
    }


def test_the_failure_of_one_source_does_not_stop_the_others(catalogue: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one\.txt could not be downloaded.*\ntwo\.txt could not be downloaded"):
        fetch(["things", "small"], catalogue, tmp_path / "raw")
    assert (tmp_path / "raw/small.json").exists()
    assert not (tmp_path / "raw/things.json").exists()


def test_the_list_is_complete_in_a_pipe(catalogue: Path, tmp_path: Path) -> None:
    downloads = tmp_path / "raw/downloads/things"
    downloads.mkdir(parents=True)
    (downloads / "one.txt").write_bytes(b"abc")
    (downloads / ".two.txt.download").write_bytes(bytes(2_000_000))
    listed = tseg("--list", "--catalogue", str(catalogue), "--dir", str(tmp_path / "raw"))
    assert listed.returncode == 0
    lines = [line.split() for line in listed.stdout.splitlines()]
    rest = ["none", "yet", *LICENCE.split()]
    assert ["small", "not", "drawn", "MIT,", "like", "this", "project"] in lines
    assert ["things", "one.txt", "present", "3", "bytes", *rest] in lines
    assert ["things", "two.txt", "40", "%", "present", "5.0", "MB", *rest] in lines
    assert ["lonely", "alone.txt", "missing", "unknown", "none", "yet", "CC", "BY", "4.0"] in lines
    assert listed.stdout.splitlines()[-1] == (
        f"2.0 MB present, 3.0 MB missing, plus 1 files of unknown size; in {tmp_path}/raw/downloads"
    )


def test_the_list_can_be_restricted_to_one_source(
    catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(["lonely"], catalogue, tmp_path / "raw", show_list=True)
    shown = capsys.readouterr().out
    assert "alone.txt" in shown
    assert "things" not in shown
    assert not (tmp_path / "raw").exists()


def test_without_a_name_the_sources_of_the_default_catalogue_are_listed() -> None:
    refused = tseg()
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        "tseg: name one or more sources: shapes-phrasecut, shapes-coco, shapes-voc, voc2012,"
    )
    assert "tseg fetch --list" in refused.stderr


@pytest.mark.parametrize(
    ("names", "from_dir", "message"),
    [
        (["lonly"], None, "sources.yaml has no source 'lonly'; did you mean lonely?"),
        (["small", "thingz"], None, "sources.yaml has no source 'thingz'; did you mean things?"),
        (["lonely"], Path("nowhere"), "nowhere does not exist; give --from a folder that exists"),
    ],
)
def test_a_wrong_name_is_refused_before_any_fetch(catalogue, tmp_path, names, from_dir, message) -> None:
    with pytest.raises(ValueError, match=message):
        fetch(names, catalogue, tmp_path / "raw", from_dir)
    assert not (tmp_path / "raw").exists()
