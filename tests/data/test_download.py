import hashlib
import http.server
import io
import socket
import tarfile
import threading
import zipfile
from collections.abc import Callable

import pytest

from tseg.data.download import check_placed, fetch_archive

FILES = {"refcoco/instances.json": b"{}", "refcoco/deep/refs(unc).p": b"pickle", "readme.txt": b""}


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(files: dict[str, bytes], mode: str = "w", link: tuple[str, bytes] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        if link:
            member = tarfile.TarInfo("link")
            member.type, member.linkname = link[1], link[0]
            archive.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def checksum_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


@pytest.fixture
def serve(monkeypatch):
    """Serve bytes over HTTP on this machine: a function from bytes and a name to a URL, with the requests seen."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    contents: dict[str, bytes] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            serve_bytes.requests.append(self.path)
            if self.path not in contents:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(contents[self.path])))
            self.end_headers()
            self.wfile.write(contents[self.path])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def serve_bytes(content: bytes | None, name: str = "data.zip") -> str:
        if content is not None:
            contents[f"/{name}"] = content
        return f"http://127.0.0.1:{server.server_port}/{name}"

    serve_bytes.requests = []
    yield serve_bytes
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("pack", [zip_of, tar_of, lambda files: tar_of(files, "w:gz")], ids=["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_an_archive_is_fetched_and_unpacked_whole(tmp_path, serve, pack: Callable, algorithm):
    content = pack(FILES)
    num_files = fetch_archive(serve(content), checksum_of(content, algorithm), tmp_path / "raw" / "refcoco")
    found = {path for path in (tmp_path / "raw" / "refcoco").rglob("*") if path.is_file()}
    assert num_files == 3
    assert {str(path.relative_to(tmp_path / "raw" / "refcoco")): path.read_bytes() for path in found} == FILES
    assert {path.name for path in (tmp_path / "raw").iterdir()} == {"refcoco", "refcoco-data.zip"}


def test_nothing_is_downloaded_twice(tmp_path, serve):
    content = zip_of(FILES)
    url = serve(content)
    for name in ("a", "a"):
        assert fetch_archive(url, checksum_of(content), tmp_path / name) == 3
    assert serve.requests == ["/data.zip"]


def test_an_archive_placed_by_hand_where_the_message_says_serves(tmp_path, serve):
    content = zip_of(FILES)
    url = serve(None, "refcoco%2B.zip")
    with pytest.raises(ValueError, match=r"404.*place the archive by hand at") as failure:
        fetch_archive(url, checksum_of(content), tmp_path / "raw" / "refcoco+")
    place = tmp_path / "raw" / "refcoco+-refcoco+.zip"
    assert f"by hand at {place} (checksum {checksum_of(content)})" in str(failure.value)
    place.write_bytes(content)
    assert fetch_archive(url, checksum_of(content), tmp_path / "raw" / "refcoco+") == 3


def assert_refused(url: str, checksum: str, folder, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as failure:
        fetch_archive(url, checksum, folder / "raw" / "data")
    message = str(failure.value)
    assert message.startswith(f"{url} could not be fetched into {folder / 'raw' / 'data'} (")
    place = folder / "raw" / f"data-{url.rpartition('/')[2]}"
    assert message.endswith(f"; place the archive by hand at {place} (checksum {checksum}) and try again")
    assert "\n" not in message
    left = {path.name for path in folder.rglob("*")}
    assert left <= {"raw", place.name}, "something half made was left"


def test_an_absent_file_is_said_so(tmp_path, serve):
    assert_refused(serve(None), checksum_of(b""), tmp_path, "404")


def test_a_refused_connection_is_said_so(tmp_path, serve):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/data.zip"
    assert_refused(url, checksum_of(b""), tmp_path, "Connection refused")


def test_a_wrong_checksum_is_said_so_and_the_download_is_not_kept(tmp_path, serve):
    content = zip_of(FILES)
    wrong = checksum_of(b"")
    assert_refused(serve(content), wrong, tmp_path, f"expected {wrong} but got {checksum_of(content)[7:]}")
    assert not list((tmp_path / "raw").iterdir())


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>gone</html>", b"\n <HTML><body>moved"])
def test_a_web_page_in_place_of_the_archive_is_said_so(tmp_path, serve, page):
    assert_refused(serve(page), checksum_of(page), tmp_path, "a web page came in place of the archive")
    assert not list((tmp_path / "raw").iterdir())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (zip_of(FILES | {"../outside": b"x"}), "its member ../outside would land outside"),
        (zip_of(FILES | {"/tmp/outside": b"x"}), "its member /tmp/outside would land outside"),
        (tar_of(FILES | {"../outside": b"x"}), "its member ../outside would land outside"),
        (tar_of(FILES | {"a/../../outside": b"x"}), "its member a/../../outside would land outside"),
        (tar_of(FILES | {"/tmp/outside": b"x"}), "its member /tmp/outside would land outside"),
        (tar_of({"link/outside": b"x"}, link=("..", tarfile.SYMTYPE)), "its member link is a link or a device"),
        (tar_of({}, link=("/etc/passwd", tarfile.SYMTYPE)), "its member link is a link or a device"),
        (tar_of({}, link=("../data-data.zip", tarfile.LNKTYPE)), "its member link is a link or a device"),
        (tar_of({}, link=("", tarfile.FIFOTYPE)), "its member link is a link or a device"),
        (b"neither", "File is not a zip file"),
        (tar_of({"big": bytes(10**5)}, "w:gz")[:-60], "(CRC|ended before|unexpected end)"),
    ],
)
def test_a_hostile_or_broken_archive_is_refused_and_leaves_nothing(tmp_path, serve, content, reason):
    assert_refused(serve(content), checksum_of(content), tmp_path, reason)


def test_placed_files_are_counted_and_missing_ones_named(tmp_path):
    (tmp_path / "refer_train.json").touch()
    assert check_placed(["refer_train.json"], "https://example.org/data", tmp_path) == 1
    message = r"lacks refer_val\.json, images; fetch them by hand from https://example\.org/data and place them in "
    with pytest.raises(ValueError, match=message + str(tmp_path)):
        check_placed(["refer_train.json", "refer_val.json", "images"], "https://example.org/data", tmp_path)
