from snakemake.utils import min_version

min_version("9.0")


# Another configuration replaces the demo's as a whole (--configfile config/grch38.yaml).
if not workflow.config_settings.configfiles:

    configfile: f"{workflow.basedir}/config/config.yaml"


include: "rules/common.smk"
include: "rules/runs.smk"
include: "rules/models.smk"


if GENOME:

    include: "rules/inputs.smk"
    include: "rules/genome.smk"


if STUDY:

    include: "rules/tasks.smk"
    include: "rules/dnabert2.smk"
    include: "rules/report.smk"


if MLM:

    include: "rules/mlm_inputs.smk"
    include: "rules/mlm.smk"


if PROBE:

    include: "rules/probe_inputs.smk"
    include: "rules/probe.smk"


rule all:
    default_target: True
    input:
        final_targets(),


include: "rules/code.smk"
