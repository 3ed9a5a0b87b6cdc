"""Nothing that a stranger can write is run, and nothing is written where he wants it.

Values from configurations, file names and data reach no shell, no unpickler, no archive that is
unpacked, and no page as mark-up. `test_faults.py` runs the workflow itself with such values.
"""

import ast
import io
import json
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from defects.variants import genome

from longscale.errors import LongscaleError
from longscale.evaluation.mlm_records import read_maps
from longscale.genome.sequence import Genome
from longscale.report.documents import write_documents_plot
from longscale.report.tables import write_html_table
from longscale.variants.accept import REASONS, accept_variants
from longscale.variants.readers import RawVariant
from longscale.variants.summary import outcomes_table, summary_facts

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [*sorted((ROOT / "workflow").rglob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]
RULES = [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]

FORBIDDEN = {
    *("eval", "exec", "compile", "os.system", "os.popen"),
    *("os.execv", "os.execvp", "os.execl", "os.execlp"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "joblib.load"),
    *("pandas.read_pickle", "pd.read_pickle", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
    *("shutil.unpack_archive", "tarfile.open", "zipfile.ZipFile", "marshal.loads", "shelve.open"),
}
# It goes on as the run that it recovers, in words that no shell looks at.
ALLOWED = {"recover.py": ["os.execv"]}
MUST_SAY = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}


def faults_of(text):
    """Calls in a source text that could run, or write, what a stranger wants."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        said = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        if name in FORBIDDEN or name.endswith((".extractall", ".extract_all")):
            yield name
        if said.get("shell") or said.get("trust_remote_code"):
            yield f"{name} with {said}"
        if name in MUST_SAY:
            key, value = MUST_SAY[name]
            if said.get(key) is not value:
                yield f"{name} without {key}={value}"
        if name.startswith("subprocess.") and isinstance(
            node.args[0], ast.JoinedStr | ast.Constant
        ):
            yield f"{name} with a text as command"


@pytest.mark.parametrize(
    "text",
    [
        "os.system(f'cp {a} {b}')",
        "subprocess.run('ls', check=True)",
        "subprocess.run(f'cp {a}', shell=True)",
        "subprocess.Popen(words, shell=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "pickle.load(handle)",
        "yaml.load(text)",
        "tarfile.open(path).extractall(folder)",
        "archive.extractall()",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "eval(text)",
        "os.execv(words[0], words)",
    ],
)
def test_what_must_not_be_called_is_found(text):
    assert list(faults_of(text))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_source_runs_or_unpacks_what_it_reads(path):
    found = list(faults_of(path.read_text()))
    if path.parent.name == "benchmarks":
        found = [name for name in found if "without" not in name]  # they read their own files
    assert found == ALLOWED.get(path.name, [])


def test_no_rule_has_a_shell_command():
    """Scripts alone: Snakemake quotes the one path that it hands to a shell."""
    for path in RULES:
        directives = re.findall(
            r"^\s+(shell|run|notebook|wrapper):", path.read_text(), re.MULTILINE
        )
        assert directives == [], path


# --- pages ------------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{7*7}}"


class Tags(HTMLParser):
    """Which elements and attributes a page has, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data):
        self.texts.append(data)


def assert_harmless(page, shown):
    tags = Tags(page)
    assert {"script", "img", "iframe", "object"}.isdisjoint(tags.tags)
    assert not [name for name in tags.attributes if name.startswith("on")]
    assert shown in "".join(tags.texts)


def test_the_page_of_a_ledger_shows_what_data_hold_as_text(tmp_path):
    """From the user's row to the page: a contig, an allele, a label of the worst kind."""
    records = [
        RawVariant(2, HOSTILE, "1", "A", ("C",), "1"),
        RawVariant(3, "chr1", HOSTILE, "A", ("C",), "1"),
        RawVariant(4, "chr1", "1", "A", (HOSTILE,), "1"),
        RawVariant(5, "chr1", "1", "A", ("C",), HOSTILE),
    ]
    found = accept_variants(records, Genome(genome(tmp_path)), {})
    facts = json.loads(json.dumps({HOSTILE: summary_facts(found)}))
    path = tmp_path / "variants.html"
    write_html_table(outcomes_table(facts), path, title=HOSTILE, flag_texts=REASONS)
    assert_harmless(path.read_text(), HOSTILE)
    assert path.read_text().count("<script") == 0


@pytest.mark.parametrize("column", ["task", "tissue", "flags", "verdict", HOSTILE])
def test_every_cell_and_heading_of_a_page_is_text(tmp_path, column):
    table = pd.DataFrame({"n": [1, 2], column: [HOSTILE, "x"]})
    table["flags"] = table.get("flags", "")
    write_html_table(table, tmp_path / "t.html", title="t", flag_texts={HOSTILE: HOSTILE})
    assert_harmless((tmp_path / "t.html").read_text(), HOSTILE)


def test_the_figure_of_documents_shows_their_names_as_text(tmp_path):
    """Mark-up, what TeX would take for mathematics, and letters that no SVG may hold."""
    names = ["<script>x</script>", "$\\frac{$", "$a_b$", "a\x00b\x1bc", "&lt;", "\u202eabc"]
    table = pd.DataFrame(
        {
            "document": names,
            "cluster": pd.array([0, 1] * 3, "Int64"),
            "x": np.linspace(0, 1, 6),
            "y": np.linspace(0, 1, 6),
            "chosen": "test",
        }
    )
    write_documents_plot(table, tmp_path / "d.svg")
    tree = ElementTree.parse(tmp_path / "d.svg")
    assert not [item for item in tree.iter() if item.tag.rsplit("}")[-1] == "script"]


# --- archives ---------------------------------------------------------------------------------


def test_an_archive_writes_nothing_outside_and_unpickles_nothing(tmp_path):
    """The one kind of archive that is read, in memory: members with `..` and with objects."""
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    held = io.BytesIO()
    np.save(held, np.array([object()], dtype=object), allow_pickle=True)
    for name, content in [("../../evil.npy", b"x"), ("/tmp/evil.npy", b"x"), ("m.npy", held)]:
        path = folder / "maps.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, getattr(content, "getvalue", lambda: b"x")())
        with pytest.raises(LongscaleError, match=r"maps\.npz"):
            read_maps(path)
    assert [item.name for item in tmp_path.rglob("*") if item.is_file()] == ["maps.npz"]
    assert not Path("/tmp/evil.npy").exists()
