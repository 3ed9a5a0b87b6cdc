"""What a run would still do: python plan.py config/grch38.yaml [--save calibration.json]"""

import argparse
import subprocess
import sys
from pathlib import Path

import yaml

from longscale.calibration import read_calibration, write_calibration
from longscale.config import check_config, check_recipe, locate_files, read_schema
from longscale.errors import LongscaleError
from longscale.plan import learned, make_plan, read_summary, render
from longscale.workload import Study

REPOSITORY = Path(__file__).resolve().parents[2]
CALIBRATION = REPOSITORY / "resources" / "calibration.json"


def parse_arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(description="What a run would still do.")
    parser.add_argument("config", type=Path, help="a configuration, such as config/grch38.yaml")
    parser.add_argument(
        "--calibration", type=Path, default=CALIBRATION, help="speeds and measured corrections"
    )
    parser.add_argument(
        "--save", type=Path, help="write the calibration, corrected by finished jobs, to this file"
    )
    return parser.parse_args()


def read_config(path: Path) -> dict:
    """The checked configuration."""
    try:
        text = path.read_text()
        config = yaml.safe_load(text)
    except OSError as error:
        raise LongscaleError(
            f"{path}: no such configuration ({error.strerror}); config/grch38.yaml is one"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        sentence = " ".join(str(error).split())
        raise LongscaleError(f"{path}: not YAML: {sentence}") from error
    if not isinstance(config, dict):
        raise LongscaleError(f"{path}: not a configuration: it must be a mapping of keys to values")
    config = check_config(config, read_schema(REPOSITORY / "config" / "schema.yaml"), str(path))
    locate_files(config, str(path), REPOSITORY)
    check_recipe(config, str(path))
    return config


def summarise(config: Path) -> str:
    """`snakemake --summary`: every output, and whether it is to be made."""
    command = [sys.executable, "-m", "snakemake", "--summary", "--snakefile"]
    command += [str(REPOSITORY / "Snakefile"), "--configfile", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()][-1:]
        raise LongscaleError(f"snakemake cannot plan {config}: {' '.join(last)}")
    return done.stdout


def main() -> None:
    """Print the plan."""
    arguments = parse_arguments()
    config = read_config(arguments.config)
    calibration = read_calibration(arguments.calibration)
    study = Study(config, Path(config["results"]))
    jobs = read_summary(summarise(arguments.config), config["results"])
    calibration = learned(study, jobs, calibration, Path.cwd())
    plan = make_plan(study, jobs, calibration)
    print(render(plan, calibration, f"Plan of {arguments.config}", len(jobs) - len(plan.jobs)))
    if arguments.save:
        write_calibration(calibration, arguments.save)


if __name__ == "__main__":
    try:
        main()
    except LongscaleError as error:
        sys.exit(f"error: {error}")
