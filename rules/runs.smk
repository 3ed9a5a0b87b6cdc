# Runs on a cluster leave a record of their jobs; one that was killed has to be recovered first.
import atexit

from longscale.runs import Run, check_runs, command_line, end_run, started_in, write_run
from longscale.slurm_block import ask_sinfo, check_block, check_extra


def record_run():
    """Before the first job is submitted; where jobs are not given to Slurm, nothing."""
    name = getattr(workflow.scheduler._executor, "run_uuid", None)
    if name:
        run = Run.present(name, started_in(sys.argv), command_line(sys.argv))
        folder = Path(config["results"]).absolute()  # at its end Snakemake has left --directory
        write_run(folder, run)
        atexit.register(end_run, folder, run)


def print_plan():
    """After a dry run for a cluster: jobs, GPU-hours and disk per stage; after an error nothing."""
    if not (workflow.executor_plugin and workflow.dryrun and workflow.scheduler):
        return
    from longscale.plan import Job, plan_for_cluster

    to_do = [job for job in workflow.dag.needrun_jobs(exclude_finished=False) if job.output]
    sent = [job for job in to_do if job.rule.name not in workflow._localrules]
    submissions = {workflow.dag.get_job_group(job) or job for job in sent}
    below = results("")
    jobs = {
        job: Job(job.rule.name, str(job.output[0]).removeprefix(below), "-", True) for job in to_do
    }
    asked = [(jobs[job], demand_of(job.rule.name, tuple(job.wildcards.items()), 1)) for job in sent]
    print(plan_for_cluster(DEMANDS, list(jobs.values()), asked, len(submissions)))


def check_profile():
    """What Slurm's plugin would hang on, and what the cluster does not have."""
    from snakemake_executor_plugin_slurm.validation import get_forbidden_slurm_options

    if "slurm_extra" in DEFAULTS:
        check_extra(DEFAULTS["slurm_extra"].raw.strip("'"), get_forbidden_slurm_options())
    sinfo = ask_sinfo()
    if sinfo:
        check_block(BLOCK, sinfo)


if workflow.is_main_process:
    try:
        check_runs(config["results"])
        DEMANDS.study.check_stored()  # now: of an error in a job's needs Snakemake shows the stack
        if BLOCK:
            check_profile()
    except LongscaleError as error:
        raise WorkflowError(str(error)) from None
    if BLOCK:
        atexit.register(print_plan)
