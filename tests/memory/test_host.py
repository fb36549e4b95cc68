"""What a host asks of PyTorch and of the system, as old versions and other systems answer it."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from acestep_graph.acestep_core import codec
from acestep_graph.acestep_core.host import Host, find_inside
from tests import models


@pytest.fixture
def old_cuda(monkeypatch):
    """The second of two cards, by PyTorch 2.4, which tells what is free of a numbered card only."""

    def free(device):
        if isinstance(device, torch.device) and device.index is None:
            raise ValueError("Expected a torch.device with a specified index or an integer, but got:cuda")
        return (3 * 2**30 if getattr(device, "index", device) == 1 else 0), 8 * 2**30

    card = {
        "mem_get_info": free,
        "current_device": lambda: 1,
        "memory_reserved": lambda device: 2**30,
        "memory_allocated": lambda device: 2**29,
        "get_device_properties": lambda device: SimpleNamespace(total_memory=8 * 2**30),
    }
    for name, answer in card.items():
        monkeypatch.setattr(torch.cuda, name, answer)


@pytest.mark.parametrize(("device", "free"), [("cuda", 3.5), ("cuda:1", 3.5), ("cuda:0", 0.5)])
def test_a_card_without_a_number(old_cuda, device, free):
    assert Host(device=device).free_gb() == free
    assert 64 <= codec.chunk_frames(models.small_vae(), torch.device(device)) <= 1024


def test_an_apple_gpu_of_which_pytorch_does_not_tell_the_memory(monkeypatch):
    mps = SimpleNamespace(current_allocated_memory=lambda: 2**30, is_available=lambda: False)
    monkeypatch.setattr(torch, "mps", mps)
    pages = {"SC_PHYS_PAGES": 2**20, "SC_PAGE_SIZE": 2**14}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__, raising=False)
    host = Host(device="mps")
    assert 8 < host.memory_gb() < 16 and host.free_gb() == pytest.approx(host.memory_gb() - 1)
    mps.recommended_max_memory = lambda: 12 * 2**30
    assert host.memory_gb() == 12 and host.free_gb() == 11


def test_an_intel_card_of_which_pytorch_does_not_tell_what_is_used(monkeypatch):
    xpu = SimpleNamespace(get_device_properties=lambda device: SimpleNamespace(total_memory=8 * 2**30))
    monkeypatch.setattr(torch, "xpu", xpu, raising=False)
    assert Host(device="xpu").free_gb() == 8
    xpu.memory_allocated = lambda device: 2**30
    assert Host(device="xpu").free_gb() == 7


@pytest.mark.parametrize("gone", ("SC_AVPHYS_PAGES", "everything"))
def test_a_system_that_does_not_count_free_memory(monkeypatch, gone):
    """macOS does not know the name; Windows has no such question."""

    def sysconf(name):
        if name == "SC_AVPHYS_PAGES":
            raise ValueError("unrecognized configuration name")
        return {"SC_PHYS_PAGES": 2**20, "SC_PAGE_SIZE": 2**14}[name]

    if gone == "everything":
        monkeypatch.delattr(os, "sysconf", raising=False)
    else:
        monkeypatch.setattr(os, "sysconf", sysconf, raising=False)
    assert Host(device="cpu").free_gb() == (0 if gone == "everything" else 16)


def test_folders_on_several_drives_are_all_searched(monkeypatch, tmp_path):
    (tmp_path / "second").mkdir()
    wanted = tmp_path / "second" / "a.safetensors"
    wanted.touch()
    real = os.path.commonpath

    def commonpath(paths):
        if any("other drive" in path for path in paths):
            raise ValueError("Paths don't have the same drive")
        return real(paths)

    monkeypatch.setattr(os.path, "commonpath", commonpath)
    roots = [tmp_path / "other drive", tmp_path / "second"]
    assert find_inside(roots, str(wanted)) == find_inside(roots, "a.safetensors") == Path(wanted)
    assert find_inside(roots[:1], str(wanted)) is None


@pytest.mark.skipif(os.sep == "\\", reason="there it is the name itself")
def test_a_name_that_was_written_on_windows_is_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.wav").touch()
    assert find_inside([tmp_path], "sub\\a.wav") == tmp_path / "sub" / "a.wav"
    (tmp_path / "sub\\a.wav").touch()
    assert find_inside([tmp_path], "sub\\a.wav") == tmp_path / "sub\\a.wav"
    (tmp_path.parent / "out.wav").touch()
    assert find_inside([tmp_path], "..\\out.wav") is None
