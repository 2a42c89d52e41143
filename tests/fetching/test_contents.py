import gzip
import io
import json
import pickle
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import safetensors.numpy
import torch
import yaml

from tseg.fetching.contents import HEAD, KINDS, refuse_other

ROOT = Path(__file__).parents[2]
RECORDS = [{"id": number, "phrase": "a log in a fire", "error": 0.5} for number in range(3)]
WEIGHTS = {"layer.weight": np.ones((2, 3), np.float32)}
TENSORS = {name: torch.tensor(array) for name, array in WEIGHTS.items()}


def written(write: Callable[[BinaryIO], Any]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def zip_of(*names: str) -> bytes:
    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, "content")

    return written(write)


def tar_of(name: str, format: int) -> bytes:
    def write(file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w", format=format) as archive:
            archive.addfile(tarfile.TarInfo(name))

    return written(write)


def torch_of(new_format: bool) -> bytes:
    return written(lambda file: torch.save(TENSORS, file, _use_new_zipfile_serialization=new_format))


LONG = f"{'folder/' * 40}é.jpg"
TARS = [tar_of(name, format) for name in ("a.jpg", LONG) for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
TGZS = [gzip.compress(tar) for tar in TARS]
PICKLES = [pickle.dumps(value, protocol) for value in (RECORDS, RECORDS[0]) for protocol in range(6)]
CHECKPOINTS = [torch_of(new_format=True), torch_of(new_format=False)]
RIGHT = {
    "a.zip": [zip_of("a.jpg", "b.jpg"), zip_of()],
    "A.ZIP": [zip_of("a.jpg")],
    "a.npz": [written(lambda file: np.savez_compressed(file, **WEIGHTS))],
    "a.tar": TARS,
    "a.tgz": TGZS,
    "a.tar.gz": TGZS,
    "a.json": [
        *(json.dumps(value).encode() for value in ([], {}, RECORDS, {"vocab_size": 30522, "error": 3, "message": 4})),
        b"\xef\xbb\xbf \n[1, NaN]",
        json.dumps({"info": {"message": "hello"}, "images": RECORDS}).encode(),
        json.dumps({"message": "10 images", "images": RECORDS}, indent=1).encode(),
        *(b" " * space + json.dumps(["x" * 100] * 2000).encode() for space in range(3)),
        json.dumps({"error": "x" * HEAD}).encode(),
    ],
    "a.txt": [
        b"[PAD]\n[unused0]\nforbidden\nlogin\nunavailable\n",
        b"<unk>\n<s>\n</s>\nthe\n",
        b"2007_000032\r\n2007_000039\r\n",
        "1 naïve".encode("latin-1"),
        b"[1, 2]",
        b"word\n" * HEAD,
    ],
    "a.safetensors": [safetensors.numpy.save(WEIGHTS), safetensors.numpy.save({})],
    "a.pth": CHECKPOINTS,
    "a.pt": CHECKPOINTS,
    "a.bin": CHECKPOINTS,
    "refs(unc).p": PICKLES,
    "a.csv": [b"image,phrase\n1,a dog that is not found\n2,a cat\n"],
    "README": [b"\0\1\2", b"Log in to the host, then read on.\nIt is not hard."],
}
WRONG = {
    "nothing": [b"", b" \r\n", b"\xef\xbb\xbf"],
    "a Git LFS pointer": [
        b"version https://git-lfs.github.com/spec/v1\n",
        b"version https://hawser.github.com/spec/v1\n",
    ],
    "a web page": [b"\n<!doctype HTML><p>Moved", b"\xef\xbb\xbf<HTML><head></head></HTML>"],
    "XML": [
        b"<?xml version='1.0'?><html><body>Moved</body></html>",
        b"\xef\xbb\xbf<Error><Code>NoSuchKey</Code>\n</Error>\n",
        b"<!-- page --><p>",
        b"<h1 class='x'>Moved</h1>",
    ],
    "an error in JSON": [
        json.dumps(fields).encode("utf-8-sig")
        for fields in (
            {"error": {"code": 404, "message": "gone", "errors": [{"reason": "gone"}]}},
            {"errors": ["gone"], "request_id": 7},
            {"message": "Not Found", "documentation_url": "https://docs.github.com", "status": "404"},
            {"detail": "Not Found"},
            {"type": "about:blank", "title": "Gone", "status": 410, "Detail": None},
            {"error": True},
        )
    ],
    "an error message": [
        b"Please log in",
        b"404: Not Found\n",
        b"Service unavailable.\r\n",
        "Zugriff: Access denied – später".encode(),
    ],
}


def refusal(path: Path, name: str, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} holds ") as failure:
        refuse_other(path, name)
    return str(failure.value)


def test_every_suffix_of_the_catalogue_has_a_kind_that_is_tried() -> None:
    catalogue = yaml.safe_load((ROOT / "config/sources.yaml").read_text())
    suffixes = {Path(name).suffix for source in catalogue.values() for name in source.get("files", ())}
    assert suffixes <= KINDS.keys()
    assert KINDS.keys() <= {Path(name).suffix for name in RIGHT}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_file_is_accepted(tmp_path: Path, name: str) -> None:
    for content in RIGHT[name]:
        (tmp_path / "file").write_bytes(content)
        refuse_other(tmp_path / "file", name)


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("found", WRONG)
def test_an_error_is_recognised_whatever_the_name_of_the_file(tmp_path: Path, found: str, name: str) -> None:
    suffix = Path(name).suffix.lower()
    for content in WRONG[found]:
        expected = f"a {suffix} file" if suffix else "the file"
        assert f"holds {found} instead of {expected}" in refusal(tmp_path / "file", name, content)


@pytest.mark.parametrize("name", sorted(RIGHT.keys() - {"a.txt", "a.csv", "README"}))
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    text = b"Dear reader,\nthis host moves on Monday.\n"
    for content in (text, bytes(1000), text * 2000, b"\x89PNG\r\n\x1a\n\0\0"):
        assert "holds something else instead of a " in refusal(tmp_path / "file", name, content)
    for content in (b"[1, 2", b"{oops}", b"null", b'"gone"', b"[" * 20_000):
        assert "holds something else instead of a " in refusal(tmp_path / "file", name, content)


def test_a_binary_file_is_no_text(tmp_path: Path) -> None:
    for content in (*TARS, *CHECKPOINTS, *RIGHT["a.safetensors"]):
        assert "holds something else instead of a .txt file" in refusal(tmp_path / "file", "a.txt", content)


def test_the_refusal_quotes_the_start_or_the_title_without_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    fix = "; if that is right, add its checksum to the catalogue"
    page = b"<html><head><title>Log\n &amp; \x1b[31min</title>"
    assert refusal(path, path.name, b"") == f"{path} holds nothing instead of a .zip file{fix}"
    assert refusal(path, path.name, page) == f"{path} holds a web page instead of a .zip file (Log & [31min){fix}"
    assert refusal(path, path.name, b"See\r\n\x1b[31m" + b"x" * 99).endswith(f" (See [31m{'x' * 70}){fix}")
