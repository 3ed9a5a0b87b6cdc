"""The figure of a corpus: every document once, test documents ringed and named."""

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread
from matplotlib.text import Annotation

from longscale.errors import LongscaleError
from longscale.report.documents import plot_documents, shorten_name, write_documents_plot


@pytest.fixture
def table():
    """Thirty documents in nine clusters; one was not clustered; all test documents in one spot."""
    rng = np.random.default_rng(8)
    table = pd.DataFrame(
        {
            "document": [f"a/folder/with/a/long/name/document_{n}.py" for n in range(30)],
            "cluster": pd.array(np.arange(30) % 9, dtype="Int64"),
            "x": rng.normal(size=30),
            "y": rng.normal(size=30),
            "chosen": ["test"] * 12 + ["dev"] * 4 + [""] * 14,
        }
    )
    table.loc[:11, ["x", "y"]] = [5.0, 5.0]
    table.loc[29, ["cluster", "x", "y"]] = [pd.NA, np.nan, np.nan]
    return table


def drawn(figure):
    """The lines of the panel by their label."""
    return {line.get_label(): line for line in figure.axes[0].lines}


def names_of(figure):
    return [child for child in figure.axes[0].get_children() if isinstance(child, Annotation)]


def test_every_clustered_document_is_drawn_once_in_its_clusters_style(table):
    figure = plot_documents(table)
    lines = drawn(figure)
    clusters = {name: line for name, line in lines.items() if name.startswith("cluster")}
    assert len(clusters) == 9
    styles = {(to_hex(line.get_color()), line.get_marker()) for line in clusters.values()}
    assert len(styles) == 9
    for cluster in range(9):
        rows = table[(table["cluster"] == cluster).fillna(False)]
        line = clusters[f"cluster {cluster + 1} ({len(rows)})"]
        np.testing.assert_array_equal(line.get_xydata(), rows[["x", "y"]])
    assert figure.axes[0].get_title(loc="left") == "29 documents, 12 of them to test on"


def test_test_documents_are_ringed_and_named(table):
    figure = plot_documents(table)
    rings = [line for line in figure.axes[0].lines if line.get_markerfacecolor() == "none"]
    test = table[table["chosen"] == "test"]
    assert len(rings) == 1
    np.testing.assert_array_equal(rings[0].get_xydata(), test[["x", "y"]])
    assert sorted(name.get_text() for name in names_of(figure)) == sorted(
        shorten_name(name) for name in test["document"]
    )


def test_names_do_not_overlap_and_lie_within_the_figure(table):
    figure = plot_documents(table)
    figure.draw_without_rendering()
    boxes = [super(Annotation, name).get_window_extent() for name in names_of(figure)]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:index])
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
    legend = figure.legends[0].get_window_extent()
    assert not any(box.overlaps(legend) for box in boxes)


def test_one_test_document_is_enough(table):
    table.loc[table["chosen"] == "test", "chosen"] = ""
    table.loc[3, "chosen"] = "test"
    assert [name.get_text() for name in names_of(plot_documents(table))] == [
        shorten_name(table["document"][3])
    ]


def test_long_names_keep_their_end():
    assert shorten_name("json/decoder.py") == "json/decoder.py"
    assert shorten_name("distutils/command/install_lib.py") == "…/command/install_lib.py"
    assert len(shorten_name("x" * 99)) == 24


def test_files_are_whole_and_the_same_again(table, tmp_path):
    first = write_documents_plot(table, tmp_path / "one" / "documents.svg")
    again = write_documents_plot(table, tmp_path / "two" / "documents.svg")
    assert [path.name for path in first] == ["documents.svg", "documents.png"]
    for one, two in zip(first, again, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert ET.parse(first[0]).getroot().tag.endswith("svg")
    assert imread(first[1]).std() > 0


def test_documents_without_clusters_are_one_sentence(table, tmp_path):
    table["cluster"] = pd.array([pd.NA] * 30, dtype="Int64")
    with pytest.raises(LongscaleError, match=r"test_documents.tsv: its documents have no cluster"):
        write_documents_plot(table, tmp_path / "documents.svg")
    assert list(tmp_path.iterdir()) == []
