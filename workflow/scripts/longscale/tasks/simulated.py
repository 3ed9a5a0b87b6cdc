"""A simulated assembly and variant tasks whose best possible AUROC is known at every window length.

The positive control: when a cell of the table is at chance, its reader learns whether the method
failed or the pipeline did. An assembly in NCBI's shape carries one locus every `locus_bp` base
pairs: a `site` with a variant in its middle and, at a drawn distance on either side of it, a
`partner` or a `decoy`. A variant has an effect if it changes the site and the element is a partner;
the label is that effect, flipped with probability 1 - penetrance. A window shows the element or it
does not, so the posterior of the label given a window, and with it the ceiling of any model, is
known. (An element that the window's edge cuts counts as not shown; few are cut, because their
distances are spread widely.)

Positions are 1-based in what is written, 0-based inside this module.
"""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from longscale.errors import LongscaleError
from longscale.files import atomic_folder, checksum

BASES = np.frombuffer(b"ACGT", dtype=np.uint8)
FASTA_LINE = 80
GC_REGION_BP = 100_000
ELEMENTS = ("site", "partner", "decoy")
SPACINGS = ("uniform", "loguniform")
VARIANT_TYPES = ("snv", "deletion", "insertion")
ACCESSION = "GCA_900000001.1_LongscaleSim1"


@dataclass(frozen=True)
class TaskRecipe:
    """How one simulated task draws its loci (see resources/simulated.yaml)."""

    distance_bp: tuple[int, int]
    spacing: str
    hits: float
    partners: float
    penetrance: float

    def faults(self) -> Iterator[str]:
        """What cannot be drawn from, in words that begin with the key."""
        low, high = self.distance_bp
        if not 1 <= low <= high:
            yield f"distance_bp is {list(self.distance_bp)}, but must be two rising numbers from 1"
        if self.spacing not in SPACINGS:
            yield f"spacing is {self.spacing!r}, but must be one of {', '.join(SPACINGS)}"
        for key in ("hits", "partners", "penetrance"):
            if not 0 <= getattr(self, key) <= 1:
                yield f"{key} is {getattr(self, key)}, but must be from 0 to 1"

    def draw_distance(self, rng: np.random.Generator) -> int:
        """Distance in bp from the variant to the nearest base of its element, inclusive bounds."""
        low, high = self.distance_bp
        if self.spacing == "uniform":
            return int(rng.integers(low, high + 1))
        return int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))


@dataclass(frozen=True)
class Recipe:
    """The whole simulation: an assembly, three elements, and the tasks written on it."""

    seed: int
    assembly: dict
    elements: dict[str, str]
    tasks: dict[str, TaskRecipe]
    variant_types: dict[str, float] = field(default_factory=lambda: {"snv": 1.0})

    @classmethod
    def read(cls, path: str | Path, overrides: dict | None = None) -> "Recipe":
        """Read a recipe; `overrides` replaces keys of its `assembly` section (a smaller assembly
        for tests). Raises LongscaleError naming the file and the key.
        """
        try:
            raw = yaml.safe_load(Path(path).read_text())
            tasks = {name: TaskRecipe(**row) for name, row in raw.pop("tasks").items()}
            recipe = cls(tasks=tasks, **raw)
        except (yaml.YAMLError, OSError, TypeError, ValueError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise LongscaleError(f"{path}: not a recipe of a simulation: {reason}") from error
        unknown = set(overrides or {}) - set(recipe.assembly)
        if unknown:
            raise LongscaleError(
                f"{path}: `assembly` has no key {sorted(unknown)[0]!r};"
                f" known: {', '.join(recipe.assembly)}"
            )
        for key, value in (overrides or {}).items():
            if not _alike(value, recipe.assembly[key]):
                raise LongscaleError(
                    f"{path}: assembly.{key} is {value!r}, but must be a value like"
                    f" {recipe.assembly[key]!r}"
                )
        recipe.assembly.update(overrides or {})
        try:
            faults = list(recipe.faults())
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise LongscaleError(f"{path}: a value is of the wrong kind: {error}") from error
        for fault in faults:
            raise LongscaleError(f"{path}: {fault}")
        return recipe

    def faults(self) -> Iterator[str]:
        """What would make the posterior wrong, in words."""
        if sorted(self.elements) != sorted(ELEMENTS):
            yield f"elements are {', '.join(self.elements)}, but must be {', '.join(ELEMENTS)}"
            return
        if len(self.elements["partner"]) != len(self.elements["decoy"]):
            yield "elements.partner and elements.decoy differ in length, but must not"
        unknown = set(self.variant_types) - set(VARIANT_TYPES)
        if unknown or not np.isclose(sum(self.variant_types.values()), 1):
            yield f"variant_types must be shares of {', '.join(VARIANT_TYPES)} that add up to 1"
        for name, task in self.tasks.items():
            yield from (f"tasks.{name}.{fault}" for fault in task.faults())
        # A locus that reached into its neighbour's would overwrite it.
        reach = max(task.distance_bp[1] for task in self.tasks.values())
        needed = 2 * (reach + max(map(len, self.elements.values())))
        needed += self.assembly["n_run_bp"]
        if self.assembly["locus_bp"] < needed:
            yield (
                f"assembly.locus_bp is {self.assembly['locus_bp']}, but elements reach so"
                f" far that it must be at least {needed}"
            )


def _alike(value: object, own: object) -> bool:
    """Whether a value can stand where the recipe has `own`: a number from 0 on, or a list of such
    numbers.
    """
    if isinstance(own, list):
        return isinstance(value, list) and len(value) == len(own) and all(map(_alike, value, own))
    kinds = (int,) if isinstance(own, int) else (int, float)
    return type(value) in kinds and 0 <= value < float("inf")


@dataclass
class Locus:
    """One variant with its hidden truth (`pos` is 0-based here)."""

    task: str
    contig: str
    pos: int
    ref: str
    alt: str
    hit: bool
    partner: bool
    side: int
    distance: int
    label: int
    split: str


def draw_background(rng: np.random.Generator, length: int, gc: tuple[float, float]) -> np.ndarray:
    """Independent bases (uint8 ASCII), their GC content redrawn every 100 kb."""
    parts = []
    for start in range(0, length, GC_REGION_BP):
        share = rng.uniform(*gc)
        p = [(1 - share) / 2, share / 2, share / 2, (1 - share) / 2]
        parts.append(BASES[rng.choice(4, size=min(GC_REGION_BP, length - start), p=p)])
    return np.concatenate(parts)


def write_element(sequence: np.ndarray, start: int, element: str) -> None:
    """Write an element over the background at 0-based `start`."""
    sequence[start : start + len(element)] = np.frombuffer(element.encode(), dtype=np.uint8)


def draw_alleles(
    rng: np.random.Generator, sequence: np.ndarray, pos: int, types: dict[str, float]
) -> tuple[str, str]:
    """REF and ALT at 0-based `pos`, parsimonious and left-aligned by construction.

    An indel that could be shifted to the left is redrawn as an SNV, so that a normaliser changes
    nothing.
    """
    kind = rng.choice(list(types), p=list(types.values()))
    ref = chr(sequence[pos])
    others = [base for base in "ACGT" if base != ref]
    if kind == "deletion":
        deleted = sequence[pos + 1 : pos + 1 + int(rng.integers(1, 4))].tobytes().decode()
        if deleted[-1] != ref:
            return ref + deleted, ref
    if kind == "insertion":
        inserted = "".join(rng.choice(list("ACGT"), size=int(rng.integers(0, 3))))
        return ref, ref + inserted + str(rng.choice(others))
    return ref, str(rng.choice(others))


def plant_locus(
    rng: np.random.Generator,
    recipe: Recipe,
    task_name: str,
    contig: str,
    sequence: np.ndarray,
    centre: int,
) -> Locus:
    """Write site and element around 0-based `centre` and draw the variant and its label."""
    task, elements = recipe.tasks[task_name], recipe.elements
    hit, partner = rng.random() < task.hits, rng.random() < task.partners
    site = elements["site"]
    # A variant that misses stands 4 bp before the site, one that hits in its middle: both see the
    # site.
    offset = len(site) // 2 if hit else -4
    write_element(sequence, centre - offset, site)
    side, distance = int(rng.choice([-1, 1])), task.draw_distance(rng)
    # An element stands beside the site, never on it.
    distance = max(distance, len(site) - offset if side > 0 else offset + 1)
    element = elements["partner" if partner else "decoy"]
    start = centre + distance if side > 0 else centre - distance - len(element) + 1
    write_element(sequence, start, element)
    ref, alt = draw_alleles(rng, sequence, centre, recipe.variant_types)
    effect = hit and partner
    label = int(effect if rng.random() < task.penetrance else not effect)
    return Locus(task_name, contig, centre, ref, alt, hit, partner, side, distance, label, "")


def draw_chromosome(
    rng: np.random.Generator, recipe: Recipe, contig: str, split: str
) -> tuple[np.ndarray, list[Locus]]:
    """One chromosome with its loci, soft-masked stretches and runs of N."""
    shape = recipe.assembly
    locus_bp, count = shape["locus_bp"], shape["loci_per_chromosome"]
    sequence = draw_background(rng, locus_bp * (count + 1), shape["gc"])
    names = list(recipe.tasks)
    loci = []
    for index in range(count):
        centre = locus_bp * (index + 1)
        locus = plant_locus(rng, recipe, names[index % len(names)], contig, sequence, centre)
        locus.split = split
        loci.append(locus)
        if rng.random() < shape["soft_masked"]:
            stretch = slice(centre - 300, centre - 300 + int(rng.integers(100, 600)))
            sequence[stretch] |= 0x20
    # Between two loci, half a locus away from both variants: only the longest windows touch a run
    # of N.
    for index in range(100, count, 100):
        edge = locus_bp * index + locus_bp // 2
        sequence[edge - shape["n_run_bp"] // 2 : edge + shape["n_run_bp"] // 2] = ord("N")
    return sequence, loci


@dataclass(frozen=True)
class Contig:
    """A sequence under its NCBI and its UCSC names."""

    name: str
    role: str
    molecule: str
    genbank: str
    refseq: str
    ucsc: str
    title: str


def list_contigs(chromosomes: int, accession: str = ACCESSION) -> list[Contig]:
    """An assembly's sequences, with GenBank-like accessions that no real assembly uses."""
    name = accession.rpartition("_")[2]
    contigs = [
        Contig(
            str(i), "assembled-molecule", str(i), f"CM9{i:05d}.1", f"NC_9{i:05d}.1", f"chr{i}",
            f"Simulatum longum chromosome {i}, {name} reference primary assembly",
        )
        for i in range(1, chromosomes + 1)
    ]  # fmt: skip
    contigs.append(
        Contig(
            "SIMSCHRUN_CTG1", "unplaced-scaffold", "na", "KI900001.1", "NT_900001.1",
            "chrUn_KI900001v1", "Simulatum longum unplaced genomic scaffold SIMSCHRUN_CTG1",
        )
    )  # fmt: skip
    contigs.append(
        Contig(
            "MT", "assembled-molecule", "MT", "J09001.1", "NC_900099.1", "chrM",
            "Simulatum longum mitochondrion, complete genome",
        )
    )  # fmt: skip
    return contigs


def simulate(recipe: Recipe) -> tuple[list[tuple[Contig, np.ndarray]], list[Locus]]:
    """Draw the whole assembly and every locus of every task."""
    shape = recipe.assembly
    first_test = shape["chromosomes"] - shape["test_chromosomes"]
    assembly, loci = [], []
    for index, contig in enumerate(list_contigs(shape["chromosomes"])):
        rng = np.random.default_rng([recipe.seed, index])
        if index < shape["chromosomes"]:
            split = "train" if index < first_test else "test"
            sequence, drawn = draw_chromosome(rng, recipe, contig.ucsc, split)
            loci.extend(drawn)
        else:
            length = shape["mitochondrion_bp" if contig.ucsc == "chrM" else "unplaced_bp"]
            sequence = draw_background(rng, length, shape["gc"])
        assembly.append((contig, sequence))
    return assembly, loci


def fasta_record(header: str, sequence: np.ndarray) -> bytes:
    """One FASTA record, wrapped at NCBI's 80 bases."""
    whole = len(sequence) // FASTA_LINE * FASTA_LINE
    lines = np.full((whole // FASTA_LINE, FASTA_LINE + 1), ord("\n"), dtype=np.uint8)
    lines[:, :FASTA_LINE] = sequence[:whole].reshape(-1, FASTA_LINE)
    rest = sequence[whole:].tobytes()
    return b">" + header.encode() + b"\n" + lines.tobytes() + (rest + b"\n" if rest else b"")


def write_assembly(
    assembly: list[tuple[Contig, np.ndarray]], folder: Path, accession: str = ACCESSION
) -> None:
    """`*_genomic.fna.gz`, `*_assembly_report.txt` and `md5checksums.txt`, as NCBI lays them out."""
    fasta, report = (
        folder / f"{accession}_genomic.fna.gz",
        folder / f"{accession}_assembly_report.txt",
    )
    with gzip.GzipFile(fasta, "wb", compresslevel=1, mtime=0) as handle:
        for contig, sequence in assembly:
            handle.write(fasta_record(f"{contig.genbank} {contig.title}", sequence))
    header = (
        f"# Assembly name:  {accession.rpartition('_')[2]}\n"
        "# Organism name:  Simulatum longum (simulated)\n#\n"
        "# Sequence-Name\tSequence-Role\tAssigned-Molecule\tAssigned-Molecule-Location/Type\t"
        "GenBank-Accn\tRelationship\tRefSeq-Accn\tAssembly-Unit\tSequence-Length\tUCSC-style-name\n"
    )
    rows = []
    for c, sequence in assembly:
        place = {"na": "na", "MT": "Mitochondrion"}.get(c.molecule, "Chromosome")
        unit = "non-nuclear" if c.ucsc == "chrM" else "Primary Assembly"
        cells = [
            c.name,
            c.role,
            c.molecule,
            place,
            c.genbank,
            "=",
            c.refseq,
            unit,
            len(sequence),
            c.ucsc,
        ]
        rows.append("\t".join(map(str, cells)) + "\n")
    report.write_text(header + "".join(rows))
    lines = [f"{checksum(path, 'md5')}  ./{path.name}\n" for path in (fasta, report)]
    (folder / "md5checksums.txt").write_text("".join(lines))


def variant_table(loci: list[Locus]) -> pd.DataFrame:
    """The task as LRB's CSV: CHROM, POS (1-based), REF, ALT, INT_LABEL, split."""
    return pd.DataFrame(
        {
            "CHROM": [locus.contig for locus in loci],
            "POS": [locus.pos + 1 for locus in loci],
            "REF": [locus.ref for locus in loci],
            "ALT": [locus.alt for locus in loci],
            "INT_LABEL": [locus.label for locus in loci],
            "split": [locus.split for locus in loci],
        }
    )


def truth_table(loci: list[Locus], task: TaskRecipe, element_bp: int) -> pd.DataFrame:
    """The hidden truth of a task's variants: contig, pos (1-based), ref, alt, hit, partner,
    left_bp, right_bp, partners, penetrance.

    `left_bp` and `right_bp`: how many bases before the variant, or from its own on, a window must
    hold to show the whole element; 0 on the side where there is none.
    """
    side = np.array([locus.side for locus in loci])
    distance = np.array([locus.distance for locus in loci])
    return pd.DataFrame(
        {
            "contig": [locus.contig for locus in loci],
            "pos": [locus.pos + 1 for locus in loci],
            "ref": [locus.ref for locus in loci],
            "alt": [locus.alt for locus in loci],
            "hit": [locus.hit for locus in loci],
            "partner": [locus.partner for locus in loci],
            "left_bp": np.where(side < 0, distance + element_bp - 1, 0),
            "right_bp": np.where(side > 0, distance + element_bp, 0),
        }
    ).assign(partners=task.partners, penetrance=task.penetrance)


def posterior(truth: pd.DataFrame, window_bp: int) -> np.ndarray:
    """P(label = 1) given a window of `window_bp` around each variant of `truth` (rows of
    `truth_table`).

    The window is [p - window_bp // 2, p - window_bp // 2 + window_bp) around the variant's 0-based
    p: it always shows the site, and the element if all of it lies inside.
    """
    p_partner = truth["partner"].where(is_visible(truth, window_bp), truth["partners"])
    p_effect = (truth["hit"] * p_partner).to_numpy(dtype=float)
    penetrance = truth["penetrance"].to_numpy()
    return p_effect * penetrance + (1 - p_effect) * (1 - penetrance)


def is_visible(truth: pd.DataFrame, window_bp: int) -> pd.Series:
    """Whether a window of `window_bp` around each variant holds its whole element, bool (rows,)."""
    left = window_bp // 2
    return (truth["left_bp"] <= left) & (truth["right_bp"] <= window_bp - left)


def write_simulation(recipe: Recipe, folder: str | Path) -> None:
    """Write the assembly in NCBI's layout, and `{task}.csv` and `{task}.truth.parquet` per task,
    whole or not at all.
    """
    assembly, loci = simulate(recipe)
    element_bp = len(recipe.elements["partner"])
    with atomic_folder(folder) as part:
        write_assembly(assembly, part)
        for name, task in recipe.tasks.items():
            own = [locus for locus in loci if locus.task == name]
            variant_table(own).to_csv(part / f"{name}.csv", index=False)
            truth_table(own, task, element_bp).to_parquet(
                part / f"{name}.truth.parquet", index=False
            )
