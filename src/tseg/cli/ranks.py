"""A sub-command in several processes, one per GPU, that share its work: see `tseg.training.ranks`."""

import os
import sys

from tseg.cli.driver import DRIVER


def is_rank() -> bool:
    """Whether torchrun started this process."""
    return "RANK" in os.environ


def run_ranks(number: int) -> None:
    """Run the command line of this process again, in `number` ranks; they end with this process.

    Raises SystemExit with the exit code of a training: `EXIT_CODE` once all ranks are interrupted.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from tseg.training.interruption import EXIT_CODE, SIGNALS, Interrupted

    os.environ[DRIVER] = str(os.getpid())
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # `--threads` sets them
    signals = ",".join(each.name for each in SIGNALS)
    options = ["--standalone", f"--nproc-per-node={number}", f"--signals-to-handle={signals}"]
    try:
        run.main([*options, "--module", "tseg", *sys.argv[1:]])
    except SignalException:
        raise Interrupted from None
    except ChildFailedError as error:  # the ranks have said why
        codes = {failure.exitcode for failure in error.failures.values()}
        raise (Interrupted() if codes == {EXIT_CODE} else SystemExit(1)) from None
