import pickle
import random

import numpy as np
import pyfaidx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longscale.errors import LongscaleError
from longscale.genome import sequence
from longscale.genome.assembly import AssemblyReport
from longscale.genome.convert import convert_assembly
from longscale.genome.sequence import FOLD, Genome, fold_genome

# Contig -> (length, bases per line): odd widths, full and short last lines, contigs shorter than
# any window, one line only, one base.
SHAPES = {
    "chr1": (9_973, 80),
    "chr2": (5_040, 60),
    "chr3": (701, 7),
    "chr4": (3_000, 3_000),
    "chrM": (61, 80),
    "tiny": (1, 1),
    "chr6": (640, 80),
}


def write_fasta(path, end="\n", final_end=True):
    generator = random.Random(7)
    text, index = "", []
    for name, (length, width) in SHAPES.items():
        bases = "".join(generator.choices("ACGTacgtNnRYkm*", weights=[9] * 8 + [1] * 7, k=length))
        if length > 600:
            bases = bases[:100] + "N" * 200 + bases[300:]
        text += f">{name} a sequence{end}"
        index.append((name, length, len(text), min(width, length), min(width, length) + len(end)))
        text += "".join(bases[i : i + width] + end for i in range(0, length, width))
    path.write_bytes((text if final_end else text.removesuffix(end)).encode())
    rows = ["\t".join(map(str, row)) for row in index]
    path.with_name(path.name + ".fai").write_text("\n".join([*rows, ""]))
    return path


@pytest.fixture(scope="module", params=["lines", "folded"])
def fasta(tmp_path_factory, request):
    """The file, alone and with its plain bases: all tests hold for both."""
    path = write_fasta(tmp_path_factory.mktemp("genome") / "g.fa")
    if request.param == "folded":
        fold_genome(path)
    assert (Genome(path)._folded is not None) == (request.param == "folded")
    return path


@pytest.fixture(scope="module")
def oracle(fasta):
    """Slow and obvious: contig, start, width -> ASCII codes."""
    reader = pyfaidx.Fasta(str(fasta), as_raw=True)

    def window(contig, start, width):
        length = len(reader[contig])
        inside = str(reader[contig][max(start, 0) : max(min(start + width, length), 0)])
        left = min(max(-start, 0), width)
        letters = "N" * left + (inside if start < length else "")
        letters = "".join(base if base in "ACGT" else "N" for base in letters.upper())
        return np.frombuffer(letters.ljust(width, "N").encode(), np.uint8)

    return window


def random_windows(rows, width, seed):
    generator = np.random.default_rng(seed)
    contigs = generator.choice(list(SHAPES), rows)
    lengths = np.array([SHAPES[contig][0] for contig in contigs])
    return contigs, generator.integers(-width - 5, lengths + 5)


def test_fold_table():
    for code in range(256):
        upper = chr(code).upper()
        assert chr(FOLD[code]) == (upper if upper in "ACGT" else "N")
    codes = np.arange(256, dtype=np.uint8)
    sequence._fold(codes)
    assert codes.tobytes() == FOLD


def test_fetch_equals_pyfaidx(fasta, oracle):
    genome = Genome(fasta)
    assert genome.lengths == {name: length for name, (length, _) in SHAPES.items()}
    generator = random.Random(1)
    for _ in range(1_000):
        contig = generator.choice(list(SHAPES))
        start, end = sorted(generator.choices(range(genome.lengths[contig] + 1), k=2))
        got = genome.fetch(contig, start, end)
        assert got.dtype == np.uint8
        assert np.array_equal(got, oracle(contig, start, end - start))
    assert got.flags.writeable  # a caller puts alleles in


def test_whole_contigs(fasta, oracle):
    genome = Genome(fasta)
    for contig, length in genome.lengths.items():
        assert np.array_equal(genome.fetch(contig, 0, length), oracle(contig, 0, length))


@pytest.mark.parametrize("chunk_bytes", [1, 2_000, 1 << 19])
@pytest.mark.parametrize("width", [1, 7, 79, 80, 81, 160, 500, 1_001, 12_000])
def test_gather_equals_pyfaidx(fasta, oracle, monkeypatch, width, chunk_bytes):
    monkeypatch.setattr(sequence, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(sequence, "COPY_BYTES", chunk_bytes)
    contigs, starts = random_windows(200, width, seed=width)
    got = Genome(fasta).gather(contigs, starts, width)
    assert got.shape == (200, width)
    assert got.dtype == np.uint8
    for row, contig, start in zip(got, contigs, starts, strict=True):
        assert np.array_equal(row, oracle(contig, int(start), width)), (contig, start)


@settings(max_examples=200, deadline=None)
@given(
    contig=st.sampled_from(list(SHAPES)),
    start=st.integers(-300, 10_300),
    width=st.integers(1, 400),
)
def test_gather_of_one_row(fasta, oracle, contig, start, width):
    got = Genome(fasta).gather([contig], [start], width)
    assert np.array_equal(got[0], oracle(contig, start, width))


def test_first_and_last_windows_of_every_contig(fasta, oracle):
    genome = Genome(fasta)
    width = 50
    contigs = [c for c, n in genome.lengths.items() if n >= width for _ in range(2)]
    starts = [s for n in genome.lengths.values() if n >= width for s in (0, n - width)]
    got = genome.gather(contigs, starts, width)
    expected = [oracle(c, s, width) for c, s in zip(contigs, starts, strict=True)]
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("final_end", ["\n", ""])
def test_windows_at_the_end_of_the_file(tmp_path, final_end):
    path = tmp_path / "g.fa"
    for length in range(30, 52):
        bases = "".join(random.Random(length).choices("ACGT", k=length))
        lines = "\n".join(bases[i : i + 10] for i in range(0, length, 10))
        path.write_text(f">c\n{lines}{final_end}")
        path.with_name("g.fa.fai").write_text(f"c\t{length}\t3\t10\t11\n")
        starts = np.arange(length - 24)
        got = Genome(path).gather(["c"] * len(starts), starts, 25)
        assert [row.tobytes().decode() for row in got] == [bases[s : s + 25] for s in starts]


def test_windows_are_put_where_the_caller_wants_them(fasta):
    contigs, starts = random_windows(50, 90, seed=2)
    genome, out = Genome(fasta), np.full((50, 200), 7, np.uint8)
    assert genome.gather(contigs, starts, 90, out[:, 10:100]).base is not None
    assert np.array_equal(out[:, 10:100], genome.gather(contigs, starts, 90))
    assert (out[:, :10] == 7).all()
    assert (out[:, 100:] == 7).all()
    for bad in (np.empty((50, 89), np.uint8), np.empty((50, 90), np.int8)):
        with pytest.raises(ValueError, match="out must be uint8, 50 rows of 90"):
            genome.gather(contigs, starts, 90, bad)


def test_a_genome_shorter_than_the_window(tmp_path):
    (tmp_path / "g.fa").write_text(">c\nACGTA\n")
    (tmp_path / "g.fa.fai").write_text("c\t5\t3\t5\t6\n")
    fold_genome(tmp_path / "g.fa")
    got = Genome(tmp_path / "g.fa").gather(["c", "c"], [-2, 0], 9)
    assert [row.tobytes() for row in got] == [b"NNACGTANN", b"ACGTANNNN"]


def test_no_rows(fasta):
    assert Genome(fasta).gather([], [], 10).shape == (0, 10)


@pytest.mark.parametrize(("end", "final_end"), [("\r\n", True), ("\r\n", False), ("\n", False)])
def test_other_line_ends(fasta, tmp_path, end, final_end):
    genome, other = Genome(fasta), Genome(write_fasta(tmp_path / "g.fa", end, final_end))
    contigs, starts = random_windows(100, 170, seed=3)
    assert np.array_equal(genome.gather(contigs, starts, 170), other.gather(contigs, starts, 170))
    assert np.array_equal(genome.fetch("chr6", 0, 640), other.fetch("chr6", 0, 640))


def test_pickles_without_its_content(fasta):
    genome = Genome(fasta)
    genome.fetch("chr1", 0, 10)
    pickled = pickle.dumps(genome)
    assert len(pickled) < 2_000
    again = pickle.loads(pickled)
    assert np.array_equal(again.fetch("chr1", 0, 9_973), genome.fetch("chr1", 0, 9_973))


def test_unknown_contig_names_the_closest(fasta):
    genome = Genome(fasta)
    with pytest.raises(LongscaleError, match=r"g\.fa: has no contig 'chr22'.*chr2"):
        genome.fetch("chr22", 0, 1)
    with pytest.raises(LongscaleError, match=r"has no contig 'Chr1'.*chr1"):
        genome.gather(["chr1", "Chr1"], [0, 0], 5)


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (0, 62), (62, 62), (5, 4)])
def test_fetch_outside(fasta, start, end):
    with pytest.raises(LongscaleError, match=r"chrM:\[.*is not inside .*\[0, 61\)"):
        Genome(fasta).fetch("chrM", start, end)


def test_bad_shapes_are_the_callers_fault(fasta):
    with pytest.raises(ValueError, match="one contig and one start per row"):
        Genome(fasta).gather(["chr1", "chr1"], [0], 5)


def test_absent_files(fasta, tmp_path):
    with pytest.raises(LongscaleError, match=r"no\.fa\.fai: .*samtools faidx"):
        Genome(tmp_path / "no.fa")
    (tmp_path / "no.fa.fai").write_text("chr1\t5\t6\t5\t6\n")
    with pytest.raises(LongscaleError, match=r"no\.fa: cannot be read"):
        Genome(tmp_path / "no.fa").fetch("chr1", 0, 1)


@pytest.mark.parametrize(
    ("index", "line"),
    [
        ("chr1\t5\t6\t5\n", 1),
        ("chr1\t5\t6\t5\tx\n", 1),
        ("chr1\t5\t6\t5\t6\nchr2\t5\t6\t5\t4\n", 2),
        ("chr1\t5\t6\t5\t6\nchr1\t5\t6\t5\t6\n", 2),
    ],
)
def test_malformed_index(tmp_path, index, line):
    (tmp_path / "g.fa.fai").write_text(index)
    with pytest.raises(LongscaleError, match=f"line {line}:"):
        Genome(tmp_path / "g.fa")


@pytest.mark.parametrize(
    "index", ["chr1\t9\t6\t5\t6\n", "chr1\t5\t7\t5\t6\n", "chr1\t4\t6\t4\t5\n"]
)
def test_index_of_another_file(tmp_path, index):
    (tmp_path / "g.fa").write_text(">chr1\nACGTA\n")
    (tmp_path / "g.fa.fai").write_text(index)
    with pytest.raises(LongscaleError, match="was made for another file"):
        Genome(tmp_path / "g.fa").fetch("chr1", 0, 1)


def test_real_slices_of_grch38(tmp_path, shared):
    data = shared / "data"
    report = AssemblyReport.read(data / "GCA_000001405.15_GRCh38_assembly_report.reconstructed.txt")
    source = data / "mini_GCA_000001405.15_GRCh38_genomic.fna.gz"
    convert_assembly(source, report, tmp_path / "mini.fa", truncated=True)
    genome = Genome(tmp_path / "mini.fa")
    reader = pyfaidx.Fasta(str(tmp_path / "mini.fa"), as_raw=True, sequence_always_upper=True)
    generator = np.random.default_rng(0)
    contigs = generator.choice(["chr1", "chr9", "chrM"], 300)
    starts = np.array([generator.integers(0, genome.lengths[c] - 2_000) for c in contigs])
    got = genome.gather(contigs, starts, 2_000)
    for row, contig, start in zip(got, contigs, starts, strict=True):
        assert row.tobytes().decode() == reader[contig][start : start + 2_000]
