"""Which adapters are offered, and that no name leads outside."""

import os

import pytest

from acestep_graph.acestep_core.checkpoints.header import CheckpointError
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lora import folders, writing
from acestep_graph.acestep_core.lora.formats import read_adapter

from . import making


@pytest.fixture
def host(tmp_path):
    root = tmp_path / "models"
    writing.write_file(making.adapter(), root / "loras" / "jazz.safetensors")
    writing.write_file(making.adapter(), root / "loras" / "style" / "rock.safetensors")
    writing.write_peft(making.adapter(), root / "loras" / "runs" / "final" / "adapter")
    writing.write_peft(making.adapter(), root / "acestep" / "loras" / "own")
    writing.write_file(making.adapter(), root / "acestep" / "loras" / "jazz.safetensors")
    for name in ("notes.txt", "training_state.pt", ".hidden.safetensors", ".trash/old.safetensors"):
        (root / "loras" / name).parent.mkdir(exist_ok=True)
        (root / "loras" / name).touch()
    writing.write_file(making.adapter(), tmp_path / "outside.safetensors")
    writing.write_peft(making.adapter(), tmp_path / "outside")
    return Host(models=root, device="cpu")


def test_files_and_folders_are_listed_once(host):
    names = folders.list_adapters(host)
    assert names == ["jazz.safetensors", "own", "runs/final/adapter", "style/rock.safetensors"]
    for name in names:
        assert read_adapter(folders.find_adapter(host, name), making.config()).ranks == (3,)


def test_the_first_folder_wins(host):
    assert folders.find_adapter(host, "jazz.safetensors").parent == host.models / "loras"


@pytest.mark.parametrize(
    "name",
    [
        *("../outside.safetensors", "../../outside.safetensors", "../../outside", "style/../../../outside"),
        *("", ".", "..", "/", "a\0b", "notes.txt", "training_state.pt", "runs", "nothing.safetensors"),
    ],
)
def test_no_name_leads_outside(host, name):
    with pytest.raises(CheckpointError, match=r"There is no adapter .* There are jazz.safetensors"):
        folders.find_adapter(host, name)


def test_absolute_names_are_refused(host, tmp_path):
    for name in ("outside", "outside.safetensors"):
        with pytest.raises(CheckpointError, match="There is no adapter"):
            folders.find_adapter(host, str(tmp_path / name))


def test_a_loop_of_links_ends(host):
    os.symlink(host.models / "loras", host.models / "loras" / "style" / "again")
    names = folders.list_adapters(host)
    assert "style/again/jazz.safetensors" in names and len(names) < 40


def test_nothing_there_yet(tmp_path):
    host = Host(models=tmp_path / "none", device="cpu")
    assert folders.list_adapters(host) == []
    with pytest.raises(CheckpointError, match="There are none yet"):
        folders.find_adapter(host, "jazz.safetensors")
