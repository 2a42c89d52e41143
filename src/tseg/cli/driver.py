"""The snakemake process that starts a sub-command, and ends with it."""

import os
import signal
import time
from threading import Thread

DRIVER = "TSEG_DRIVER"
"""Environment variable that the workflow sets to the id of its own process."""
SECONDS = 0.5


def end_with_driver() -> None:
    """Send this process SIGTERM once the snakemake that started it is gone, even by kill -9.

    Otherwise the sub-command would go on beside that of the next snakemake.
    """
    driver = os.getppid()
    if os.environ.get(DRIVER) == str(driver):
        Thread(target=_watch, args=[driver], daemon=True).start()


def _watch(driver: int) -> None:
    while os.getppid() == driver:
        time.sleep(SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
