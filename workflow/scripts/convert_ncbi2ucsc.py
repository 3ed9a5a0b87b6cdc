"""NCBI's FASTA and assembly report to a FASTA with UCSC names, its index and a table of aliases.

UCSC's own FASTA comes without a report: its names stay.
"""

import json
from pathlib import Path

from job import job
from longscale.files import atomic_path, checksum
from longscale.genome.assembly import AssemblyReport, fasta_aliases, write_aliases
from longscale.genome.convert import convert_assembly

with job(snakemake, echo=True) as report:
    assembly = AssemblyReport.read(snakemake.input.report) if snakemake.input.report else None
    contigs = convert_assembly(
        snakemake.input.fasta,
        assembly,
        snakemake.output.fasta,
        truncated=snakemake.params.truncated,
    )
    aliases = assembly.aliases() if assembly else fasta_aliases(name for name, _ in contigs)
    write_aliases(aliases, snakemake.output.aliases)
    total = sum(length for _, length in contigs)
    names = "UCSC names" if assembly else "names as in the file (there is no assembly report)"
    report(f"{len(contigs)} contigs, {total:,} bp, {names}")
    provenance = {
        "source": snakemake.params.url or "simulated",
        "source_md5": checksum(snakemake.input.fasta, "md5"),
        "genome_sha256": checksum(snakemake.output.fasta),
        "contigs": len(contigs),
        "bp": total,
    }
    with atomic_path(snakemake.output.provenance) as part:
        Path(part).write_text(json.dumps(provenance, indent=1) + "\n")
