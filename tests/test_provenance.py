"""Provenance names what made a number."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

import longscale
from longscale import provenance
from longscale.provenance import PACKAGES, code_digest, collect_provenance
from longscale.provenance import digest as config_digest


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the library's sources that the digest looks at."""
    root = tmp_path / "longscale"
    shutil.copytree(
        Path(longscale.__file__).parent, root, ignore=shutil.ignore_patterns("__pycache__")
    )
    stand_in = SimpleNamespace(__file__=str(root / "__init__.py"))
    monkeypatch.setattr(provenance, "longscale", stand_in)
    return root


digest = code_digest.__wrapped__  # without the cache


def test_it_survives_json_and_names_versions():
    found = collect_provenance()
    assert json.loads(json.dumps(found)) == found
    assert found["longscale"] == longscale.__version__
    assert found["packages"] == {name: version(name) for name in PACKAGES}
    assert found["code_sha256"] == code_digest() == digest()


def test_the_digest_is_the_same_elsewhere(copied):
    assert digest() == code_digest()
    (copied / "notes.txt").write_text("not code")
    assert digest() == code_digest()


def test_the_digest_feels_content_names_and_borders(copied):
    found = {digest()}
    file = copied / "attention" / "rules.py"
    file.write_text(file.read_text() + "\n")
    found.add(digest())
    file.rename(copied / "attention" / "rulez.py")
    found.add(digest())
    (copied / "a.py").write_text("xy")
    (copied / "b.py").write_text("")
    found.add(digest())
    (copied / "a.py").write_text("x")
    (copied / "b.py").write_text("y")
    found.add(digest())
    assert len(found) == 5


def test_digest_feels_values_and_not_the_order_of_keys():
    assert config_digest({"a": 1, "b": [1, 2]}) == config_digest({"b": [1, 2], "a": 1})
    assert len({config_digest(x) for x in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": [1]}, {})}) == 5
