"""Files of a run that something has damaged since, and recipes of simulations."""

from collections.abc import Callable
from pathlib import Path

from defects.harness import Defect, Told, told_by
from defects.variants import COLUMNS, CONTIG, GOOD, HEADER

RECIPE = (Path(__file__).resolve().parents[2] / "resources" / "simulated.yaml").read_text()
FAI = f"chr1\t{len(CONTIG)}\t6\t{len(CONTIG)}\t{len(CONTIG) + 1}\n"


def use(folder: Path, defect: Defect, capture: Callable[[], str]) -> Told:
    """What the rule that reads the file says."""
    if defect.of == "recipe":
        return simulate(folder, defect, capture)
    given = {
        "g.fa": f">chr1\n{CONTIG}\n",
        "g.fa.fai": FAI,
        "aliases.tsv": "alias\tcontig\n1\tchr1\n",
    }
    for name, content in (given | {defect.of: defect.content}).items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "v.csv").write_text(HEADER + GOOD)
    names = {"accepted": "v.parquet", "rejected": "v.rejected.tsv", "summary": "v.json"}
    return told_by(
        "prepare_variants",
        capture,
        {key: folder / "out" / name for key, name in names.items()},
        inputs={
            "variants": str(folder / "v.csv"),
            "fasta": str(folder / "g.fa"),
            "aliases": str(folder / "aliases.tsv"),
        },
        params={"task": {"source": "file", "columns": COLUMNS, "swapped": "reject", "limit": None}},
        wildcards={"task": "v"},
    )


def simulate(folder: Path, defect: Defect, capture: Callable[[], str]) -> Told:
    recipe = folder / "recipe.yaml"
    text, overrides = defect.content if isinstance(defect.content, tuple) else (defect.content, {})
    recipe.write_text(text)
    return told_by(
        "simulate_genome",
        capture,
        {"fasta": folder / "out" / "genome.fna.gz"},
        inputs={"recipe": str(recipe)},
        params={"overrides": overrides},
    )


def changed(old: str, new: str) -> str:
    assert old in RECIPE
    return RECIPE.replace(old, new, 1)


DEFECTS = [
    # --- the genome of a run
    Defect(
        "an index of another file",
        FAI.replace("6", "7"),
        ("g.fa", "made for another file", "samtools faidx"),
        of="g.fa.fai",
    ),
    Defect(
        "an index that begins at 0",
        FAI.replace("\t6\t", "\t0\t"),
        ("g.fa", "made for another file", "samtools faidx"),
        of="g.fa.fai",
    ),
    Defect(
        "an index beyond the file",
        FAI.replace("3000\t6", "9000\t6"),
        ("g.fa", "made for another file", "samtools faidx"),
        of="g.fa.fai",
    ),
    Defect(
        "an index with words",
        FAI.replace("\t6\t", "\tsix\t"),
        ("g.fa.fai, line 1", "four integers", "tabs"),
        of="g.fa.fai",
    ),
    Defect(
        "an index in other digits",
        FAI.replace("\t6\t", "\t\u00b2\t"),
        ("g.fa.fai, line 1", "four integers", "tabs"),
        of="g.fa.fai",
    ),
    Defect(
        "an index with 5,000 digits",
        FAI.replace("\t6\t", f"\t{'9' * 5000}\t"),
        ("g.fa.fai, line 1", "four integers", "tabs"),
        of="g.fa.fai",
    ),
    Defect(
        "an index with lines of no bases",
        f"chr1\t{len(CONTIG)}\t6\t0\t0\n",
        ("g.fa.fai, line 1", "impossible line lengths", "samtools faidx"),
        of="g.fa.fai",
    ),
    Defect(
        "an index with a contig twice",
        FAI * 2,
        ("g.fa.fai, line 2", "occurs twice", "samtools faidx"),
        of="g.fa.fai",
    ),
    Defect(
        "a bgzip index for a .fai",
        b"\x03" + bytes(7) + b"\xff" * 24,
        ("g.fa.fai, line 1", "four integers", "tabs"),
        of="g.fa.fai",
    ),
    Defect("a genome without bytes", "", ("g.fa", "cannot be read as a FASTA", ""), of="g.fa"),
    Defect(
        "a genome cut in half",
        f">chr1\n{CONTIG[:1500]}",
        ("g.fa", "made for another file", "samtools faidx"),
        of="g.fa",
    ),
    Defect(
        "aliases without a header",
        "1\tchr1\n",
        ("aliases.tsv, line 1", "header", "alias<TAB>contig"),
        of="aliases.tsv",
    ),
    Defect(
        "an alias twice",
        "alias\tcontig\n1\tchr1\n1\tchr1\n",
        ("aliases.tsv, line 3", "twice", "once"),
        of="aliases.tsv",
    ),
    Defect(
        "aliases cut in half",
        "alias\tcontig\n1\n",
        ("aliases.tsv, line 2", "separated by one tab", "'1'"),
        of="aliases.tsv",
    ),
    # --- recipes
    Defect("a recipe without bytes", "", ("recipe.yaml", "not a recipe", ""), of="recipe"),
    Defect(
        "a recipe with an open bracket",
        changed("[10, 60]", "[10, 60"),
        ("recipe.yaml", "not a recipe", "line"),
        of="recipe",
    ),
    Defect(
        "a recipe without elements",
        changed("  site: GTT", "  cite: GTT"),
        ("recipe.yaml", "elements are cite", "must be site"),
        of="recipe",
    ),
    Defect(
        "a share above one",
        changed("hits: 0.7", "hits: 1.7"),
        ("recipe.yaml", "tasks.sim_near.hits is 1.7", "from 0 to 1"),
        of="recipe",
    ),
    Defect(
        "a share in words",
        changed("hits: 0.7", "hits: most"),
        ("recipe.yaml", "", "kind"),
        of="recipe",
    ),
    Defect(
        "one distance for two", changed("[10, 60]", "10"), ("recipe.yaml", "", "kind"), of="recipe"
    ),
    Defect(
        "falling distances",
        changed("[10, 60]", "[60, 10]"),
        ("recipe.yaml", "distance_bp is .60, 10", "rising"),
        of="recipe",
    ),
    Defect(
        "an unknown key of a task",
        changed("hits: 0.7", "hit: 0.7"),
        ("recipe.yaml", "'hit'|hits", ""),
        of="recipe",
    ),
    Defect(
        "loci that overlap",
        changed("locus_bp: 1500", "locus_bp: 150"),
        ("recipe.yaml", "assembly.locus_bp is 150", "at least"),
        of="recipe",
    ),
    Defect(
        "an unknown key of the assembly",
        (RECIPE, {"chromosome": 3}),
        ("recipe.yaml", "'chromosome'", "known: chromosomes"),
        of="recipe",
    ),
    Defect(
        "chromosomes in words",
        (RECIPE, {"chromosomes": "eight"}),
        ("recipe.yaml", "assembly.chromosomes is 'eight'", "like 8"),
        of="recipe",
    ),
    Defect(
        "chromosomes below zero",
        (RECIPE, {"chromosomes": -8}),
        ("recipe.yaml", "assembly.chromosomes is -8", "like 8"),
        of="recipe",
    ),
]
