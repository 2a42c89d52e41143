"""A SLURM cluster of one machine: munged, slurmctld and slurmd from Debian's packages `munge` and `slurm-wlm`."""

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

NAME = "tseg-tests"
SETTINGS = Path("/etc/slurm/slurm.conf")
"""Where SLURM's programs look. Snakemake's jobs lose the variable SLURM_CONF."""
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
CONFIGURATION = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
MinJobAge={min_job_age}
KillWait=5
OverTimeLimit=0
ReturnToService=2
SlurmdTimeout=30
SchedulerParameters=sched_interval=2,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=6000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    absent = [program for program in PROGRAMS if not _find(program)]
    if absent:
        return f"SLURM is not installed ({', '.join(absent)}): apt-get install slurm-wlm munge"
    if SETTINGS.exists() and f"ClusterName={NAME}\n" not in SETTINGS.read_text():
        return f"{SETTINGS} belongs to another cluster"
    return "slurmd needs root" if os.geteuid() else None


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@contextmanager
def cluster(folder: Path, *, min_job_age: int = 300) -> Generator[dict[str, str]]:
    """Start a cluster whose files are in `folder`; yield the environment of its users. Stop it at the end.

    `min_job_age`: seconds for which squeue remembers a finished job.
    """
    host = socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    (folder / "munge.key").write_bytes(secrets.token_bytes(128))
    (folder / "munge.key").chmod(0o400)
    configuration = CONFIGURATION.format(
        name=NAME,
        folder=folder,
        host=host,
        controller_port=_free_port(),
        node_port=_free_port(),
        cpus=os.cpu_count(),
        min_job_age=min_job_age,
    )
    environment = dict(os.environ)
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    commands = {
        "munged": ["--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        "slurmctld": ["-D", "-c"],
        "slurmd": ["-D", "-N", host],
    }
    with ExitStack() as daemons:
        SETTINGS.write_text(configuration)
        # With settings and no controller, each program of SLURM, and so each snakemake, would wait for ten seconds.
        daemons.callback(SETTINGS.unlink)
        for name, arguments in commands.items():
            daemons.enter_context(_daemon([str(_find(name)), *arguments], environment, folder / f"{name}.out"))
            if name == "munged":
                wait_for((folder / "munge.socket").exists, "munged")
        wait_for(lambda: "idle" in run(environment, "sinfo", "--noheader", "--format=%t"), "an idle node")
        yield environment


def run(environment: dict[str, str], *command: str) -> str:
    """The output of a command, which may fail."""
    done = subprocess.run(command, env=environment, text=True, capture_output=True, check=False)
    return done.stdout + done.stderr


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until `condition` holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} after {seconds} seconds")
        time.sleep(0.2)


@contextmanager
def _daemon(command: list[str], environment: dict[str, str], log: Path) -> Generator[None]:
    with log.open("wb") as file, subprocess.Popen(command, env=environment, stdout=file, stderr=file) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
