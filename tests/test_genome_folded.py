"""The plain bases beside a FASTA file: what is in them, and when they are not believed."""

import os
import pickle
import warnings

import numpy as np
import pyfaidx
import pytest

from longscale.errors import LongscaleError
from longscale.genome import sequence
from longscale.genome.folded import STAMP_BYTES, folded_path
from longscale.genome.sequence import Genome, fold_genome

TEXT = ">c1 some words\nACGTN\nacgtR\nTT\n>empty\n>c2\n*ACC\nG\n"
INDEX = "c1\t12\t15\t5\t6\nempty\t0\t37\t0\t0\nc2\t5\t41\t4\t5\n"
PLAIN = b"ACGTNACGTNTT" + b"NACCG"


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "g.fa"
    path.write_text(TEXT)
    (tmp_path / "g.fa.fai").write_text(INDEX)
    fold_genome(path)
    return path


def assert_lines_are_read(fasta, match):
    """With one warning, and right."""
    genome = Genome(fasta)
    with pytest.warns(UserWarning, match=match) as caught:
        bases = genome.fetch("c1", 0, 12).tobytes()
    assert len(caught) == 1
    assert str(fasta) in str(caught[0].message)
    assert (
        bases
        == pyfaidx.Fasta(str(fasta), rebuild=False)["c1"][:12]
        .seq.upper()
        .replace("R", "N")
        .encode()
    )


@pytest.mark.parametrize("stretch", [1, 5, 1 << 20])
def test_the_file_is_one_byte_per_base_and_a_stamp(fasta, monkeypatch, stretch):
    monkeypatch.setattr(sequence, "STRETCH_BP", stretch)
    fold_genome(fasta)
    content = folded_path(fasta).read_bytes()
    assert content[:-STAMP_BYTES] == PLAIN
    assert len(content) == len(PLAIN) + STAMP_BYTES


def test_the_fasta_is_not_opened_where_the_plain_bases_hold(fasta, monkeypatch):
    monkeypatch.setattr(Genome, "_bytes", property(lambda self: pytest.fail("FASTA was read")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        genome = Genome(fasta)
        assert genome.fetch("c2", 0, 5).tobytes() == b"NACCG"
        assert genome.gather(["c1", "c2"], [2, -1], 4).tobytes() == b"GTNA" + b"NNAC"
        assert pickle.loads(pickle.dumps(genome)).fetch("c1", 4, 6).tobytes() == b"NA"
    with pytest.raises(BaseException, match="FASTA was read"):
        Genome(fasta, folded=False).fetch("c1", 0, 1)


def test_what_is_fetched_can_be_written_to_and_the_file_stays(fasta):
    genome = Genome(fasta)
    genome.fetch("c1", 0, 5)[:] = 0
    genome.gather(["c1"], [0], 5)[:] = 0
    assert genome.fetch("c1", 0, 12).tobytes() == PLAIN[:12]


def test_another_fasta_of_the_same_shape_is_noticed(fasta):
    fasta.write_text(TEXT.replace("ACGTN", "TTTTT"))
    os.utime(fasta, ns=(0, 1))
    assert_lines_are_read(fasta, r"g\.bases: was made of another FASTA file, so .* makes it again")
    fold_genome(fasta)
    assert Genome(fasta)._folded[:5].tobytes() == b"TTTTT"


def test_another_index_is_noticed(fasta):
    (fasta.parent / "g.fa.fai").write_text(INDEX.replace("empty", "other"))
    assert_lines_are_read(fasta, "was made of another FASTA file")


@pytest.mark.parametrize("size", [0, 1, len(PLAIN) - 1, len(PLAIN), len(PLAIN) + STAMP_BYTES - 1])
def test_a_cut_file_is_noticed(fasta, size):
    path = folded_path(fasta)
    path.write_bytes(path.read_bytes()[:size])
    assert_lines_are_read(fasta, r"g\.bases: (has the wrong size|cannot be used)")


def test_nothing_is_written_of_a_genome_that_cannot_be_read(tmp_path):
    path = tmp_path / "g.fa"
    with pytest.raises(LongscaleError, match="cannot be read"):
        fold_genome(path)
    path.write_text(TEXT)
    (tmp_path / "g.fa.fai").write_text(INDEX.replace("c2\t5\t41", "c2\t5\t40"))
    with pytest.raises(LongscaleError, match="was made for another file"):
        fold_genome(path)
    assert {file.name for file in tmp_path.iterdir()} == {"g.fa", "g.fa.fai"}


def test_a_file_that_was_there_stays_where_the_new_one_fails(fasta):
    before = folded_path(fasta).read_bytes()
    fasta.write_text(TEXT[:-8])
    with pytest.raises(LongscaleError):
        fold_genome(fasta)
    assert folded_path(fasta).read_bytes() == before


def test_an_empty_genome(tmp_path):
    (tmp_path / "g.fa").write_text(">c\n")
    (tmp_path / "g.fa.fai").write_text("c\t0\t3\t0\t0\n")
    fold_genome(tmp_path / "g.fa")
    genome = Genome(tmp_path / "g.fa")
    assert genome.fetch("c", 0, 0).shape == (0,)
    assert np.array_equal(genome.gather(["c"], [0], 3), [[ord("N")] * 3])
