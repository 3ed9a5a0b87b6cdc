# Edits of the code: on_code_change says whether finished results follow (docs/architecture.md).
# Last of the includes, and for the main process alone: its jobs run what it has decided. The record
# is written by runs, never by dry runs.
import atexit
from contextlib import suppress

from longscale import code_changes
from longscale.errors import storage_sentence
from longscale.files import check_writable

CODE_RECORD = Path(results("code.json")).absolute()
SCRIPTS = {item.name: Path(str(item.script)).name for item in workflow.rules if item.script}


def compare_code():
    """The code that finished results were made with, and the present one."""
    sources = code_changes.Sources(f"{workflow.basedir}/workflow/scripts")
    present = {name: sources.modules(name) for name in SCRIPTS.values()}
    return code_changes.read_record(CODE_RECORD), present


def apply_decision(decision):
    """Tell what follows from edits, and give the rules concerned a setting that makes them run."""
    concerned = [name for name, file in SCRIPTS.items() if file in decision.scripts]
    message = code_changes.describe(decision, concerned, config["results"], ON_CODE_CHANGE)
    if message:
        print(message, file=sys.stderr)
    for item in workflow.rules:
        if item.name in SCRIPTS:
            file = SCRIPTS[item.name]
            item.set_params(**code_changes.setting(file, decision.versions[file]))


def remember_code():
    """At the end: a run that had nothing to do has seen what its results are made with, too."""
    if workflow.executor_plugin and not workflow.dryrun and CODE_RECORD.parent.is_dir():
        # That results are to be made again is remembered by a run that begins to do so, see below.
        mode = "keep" if ON_CODE_CHANGE == "rerun" else ON_CODE_CHANGE
        with suppress(OSError, LongscaleError):
            seen = code_changes.decide(*COMPARED, mode)
            code_changes.write_record(seen.record, CODE_RECORD)


if workflow.is_main_process:
    try:
        COMPARED = compare_code()
    except LongscaleError as error:
        raise WorkflowError(str(error)) from None
    DECISION = code_changes.decide(*COMPARED, ON_CODE_CHANGE)
    apply_decision(DECISION)
    atexit.register(remember_code)

    onstart:
        atexit.unregister(remember_code)
        try:
            # Snakemake itself, met by a folder that cannot be written to, prints a traceback.
            check_writable(CODE_RECORD.parent)
            code_changes.write_record(DECISION.record, CODE_RECORD)
            record_run()
        except OSError as error:
            raise WorkflowError(storage_sentence(error) or str(error)) from None
