"""Masked language modelling on a genome: what is drawn, what is masked, what is written."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_study import CONTIG_BP, quiet, tiny_config, write_genome, write_tokenizer

from longscale.errors import LongscaleError
from longscale.files import checksum
from longscale.models.checkpoint import load_checkpoint
from longscale.models.dnabert2 import DNABERT2ForMaskedLM
from longscale.models.masked_lm import IGNORED_LABEL
from longscale.models.tokenizer import CLS, MASK, PAD, SEP, UNK, EncodedWindows, encode_windows
from longscale.training.pretrain import GenomeWindows, mask_tokens, pretrain

OPTIONS = {
    "window_bp": 64,
    "steps": 12,
    "batch_size": 8,
    "learning_rate": 0.01,
    "mask_fraction": 0.15,
    "exclude_contigs": ["chr3"],
    "checkpoint_steps": 4,
    "threads": 1,
}


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    return write_genome(tmp_path_factory.mktemp("genome"))


@pytest.fixture(scope="module")
def tokenizer(genome, tmp_path_factory):
    return write_tokenizer(genome, tmp_path_factory.mktemp("tokenizer"))


# --- windows ----------------------------------------------------------------------------------


def contigs_of(genome, windows, names=("chr1", "chr2", "chr3")):
    """The contig that each window comes from, by string search."""
    texts = {name: genome.fetch(name, 0, CONTIG_BP).tobytes() for name in names}
    return [next(name for name in names if row.tobytes() in texts[name]) for row in windows]


def test_a_batch_is_a_function_of_the_seed_and_its_numbers(genome):
    one, again, other = (GenomeWindows(genome, 64, seed) for seed in (1, 1, 2))
    first = one.draw([3, 1, 4])
    one.draw([9])  # what was drawn before does not matter
    assert (one.draw([3, 1, 4]) == first).all()
    assert (again.draw([3, 1, 4]) == first).all()
    assert not (other.draw([3, 1, 4]) == first).all()
    assert not (one.draw([3, 1, 5]) == first).all()
    assert first.shape == (3, 64)
    assert first.dtype == np.uint8


def test_windows_come_from_the_genome_but_not_from_excluded_contigs(genome):
    every = GenomeWindows(genome, 64, 1).draw(list(range(300)))
    counts = {name: contigs_of(genome, every).count(name) for name in ("chr1", "chr2", "chr3")}
    assert all(70 < count < 130 for count in counts.values())
    some = GenomeWindows(genome, 64, 1, ("chr1", "chr3")).draw(list(range(100)))
    assert set(contigs_of(genome, some)) == {"chr2"}


def test_starts_reach_both_ends_of_a_contig(genome):
    width = CONTIG_BP - 2
    windows = GenomeWindows(genome, width, 1, ("chr2", "chr3")).draw(list(range(60)))
    whole = genome.fetch("chr1", 0, CONTIG_BP).tobytes()
    assert {whole.index(row.tobytes()) for row in windows} == {0, 1, 2}


def test_at_most_half_of_a_window_is_n(genome):
    windows = GenomeWindows(genome, 64, 1, ("chr1", "chr3")).draw(list(range(400)))
    shares = (windows == ord("N")).mean(axis=1)
    assert shares.max() <= 0.5
    assert (shares > 0).sum() > 0


def test_a_genome_that_cannot_give_windows_is_one_sentence(genome, tmp_path):
    with pytest.raises(LongscaleError, match="exclude_contigs names 'chr9', which the genome does"):
        GenomeWindows(genome, 64, 1, ("chr9",))
    with pytest.raises(LongscaleError, match=rf"no contig .*window_bp \({CONTIG_BP + 1} bp\)"):
        GenomeWindows(genome, CONTIG_BP + 1, 1)
    with pytest.raises(LongscaleError, match="no contig is left"):
        GenomeWindows(genome, 64, 1, ("chr1", "chr2", "chr3"))

    class AllN:
        lengths = genome.lengths

        @staticmethod
        def gather(contigs, starts, width):
            return np.full((len(starts), width), ord("N"), dtype=np.uint8)

    with pytest.raises(LongscaleError, match="windows of 64 bp that are not mostly N are too rare"):
        GenomeWindows(AllN, 64, 1).draw([1])


# --- masking ----------------------------------------------------------------------------------


def packed(rows):
    """Windows of given token ids."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    readout = np.tile([0, 1], (len(rows), 1)).astype(np.int32)
    variant = np.array([len(row) // 2 for row in rows])
    cut = np.zeros((len(rows), 2), dtype=np.int32)
    return EncodedWindows(np.concatenate(rows).astype(np.uint16), offsets, readout, variant, cut)


def random_rows(rng, count, longest, vocab_size, smallest=5):
    lengths = rng.integers(1, longest + 1, count)
    return [[CLS, *rng.integers(smallest, vocab_size, n), SEP] for n in lengths]


def test_the_shares_of_bert():
    rows = random_rows(np.random.default_rng(1), 400, 300, 500)
    encoded = packed(rows)
    ids, mask = encoded.pad(np.arange(400))
    batch = {
        k: v.numpy() for k, v in mask_tokens(encoded, np.random.default_rng(2), 0.15, 500).items()
    }
    targets = batch["labels"] != IGNORED_LABEL
    eligible = (mask == 1) & ~np.isin(ids, (CLS, SEP))
    n, k = eligible.sum(), targets.sum()
    assert n > 50_000
    assert abs(k / n - 0.15) < 4 * np.sqrt(0.15 * 0.85 / n)
    now, before = batch["input_ids"][targets], ids[targets]
    for share, fate in (
        (0.8, now == MASK),
        (0.1, now == before),
        (0.1, (now != MASK) & (now != before)),
    ):
        # A random token is the old one in 1 of 495 draws: far below the tolerance.
        assert abs(fate.mean() - share) < 4 * np.sqrt(share * (1 - share) / k) + 0.1 / 495
    drawn = now[(now != MASK) & (now != before)]
    assert (drawn.min(), drawn.max()) == (5, 499)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), fraction=st.floats(0.01, 0.99), count=st.integers(1, 6))
def test_masking_touches_targets_alone_and_never_special_tokens(seed, fraction, count):
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, count, 12, 9, smallest=5)
    rows = [
        [UNK if 1 < i < len(row) - 1 and i % 5 == 0 else t for i, t in enumerate(row)]
        for row in rows
    ]
    encoded = packed(rows)
    ids, mask = encoded.pad(np.arange(count))
    batch = mask_tokens(encoded, np.random.default_rng(seed), fraction, 9)
    again = mask_tokens(encoded, np.random.default_rng(seed), fraction, 9)
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    now, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
    targets = labels != IGNORED_LABEL
    assert targets.any()
    assert (labels[targets] == ids[targets]).all()
    assert (now[~targets] == ids[~targets]).all()
    assert not np.isin(ids[targets], (UNK, CLS, SEP, PAD)).any()
    assert np.isin(now[targets], (MASK, *range(5, 9))).all()
    assert (batch["attention_mask"].numpy() == mask).all()
    assert batch["labels"].dtype == torch.int64


def test_another_generator_masks_others():
    encoded = packed(random_rows(np.random.default_rng(1), 4, 60, 50))
    a, b = (mask_tokens(encoded, np.random.default_rng(seed), 0.3, 50) for seed in (1, 2))
    assert not torch.equal(a["labels"], b["labels"])


# --- the whole --------------------------------------------------------------------------------


class KilledError(BaseException):
    """Stands for the end of the process."""


def run(genome, tokenizer, folder, *, seed=1, options=OPTIONS, killed_at=None, dropout=0.1):
    lines = []

    def report(line):
        lines.append(line)
        if killed_at and line.startswith(killed_at):
            raise KilledError

    config = tiny_config(tokenizer, hidden_dropout_prob=dropout)
    provenance = {"genome_sha256": "abc"}
    pretrain(
        genome, tokenizer, config, folder,
        options=options, seed=seed, provenance=provenance, report=report,
    )  # fmt: skip
    return lines


@pytest.fixture(scope="module")
def finished(genome, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "model"
    run(genome, tokenizer, folder)
    return folder


def test_what_is_written(finished, genome, tokenizer):
    assert sorted(path.name for path in finished.iterdir()) == [
        "config.json",
        "model.safetensors",
        "training.json",
    ]
    assert [path.name for path in finished.parent.iterdir()] == ["model"]
    model = load_checkpoint(DNABERT2ForMaskedLM, finished, complete=True)
    windows = GenomeWindows(genome, 64, 1, ("chr3",)).draw(list(range(12)))
    lengths = [len(tokenizer.encode(row.tobytes().decode()).ids) for row in windows]
    assert model.config.n_train == int(np.median(lengths))
    outcome = json.loads((finished / "training.json").read_text())
    assert outcome["n_train"] == model.config.n_train
    assert (outcome["steps"], outcome["flags"], outcome["seed"]) == (12, [], 1)
    assert outcome["genome_sha256"] == "abc"


def test_the_same_seed_gives_the_same_weights_and_another_others(
    finished, genome, tokenizer, tmp_path
):
    for seed in (1, 2):
        run(genome, tokenizer, tmp_path / str(seed), seed=seed)
        same = checksum(tmp_path / str(seed) / "model.safetensors")
        assert (same == checksum(finished / "model.safetensors")) == (seed == 1)


def test_a_killed_run_goes_on_to_the_same_weights(finished, genome, tokenizer, tmp_path):
    with pytest.raises(KilledError):
        run(genome, tokenizer, tmp_path / "model", killed_at="step 10/12")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["checkpoints"]
    lines = run(genome, tokenizer, tmp_path / "model")
    assert "resumed at step 8 of 12" in lines
    for name in ("model.safetensors", "config.json"):
        assert checksum(tmp_path / "model" / name) == checksum(finished / name)
    ours, theirs = (
        json.loads((folder / "training.json").read_text())
        for folder in (tmp_path / "model", finished)
    )
    assert ours | {"seconds": 0} == theirs | {"seconds": 0}


def test_another_window_or_tokenizer_does_not_resume(genome, tokenizer, tmp_path):
    other = write_tokenizer(genome, tmp_path, vocab_size=23)
    for changed, options in ((other, OPTIONS), (tokenizer, OPTIONS | {"window_bp": 80})):
        with pytest.raises(KilledError):
            run(genome, tokenizer, tmp_path / "model", killed_at="step 10/12")
        lines = run(genome, changed, tmp_path / "model", options=options)
        assert not any(line.startswith("resumed") for line in lines)


def test_the_loss_falls(genome, tokenizer, tmp_path):
    """Below that of uniform guesses."""
    options = OPTIONS | {"steps": 40, "checkpoint_steps": 40, "learning_rate": 0.02}
    run(genome, tokenizer, tmp_path / "model", options=options, dropout=0.0)
    outcome = json.loads((tmp_path / "model" / "training.json").read_text())
    losses = [row["loss"] for row in outcome["history"]]
    assert np.mean(losses[:3]) > np.mean(losses[-5:]) + 0.1
    assert np.mean(losses[-5:]) < np.log(tokenizer.get_vocab_size() - 5)


def test_encoded_windows_of_n_hold_unk(genome, tokenizer):
    """[UNK] does occur, so that leaving it out of the targets means something."""
    windows = GenomeWindows(genome, 64, 1, ("chr1", "chr3")).draw(list(range(400)))
    assert UNK in encode_windows(tokenizer, windows).ids


def test_one_step_of_one_window_is_enough(genome, tokenizer, tmp_path):
    config = tiny_config(tokenizer)
    options = OPTIONS | {"steps": 1, "batch_size": 1}
    pretrain(
        genome, tokenizer, config, tmp_path / "m",
        options=options, seed=1, provenance={}, report=quiet,
    )  # fmt: skip
    assert json.loads((tmp_path / "m" / "training.json").read_text())["steps"] == 1
