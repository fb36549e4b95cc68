"""Where training writes and reads, and what names are allowed."""

import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.training import places

KINDS = (places.DATASETS, places.TENSORS, places.RUNS)


@pytest.fixture
def host(tmp_path):
    return Host(input=tmp_path / "in", output=tmp_path / "out")


@given(st.text(max_size=100))
def test_a_name_is_one_folder_inside_ours_or_refused(tmp_path_factory, name):
    host = Host(output=tmp_path_factory.getbasetemp() / "out")
    for kind in KINDS:
        try:
            place = places.place_of(host, kind, name)
        except ValueError as error:
            assert len(str(error)) > 20
        else:
            assert place.parent == places.folder_of(host, kind) and place.name == name.strip()


@pytest.mark.parametrize("name", ["", " ", "a/b", "..", ".x", "a\\b", "C:", "con", "NUL.json", "x.", "a\nb", "n" * 81])
def test_names_that_no_system_takes_are_refused(name):
    with pytest.raises(ValueError):
        places.checked_name(name)


@pytest.mark.parametrize("name", ["jazz", "my songs 2", "夜の歌", "🎵 demo", "a.b", "x" * 80])
def test_usual_names_are_taken(name):
    assert places.checked_name(f" {name} ") == name


def test_names_are_listed_newest_first_and_only_what_they_say(host):
    for number, name in enumerate(("old", "new")):
        folder = places.place_of(host, places.RUNS, name)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text("{}")
        os.utime(folder, (number, number))
    (places.folder_of(host, places.RUNS) / "empty").mkdir()
    (places.folder_of(host, places.RUNS) / ".hidden").mkdir()
    assert places.names(host, places.RUNS) == ["new", "old"]
    assert places.names(host, places.TENSORS) == []


def test_a_text_finds_whole_paths_and_what_lies_in_ours_in_input_or_in_output(host, tmp_path):
    songs = tmp_path / "elsewhere" / "songs"
    songs.mkdir(parents=True)
    assert places.find(host, f' "{songs}" ', places.TENSORS) == songs
    for root in (host.output, host.input, places.folder_of(host, places.TENSORS)):
        (root / "jazz").mkdir(parents=True)
        assert places.find(host, "jazz", places.TENSORS) == root / "jazz"
    saved = places.dataset_file(host, "mine")
    saved.parent.mkdir(parents=True)
    saved.write_text("{}")
    assert places.find(host, "mine", places.DATASETS) == places.find(host, "mine.json", places.DATASETS) == saved
    with pytest.raises(ValueError, match="Looked for .*nowhere"):
        places.find(host, "nowhere", places.TENSORS)
    with pytest.raises(ValueError, match="path"):
        places.find(host, " ", places.TENSORS)


@given(st.text(alphabet=string.printable, max_size=300))
def test_labels_of_any_data_set_have_a_file(tmp_path_factory, name):
    host = Host(output=tmp_path_factory.getbasetemp() / "out")
    path = places.labels_file(host, name)
    assert path.parent == places.folder_of(host, places.LABELS) and len(path.name) < 110
