# What Snakemake's SLURM executor leaves to a person: jobs of a driver that was killed, and jobs that squeue has forgotten.
import subprocess
import time


def squeue(*arguments):
    """The lines that squeue prints."""
    command = ["squeue", "--noheader", *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True
    ).stdout.split()


class Ended(dict):
    """States of jobs by id. A job that squeue has forgotten has ended; whether its output is there says how.

    An earlier output is removed before the job is submitted.
    """

    def __contains__(self, job):
        return True

    def __missing__(self, job):
        return "UNKNOWN"


def use_slurm(executor, note):
    """Choose how to ask for jobs, and end those of an earlier driver, whose name is in the file `note`.

    A training that is cancelled saves its state first; this driver submits it again.
    """
    import snakemake_executor_plugin_slurm as plugin

    shown = subprocess.run(
        ["scontrol", "show", "config"], check=True, capture_output=True, text=True
    )
    has_accounting = not re.search(
        r"AccountingStorageType *= *(accounting_storage/none|\(null\))", shown.stdout
    )
    workflow.executor_settings.status_command = "sacct" if has_accounting else "squeue"
    if not has_accounting:
        query = plugin.query_job_status

        async def query_all(*arguments):
            states, seconds = await query(*arguments)
            return states if states is None else Ended(states), seconds

        submit = executor.run_job

        def remove_output_and_submit(job):
            for each in job.jobs if job.is_group() else [job]:
                for file in each.output:
                    Path(file).unlink(missing_ok=True)
            submit(job)

        executor.run_job = remove_output_and_submit
        plugin.query_job_status = query_all
        plugin.is_query_tool_available = lambda tool: tool != "sacct"
    name = note.read_text() if note.exists() else ""
    if name and (jobs := squeue(f"--name={name}", "--format=%i")):
        logger.warning(
            f"Jobs {', '.join(jobs)} of a snakemake that was killed are cancelled, to be started again."
        )
        subprocess.run(["scancel", *jobs], check=True)
        while squeue(f"--name={name}", "--format=%i"):
            time.sleep(2)
    note.write_text(executor.run_uuid)
