"""What nodes remember of the files they wrote: they run again where a result in the cache no longer fits them."""

import pytest

from acestep_graph.nodes.kept import Kept


@pytest.fixture
def file(tmp_path):
    return tmp_path / "songs.json"


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_nothing_changes_while_what_was_made_stays(file):
    kept = Kept()
    before = kept.state("songs")
    kept.made("songs", write(file, "a"))
    assert kept.state("songs") == kept.state("songs") == before == kept.state("others")
    kept.made("songs", write(file, "a"))
    assert kept.state("songs") == before


@pytest.mark.parametrize("change", [lambda path: write(path, "other"), lambda path: path.unlink()])
def test_what_somebody_else_did_to_a_file_counts_once(file, change):
    kept = Kept()
    kept.made("songs", write(file, "a"))
    before = kept.state("songs")
    change(file)
    after = kept.state("songs")
    assert after != before and kept.state("songs") == after


def test_a_cached_result_is_left_behind_when_something_else_was_made(file):
    kept = Kept()
    kept.made("songs", write(file, "a"))
    state_of_a = kept.state("songs")
    kept.made("songs", write(file, "b"))
    assert kept.state("songs") != state_of_a
    kept.made("songs", write(file, "a"))
    settled = kept.state("songs")
    kept.made("songs", write(file, "a"))
    assert kept.state("songs") == settled != state_of_a


def test_a_folder_is_what_its_tensors_are(tmp_path):
    kept, folder = Kept(), tmp_path / "tensors"
    write(folder / "one.safetensors", "1")
    kept.made("", write(folder / "list.json", "{}").parent)
    before = kept.state("")
    write(folder / "list.json", "[]")
    kept.made("", folder)
    assert kept.state("") == before
    write(folder / "one.safetensors", "12")
    kept.made("", folder)
    assert kept.state("") != before


def test_two_nodes_of_one_name_are_told_apart_by_what_they_wrote(tmp_path):
    kept = Kept()
    for name in ("one", "two"):
        kept.made("", write(tmp_path / name, name))
    before = kept.state(None)
    (tmp_path / "one").unlink()
    assert kept.state("") != before


def test_where_only_a_loss_counts_others_may_write(file):
    kept = Kept(only_gone=True)
    kept.made("", write(file, "a"))
    before = kept.state("")
    write(file, "b")
    kept.made("", write(file, "c"))
    assert kept.state("") == before
    file.unlink()
    assert kept.state("") != before
