import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tseg.fetching import fetch as module
from tseg.fetching.fetch import fetch_source, manifest_path
from tseg.fetching.partial import partial_path
from tseg.fetching.pins import write_pins
from tseg.fetching.status import status
from tseg.settings.catalogue import Catalogue, FilesSource
from tseg.settings.validation import parse

PAGE = "https://example.org/the-page"
IMAGES = {"images/1.jpg": b"one" * 999, "images/2.jpg": b"two" * 999, "list.txt": b"1 2"}
RECORDS = json.dumps([{"id": n} for n in range(5)]).encode()


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


IMAGES_ZIP = zip_of(IMAGES)


def sum_of(content: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, content).hexdigest()


def source_of(becomes: tuple[str, ...] = (), **files: dict[str, Any]) -> FilesSource:
    """A source; an underscore in a file name stands for a dot."""
    values = {name.replace("_", "."): file for name, file in files.items()}
    described = {"title": "Things", "page": PAGE, "licence": "none", "citation": "nobody"}
    return parse(FilesSource, {"kind": "files", **described, "files": values, "becomes": becomes or [*values]}, "test")


def archive_source(*urls: str, **changes: Any) -> FilesSource:
    known = {"checksum": f"md5:{sum_of(IMAGES_ZIP, 'md5')}", "max_unpacked": 10**5} | changes
    return source_of(("images", "list.txt"), images_zip={"urls": list(urls), **known})


def put(raw: Path, source: str, name: str, content: bytes) -> Path:
    path = raw / "downloads" / source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def contents(dir: Path) -> dict[str, bytes]:
    return {str(path.relative_to(dir)): path.read_bytes() for path in dir.rglob("*") if path.is_file()}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return tmp_path / "raw"


def test_archives_are_unpacked_other_files_are_linked_and_the_manifest_lists_all(server, raw: Path) -> None:
    source = source_of(
        ("images/2.jpg", "records.json"),
        images_zip={"urls": [server.serve("a.zip", IMAGES_ZIP)], "size": len(IMAGES_ZIP), "max_unpacked": 10**5},
        records_json={"urls": [server.serve("b", RECORDS)], "num_records": 5},
    )
    manifest = fetch_source("things", source, raw)
    assert contents(raw / "things") == IMAGES | {"records.json": RECORDS}
    assert contents(raw / "downloads/things") == {"images.zip": IMAGES_ZIP, "records.json": RECORDS}
    assert manifest == {
        "source": "things",
        "files": {
            "images.zip": {"size": len(IMAGES_ZIP), "sha256": sum_of(IMAGES_ZIP)},
            "records.json": {"size": len(RECORDS), "sha256": sum_of(RECORDS)},
        },
        "counts": {"files": 4},
    }


def test_an_optional_file_is_used_where_it_can_be_had_and_missed_without_failing(
    server, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = {"urls": [f"{server.url}/gone.json"], "optional": True}
    source = source_of(("list.txt",), list_txt={"urls": [server.serve("a", b"1 2")]}, extra_json=extra)
    assert list(fetch_source("things", source, raw)["files"]) == ["list.txt"]
    assert contents(raw / "things") == {"list.txt": b"1 2"}
    assert "things: goes on without the optional file extra.json: extra.json could not be" in capsys.readouterr().out
    put(raw, "things", "extra.json", b"{}")
    assert list(fetch_source("things", source, raw)["files"]) == ["list.txt", "extra.json"]
    assert contents(raw / "things") == {"list.txt": b"1 2", "extra.json": b"{}"}


def test_a_second_fetch_downloads_nothing_and_returns_the_same_manifest(server, raw: Path, tmp_path: Path) -> None:
    source = archive_source(server.serve("a.zip", IMAGES_ZIP))
    first = fetch_source("things", source, raw)
    assert fetch_source("things", source, raw) == first
    assert len(server.requests) == 1
    put(tmp_path / "other", "things", "images.zip", IMAGES_ZIP)
    assert fetch_source("things", archive_source(), tmp_path / "other") == first


def test_urls_are_tried_in_order(server, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    urls = [f"{server.url}/gone.zip", server.serve("good.zip", IMAGES_ZIP), server.serve("never.zip", b"")]
    fetch_source("things", archive_source(*urls), raw)
    assert [request.target for request in server.requests] == ["/gone.zip", "/good.zip"]
    assert f"things: images.zip, {len(IMAGES_ZIP):,} bytes, from {urls[1]}" in capsys.readouterr().out


def test_the_error_lists_every_failure_and_where_to_put_the_file(server, raw: Path) -> None:
    source = source_of(
        images_zip={"urls": [f"{server.url}/1", f"{server.url}/2"], "checksum": f"md5:{'0' * 32}", "max_unpacked": 9},
        records_json={"also_called": ["data.json", "data3.json"]},
        there_txt={},
    )
    put(raw, "things", "there.txt", b"x")
    with pytest.raises(ValueError, match="could not be downloaded") as refusal:
        fetch_source("things", source, raw)
    first, second = str(refusal.value).split("\n")
    for part in (
        f"{server.url}/1: 404",
        f"{server.url}/2: 404",
        f"download it by hand from {PAGE}, place it at {raw}/downloads/things/images.zip (checksum: md5:{'0' * 32})",
    ):
        assert part in first
    assert (
        f"download it by hand from {PAGE} (named data.json or data3.json there), place it at {raw}/downloads/" in second
    )
    assert "(checksum: none published; it will be pinned)" in second
    assert not (raw / "things").exists()


def test_a_file_put_where_the_error_says_is_used(server, raw: Path) -> None:
    source = archive_source(f"{server.url}/gone")
    with pytest.raises(ValueError, match="place it at") as refusal:
        fetch_source("things", source, raw)
    path = Path(re.findall(r"place it at (\S+)", str(refusal.value))[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(IMAGES_ZIP)
    fetch_source("things", source, raw)
    assert contents(raw / "things") == IMAGES


def test_a_wrong_file_is_replaced_by_the_right_one(server, raw: Path, capsys) -> None:
    path = put(raw, "things", "images.zip", IMAGES_ZIP[:-1])
    fetch_source("things", archive_source(server.serve("a.zip", IMAGES_ZIP)), raw)
    assert path.read_bytes() == IMAGES_ZIP
    assert f"{path} has md5 {sum_of(IMAGES_ZIP[:-1], 'md5')}, expected" in capsys.readouterr().out


def test_a_wrong_file_is_never_used(server, raw: Path) -> None:
    path = put(raw, "things", "images.zip", IMAGES_ZIP[:-1])
    with pytest.raises(ValueError, match=r"404.*place it at"):
        fetch_source("things", archive_source(f"{server.url}/gone"), raw)
    assert path.read_bytes() == IMAGES_ZIP[:-1]
    assert not (raw / "things").exists()


@pytest.mark.parametrize("copy", ["images.zip", "things/images.zip", "lab/sets/2024/images.zip", "a/old name.zip"])
def test_a_copy_is_linked_not_copied(raw: Path, tmp_path: Path, copy: str) -> None:
    path = tmp_path / "lab" / copy
    path.parent.mkdir(parents=True)
    path.write_bytes(IMAGES_ZIP)
    fetch_source("things", archive_source(also_called=["old name.zip"]), raw, from_dir=tmp_path / "lab")
    assert (raw / "downloads/things/images.zip").samefile(path)
    assert path.stat().st_nlink == 2
    assert contents(raw / "things") == IMAGES


def test_symbolic_links_replace_impossible_hard_links(raw: Path, tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    path = put(tmp_path, "lab", "records.json", RECORDS)
    monkeypatch.chdir(tmp_path)
    fetch_source("things", source_of(records_json={}), raw, from_dir=Path("downloads/lab"))
    assert (raw / "downloads/things/records.json").readlink() == path
    assert (raw / "things/records.json").readlink() == path


def test_the_error_names_a_wrong_copy(raw: Path, tmp_path: Path) -> None:
    path = tmp_path / "lab" / "images.zip"
    path.parent.mkdir()
    path.write_bytes(b"other")
    with pytest.raises(
        ValueError, match=rf"^{path} has md5 {sum_of(b'other', 'md5')}, expected .*; download it by hand"
    ):
        fetch_source("things", archive_source(), raw, from_dir=tmp_path / "lab")
    assert path.read_bytes() == b"other"
    assert not (raw / "downloads/things/images.zip").exists()


def test_several_copies_are_refused_unless_they_are_the_same_file(raw: Path, tmp_path: Path) -> None:
    for folder in ("new", "old"):
        (tmp_path / "lab" / folder).mkdir(parents=True)
    (tmp_path / "lab/old/images.zip").write_bytes(IMAGES_ZIP)
    (tmp_path / "lab/new/images.zip").symlink_to(tmp_path / "lab/old/images.zip")
    fetch_source("things", archive_source(), raw, from_dir=tmp_path / "lab")
    (tmp_path / "lab/new/images.zip").unlink()
    (tmp_path / "lab/new/images.zip").write_bytes(IMAGES_ZIP)
    with pytest.raises(ValueError, match=r"several files named images.zip \(.*/new/.*/old/.*\); give the folder"):
        fetch_source("things", archive_source(), raw, from_dir=tmp_path / "lab")


def test_a_file_without_published_checksum_is_pinned_for_sha256sum(server, raw: Path, capsys) -> None:
    urls = [server.serve("a", RECORDS)]
    plus = {"urls": [server.serve("b", IMAGES_ZIP)]}
    source = source_of(records_json={"urls": urls, "num_records": 5}, plus_zip=plus, known_txt={"urls": urls})
    fetch_source("a+b", source, raw)
    pins = raw / "downloads/a+b.sha256"
    assert pins.read_text().splitlines()[1] == f"{sum_of(IMAGES_ZIP)}  a+b/plus.zip"
    checked = subprocess.run(
        ["sha256sum", "--check", "--strict", pins.name], cwd=pins.parent, capture_output=True, text=True, check=True
    )
    assert checked.stdout.splitlines() == [f"a+b/{name}: OK" for name in ("known.txt", "plus.zip", "records.json")]
    assert f"no published checksum for records.json, plus.zip, known.txt; pinned in {pins}" in capsys.readouterr().out
    before = pins.read_text()
    fetch_source("a+b", source, raw)
    assert pins.read_text() == before
    assert "pinned" not in capsys.readouterr().out


def test_a_file_that_differs_from_its_pin_is_refused_with_both_sums_until_the_pin_is_deleted(raw: Path) -> None:
    source = source_of(records_json={})
    path = put(raw, "things", "records.json", RECORDS)
    fetch_source("things", source, raw)
    path.unlink()
    path.write_bytes(b"[]")
    pins = raw / "downloads/things.sha256"
    with pytest.raises(ValueError, match="has sha256") as refusal:
        fetch_source("things", source, raw)
    for part in (
        str(path),
        sum_of(b"[]"),
        sum_of(RECORDS),
        f"if the file has changed since, delete its line in {pins}",
    ):
        assert part in str(refusal.value)
    assert path.read_bytes() == b"[]", "only the user can decide which is right"
    pins.write_text("")
    fetch_source("things", source, raw)
    assert pins.read_text() == f"{sum_of(b'[]')}  things/records.json\n"


def test_a_download_that_differs_from_its_pin_is_refused(server, raw: Path) -> None:
    source = source_of(records_json={"urls": [server.serve("a", RECORDS)]})
    fetch_source("things", source, raw)
    shutil.rmtree(raw / "downloads/things")
    server.serve("a", b"[1]")
    with pytest.raises(
        ValueError, match=rf"{sum_of(b'[1]')}, expected {sum_of(RECORDS)}.*if the file has changed since"
    ):
        fetch_source("things", source, raw)
    assert contents(raw / "things") == {"records.json": RECORDS}, "the earlier folder stays"


def test_a_malformed_pin_is_refused(raw: Path) -> None:
    put(raw, "things", "records.json", RECORDS)
    (raw / "downloads/things.sha256").write_text("hello\n")
    with pytest.raises(ValueError, match=r"things.sha256: the line 'hello' does not have the form .*; delete it"):
        fetch_source("things", source_of(records_json={}), raw)


@pytest.mark.parametrize("placed", [True, False])
def test_a_list_with_a_wrong_number_of_records_is_neither_used_nor_pinned(server, raw: Path, placed: bool) -> None:
    urls = [] if placed else [server.serve("a", RECORDS)]
    if placed:
        put(raw, "things", "records.json", RECORDS)
    with pytest.raises(ValueError, match="could not be downloaded" if placed else "5 records, expected 6"):
        fetch_source("things", source_of(records_json={"urls": urls, "num_records": 6}), raw)
    assert not (raw / "downloads/things.sha256").exists()
    assert not (raw / "things").exists()


def test_a_damaged_archive_is_not_pinned(raw: Path) -> None:
    put(raw, "things", "images.zip", IMAGES_ZIP[:-30])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        fetch_source("things", archive_source(checksum=None), raw)
    assert not (raw / "downloads/things.sha256").exists()


WRONG = {
    "nothing": b"",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "an error in JSON": b'{"error": "Repository not found"}',
    "XML": b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
    "an error message": b"Please log in",
}
RIGHT = {
    "model.safetensors": b"\2" + bytes(7) + b"{}",
    "model.bin": b"\x80\x02]q\x00.",
    "images.tgz": gzip.compress(b"images"),
    "records.json": RECORDS,
    "words.txt": b"<unk>\nlog\nin\n",
    "notes": b"Any notes.\n",
}


@pytest.mark.parametrize("way", ["downloaded", "by hand", "copy"])
@pytest.mark.parametrize("found", WRONG)
@pytest.mark.parametrize("name", RIGHT)
def test_what_is_sent_in_place_of_a_file_is_neither_used_nor_pinned_and_the_file_is(
    server, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, found: str, way: str
) -> None:
    def offer(content: bytes) -> None:
        if way == "downloaded":
            server.serve("a", content)
        elif way == "by hand":
            put(raw, "things", name, content)
        else:
            (lab / name).write_bytes(content)

    source = source_of(**{name: {"urls": [f"{server.url}/a"]}})
    place, lab, pins = raw / "downloads/things" / name, tmp_path / "lab", raw / "downloads/things.sha256"
    lab.mkdir()
    offer(WRONG[found])
    with pytest.raises(ValueError, match=r"; download it by hand from .*, place it at") as refusal:
        fetch_source("things", source, raw, lab)
    holder = {"downloaded": "the received file", "by hand": place, "copy": lab / name}[way]
    expected = f"a {place.suffix} file" if place.suffix else "the file"
    assert f"{holder} holds {found} instead of {expected}" in f"{capsys.readouterr().out}{refusal.value}"
    assert not [path for path in (pins, raw / "things", manifest_path(raw, "things")) if path.exists()]
    assert place.exists() == (way == "by hand"), "a file of the user is only ever replaced"
    offer(RIGHT[name])
    fetch_source("things", source, raw, lab)
    assert contents(raw / "things") == {name: RIGHT[name]}
    assert pins.read_text() == f"{sum_of(RIGHT[name])}  things/{name}\n"


def test_a_wrong_file_by_hand_is_replaced_by_a_download(server, raw: Path, capsys) -> None:
    place = put(raw, "things", "records.json", WRONG["a Git LFS pointer"])
    fetch_source("things", source_of(records_json={"urls": [server.serve("a", RECORDS)]}), raw)
    assert contents(raw / "things") == {"records.json": RECORDS}
    assert capsys.readouterr().out.startswith(
        f"{place} holds a Git LFS pointer instead of a .json file "
        "(version https://git-lfs.github.com/spec/v1 oid sha256:4d7a size 12345); "
        "if that is right, add its checksum to the catalogue; replacing it\n"
    )


@pytest.mark.parametrize("known", ["published", "pinned"])
@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_with_a_checksum_the_checksum_decides(server, raw: Path, content: bytes, known: str) -> None:
    checksum = f"sha256:{sum_of(content)}" if known == "published" else None
    source = source_of(model_bin={"urls": [server.serve("a", content)], "checksum": checksum})
    if known == "pinned":
        write_pins(raw, "things", {"model.bin": sum_of(content)})
    fetch_source("things", source, raw)
    assert contents(raw / "things") == {"model.bin": content}


def test_the_old_folder_and_manifest_stay_until_the_new_folder_is_complete(raw: Path) -> None:
    put(raw, "things", "images.zip", IMAGES_ZIP)
    fetch_source("things", archive_source(), raw)
    (raw / "things/own note.txt").write_text("mine")
    manifest_path(raw, "things").write_text("{}")
    for source in (archive_source(max_unpacked=100), source_of(("nothing",), images_zip={"max_unpacked": 10**5})):
        with pytest.raises(ValueError, match=r"unpacks to more|its files lack nothing; fix"):
            fetch_source("things", source, raw)
        assert contents(raw / "things") == IMAGES | {"own note.txt": b"mine"}
        assert manifest_path(raw, "things").read_text() == "{}"
    manifest = fetch_source("things", archive_source(), raw)
    assert contents(raw / "things") == IMAGES
    assert json.loads(manifest_path(raw, "things").read_text()) == manifest
    assert {path.name for path in raw.iterdir()} == {"downloads", "things", "things.json"}


def test_a_kill_before_the_manifest_leaves_none_of_the_old_folder(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    put(raw, "things", "images.zip", IMAGES_ZIP)
    fetch_source("things", archive_source(), raw)
    monkeypatch.setattr(module, "write_json", die)
    with pytest.raises(KeyboardInterrupt):
        fetch_source("things", archive_source(), raw)
    assert contents(raw / "things") == IMAGES
    assert not manifest_path(raw, "things").exists()


def test_a_link_instead_of_the_folder_is_replaced_and_its_target_is_kept(raw: Path, tmp_path: Path) -> None:
    put(raw, "things", "images.zip", IMAGES_ZIP)
    (tmp_path / "disk2").mkdir()
    (tmp_path / "disk2/own.txt").write_text("mine")
    (raw / "things").symlink_to(tmp_path / "disk2")
    for _ in range(2):
        fetch_source("things", archive_source(), raw)
    assert contents(raw / "things") == IMAGES
    assert contents(tmp_path / "disk2") == {"own.txt": b"mine"}


def test_a_full_disk_is_reported_before_the_download(server, raw: Path, monkeypatch) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=14_999))
    source = source_of(
        a_zip={"urls": [server.serve("a", b"")], "size": 5000, "max_unpacked": 10**9},
        b_txt={"urls": [server.serve("b", b"")], "size": 6000},
    )
    partial_path(put(raw, "things", "b.txt", b"")).write_bytes(bytes(1000))
    (raw / "downloads/things/b.txt").unlink()
    with pytest.raises(
        ValueError, match=r"things needs 15,000 bytes for download and unpacking, but only 14,999 are free"
    ):
        fetch_source("things", source, raw)
    assert not server.requests


def test_a_source_that_another_process_fetches_is_refused(raw: Path) -> None:
    put(raw, "things", "images.zip", IMAGES_ZIP)
    with (raw / "downloads/.things.lock").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"another process .* holds .*things.lock; wait until it finishes"):
            fetch_source("things", archive_source(), raw)
    fetch_source("things", archive_source(), raw)
    assert not (raw / "downloads/.things.lock").exists()


KILLED = """
import sys, time
from pathlib import Path
from tseg.settings.catalogue import FilesSource
from tseg.fetching import unpack
from tseg.fetching.fetch import fetch_source

def slowly(*arguments, write=unpack._write):
    write(*arguments)
    time.sleep(0.02)

unpack._write = slowly
fetch_source("many", FilesSource.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_kill_while_unpacking_leaves_no_folder_and_the_next_fetch_completes_it(raw: Path) -> None:
    files = {f"{n // 10}/{n}.jpg": b"%d" % n for n in range(200)}
    put(raw, "many", "many.zip", zip_of(files))
    source = source_of(("0/1.jpg",), many_zip={"max_unpacked": 10**6})
    process = subprocess.Popen([sys.executable, "-c", KILLED, source.model_dump_json(), str(raw)])
    while not (raw / ".many.partial/3").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 30 <= len(contents(raw / ".many.partial")) < 200
    assert {path.name for path in raw.iterdir()} == {"downloads", ".many.partial"}
    assert not (raw / "downloads/many.sha256").exists()
    assert fetch_source("many", source, raw)["counts"] == {"files": 200}
    assert contents(raw / "many") == files
    assert {path.name for path in raw.iterdir()} == {"downloads", "many", "many.json"}


def test_status_lists_the_state_of_every_file(raw: Path) -> None:
    shapes = {"kind": "shapes", "sets": ["voc"], "num_train": 1, "num_val": 1, "seed": 0}
    catalogue: Catalogue = {
        **parse(Catalogue, {"drawn": shapes, "undrawn": shapes}, "test"),
        "things": source_of(
            a_txt={"size": 1, "checksum": f"md5:{'0' * 32}"},
            b_txt={"size": 3, "checksum": f"sha256:{'0' * 64}"},
            c_txt={},
            d_txt={"size": 400},
            e_txt={},
            f_txt={"size": 7},
        ),
        "kept": source_of(x_txt={"size": 9}),
    }
    put(raw, "things", "a.txt", b"x")
    put(raw, "things", "b.txt", b"xx")
    put(raw, "things", "c.txt", b"xxx")
    (raw / "downloads/things.sha256").write_text(f"{'0' * 64}  things/c.txt\n")
    partial_path(raw / "downloads/things/d.txt").write_bytes(bytes(150))
    partial_path(raw / "downloads/things/e.txt").write_bytes(bytes(5))
    for name in ("drawn", "kept"):
        (raw / name).mkdir()
        manifest_path(raw, name).write_text("{}")
    assert [tuple(row[:-1]) for row in status(catalogue, raw)] == [
        ("drawn", "", "drawn", None, 0, ""),
        ("undrawn", "", "not drawn", None, 0, ""),
        ("things", "a.txt", "present", 1, 1, "published md5"),
        ("things", "b.txt", "wrong size", 3, 0, "published sha256"),
        ("things", "c.txt", "present", 3, 3, "pinned"),
        ("things", "d.txt", "37 % present", 400, 150, "none yet"),
        ("things", "e.txt", "partly present", None, 5, "none yet"),
        ("things", "f.txt", "missing", 7, 0, "none yet"),
        ("kept", "x.txt", "unpacked", 9, 9, "none yet"),
    ]
