"""A model is saved, described, and loaded again: from a folder, and from a hub on this machine."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard

from tseg import Segmenter
from tseg.evaluation.score import Summary
from tseg.model.tseg import load_model
from tseg.provenance import ModelProvenance

from ..provenances import masks_provenance, model_provenance, predictions_provenance, records_provenance

IMAGE = np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8)


class Hub(SimpleHTTPRequestHandler):
    """Serves owner/model as the Hugging Face Hub does."""

    def send_head(self):
        _, _, name = self.path.partition("/owner/model/resolve/main/")
        file = Path(self.directory) / name
        if not name or not file.is_file():
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if name else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.send_response(200)
        self.send_header("Content-Length", str(file.stat().st_size))
        self.send_header("ETag", f'"{name}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        return file.open("rb")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """The address of a hub that has the folder `hub`."""
    (tmp_path / "hub").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, directory=str(tmp_path / "hub"))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_saved_model_is_the_same_with_its_options_but_not_its_device(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    segmenter = Segmenter.from_pretrained(save(), device="cpu", resolution=24, window=16)
    segmenter.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved/model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    again = Segmenter.from_pretrained(tmp_path / "saved")
    assert (again.resolution, again.window) == (24, 16)
    np.testing.assert_array_equal(again(IMAGE, "cat").masks, segmenter(IMAGE, "cat").masks)
    assert Segmenter.from_pretrained(tmp_path / "saved", resolution=32).resolution == 32
    assert "device" not in json.loads((tmp_path / "saved/config.json").read_text())


def test_a_model_is_loaded_from_the_hub(save: Callable[..., Path], hub: str, tmp_path: Path) -> None:
    segmenter = Segmenter.from_pretrained(save(), resolution=24)
    code = """
import sys, numpy as np
from tseg import Segmenter
image = np.load(sys.argv[2])
try:
    print(Segmenter.from_pretrained(sys.argv[1])(image, "cat").run_lengths)
except ValueError as error:
    print(error)
"""
    np.save(tmp_path / "image.npy", IMAGE)
    cache = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "cache"), "PATH": "/usr/bin"}

    def load(name: str) -> str:
        command = [sys.executable, "-c", code, name, str(tmp_path / "image.npy")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=cache)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert "owner/model cannot be fetched from the Hugging Face Hub: " in load("owner/model")
    assert "other/model cannot be fetched from the Hugging Face Hub: " in load("other/model")
    segmenter.save_pretrained(tmp_path / "hub")
    assert load("owner/model") == str(segmenter(IMAGE, "cat").run_lengths)


def test_a_folder_that_has_a_card_gets_the_card_of_the_model_that_is_saved(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    Segmenter(save(run="first")).save_pretrained(tmp_path / "saved")
    Segmenter(save(run="second")).save_pretrained(tmp_path / "saved")
    assert "# second" in (tmp_path / "saved/README.md").read_text()
    segmenter = Segmenter(str(save(run="third")))
    (tmp_path / "saved/README.md").write_text("my notes")
    with pytest.raises(ValueError, match=r"README\.md is not the card of a model of tseg; save to another folder"):
        segmenter.save_pretrained(tmp_path / "saved")
    save(run="fourth")
    with pytest.raises(ValueError, match=r"model\.safetensors was changed since it was loaded; load it again"):
        segmenter.save_pretrained(tmp_path / "new")
    with pytest.raises(ValueError, match=r"is a folder; use Segmenter\.from_pretrained"):
        Segmenter(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "absent.safetensors", "/absent/model"])
def test_what_is_no_model_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is no file, no folder and no name on the Hugging Face Hub"):
        Segmenter.from_pretrained(name)


def test_a_folder_without_a_model_and_a_device_that_is_none_are_refused(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"holds no model\.safetensors; give the folder that `tseg train` wrote to"):
        Segmenter.from_pretrained(tmp_path)
    save()
    with pytest.raises(ValueError, match=r"^device foo: .{0,80}; choose auto or cpu$"):
        Segmenter.from_pretrained(tmp_path, device="foo")
    with pytest.raises(ValueError, match="resolution: 0 is no number of pixels"):
        Segmenter.from_pretrained(tmp_path, resolution=0)


def summary_of(trained: ModelProvenance) -> Summary:
    predictions = predictions_provenance(model=trained, evaluated_on=records_provenance(dataset="circles", split="val"))
    metrics = {"mIoU": 0.25541, "mIoU_low": 0.2, "mIoU_high": 0.3, "overall_IoU": 0.2}
    return Summary(masks=masks_provenance(predictions=predictions), metrics=metrics, num_images=30)


def test_the_card_says_what_made_the_model_and_what_it_scores(save: Callable[..., Path], tmp_path: Path) -> None:
    file = save(trained_on=records_provenance(sources=["phrasecut", "vg"], num_images=1234))
    segmenter = Segmenter.from_pretrained(file)
    summary = tmp_path / "summary.json"
    summary.write_text(summary_of(load_model(file)[1]).model_dump_json())
    segmenter.save_pretrained(tmp_path / "saved", model_card_kwargs={"scores": summary})
    card = ModelCard.load(tmp_path / "saved/README.md")
    data = card.data.to_dict()
    assert (data["library_name"], data["pipeline_tag"]) == ("tseg", "image-segmentation")
    for part in (
        "# squares-mpa",
        "images and phrases alone, without masks or boxes",
        "1,234 images of squares train, of phrasecut, vg",
        "mIoU 25.54 (95 %: 20.00 to 30.00) on 30 images of circles val",
        "pooling: spa",
    ):
        assert part in card.text
    summary.write_text(summary_of(model_provenance(seed=3)).model_dump_json())
    with pytest.raises(ValueError, match="has the scores of squares-mpa, seed 3; give this model's"):
        segmenter.generate_model_card(scores=summary)
    assert "Not stated." in segmenter.generate_model_card().text
