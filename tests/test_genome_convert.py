import gzip
import random
import subprocess
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longscale.errors import LongscaleError
from longscale.genome import convert
from longscale.genome.assembly import AssemblyReport, AssemblySequence
from longscale.genome.convert import convert_assembly


def make_report(lengths):
    rows = [
        AssemblySequence(
            name, "assembled-molecule", name, f"G{name}.1", f"N{name}.1", n, f"chr{name}"
        )
        for name, n in lengths.items()
    ]
    return AssemblyReport("report.txt", tuple(rows))


def random_sequence(length, seed=0):
    return "".join(random.Random(seed).choices("ACGTNacgtnRYm", k=length))


def fasta_text(sequences, width, end="\n"):
    lines = []
    for name, sequence in sequences.items():
        lines.append(f">G{name}.1 Homo sapiens > chromosome {name}")
        lines += [sequence[i : i + width] for i in range(0, len(sequence), width)]
    return end.join([*lines, ""]).encode()


def write_input(folder, content):
    path = folder / "in.fna.gz"
    path.write_bytes(gzip.compress(content))
    return path


def obvious(content):
    """Line by line: contig -> sequence, and the text with UCSC names."""
    sequences, text = {}, []
    for line in content.decode().splitlines():
        if line.startswith(">"):
            contig = "chr" + line.split()[0][2:-2]
            sequences[contig] = ""
            text.append(f">{contig}")
        else:
            sequences[contig] += line
            text.append(line)
    return sequences, "\n".join([*text, ""]).encode()


def read_back(fasta):
    sequences = {}
    for record in fasta.read_text().split(">")[1:]:
        name, *lines = record.split("\n")
        sequences[name] = "".join(lines)
    return sequences


def samtools_fai(samtools, fasta, folder):
    copy = folder / "copy.fa"
    copy.write_bytes(fasta.read_bytes())
    subprocess.run([samtools, "faidx", copy], check=True, capture_output=True)
    return (folder / "copy.fa.fai").read_text()


@pytest.mark.parametrize("block", [7, 64, 1 << 22])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("width", [1, 13, 80, 10_000])
def test_content_is_untouched(tmp_path, tool, monkeypatch, block, end, width):
    monkeypatch.setattr(convert, "BLOCK_BYTES", block)
    monkeypatch.setattr(convert, "COMPRESSED_BYTES", max(1, block // 2))
    lengths = {"1": 400, "2": 160, "X": 1, "M": 79}
    sequences = {name: random_sequence(n, n) for name, n in lengths.items()}
    source = write_input(tmp_path, fasta_text(sequences, width, end))
    fasta = tmp_path / "out.fa"
    contigs = convert_assembly(source, make_report(lengths), fasta)
    assert contigs == [(f"chr{name}", n) for name, n in lengths.items()]
    assert {type(n) for _, n in contigs} == {int}  # the script writes them as JSON
    assert fasta.read_bytes() == obvious(fasta_text(sequences, width))[1]
    expected = samtools_fai(tool("samtools"), fasta, tmp_path)
    assert (tmp_path / "out.fa.fai").read_text() == expected


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_layout_gives_the_same_sequence_and_a_valid_index(tmp_path, monkeypatch, data):
    monkeypatch.setattr(convert, "BLOCK_BYTES", data.draw(st.integers(1, 40)))
    line = st.text("ACGTacgtNRn", max_size=12)
    layout = data.draw(st.lists(st.lists(line, max_size=8), min_size=1, max_size=4))
    layout = [[f"A{lines[0]}", *lines[1:]] if lines else ["A"] for lines in layout]
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    last = data.draw(st.sampled_from(["", end, end + end]))
    lines = [row for i, part in enumerate(layout) for row in (f">G{i}.1 x", *part)]
    content = end.join(lines).encode() + last.encode()
    source = tmp_path / "in.fna"
    source.write_bytes(content)
    sequences = obvious(content)[0]
    report = make_report({name[3:]: len(sequence) for name, sequence in sequences.items()})
    fasta = tmp_path / "out.fa"
    convert_assembly(source, report, fasta)
    assert read_back(fasta) == sequences
    wrapped = b""
    for (name, sequence), part in zip(sequences.items(), layout, strict=True):
        width = len(part[0])
        rows = [sequence[i : i + width] for i in range(0, len(sequence), width)]
        wrapped += "\n".join([f">{name}", *rows, ""]).encode()
    assert fasta.read_bytes() == wrapped
    fai = (tmp_path / "out.fa.fai").read_text()
    content = fasta.read_bytes()
    for name, length, offset, linebases, linewidth in map(str.split, fai.splitlines()):
        picked = [
            content[int(offset) + p // int(linebases) * int(linewidth) + p % int(linebases)]
            for p in range(int(length))
        ]
        assert bytes(picked).decode() == sequences[name]


def test_uneven_lines_are_wrapped_at_the_first_width(tmp_path):
    source = write_input(tmp_path, b">G1.1\nACGT\nAC\n\nGTACG\n>G2.1\nAA\n")
    convert_assembly(source, make_report({"1": 11, "2": 2}), tmp_path / "out.fa")
    assert (tmp_path / "out.fa").read_text() == ">chr1\nACGT\nACGT\nACG\n>chr2\nAA\n"
    assert (tmp_path / "out.fa.fai").read_text() == "chr1\t11\t6\t4\t5\nchr2\t2\t26\t2\t3\n"


@pytest.mark.parametrize("width", [13, 50])
def test_without_a_report_names_and_lines_stay(tmp_path, tool, width):
    names = ["chr1", "chr6_apd_hap1", "chrM"]
    sequences = {name: random_sequence(100 + 61 * n, n) for n, name in enumerate(names)}
    lines = [
        line
        for name, sequence in sequences.items()
        for line in (f">{name}", *(sequence[i : i + width] for i in range(0, 222, width)))
        if line
    ]
    content = "\n".join([*lines, ""])
    source = write_input(tmp_path, content.replace(">chrM", ">chrM NC_001807").encode())
    fasta = tmp_path / "out.fa"
    contigs = convert_assembly(source, None, fasta)
    assert contigs == [(name, len(sequence)) for name, sequence in sequences.items()]
    assert fasta.read_text() == content
    expected = samtools_fai(tool("samtools"), fasta, tmp_path)
    assert (tmp_path / "out.fa.fai").read_text() == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b">chr1\nAC\n>chr2\nAC\n>chr1\nAC\n", "twice: chr1; expected a name of its own"),
        (b">chr1\nAC\n>\nAC\n", "without a name: record 2"),
        (b">chr1\n>chr2\nAC\n", "without a sequence: chr1"),
        (b"chr1\nAC\n", "no FASTA header"),
    ],
)
def test_without_a_report_each_record_needs_a_name_and_a_sequence(tmp_path, content, expected):
    source = write_input(tmp_path, content)
    with pytest.raises(LongscaleError) as caught:
        convert_assembly(source, None, tmp_path / "out" / "out.fa")
    assert str(caught.value).startswith(f"{source}: ")
    assert expected in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_bgzip_plain_and_refseq_names(tmp_path, tool):
    sequence = random_sequence(300_000)
    content = fasta_text({"1": sequence}, 80)
    plain = tmp_path / "plain.fna"
    plain.write_bytes(content)
    bgzipped = tmp_path / "in.fna.gz"
    bgzipped.write_bytes(
        subprocess.run([tool("bgzip"), "-c", plain], check=True, capture_output=True).stdout
    )
    refseq = tmp_path / "refseq.fna"
    refseq.write_bytes(content.replace(b">G1.1", b">N1.1"))
    for i, source in enumerate([plain, bgzipped, refseq]):
        fasta = tmp_path / f"out{i}.fa"
        assert convert_assembly(source, make_report({"1": 300_000}), fasta) == [("chr1", 300_000)]
        assert fasta.read_bytes() == obvious(content)[1]


@pytest.mark.parametrize(
    ("lengths", "truncated", "expected"),
    [
        ({"1": 8, "2": 4, "3": 5}, False, "missing: chr3"),
        ({"1": 8, "2": 4, "3": 5}, True, None),
        ({"1": 9, "2": 4}, False, "of another length: chr1 (8 bp for 9)"),
        ({"1": 9, "2": 4}, True, None),
        ({"1": 7, "2": 4}, True, "of another length: chr1 (8 bp for 7)"),
        ({"1": 8}, True, "unknown: 'G2.1'"),
        ({"1": 8}, False, "unknown: 'G2.1'"),
        ({"1": 8, "2": 5, "3": 5}, False, "missing: chr3; of another length: chr2 (4 bp for 5)"),
        ({str(i): 8 for i in range(1, 20)} | {"2": 4}, False, "chr7 and 12 more"),
    ],
)
def test_disagreement_with_the_report(tmp_path, lengths, truncated, expected):
    source = write_input(tmp_path, b">G1.1\nACGT\nACGT\n>G2.1\nACGT\n")
    fasta = tmp_path / "out" / "out.fa"
    if expected is None:
        convert_assembly(source, make_report(lengths), fasta, truncated=truncated)
        assert read_back(fasta) == {"chr1": "ACGTACGT", "chr2": "ACGT"}
        return
    with pytest.raises(LongscaleError) as caught:
        convert_assembly(source, make_report(lengths), fasta, truncated=truncated)
    assert expected in str(caught.value)
    assert str(source) in str(caught.value)
    assert list(fasta.parent.iterdir()) == []


GZIPPED = gzip.compress(fasta_text({"1": random_sequence(5000)}, 80), mtime=0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (GZIPPED[:-1], "ends too early"),
        (GZIPPED[:1000], "ends too early"),
        (GZIPPED[:5], "ends too early"),
        (GZIPPED[:500] + bytes(20) + GZIPPED[520:], "damaged"),
        (GZIPPED[:-6] + b"xx" + GZIPPED[-4:], "damaged"),
        (GZIPPED + b"garbage", "damaged"),
        (b"", "holds no sequence"),
        (b"\n\n", "holds no sequence"),
        (b"CHROM,POS\n", "begins with b'CHROM,POS'"),
        (b">G1.1\n" + b"A" * 5000 + b"\n>G1.1 again\n" + b"A" * 5000, "twice: chr1"),
        (b">G1.1 empty\n", "chr1 (0 bp for 5000)"),
        (b">G1.1 open", "chr1 (0 bp for 5000)"),
    ],
)
def test_bad_input_is_told_and_leaves_nothing(tmp_path, content, expected):
    source = tmp_path / "in.fna.gz"
    source.write_bytes(content)
    with pytest.raises(LongscaleError) as caught:
        convert_assembly(source, make_report({"1": 5000}), tmp_path / "out.fa", truncated=True)
    assert expected in str(caught.value)
    assert str(source) in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["in.fna.gz"]


def test_absent_input(tmp_path):
    with pytest.raises(LongscaleError, match=r"nowhere\.gz: cannot be converted.*No such file"):
        convert_assembly(tmp_path / "nowhere.gz", make_report({"1": 5}), tmp_path / "out.fa")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", [80, 30_000_000])
def test_memory_does_not_grow_with_the_input(tmp_path, width):
    sequence = "ACGTTGCANN" * 3_000_000
    source = tmp_path / "in.fna.gz"
    source.write_bytes(gzip.compress(fasta_text({"1": sequence}, width), 1))
    tracemalloc.start()
    try:
        convert_assembly(source, make_report({"1": len(sequence)}), tmp_path / "out.fa")
        assert tracemalloc.get_traced_memory()[1] < 12 * convert.BLOCK_BYTES < len(sequence)
    finally:
        tracemalloc.stop()


def test_real_slices_of_grch38(tmp_path, shared, tool):
    data = shared / "data"
    source = data / "mini_GCA_000001405.15_GRCh38_genomic.fna.gz"
    report = AssemblyReport.read(data / "GCA_000001405.15_GRCh38_assembly_report.reconstructed.txt")
    with pytest.raises(LongscaleError, match=r"missing: chr2, chr3, .* more; of another length"):
        convert_assembly(source, report, tmp_path / "out.fa")
    fasta = tmp_path / "out.fa"
    contigs = convert_assembly(source, report, fasta, truncated=True)
    assert contigs == [("chr1", 1_000_000), ("chr9", 1_000_000), ("chrM", 16_569)]
    original = gzip.decompress(source.read_bytes()).splitlines(keepends=True)
    converted = fasta.read_bytes().splitlines(keepends=True)
    changed = [new for old, new in zip(original, converted, strict=True) if old != new]
    assert changed == [b">chr1\n", b">chr9\n", b">chrM\n"]
    expected = samtools_fai(tool("samtools"), fasta, tmp_path)
    assert (tmp_path / "out.fa.fai").read_text() == expected
