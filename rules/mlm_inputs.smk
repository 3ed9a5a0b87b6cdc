# What the rules of the masked-LM branch read, and what of it is asked for.
from longscale.arms import asked_arms, mlm_arms
from longscale.attention.rules import LENGTH_RULES
from longscale.files import TEXT_SUFFIXES, matching_files

TRAINED = "{corpus}/{model}/{train_length}/{attention}/{scheme}/seed{seed}"
LONGEST = max(MLM["lengths"])
FIRST_SEED = min(seed for row in MLM["trainings"] for seed in row["seeds"])


def corpus_genome(wildcards):
    """The genome, for a corpus that is made of it."""
    genome = config["corpora"][wildcards.corpus]["source"] == "genome"
    return genome_files()["fasta"] if genome else []


def corpus_texts(wildcards):
    """The user's files, for a corpus that is made of them: it is made again where they change."""
    corpus = config["corpora"][wildcards.corpus]
    is_file = corpus["source"] == "file" and corpus["path"]
    return list(map(str, matching_files(corpus["path"], TEXT_SUFFIXES))) if is_file else []


def mlm_published(wildcards, name="model.safetensors"):
    """A file of the published checkpoint that a training starts from, where there is one."""
    published = config["models"][wildcards.model]["checkpoint"]
    return results(f"checkpoints/{wildcards.model}/{name}") if published else []


def mlm_published_tokenizer(wildcards):
    """The tokenizer of that checkpoint."""
    return mlm_published(wildcards, "tokenizer.json")


def cell_arms(wildcards):
    """The arms of one score file."""
    return mlm_arms(
        MLM,
        wildcards.attention,
        wildcards.scheme,
        int(wildcards.seed),
        wildcards.mlm_protocol,
        int(wildcards.length),
    )


def asked_rules(attention, trained_scheme):
    """The rules among them: attention entropy is measured under each."""
    return list(dict.fromkeys(arm[1] for arm in asked_arms(MLM, attention, trained_scheme)))


def matched_schemes(attention, trained_scheme):
    """The schemes for which multipliers are measured."""
    arms = asked_arms(MLM, attention, trained_scheme)
    return list(dict.fromkeys(arm[0] for arm in arms if LENGTH_RULES[arm[1]].measured))


def matched_entropy(wildcards):
    """The measured multipliers, where an arm of the cell needs them."""
    if not any(LENGTH_RULES[arm[1]].measured for arm in cell_arms(wildcards)):
        return []
    listed = int(wildcards.length) in MLM["lengths"]
    name = "entropy_matched" if listed else "entropy_matched.{length}"
    return results(f"mlm/{TRAINED}/{name}.json")


def mlm_trainings():
    """Every training: the wildcards of its folder."""
    return [
        {
            "corpus": corpus,
            "model": model,
            "train_length": MLM["train_length"],
            "attention": attention,
            "scheme": scheme,
            "seed": seed,
        }
        for row in MLM["trainings"]
        for corpus in row["corpora"] or MLM["corpora"]
        for model in MLM["models"]
        for attention in row["attentions"]
        for scheme in row["schemes"]
        for seed in row["seeds"]
    ]


def trained_files(name, **conditions):
    """A file of every training whose wildcards are the given ones."""
    return list(
        dict.fromkeys(
            results(f"mlm/{TRAINED}/{name}".format(**training))
            for training in mlm_trainings()
            if conditions.items() <= training.items()
        )
    )


def mlm_score_files():
    """Every score file of the branch."""
    files = [
        results(f"mlm/{TRAINED}/{protocol}/{length}.parquet".format(**training))
        for training in mlm_trainings()
        for protocol in MLM["protocols"]
        for length in MLM["lengths"]
        if mlm_arms(
            MLM, training["attention"], training["scheme"], training["seed"], protocol, length
        )
    ]
    return list(dict.fromkeys(files))


def mlm_targets():
    """What the masked-LM branch makes."""
    clustered = [c for c in MLM["corpora"] if config["corpora"][c]["select"] == "spectral"]
    return [
        results("tables/mlm.tsv"),
        results("tables/mlm_wide.tsv"),
        results("tables/mlm.html"),
        results("figures/mlm"),
        *expand(results("figures/documents/{corpus}.svg"), corpus=clustered),
        *mlm_score_files(),
    ]
