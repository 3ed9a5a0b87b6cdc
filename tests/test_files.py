"""Outputs that appear whole or not at all."""

import hashlib
import os

import pytest

from longscale.errors import LongscaleError
from longscale.files import atomic_folder, atomic_path, checksum, matching_files, read_json


class StoppedError(Exception):
    """Something went wrong half-way."""


def write(path, text):
    with atomic_path(path) as part:
        part.write_text(text)
        assert part.parent == path.parent  # renaming must not cross file systems
        assert not path.exists() or path.read_text() != text


def fill(folder, *names):
    with atomic_folder(folder) as part:
        for name in names:
            (part / name).write_text(name)


def write_half(path, error):
    with atomic_path(path) as part:
        part.write_text("half")
        raise error


def fill_half(folder, error):
    with atomic_folder(folder) as part:
        (part / "half").write_text("")
        raise error


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_appears_with_its_parents_and_replaces_an_old_one(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write(path, "one")
    assert path.read_text() == "one"
    write(path, "two")
    assert path.read_text() == "two"
    assert tree(tmp_path) == ["a", "a/b.txt"]


@pytest.mark.parametrize("error", [StoppedError, KeyboardInterrupt])
def test_a_failed_file_leaves_the_old_one(tmp_path, error):
    path = tmp_path / "b.txt"
    for expected in (None, "old"):
        if expected:
            path.write_text(expected)
        with pytest.raises(error):
            write_half(path, error)
        assert tree(tmp_path) == (["b.txt"] if expected else [])
        assert not expected or path.read_text() == expected


def test_a_file_that_is_not_written_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "b.txt"):
        pass
    assert tree(tmp_path) == []


def test_a_folder_takes_the_place_of_the_old_one_as_a_whole(tmp_path):
    folder = tmp_path / "a" / "model"
    fill(folder, "one", "two")
    assert tree(folder) == ["one", "two"]
    fill(folder, "three")
    assert tree(tmp_path) == ["a", "a/model", "a/model/three"]


@pytest.mark.parametrize("error", [StoppedError, KeyboardInterrupt])
def test_a_failed_folder_leaves_the_old_one(tmp_path, error):
    folder = tmp_path / "model"
    fill(folder, "one")
    with pytest.raises(error):
        fill_half(folder, error)
    assert tree(tmp_path) == ["model", "model/one"]


def test_leftovers_of_a_killed_process_with_the_same_id_do_not_mix_in(tmp_path):
    leftover = tmp_path / f".model.{os.getpid()}.part"
    leftover.mkdir()
    (leftover / "stale").write_text("")
    fill(tmp_path / "model", "fresh")
    assert tree(tmp_path) == ["model", "model/fresh"]


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
@pytest.mark.parametrize("content", [b"", b"ACGT\n" * 300_000])
def test_checksum_is_that_of_the_whole_content(tmp_path, algorithm, content):
    path = tmp_path / "x"
    path.write_bytes(content)
    assert checksum(path, algorithm) == hashlib.new(algorithm, content).hexdigest()


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.txt", ["a.txt"]),
        ("", ["a.txt", "b.jsonl", "below/c.txt"]),
        ("*.txt", ["a.txt"]),
        ("**/*.txt", ["a.txt", "below/c.txt"]),
        ("*.md", ["d.md"]),
        ("absent", []),
    ],
)
def test_a_file_a_folder_and_a_pattern_stand_for_files(tmp_path, path, found):
    (tmp_path / "below").mkdir()
    for name in ("a.txt", "b.jsonl", "below/c.txt", "d.md"):
        (tmp_path / name).touch()
    files = matching_files(f"{tmp_path}/{path}", (".txt", ".jsonl"))
    assert files == sorted(tmp_path / name for name in found)


@pytest.mark.parametrize("name", ["new.txt", "n[e]w.txt"])
def test_what_killed_processes_have_left_goes_with_the_next_success(tmp_path, name):
    (tmp_path / f".{name}.1.part").write_text("half")
    (tmp_path / f".other{name}.1.part").write_text("another file's")
    with atomic_path(tmp_path / name) as part:
        part.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {name, f".other{name}.1.part"}
    (tmp_path / f".f{name}.1.part").mkdir()
    with atomic_folder(tmp_path / f"f{name}") as part:
        (part / "a").write_text("")
    assert not (tmp_path / f".f{name}.1.part").exists()


def test_json_of_a_job_is_read_or_one_sentence(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"flags": [], "seed": 1}')
    assert read_json(path, "flags", "seed") == {"flags": [], "seed": 1}
    for text, why in [
        ("{", "line 1"),
        ("[]", "no names and values"),
        ("{}", "no flags"),
        ("", "1"),
    ]:
        path.write_text(text)
        with pytest.raises(LongscaleError, match=rf"a\.json: not the JSON .*{why}.*; delete it"):
            read_json(path, "flags")
