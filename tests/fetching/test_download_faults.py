"""The downloader under random faults, kills, a full disk and a rival process; `pytest -s` prints the statistics."""

import gzip
import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tseg.fetching import download as module
from tseg.fetching.download import download
from tseg.fetching.partial import partial_path

from .faulty_server import (
    Fault,
    FaultyServer,
    compressed,
    drop,
    ignored_range,
    no_length,
    older,
    page,
    redirect,
    silence,
    slow,
    status,
    wrong_bytes,
    wrong_length,
    wrong_range,
)

NUM_SCRIPTS = 150
ATTEMPTS = 6


class Kind(NamedTuple):
    """A kind of fault that a script may contain."""

    make: Callable[[random.Random, bytes], Fault]
    cost: int | None  # maximum number of failed attempts; None: the URL may be abandoned at once
    lies: bool = False  # HTTP alone does not reveal that the file is wrong


def anywhere(rng: random.Random, content: bytes) -> int:
    return rng.randrange(len(content) + 1)


def of_same_length(content: bytes) -> bytes:
    return bytes(255 - byte for byte in content)


KINDS = {
    "drop": Kind(lambda rng, content: drop(anywhere(rng, content)), 1),
    "drop early": Kind(lambda rng, content: drop(rng.randrange(100)), 1),
    "reset": Kind(lambda rng, content: drop(anywhere(rng, content), "reset"), 1),
    "stall": Kind(lambda rng, content: drop(anywhere(rng, content), "stall"), 1),
    "no answer": Kind(lambda rng, content: silence(), 1),
    "429": Kind(lambda rng, content: status(429, **rng.choice([{}, {"Retry_After": "7"}])), 1),
    "500": Kind(lambda rng, content: status(500), 1),
    "503": Kind(lambda rng, content: status(503, **rng.choice([{}, {"Retry_After": "86400"}])), 1),
    "slow": Kind(lambda rng, content: slow(len(content) // 10 + 1, 0.002), 1),
    "redirect": Kind(lambda rng, content: redirect("?again"), 1),
    "ignored range": Kind(lambda rng, content: ignored_range(), 1),
    "wrong range": Kind(lambda rng, content: wrong_range(rng.randrange(len(content))), 1),
    "wrong total": Kind(lambda rng, content: wrong_range(0, total=len(content) + 1), 1),
    "older version": Kind(lambda rng, content: older(of_same_length(content), rng.randrange(len(content))), 1),
    "older, other length": Kind(lambda rng, content: older(content * 2, rng.randrange(len(content))), None),
    "long length": Kind(lambda rng, content: wrong_length(rng.randrange(1, 1000)), None),
    "short length": Kind(lambda rng, content: wrong_length(-rng.randrange(1, 1000)), None, lies=True),
    "404": Kind(lambda rng, content: status(404), None),
    "redirect loop": Kind(lambda rng, content: redirect("/loop"), None),
    "page": Kind(lambda rng, content: page("Moved"), None),
    "page as data": Kind(lambda rng, content: page("Moved", "application/zip"), None),
    "wrong bytes": Kind(lambda rng, content: wrong_bytes(anywhere(rng, content)), None, lies=True),
    "no length": Kind(lambda rng, content: no_length(anywhere(rng, content)), None),
    "compressed": Kind(lambda rng, content: compressed(gzip.compress(content)), None),
}


def knowledge(rng: random.Random, content: bytes) -> tuple[str, dict[str, Any]]:
    """The information about a file that is known in advance: its name and the arguments of `download`."""
    sha256 = hashlib.sha256(content).hexdigest()

    def check(path: Path) -> None:
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise ValueError(f"{path} has the wrong content")

    known = {
        "size and sha256": {"size": len(content), "checksum": f"sha256:{sha256}"},
        "md5": {"size": None, "checksum": f"md5:{hashlib.md5(content).hexdigest()}"},
        "size and content": {"size": len(content), "checksum": None, "check": check},
        "content": {"size": None, "checksum": None, "check": check},
        "nothing": {"size": None, "checksum": None},
    }
    name = rng.choice(list(known))
    return name, known[name]


def draw_mirror(server: FaultyServer, name: str, content: bytes, rng: random.Random, lies: bool) -> tuple[str, bool]:
    """A URL with one to six faults; whether it must yield the file within the allowed attempts."""
    tags: dict[str, Any] = rng.choice([{}, {"etag": None}, {"etag": 'W/"weak"'}, {"etag": None, "last_modified": None}])
    kinds = [kind for kind in KINDS.values() if lies or not kind.lies]
    passing = [kind for kind in kinds if kind.cost]
    drawn = rng.choices(passing if rng.random() < 0.5 else kinds, k=rng.randint(1, 6))
    faults = [kind.make(rng, content) for kind in drawn]
    url = server.serve(name, content, faults, chunked=rng.random() < 0.2, **tags)
    # One more attempt: bytes of another URL may be wrong, which shows only after they were continued here.
    return url, all(kind.cost for kind in drawn) and sum(kind.cost or 0 for kind in drawn) + 1 < ATTEMPTS


def test_random_faults_end_with_the_right_file_or_an_error(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.002)
    outcomes: dict[str, Counter[str]] = {"arrived": Counter(), "refused": Counter()}
    num_sure = 0
    for seed in range(NUM_SCRIPTS):
        rng = random.Random(seed)
        content = rng.randbytes(rng.choice([1, 100, 5_000, 60_000, 200_000]))
        name, known = knowledge(rng, content)
        mirrors = [
            draw_mirror(server, f"{seed}-{index}", content, rng, name != "nothing")
            for index in range(rng.randint(1, 2))
        ]
        target, num_before = tmp_path / str(seed) / "data.zip", len(server.requests)
        try:
            url = download(
                [url for url, _ in mirrors], target, attempts=ATTEMPTS, timeout=0.2, first_wait=0.0005, **known
            )
            outcome = "arrived"
            assert url in dict(mirrors), seed
            assert target.read_bytes() == content, seed
            assert list(target.parent.iterdir()) == [target], seed
        except ValueError as error:
            outcome = "refused"
            assert all(url in str(error) for url, _ in mirrors), seed
            assert not target.exists(), seed
            assert not any(sure for _, sure in mirrors), f"script {seed} must succeed: {error}"
        met = Counter(request.fault for request in server.requests[num_before:] if request.fault)
        outcomes[outcome].update(met, scripts=1)
        num_sure += any(sure for _, sure in mirrors)
    print_summary(outcomes, num_sure)
    assert outcomes["arrived"]["scripts"] > 20
    assert outcomes["refused"]["scripts"] > 20
    assert num_sure > 50
    assert sum((outcomes["arrived"] + outcomes["refused"]).values()) - NUM_SCRIPTS > 300


def print_summary(outcomes: dict[str, Counter[str]], num_sure: int) -> None:
    both = outcomes["arrived"] + outcomes["refused"]
    print(f"\n{'faults in files':<20}" + "".join(f"{outcome:>10}" for outcome in outcomes))
    for name in sorted(both, key=lambda name: (name == "scripts", name)):
        print(f"{name:<20}" + "".join(f"{counts[name]:>10}" for counts in outcomes.values()))
    num_faults = sum(both.values()) - both["scripts"]
    print(f"{num_faults} faults; {num_sure} of {both['scripts']} scripts had to succeed, and did; no wrong file")


DOWNLOAD = """
import json, sys
from pathlib import Path
from tseg.fetching.download import download

print("ready", flush=True)
try:
    print(download([sys.argv[1]], Path(sys.argv[2]), **json.loads(sys.argv[3])))
except ValueError as error:
    print(error)
"""


def start(url: str, target: Path, **known: Any) -> subprocess.Popen[str]:
    """Download in another process, which prints `ready` before it starts."""
    arguments = [url, str(target), json.dumps({"size": None, "checksum": None} | known)]
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", DOWNLOAD, *arguments], stdout=pipe, stderr=pipe, text=True)


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout and process.stdout.readline() == "ready\n"


def wait_until_longer(path: Path, length: int, process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not (path.exists() and path.stat().st_size > length):
        time.sleep(0.002)


@pytest.mark.parametrize("known", ["checksum", "nothing"])
def test_after_kills_at_random_moments_the_right_file_arrives(server, tmp_path, known):
    rng = random.Random(known)
    content = rng.randbytes(3_000_000)
    url, target = server.serve("data.zip", content, seconds=0.01), tmp_path / "data.zip"  # a second in all
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}" if known == "checksum" else None
    partial, num_killed = partial_path(target), 0
    while num_killed < 6:
        length = partial.stat().st_size if partial.exists() else 0
        process = start(url, target, checksum=checksum)
        wait_until_ready(process)
        if num_killed % 2:
            wait_until_longer(partial, length, process)
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            break  # it finished before the kill
        num_killed += 1
        assert not target.exists()
    download([url], target, size=None, checksum=checksum)
    num_resumed = sum("Range" in request.headers for request in server.requests)
    print(f"\n{num_killed} killed, {num_resumed} resumed")
    assert target.read_bytes() == content
    assert list(tmp_path.iterdir()) == [target]
    assert num_killed >= 4
    assert num_resumed >= 3


def test_a_second_process_is_refused_and_the_first_is_not_disturbed(server, tmp_path):
    content = random.Random(0).randbytes(1_000_000)
    url, target = server.serve("data.zip", content, seconds=0.01), tmp_path / "data.zip"
    process = start(url, target)
    wait_until_longer(partial_path(target), 0, process)
    with pytest.raises(ValueError, match=r"another process is fetching this and holds .*data\.zip\.lock; wait"):
        download([url], target, size=None, checksum=None)
    assert process.communicate(timeout=20)[0] == f"ready\n{url}\n"
    assert target.read_bytes() == content
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == [target]


def test_many_processes_at_once_leave_one_right_file(server, tmp_path):
    content = random.Random(0).randbytes(300_000)
    url, target = server.serve("data.zip", content, seconds=0.01), tmp_path / "data.zip"
    processes = [start(url, target) for _ in range(4)]
    outputs = [process.communicate(timeout=20)[0] for process in processes]
    assert all(output == f"ready\n{url}\n" or "another process is fetching this" in output for output in outputs)
    assert f"ready\n{url}\n" in outputs
    assert target.read_bytes() == content
    assert list(tmp_path.iterdir()) == [target]


FULL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
from tseg.fetching.download import download

url, folder, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=True)
target = folder / "data.zip"

def attempt(name, size):
    try:
        outcome = download([f"{url}/{name}"], target, size=size, checksum=None)
    except ValueError as error:
        outcome = str(error)
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    print(json.dumps([outcome, files, target.exists() and target.read_bytes().hex()]))

attempt("announced", size)
attempt("unannounced", None)
subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
attempt("unannounced", None)
"""


def test_a_full_disk_is_reported_and_the_transfer_continues_once_there_is_space(server, tmp_path):
    content = random.Random(0).randbytes(2_000_000)
    server.serve("announced", content)
    server.serve("unannounced", content, chunked=True)
    private = ["unshare", "--map-root-user", "--mount"]  # its mounts are private and end with it
    trial = subprocess.run([*private, "mount", "-t", "tmpfs", "tmpfs", tmp_path], check=False, capture_output=True)
    if trial.returncode:
        pytest.skip("a small disk needs unshare --map-root-user --mount, which this machine does not allow")
    command = [*private, sys.executable, "-c", FULL_DISK, server.url, tmp_path, str(len(content))]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    before, during, after = map(json.loads, run.stdout.splitlines())
    assert before[0].startswith(f"{server.url}/announced needs 2,000,000 bytes in {tmp_path}, but only ")
    assert before[0].endswith(" are free; make room")
    assert before[1] == {}
    kept = during[1][".data.zip.download"]
    assert 900_000 < kept < 1 << 20
    assert during[0] == (
        f"{tmp_path}/.data.zip.download could not be written (No space left on device); its {kept:,} bytes are kept: "
        "make room and run the command again to continue"
    )
    assert during[2] is False
    assert after == [f"{server.url}/unannounced", {"data.zip": len(content)}, content.hex()]
    assert server.requests[-1].headers["Range"] == f"bytes={kept}-"
