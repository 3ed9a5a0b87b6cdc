"""Every defect of tests/defects ends in one sentence, or in a row of the ledger; so does anything.

A defect is given to the script of its rule, as a run would give it. Nothing that was there before
is overwritten, nothing half-written is left, and no traceback is shown.
"""

import re
from collections import Counter
from contextlib import suppress

import defects
import pytest
import yaml
from defects import assemblies, checkpoints, configs, variants
from defects.harness import told_by
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from longscale.config import check_config, read_schema
from longscale.errors import LongscaleError
from longscale.genome.assembly import AssemblyReport
from longscale.genome.convert import convert_assembly
from longscale.genome.sequence import Genome
from longscale.models.checkpoint import load_checkpoint
from longscale.models.dnabert2 import DNABERT2ForMaskedLM
from longscale.variants.accept import accept_variants
from longscale.variants.readers import read_variants

LONGEST_SENTENCE = 1_500  # a sentence that quotes a megabyte is none

anything = settings(max_examples=60, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def shelter(tmp_path_factory):
    """A folder for what many defects share."""
    return tmp_path_factory.mktemp("defects")


def name_of(value):
    return re.sub(r"\W+", "-", value.name) if hasattr(value, "name") else str(value)


@pytest.mark.parametrize(("kind", "defect"), defects.DEFECTS, ids=name_of)
def test_a_defect_is_told_in_one_sentence_or_in_the_ledger(shelter, capfd, kind, defect):
    folder = shelter / f"{kind}-{name_of(defect)}"
    folder.mkdir()
    told = defects.KINDS[kind].use(folder, defect, lambda: capfd.readouterr().err)
    if defect.line is None:
        assert told.code == 1
        sentences = [told.sentence]
    else:
        assert told.code == 0
        rows = [row for row in told.ledger if (row["line"], row["reason"]) == key(defect)]
        assert rows, told.ledger
        sentences = [row["sentence"] for row in rows]
    for sentence in sentences:
        assert sentence.strip()
        assert "\n" not in sentence
        assert len(sentence) < LONGEST_SENTENCE + len(str(folder))
        for pattern in defect.says:
            assert re.search(pattern, sentence), f"{pattern!r} is not in {sentence!r}"


def key(defect):
    return defect.line, defect.reason


def test_there_are_many_defects_of_every_kind_and_none_twice():
    counts = Counter(kind for kind, _ in defects.DEFECTS)
    assert set(counts) == set(defects.KINDS)
    assert sum(counts.values()) >= 250
    contents = Counter(
        (kind, defect.of, repr(defect.content))
        for kind, defect in defects.DEFECTS
        if not callable(defect.content)
    )
    assert max(contents.values()) == 1
    names = Counter((kind, defect.name) for kind, defect in defects.DEFECTS)
    assert max(names.values()) == 1


# --- what looks odd and is right --------------------------------------------------------------

PLAIN = assemblies.FASTA
ODD = {
    "CRLF": PLAIN.replace("\n", "\r\n"),
    "blank lines": PLAIN.replace("\n", "\n\n"),
    "no final newline": PLAIN.rstrip("\n"),
    "lower case": PLAIN.replace("ACGTACGTACGT", "acgtacgtacgt"),
    "the RefSeq names": PLAIN.replace("CM", "NC_"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_fasta_file_that_only_looks_odd_gives_the_same_sequence(tmp_path, name):
    (tmp_path / "report").write_text("\ufeff" + assemblies.REPORT)  # a byte order mark
    (tmp_path / "in.fna").write_bytes(ODD[name].encode())
    (tmp_path / "in.fna.gzi").write_bytes(b"an index of another file")
    report = AssemblyReport.read(tmp_path / "report")
    convert_assembly(tmp_path / "in.fna", report, tmp_path / "g.fa")
    genome = Genome(tmp_path / "g.fa")
    bases = [genome.fetch(name, 0, n).tobytes() for name, n in genome.lengths.items()]
    assert bases == [b"ACGTNNNACGTNACGTACGTACGT", b"ACGTACGTACGT"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("v.csv", "\ufeff" + variants.HEADER + variants.GOOD),
        ("v.csv", (variants.HEADER + variants.GOOD).replace("\n", "\r\n")),
        ("v.csv", (variants.HEADER + variants.GOOD).rstrip("\n")),
        ("v.csv", (variants.HEADER + variants.GOOD).replace("1001", "1001.0")),
        ("v.csv", (variants.HEADER + variants.GOOD).replace("chr1", "1").replace("A,C", "a,c")),
        ("v.tsv", (variants.HEADER + variants.GOOD).replace(",", "\t")),
    ],
)
def test_a_table_that_only_looks_odd_gives_the_same_variants(shelter, tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    genome = Genome(variants.genome(shelter))
    found = accept_variants(read_variants(path, variants.COLUMNS), genome, {"1": "chr1"})
    columns = ["contig", "pos", "ref", "alt", "label"]
    assert found.accepted[columns].to_numpy().tolist() == [
        ["chr1", 1001, "A", "C", 1],
        ["chr1", 1003, "G", "C", 0],
    ]


@pytest.mark.parametrize(
    ("pos", "ref", "alt"),
    [
        # C's in front of what was there: what bcftools norm would make of it.
        (1001, "A", "C" * variants.BIG + "A"),
        (1, variants.CONTIG[:2000], "C" + variants.CONTIG[1:2000]),
    ],
)
def test_an_allele_of_a_million_bases_is_a_variant_like_others(shelter, tmp_path, pos, ref, alt):
    path = tmp_path / "v.csv"
    path.write_text(f"{variants.HEADER}chr1,{pos},{ref},{alt},1,train\n")
    genome = Genome(variants.genome(shelter))
    found = accept_variants(read_variants(path, variants.COLUMNS), genome, {})
    row = found.accepted.iloc[0]
    before, after = variants.CONTIG[: pos - 1], variants.CONTIG[pos - 1 + len(ref) :]
    whole = before + alt + after
    made = variants.CONTIG[: row.pos - 1] + row.alt + variants.CONTIG[row.pos - 1 + len(row.ref) :]
    assert made == whole
    assert len(row.ref) == 1


def test_a_million_bases_through_a_long_repeat(shelter):
    """Shifted to the left end of a run of A, as the definition says, not base by base in memory."""
    genome = Genome(variants.genome(shelter))
    inserted = "A" * variants.BIG
    record = variants_row("chrLong", 1_500, "A", "A" + inserted)
    row = accept_variants([record], genome, {}).accepted.iloc[0]
    assert (row.pos, row.ref, row.alt) == (1, "A", "A" + inserted)


def variants_row(contig, pos, ref, alt):
    from longscale.variants.readers import RawVariant

    return RawVariant(2, contig, str(pos), ref, (alt,), "1")


def test_one_broken_row_among_many_is_the_one_in_the_ledger(shelter, tmp_path, capfd):
    """In the second of two batches."""
    rows, broken = 60_000, 55_000
    places = [place for place in range(1, variants.LENGTH) if variants.CONTIG[place - 1] == "A"]
    lines = [f"chr1,{places[i % len(places)]},A,C,1,train\n" for i in range(rows)]
    lines[broken] = "chr1,x,A,C,1,train\n"
    path = tmp_path / "v.csv"
    path.write_text(variants.HEADER + "".join(lines))
    genome = Genome(variants.genome(shelter))
    found = accept_variants(read_variants(path, variants.COLUMNS), genome, {})
    rejected = found.rejected[found.rejected["reason"] != "duplicate"]
    assert rejected[["line", "reason"]].to_numpy().tolist() == [[broken + 2, "unparseable"]]
    assert found.counts["alleles"] == rows


# --- anything at all --------------------------------------------------------------------------

SCHEMA = read_schema(configs.ROOT / "config" / "schema.yaml")
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["dot", "none", "rope", "sim_near", "simulated", "file", "cos16"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """Every place in a nested configuration."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    for name, item in enumerate(value) if isinstance(value, list) else items:
        yield from places(item, (*path, name))


PLACES = [path for path in places(configs.GOOD) if path]


@anything
@given(st.dictionaries(st.sampled_from(PLACES), VALUES, min_size=1, max_size=3))
def test_any_configuration_passes_or_is_one_sentence(changes):
    config = yaml.safe_load(yaml.safe_dump(configs.GOOD))
    for path, value in changes.items():
        section = config
        with suppress(KeyError, IndexError, TypeError):
            for name in path[:-1]:
                section = section[name]
            section[path[-1]] = value
    passes_or_tells(lambda: check_config(config, SCHEMA, "mine.yaml"), "mine.yaml: ")


def passes_or_tells(use, *parts):
    """Success, or a LongscaleError of one line with these parts."""
    try:
        return use()
    except LongscaleError as error:
        sentence = str(error)
    assert "\n" not in sentence
    for part in parts:
        assert part in sentence
    return None


def spoiled(good: bytes, alphabet: bytes):
    """Good content with some bytes replaced, put in, taken out, or cut off."""
    edit = st.tuples(
        st.integers(0, len(good)), st.integers(0, 6), st.binary(max_size=6)
        | st.lists(st.sampled_from(list(alphabet)), max_size=6).map(bytes),
    )  # fmt: skip

    def apply(edits, cut):
        content = good
        for place, gone, new in edits:
            content = content[:place] + new + content[place + gone :]
        return content if cut is None else content[:cut]

    cuts = st.none() | st.integers(0, len(good))
    return st.builds(apply, st.lists(edit, max_size=5), cuts)


@anything
@given(content=spoiled(assemblies.REPORT.encode(), b"\t\n\r0123456789na-.#"))
def test_any_assembly_report_is_read_or_one_sentence(tmp_path, content):
    path = tmp_path / "report.txt"
    path.write_bytes(content)
    passes_or_tells(lambda: AssemblyReport.read(path).aliases(), str(path))


@anything
@given(
    content=spoiled(assemblies.FASTA.encode(), b">\n\r ACGTNacgt-*")
    | spoiled(assemblies.GOOD_GZIP, b"\x1f\x8b\0")
)
def test_any_fasta_file_is_converted_whole_or_not_at_all(tmp_path, content):
    (tmp_path / "report").write_text(assemblies.REPORT)
    path, out = tmp_path / "in.fna", tmp_path / "out"
    path.write_bytes(content)
    report = AssemblyReport.read(tmp_path / "report")
    done = passes_or_tells(lambda: convert_assembly(path, report, out / "g.fa"), str(path))
    assert {p.name for p in out.iterdir()} == ({"g.fa", "g.fa.fai"} if done else set())
    if done:
        assert [Genome(out / "g.fa").fetch(name, 0, n).size for name, n in done] == [24, 12]
    for left in out.iterdir():
        left.unlink()


@anything
@given(
    content=spoiled((variants.VCF + variants.GOOD_VCF * 2).encode(), b"\t\n.,;=<>[]0123456789ACGT")
)
def test_any_vcf_is_read_or_one_sentence_and_its_alleles_are_counted(shelter, tmp_path, content):
    check_books(shelter, tmp_path / "v.vcf", content, {"label": "INT_LABEL"})


@anything
@given(content=spoiled((variants.HEADER + variants.GOOD * 2).encode(), b',\n"\r;0123456789.-ACGT'))
@example(('"' + variants.HEADER + variants.GOOD).encode())  # the whole file is one column's name
def test_any_table_is_read_or_one_sentence_and_its_alleles_are_counted(shelter, tmp_path, content):
    check_books(shelter, tmp_path / "v.csv", content, variants.COLUMNS)


def check_books(shelter, path, content, columns):
    path.write_bytes(content)
    genome = Genome(variants.genome(shelter))
    found = passes_or_tells(
        lambda: accept_variants(read_variants(path, columns), genome, {}), str(path)
    )
    if found:
        accepted, rejected, counts = found
        assert len(accepted) + len(rejected) == counts["alleles"]
        assert rejected["sentence"].str.len().gt(5).all()
        assert not rejected["sentence"].str.contains("\n").any()


@anything
@given(content=spoiled(checkpoints.safe()(), b'{}":,[]0123456789') | st.binary(max_size=300))
def test_any_weights_are_loaded_or_one_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(checkpoints.config())
    (tmp_path / "model.safetensors").write_bytes(content)
    passes_or_tells(lambda: load_checkpoint(DNABERT2ForMaskedLM, tmp_path), str(tmp_path))


@anything
@given(content=spoiled(checkpoints.pickled(checkpoints.weights()), b"PK\x80\x02c.("))
def test_any_pickle_is_loaded_or_one_sentence(tmp_path, content):
    (tmp_path / "config.json").write_text(checkpoints.config())
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    passes_or_tells(lambda: load_checkpoint(DNABERT2ForMaskedLM, tmp_path), str(tmp_path))


# --- the net under it -------------------------------------------------------------------------


def test_a_disk_that_is_full_is_one_sentence_and_a_mistake_of_ours_is_not(
    tmp_path, monkeypatch, capfd
):
    """The script of a rule whose disk gives way; a defect of longscale keeps its traceback."""
    from longscale.genome import convert

    def fail(error):
        def convert_badly(*args, **kwargs):
            raise error

        monkeypatch.setattr(convert, "convert_assembly", convert_badly)
        report, fasta = tmp_path / "report", tmp_path / "fasta"
        report.write_text(assemblies.REPORT)
        fasta.write_text(assemblies.FASTA)
        names = {"fasta": "g.fa", "fai": "g.fa.fai", "aliases": "a.tsv", "provenance": "g.json"}
        outputs = {name: tmp_path / "out" / file for name, file in names.items()}
        return told_by(
            "convert_ncbi2ucsc",
            lambda: capfd.readouterr().err,
            outputs,
            inputs={"report": str(report), "fasta": str(fasta)},
            params={"truncated": False, "url": None},
        )

    full = OSError(28, "No space left on device", "results/g.fa")
    wrapped = RuntimeError("could not write")
    wrapped.__cause__ = full
    torchs = RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")
    for error in (full, wrapped, torchs):
        told = fail(error)
        assert told.code == 1
        assert "cannot be stored" in told.sentence
        assert "make room" in told.sentence
    assert "results/g.fa: No space left on device" in fail(full).sentence
    with pytest.raises(KeyError):
        fail(KeyError("ours"))
