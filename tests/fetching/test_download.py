import errno
import fcntl
import gzip
import hashlib
import io
import json
import os
import random
import socket
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tseg.fetching import download as module
from tseg.fetching.download import check_download, download
from tseg.fetching.partial import partial_path

from .faulty_server import (
    Answer,
    Fault,
    FaultyServer,
    File,
    Request,
    answer,
    compressed,
    drop,
    no_length,
    older,
    page,
    redirect,
    silence,
    slow,
    status,
    wrong_length,
    wrong_range,
)

CONTENT = random.Random(0).randbytes(100_000)
OTHER = random.Random(1).randbytes(100_000)


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


CHECKSUM = sha256(CONTENT)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts in seconds; the test skips them."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "raw" / "data.zip"


def fetch(urls: list[str] | str, target: Path, **settings: Any) -> str:
    """Download with short waits. Default: unknown size and checksum."""
    known = {"size": None, "checksum": None, "attempts": 3, "timeout": 1.0, "first_wait": 0.001}
    return download([urls] if isinstance(urls, str) else urls, target, **(known | settings))


def assert_refused(urls: list[str] | str, target: Path, reason: str, **settings: Any) -> str:
    with pytest.raises(ValueError, match=reason) as failure:
        fetch(urls, target, **settings)
    assert not target.exists()
    return str(failure.value)


def assert_nothing_left(target: Path) -> None:
    assert not list(target.parent.iterdir())


def ranges(server: FaultyServer) -> list[str | None]:
    return [request.headers.get("Range") for request in server.requests]


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_download_leaves_only_the_complete_file(server, target, algorithm):
    url = server.serve("data.zip", CONTENT)
    known = f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}"
    assert fetch(url, target, size=len(CONTENT), checksum=known) == url
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert server.requests[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("chunked", [False, True])
def test_an_interrupted_transfer_continues(server, target, chunked):
    url = server.serve("data.zip", CONTENT, [drop(40_000), drop(30_000)], chunked=chunked)
    fetch(url, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=40000-", "bytes=70000-"]
    assert {request.headers.get("If-Range") for request in server.requests[1:]} == {'"v1"'}


def test_a_later_call_continues_an_abandoned_download(server, target):
    url = server.serve("data.zip", CONTENT, [drop(40_000), status(500)])
    message = assert_refused(url, target, "500", attempts=1)
    assert message == f"data.zip could not be downloaded: {url}: 500 Internal Server Error (tried 1 times)"
    assert partial_path(target).read_bytes() == CONTENT[:40_000]
    fetch(url, target)
    assert ranges(server) == [None, "bytes=40000-", "bytes=40000-"]
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]


def test_a_file_that_was_complete_when_its_process_died_is_not_requested_again(server, target):
    url = server.serve("data.zip", CONTENT)

    def die(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(url, target, check=die)
    assert not target.exists()
    fetch(url, target)
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_strong_etag_the_date_identifies_the_version(server, target, etag):
    url = server.serve("data.zip", CONTENT, [drop(40_000)], etag=etag, last_modified="Sun, 06 Nov 1994 08:49:37 GMT")
    fetch(url, target)
    assert target.read_bytes() == CONTENT
    assert server.requests[1].headers["If-Range"] == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert ranges(server) == [None, "bytes=40000-"]


@pytest.mark.parametrize(("checksum", "second"), [(None, None), (CHECKSUM, "bytes=40000-")])
def test_without_etag_and_date_a_transfer_continues_only_with_a_checksum(server, target, checksum, second):
    url = server.serve("data.zip", CONTENT, [drop(40_000)], etag=None, last_modified=None)
    fetch(url, target, checksum=checksum)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, second]


@pytest.mark.parametrize(("checksum", "second"), [(None, None), (CHECKSUM, "bytes=40000-")])
def test_another_url_continues_the_transfer_only_with_a_checksum(server, target, checksum, second):
    urls = [
        server.serve("a.zip", CONTENT, [drop(40_000), status(404)]),
        server.serve("b.zip", CONTENT, etag='"of another server"'),
    ]
    assert fetch(urls, target, checksum=checksum) == urls[1]
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=40000-", second]
    assert "If-Range" not in server.requests[2].headers


def test_a_changed_file_starts_again(server, target):
    url = server.serve("data.zip", CONTENT, [older(OTHER, 40_000)])
    fetch(url, target)
    assert target.read_bytes() == CONTENT
    assert server.requests[1].headers["If-Range"] == '"older"'


def without_if_range(etag: str) -> Fault:
    """A server that ignores If-Range and continues with another ETag."""

    def continue_anyway(file: File, request: Request) -> Answer:
        headers = {name: value for name, value in request.headers.items() if name != "If-Range"}
        return answer(replace(file, etag=etag), request._replace(headers=headers))

    return Fault("no If-Range", continue_anyway)


@pytest.mark.parametrize(
    "fault",
    [
        without_if_range('"v2"'),
        wrong_range(39_999),
        wrong_range(40_001),
        wrong_range(0),
        wrong_range(40_000, total=100_001),
        Fault("no Content-Range", lambda file, request: Answer(206, {}, file.content[40_000:])),
        Fault("unknown total", lambda file, request: Answer(206, {"Content-Range": "bytes 40000-99999/*"}, b"x")),
    ],
    ids=["changed", "early", "late", "from 0", "total", "silent", "unknown"],
)
def test_a_part_that_does_not_continue_the_file_is_refused(server, target, fault):
    url = server.serve("data.zip", CONTENT, [drop(40_000), fault])
    fetch(url, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=40000-", None]


def test_a_part_that_was_not_requested_is_refused(server, target):
    fetch(server.serve("data.zip", CONTENT, [wrong_range(0), wrong_range(50_000)]), target)
    assert target.read_bytes() == CONTENT


def test_a_partial_file_longer_than_the_original_starts_again(server, target):
    url = server.serve("data.zip", CONTENT, [older(OTHER * 2, 150_000)], etag=None, last_modified=None)
    fetch(url, target, checksum=CHECKSUM)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=150000-", None]


def test_a_wrong_continued_file_starts_again_once(server, target):
    good = server.serve("data.zip", CONTENT, [older(OTHER, 40_000)], etag=None, last_modified=None)
    fetch(good, target, checksum=CHECKSUM)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=40000-", None]
    target.unlink()
    server.requests.clear()
    bad = server.serve("bad.zip", OTHER, [drop(40_000), slow(1 << 20, 0), drop(40_000)])
    assert_refused(bad, target, f"sha256 {sha256(OTHER)[7:]}, expected {CHECKSUM[7:]}", checksum=CHECKSUM, attempts=9)
    assert ranges(server) == [None, "bytes=40000-"] * 2
    assert_nothing_left(target)


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503])
def test_a_transient_error_is_retried(server, target, code):
    fetch(server.serve("data.zip", CONTENT, [status(code), status(code)]), target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451])
def test_a_permanent_error_is_not_retried(server, target, code):
    urls = [server.serve("a.zip", CONTENT, [status(code)]), server.serve("b.zip", CONTENT)]
    assert fetch(urls, target) == urls[1]
    assert len(server.requests) == 2


def test_waits_double_until_bytes_arrive(server, target, waits):
    faults = [status(500), silence(), status(502), drop(50_000), status(500), status(500)]
    fetch(server.serve("data.zip", CONTENT, faults), target, first_wait=1.0, attempts=4)
    assert waits == [1, 2, 4, 1, 1, 2]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("0", 1),
        ("86400", module.LONGEST_WAIT),
        ("Fri, 31 Dec 9999 23:59:59 GMT", module.LONGEST_WAIT),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 1),
        ("soon", 1),
        ("-5", 1),
    ],
)
@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_is_respected_up_to_a_limit(server, target, waits, value, seconds, code):
    fetch(server.serve("data.zip", CONTENT, [status(code, Retry_After=value)]), target, first_wait=1.0)
    assert waits == [seconds]


def test_a_bad_connection_that_makes_progress_succeeds(server, target):
    faults = [fault for at in range(30) for fault in (drop(3_000), status(500))]
    fetch(server.serve("data.zip", CONTENT, faults), target, attempts=2)
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 61


def test_a_bad_connection_that_always_starts_again_is_abandoned(server, target):
    url = server.serve("data.zip", CONTENT, [drop(at * 1_000) for at in range(1, 50)], etag=None, last_modified=None)
    assert_refused(url, target, "broke off", attempts=5)
    assert len(server.requests) == 6


def test_every_url_is_tried_and_the_error_lists_all_failures(server, target):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{unused.getsockname()[1]}/data.zip"
    bad = [
        server.serve("gone.zip", b"", [status(410)]),
        server.serve("busy.zip", b"", [status(503)] * 3),
        server.serve("page.zip", b"", [page("Drive - Virus scan &amp;\n\x1b[31m warning")]),
        server.serve("wrong.zip", OTHER),
        refused,
    ]
    message = assert_refused(bad, target, "could not be downloaded", checksum=CHECKSUM)
    assert message == (
        f"data.zip could not be downloaded: {bad[0]}: 410 Gone; {bad[1]}: 503 Service Unavailable (tried 3 times); "
        f"{bad[2]}: received a web page instead of the file (Drive - Virus scan & [31m warning); "
        f"{bad[3]}: the received file has sha256 {sha256(OTHER)[7:]}, expected {CHECKSUM[7:]}; "
        f"{refused}: [Errno 111] Connection refused (tried 3 times)"
    )
    assert_nothing_left(target)
    good = server.serve("good.zip", CONTENT)
    assert fetch([*bad, good, bad[0]], target, checksum=CHECKSUM) == good
    assert target.read_bytes() == CONTENT


def test_a_file_without_a_url_is_reported(target):
    assert assert_refused([], target, "no URL") == "data.zip could not be downloaded: it has no URL"


@pytest.mark.parametrize("content_type", ["text/html", "Text/HTML; charset=utf-8", "application/zip", None])
def test_a_web_page_is_not_accepted_as_the_file(server, target, content_type):
    url = server.serve("data.zip", CONTENT, [drop(40_000), page("Moved", content_type)])
    assert_refused(url, target, r"received a web page instead of the file \(Moved\)")


def test_a_web_page_does_not_discard_received_bytes(server, target):
    url = server.serve("data.zip", CONTENT, [drop(40_000), page("Log in")])
    assert_refused(url, target, "Log in")
    fetch(url, target)
    assert ranges(server) == [None, "bytes=40000-", "bytes=40000-"]


def test_redirects_are_followed_with_the_range(server, target):
    url = server.serve("data.zip", CONTENT, [drop(40_000), redirect("/data.zip?again")])
    fetch(url, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=40000-", "bytes=40000-"]


@pytest.mark.parametrize("to", ["/loop", "ftp://127.0.0.1/data.zip", "http://[", "file:///etc/passwd"])
def test_invalid_redirects_are_abandoned(server, target, to):
    urls = [server.serve("a.zip", CONTENT, [redirect(to)]), server.serve("b.zip", CONTENT)]
    assert fetch(urls, target) == urls[1]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("known", [{"size": len(CONTENT)}, {"checksum": CHECKSUM}])
def test_a_response_without_length_needs_a_known_size_or_checksum(server, target, known):
    assert_refused(server.serve("data.zip", CONTENT, [no_length()]), target, "announces no length")
    fetch(server.serve("data.zip", CONTENT, [no_length()]), target, **known)
    assert target.read_bytes() == CONTENT


def test_a_truncated_response_without_length_is_not_accepted_as_complete(server, target):
    url = server.serve("data.zip", CONTENT, [no_length(at=40_000)])
    assert_refused(url, target, "has sha256", checksum=CHECKSUM)
    url = server.serve("data.zip", CONTENT, [no_length(at=40_000)])
    fetch(url, target, size=len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert ranges(server)[-2:] == [None, "bytes=40000-"]


def test_a_transfer_of_too_many_bytes_is_aborted(server, target):
    endless = server.serve("data.zip", CONTENT * 50, [no_length()])
    assert_refused(endless, target, "more than the announced 100,000 bytes", size=len(CONTENT))
    assert_nothing_left(target)


def test_a_file_of_another_size_is_not_downloaded(server, target):
    url = server.serve("data.zip", CONTENT, [drop(50_000)])
    assert_refused(url, target, "its file has 100,000 bytes, expected 99,999", size=99_999)
    assert len(server.requests) == 1
    assert_nothing_left(target)


def test_a_wrong_content_length_is_detected(server, target):
    fetch(server.serve("data.zip", CONTENT, [wrong_length(10), status(500)]), target)
    assert target.read_bytes() == CONTENT
    target.unlink()
    assert_refused(server.serve("data.zip", CONTENT, [wrong_length(-10)]), target, "sha256", checksum=CHECKSUM)


def test_chunked_encoding_overrides_the_content_length(server, target):
    both = Fault("both", lambda file, request: replace(answer(file, request), headers={"Content-Length": "10"}))
    fetch(server.serve("data.zip", CONTENT, [both], chunked=True), target)
    assert target.read_bytes() == CONTENT


def test_compressed_bytes_are_accepted_only_with_a_matching_checksum(server, target):
    packed = gzip.compress(CONTENT)
    assert_refused(server.serve("data.tgz", CONTENT, [compressed(packed)]), target, "compressed")
    fetch(server.serve("data.tgz", CONTENT, [compressed(packed)]), target, checksum=sha256(packed))
    assert target.read_bytes() == packed


def test_content_is_checked_before_the_file_gets_its_name(server, target):
    def check(path: Path) -> None:
        assert not target.exists()
        if path.read_bytes() == OTHER:
            raise ValueError(f"{path} has 7 records, expected 8")

    urls = [server.serve("a.zip", OTHER), server.serve("b.zip", CONTENT)]
    assert_refused(urls[:1], target, "the received file has 7 records, expected 8$", check=check)
    assert fetch(urls, target, check=check) == urls[1]
    assert target.read_bytes() == CONTENT


def test_bytes_are_synced_before_the_file_gets_its_name(server, target, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((partial_path(target).read_bytes(), target.exists())))
    fetch(server.serve("data.zip", CONTENT), target)
    assert synced[-1] == (CONTENT, False)  # the note of its origin comes first


def test_partial_writes_are_completed(server, target, monkeypatch):
    class Reluctant(io.FileIO):
        def write(self, piece: Any) -> int:
            return super().write(piece[:700])

    monkeypatch.setattr("tseg.fetching.partial.FileIO", Reluctant)
    fetch(server.serve("data.zip", CONTENT), target)
    assert target.read_bytes() == CONTENT


def test_an_empty_file_is_downloaded(server, target):
    fetch(server.serve("empty", b"", [silence()]), target)
    assert target.read_bytes() == b""
    assert list(target.parent.iterdir()) == [target]


def test_silence_is_a_failure(server, target):
    url = server.serve("data.zip", CONTENT, [drop(0, "stall"), drop(40_000, "stall"), drop(10_000, "reset")])
    fetch(url, target, timeout=0.2)
    assert target.read_bytes() == CONTENT
    assert ranges(server)[:3] == [None, None, "bytes=40000-"]


def test_a_disk_that_is_too_small_is_reported_before_the_transfer(server, target, monkeypatch):
    url = server.serve("data.zip", CONTENT, [drop(40_000), status(404)])
    assert_refused(url, target, "404")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=59_999))
    assert_refused([url, url], target, f"needs 60,000 bytes in {target.parent}, but only 59,999 are free; make room")
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=60_000))
    fetch(url, target)
    assert ranges(server)[2:] == ["bytes=40000-"] * 2


@pytest.mark.parametrize("note", [b"", b"{", b"[1]", b'{"url": 1}', None])
def test_bytes_of_unknown_origin_are_not_continued(server, target, note):
    url = server.serve("data.zip", CONTENT, [drop(40_000), status(404)])
    assert_refused(url, target, "404")
    path = next(path for path in target.parent.iterdir() if path.suffix == ".json")
    assert json.loads(path.read_text()) == {"url": url, "validator": '"v1"', "size": len(CONTENT)}
    path.write_bytes(note) if note is not None else path.unlink()
    fetch(url, target)
    assert target.read_bytes() == CONTENT
    assert ranges(server)[2:] == [None]


def test_a_file_that_another_process_finishes_before_the_lock_is_not_modified(server, target, monkeypatch):
    url = server.serve("data.zip", CONTENT, [drop(40_000), status(404)])
    assert_refused(url, target, "404")
    lock, finished = fcntl.flock, target.with_name("finished")

    def finish_first(file: Any, operation: int) -> None:
        if not finished.exists():
            partial_path(target).rename(finished)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", finish_first)
    fetch(url, target)
    assert finished.read_bytes() == CONTENT[:40_000]
    assert target.read_bytes() == CONTENT


def test_the_lock_of_a_removed_file_does_not_count(server, target, monkeypatch):
    lock = fcntl.flock

    def remove_first(file: Any, operation: int) -> None:
        target.with_name(".data.zip.lock").unlink(missing_ok=True)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    assert_refused(server.serve("data.zip", CONTENT), target, "another process is fetching this")
    assert not server.requests


def test_a_file_system_without_locks_is_reported(server, target, monkeypatch):
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)
    assert_refused(server.serve("data.zip", CONTENT), target, "cannot be locked: No locks available")


def test_a_proxy_is_used_except_for_no_proxy_hosts(server, target, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    server.serve("data.zip", CONTENT)
    fetch("http://data.invalid/data.zip", target)
    assert target.read_bytes() == CONTENT
    assert server.requests[-1].target == "http://data.invalid/data.zip"
    fetch(f"{server.url}/data.zip", target)
    assert server.requests[-1].target == "/data.zip"


HUB_URL = "https://huggingface.co/someone/weights/resolve/main/model.safetensors"


def test_hub_urls_use_hf_endpoint(server, target, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/mirror/")
    server.serve("mirror/someone/weights/resolve/main/model.safetensors", CONTENT)
    assert fetch(HUB_URL, target) == HUB_URL
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_the_hub_is_not_contacted_offline(server, target, monkeypatch, value):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert_refused(HUB_URL, target, "not requested because HF_HUB_OFFLINE is set")
    elsewhere = server.serve("model.safetensors", CONTENT)
    assert fetch([HUB_URL, elsewhere], target) == elsewhere
    target.unlink()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    assert_refused([HUB_URL, elsewhere], target, "HF_HUB_OFFLINE.*HF_HUB_OFFLINE")
    assert len(server.requests) == 1
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    fetch(elsewhere, target)


def test_progress_and_failures_are_shown(server, target, capsys):
    url = server.serve("data.zip", CONTENT, [status(503)])
    fetch(url, target)
    shown = capsys.readouterr().err
    assert f"{url}: 503 Service Unavailable; trying again in 0.001 s" in shown
    assert "data.zip: 100%" in shown
    assert "97.7k/97.7k" in shown


def test_a_manually_downloaded_file_is_verified(tmp_path):
    path = tmp_path / "data.zip"
    path.write_bytes(CONTENT)
    check_download(path, size=None, checksum=None)
    check_download(path, size=len(CONTENT), checksum=CHECKSUM)
    with pytest.raises(ValueError, match=f"{path} has 100,000 bytes, expected 1$"):
        check_download(path, size=1, checksum=CHECKSUM)
    md5 = hashlib.md5(CONTENT).hexdigest()
    with pytest.raises(ValueError, match=f"{path} has md5 {md5}, expected {'0' * 32}$"):
        check_download(path, size=None, checksum=f"md5:{'0' * 32}")
