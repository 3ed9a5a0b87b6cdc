"""Which sequences an assembly has, and under which names they are known: NCBI's assembly report.

An assembly without a report (UCSC's) is known by the names in its FASTA file: `fasta_aliases`.

Format: ten tab-separated columns after comment lines that start with `#`; `na` is a missing value
(https://www.ncbi.nlm.nih.gov/genome/doc/ftpfaq/, "assembly_report.txt").
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from longscale.errors import LongscaleError
from longscale.files import atomic_path

N_COLUMNS = 10
ALIAS_HEADER = ("alias", "contig")


@dataclass(frozen=True)
class AssemblySequence:
    """One row of the report; `None` where NCBI writes `na`. `length` is in bp."""

    name: str
    role: str
    molecule: str | None
    genbank: str | None
    refseq: str | None
    length: int
    ucsc: str | None

    @property
    def contig(self) -> str:
        """The name used everywhere else: UCSC's, or the GenBank (else RefSeq) accession."""
        return self.ucsc or self.genbank or self.refseq or self.name

    @property
    def accessions(self) -> tuple[str, ...]:
        """GenBank and RefSeq accession, as far as they exist, with version."""
        return tuple(name for name in (self.genbank, self.refseq) if name)

    def names(self) -> Iterator[str]:
        """Every name under which this sequence may stand in a variant file (repeats possible)."""
        yield self.contig
        yield self.name
        for accession in self.accessions:
            yield accession
            yield accession.rsplit(".", 1)[0]
        # Scaffolds carry the molecule on which they are placed; only the molecule itself owns it.
        if self.role == "assembled-molecule" and self.molecule:
            yield self.molecule
            yield f"chr{self.molecule}"
            if self.ucsc:
                yield self.ucsc.removeprefix("chr")


@dataclass(frozen=True)
class AssemblyReport:
    """The sequences of an assembly, in the order of the report."""

    path: Path
    sequences: tuple[AssemblySequence, ...]

    @classmethod
    def read(cls, path: str | Path) -> "AssemblyReport":
        """Read and check a report (LF or CRLF line ends).

        Raises LongscaleError, with file and line, for a wrong number of columns, a length that is
        no positive integer, a sequence without an accession, a contig or an accession that occurs
        twice, and for a file without any sequence.
        """
        path = Path(path)
        sequences = []
        first_line: dict[str, int] = {}
        for number, line in enumerate(_lines(path), start=1):
            if line.startswith("#") or not line.strip():
                continue
            sequence = _parse_row(line, where=f"{path}, line {number}")
            for name in {sequence.contig, *sequence.accessions}:
                if name in first_line:
                    raise LongscaleError(
                        f"{path}, line {number}: the name {name!r} already stands in line "
                        f"{first_line[name]}; every accession and UCSC name must occur once."
                    )
                first_line[name] = number
            sequences.append(sequence)
        if not sequences:
            raise LongscaleError(
                f"{path}: lists no sequence; expected an NCBI assembly report with {N_COLUMNS} "
                "tab-separated columns."
            )
        return cls(path, tuple(sequences))

    def aliases(self) -> dict[str, str]:
        """Every known name -> contig.

        Names are the sequence name, the accessions with and without version, the UCSC name, and
        for assembled molecules `1`, `chr1`, and the UCSC name without `chr` (`M`). A contig's own
        name always stands for itself; any other name that two contigs share is left out.
        """
        return _unshared({sequence.contig: sequence.names() for sequence in self.sequences})


def fasta_aliases(contigs: Iterable[str]) -> dict[str, str]:
    """Name -> contig for an assembly without a report: each contig's own, with and without `chr`.

    `M` and `MT` are two names then: UCSC's hg19 has NC_001807 as `chrM`, not the rCRS. What two
    contigs would share is left out, as in `AssemblyReport.aliases`.
    """
    names = {}
    for contig in contigs:
        bare = contig.removeprefix("chr")
        names[contig] = (contig, f"chr{contig}" if bare in ("", contig) else bare)
    return _unshared(names)


def _unshared(names: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Name -> contig, of all `names` of contigs that no two of them share.

    A contig's own name is its own, whoever else is called so.
    """
    claims = [
        (name, contig)
        for contig, all_names in names.items()
        for name in dict.fromkeys(all_names)
        if name not in names or name == contig
    ]
    claimants = Counter(name for name, _ in claims)
    return {name: contig for name, contig in claims if claimants[name] == 1}


def write_aliases(aliases: Mapping[str, str], path: str | Path) -> None:
    """Write alias -> contig as a two-column TSV with the header `alias, contig` (atomic)."""
    rows = [ALIAS_HEADER, *aliases.items()]
    with atomic_path(path) as part:
        part.write_text("".join(f"{alias}\t{contig}\n" for alias, contig in rows), "utf-8")


def read_aliases(path: str | Path) -> dict[str, str]:
    """Read what `write_aliases` wrote; LongscaleError with file and line where it is malformed."""
    path = Path(path)
    aliases: dict[str, str] = {}
    for number, line in enumerate(_lines(path), start=1):
        fields = tuple(line.split("\t"))
        if number == 1 and fields != ALIAS_HEADER:
            raise LongscaleError(
                f"{path}, line 1: expected the header 'alias<TAB>contig', found {line!r}."
            )
        if len(fields) != len(ALIAS_HEADER) or not all(fields):
            raise LongscaleError(
                f"{path}, line {number}: expected an alias and a contig separated by one tab, "
                f"found {line!r}."
            )
        alias, contig = fields
        if alias in aliases:
            raise LongscaleError(
                f"{path}, line {number}: the alias {alias!r} occurs twice; each must occur once."
            )
        if number > 1:
            aliases[alias] = contig
    return aliases


def _lines(path: Path) -> list[str]:
    """Lines of a text file without their ends (LF or CRLF)."""
    try:
        return path.read_text("utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise LongscaleError(f"{path}: cannot be read: {error.strerror}.") from error


def _parse_row(line: str, *, where: str) -> AssemblySequence:
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) != N_COLUMNS:
        raise LongscaleError(
            f"{where}: expected the {N_COLUMNS} tab-separated columns of an NCBI assembly report, "
            f"found {len(fields)}."
        )
    name, role, molecule, _, genbank, _, refseq, _, length, ucsc = (
        None if field in ("na", "") else field for field in fields
    )
    if length is None or not re.fullmatch("[0-9]{1,12}", length) or int(length) == 0:
        raise LongscaleError(
            f"{where}: the sequence length must be a positive integer, found {fields[8][:40]!r}."
        )
    if name is None or role is None or not (genbank or refseq):
        raise LongscaleError(
            f"{where}: a sequence needs a name, a role and a GenBank or RefSeq accession."
        )
    for word in (genbank, refseq, ucsc):
        if word and len(word.split()) > 1:
            raise LongscaleError(
                f"{where}: {word!r} has a space in it; an accession or UCSC name is one word, as "
                "in the header of a FASTA record."
            )
    return AssemblySequence(name, role, molecule, genbank, refseq, int(length), ucsc)
