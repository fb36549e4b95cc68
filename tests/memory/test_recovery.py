"""Out of memory at each stage, and modules that make room for each other."""

import pytest
import torch

from acestep_graph.acestep_core import codec
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.memory.recovery import OutOfMemory, advice, is_out_of_memory
from acestep_graph.acestep_core.sampling import loop
from acestep_graph.acestep_core.sampling.sampler import sample
from tests import models, results


def refuse(limit, real, error=torch.OutOfMemoryError):
    """``real`` for at most ``limit`` rows; beyond, memory runs out."""

    def run(decoder, null, task, *args, **given):
        if task.noise.shape[0] > limit:
            raise error("CUDA out of memory. Tried to allocate 9 GiB")
        return real(decoder, null, task, *args, **given)

    return run


@pytest.mark.parametrize("limit", (1, 2))
@pytest.mark.parametrize("error", (torch.OutOfMemoryError, RuntimeError, MemoryError))
def test_a_batch_that_does_not_fit_is_made_in_parts(monkeypatch, limit, error):
    made, host = results.made(4, 9), Host(device="cpu")
    monkeypatch.setattr(loop, "run", refuse(limit, loop.run, error))
    again = sample(results.named_heads(), made.conditioning, None, 9, rows=4, host=host)
    assert torch.allclose(again.latents, made.made.latents, atol=1e-5)
    assert any("do not fit into memory" in note for note in host.notes)
    assert any("at a time are made" in note for note in again.notes)


def test_where_not_one_piece_fits_it_is_said_what_to_do(monkeypatch):
    made = results.made(2)
    monkeypatch.setattr(loop, "run", refuse(0, loop.run))
    with pytest.raises(OutOfMemory, match="10 s of music.*make the music shorter"):
        sample(results.named_heads(), made.conditioning, None, 7, rows=2)


def test_any_other_error_stays_what_it_is(monkeypatch):
    made = results.made(2)
    monkeypatch.setattr(loop, "run", refuse(0, loop.run, LookupError))
    with pytest.raises(LookupError):
        sample(results.named_heads(), made.conditioning, None, 7, rows=2)


@pytest.mark.parametrize("longest", (70, 150))
def test_decoding_goes_on_in_shorter_windows(monkeypatch, longest):
    vae, host = models.small_vae(), Host(device="cpu")
    latents = torch.randn(2, 300, 64, generator=torch.Generator().manual_seed(3))
    whole, real = codec.decode(vae, latents, chunk=512), vae.module.decode

    def decode(piece):
        if piece.shape[-1] > longest:
            raise torch.OutOfMemoryError("out of memory")
        return real(piece)

    monkeypatch.setattr(vae.module, "decode", decode)
    parts = codec.decode(vae, latents, chunk=512, host=host)
    assert torch.allclose(parts, whole, atol=1e-4)
    assert any("shorter" in note or "windows of" in note for note in host.notes)


def test_decoding_that_never_fits_says_so(monkeypatch):
    vae = models.small_vae()

    def never(_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(vae.module, "decode", never)
    with pytest.raises(OutOfMemory, match="decoding"):
        codec.decode(vae, torch.randn(1, 100, 64), host=Host(device="cpu"))


def test_what_is_out_of_memory():
    for words in (
        "CUDA out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "MPS backend out of memory",
        "Invalid buffer size: 12.00 GiB",
        "DefaultCPUAllocator: can't allocate memory",
        "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: not enough memory: you tried to allocate 9 B",
        "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    ):
        assert is_out_of_memory(RuntimeError(words)), words
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError("x"))
    assert not is_out_of_memory(RuntimeError("shape mismatch")) and not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(advice("this"))


class Card(Host):
    """A host whose card is the ``meta`` device, with a size of its own."""

    def __init__(self, gb, **given):
        super().__init__(device="meta", **given)
        self.gb = gb

    def _total_bytes(self):
        return int(self.gb * 2**30)

    def _free_bytes(self):
        return int(self.gb * 2**30)


class Part(torch.nn.Linear):
    """A module that only notes where it was sent."""

    def __init__(self):
        super().__init__(1, 1)
        self.at = ["cpu"]

    def to(self, device):
        self.at.append(str(device))
        return self


@pytest.mark.parametrize("gb, leaves", ((8, True), (16, True), (24, False), (80, False)))
def test_on_a_small_card_what_is_idle_leaves(gb, leaves):
    host, first, second = Card(gb), Part(), Part()
    host.prepare(first, "text")
    host.prepare(second, "dit")
    assert (first.at[-1] == "cpu") == leaves and second.at[-1] == "meta"
    host.prepare(first, "text")
    assert first.at[-1] == "meta" and (second.at[-1] == "cpu") == leaves
    host.make_room()
    assert first.at[-1] == second.at[-1] == "cpu"


def test_offloading_can_be_chosen():
    host, first, second = Card(80, offload=True), Part(), Part()
    host.prepare(first, "text")
    host.prepare(second, "dit")
    assert first.at[-1] == "cpu"


def test_a_module_that_is_gone_is_forgotten():
    host, first = Card(8), Part()
    host.prepare(first, "text")
    del first
    host.prepare(Part(), "dit")
    host.make_room()


def test_a_simulated_card(monkeypatch):
    monkeypatch.setenv("MAX_CUDA_VRAM", "6")
    assert Card(80).memory_gb() == 6 and Card(80).free_gb() <= 5.5
    monkeypatch.delenv("MAX_CUDA_VRAM")
    assert Card(80).memory_gb() == 80 and Host(device="cpu").memory_gb() == 0 and Host(device="cpu").free_gb() > 0


@pytest.mark.parametrize("gb, groups", ((3.0, [3, 1]), (2.5, [2, 2]), (1.0, [1, 1, 1, 1]), (24.0, [4])))
def test_as_many_run_side_by_side_as_fit(monkeypatch, gb, groups):
    """On a card; the music is the same, and it is said where they are made in parts."""
    made, seen, real = results.made(4, 9), [], loop.run

    class Small(Host):
        def device(self, component):
            return torch.device("meta" if self.asked else "cpu")

        asked = True

        def memory_gb(self):
            return 80.0

        def free_gb(self, keep=None):
            return gb

        def prepare(self, module, component, activation_bytes=0):
            self.asked = False
            return torch.device("cpu")

    def run(decoder, null, task, *args, **given):
        seen.append(task.noise.shape[0])
        return real(decoder, null, task, *args, **given)

    monkeypatch.setattr(loop, "run", run)
    again = sample(results.named_heads(), made.conditioning, None, 9, host=Small())
    assert seen == groups and torch.allclose(again.latents, made.made.latents, atol=1e-5)
    assert any("side by side" in note for note in again.notes) == (len(groups) > 1)


@pytest.mark.parametrize("longest", (70, 150))
@pytest.mark.parametrize("drawn", (False, True))
def test_encoding_goes_on_in_shorter_windows(monkeypatch, longest, drawn):
    vae, host = models.small_vae(), Host(device="cpu")
    audio = torch.rand(2, 2, 300 * 1920, generator=torch.Generator().manual_seed(3)) * 2 - 1
    whole, real, failed = codec.encode(vae, audio, chunk=512), vae.module.encode, []

    def encode(piece):
        if piece.shape[-1] > longest * 1920:
            failed.append(piece.shape[-1])
            raise torch.OutOfMemoryError("out of memory")
        mean, std = real(piece)
        return mean, 0 * std

    monkeypatch.setattr(vae.module, "encode", encode)
    given = {"noise": codec.drawn(vae, audio, torch.Generator().manual_seed(1))} if drawn else {}
    parts = codec.encode(vae, audio, chunk=512, host=host, **given)
    assert failed and torch.allclose(parts, whole, atol=1e-4)
    assert host.notes and all("Encoding ran out of memory" in note and "windows of" in note for note in host.notes)


def test_a_draw_does_not_depend_on_windows_that_failed(monkeypatch):
    vae, real = models.small_vae(), models.small_vae().module.encode
    audio = torch.rand(1, 2, 300 * 1920, generator=torch.Generator().manual_seed(3)) * 2 - 1
    noise = codec.drawn(vae, audio, torch.Generator().manual_seed(1))
    wanted = codec.encode(vae, audio, chunk=64, noise=noise, host=Host(device="cpu"))
    calls = []

    def encode(piece):
        calls.append(piece.shape[-1])
        if len(calls) == 2:
            raise torch.OutOfMemoryError("out of memory")
        return real(piece)

    monkeypatch.setattr(vae.module, "encode", encode)
    again = codec.encode(vae, audio, chunk=128, noise=noise, host=Host(device="cpu"))
    assert torch.equal(again, wanted)


def test_encoding_that_never_fits_says_so(monkeypatch):
    vae = models.small_vae()

    def never(_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(vae.module, "encode", never)
    with pytest.raises(OutOfMemory, match="encoding"):
        codec.encode(vae, torch.zeros(1, 2, 200_000), host=Host(device="cpu"))


@pytest.mark.parametrize("work", ("decode", "encode"))
def test_at_last_the_autoencoder_works_in_main_memory(monkeypatch, work):
    vae = models.small_vae()
    given = torch.randn(1, 40, 64) if work == "decode" else torch.rand(1, 2, 40 * 1920)
    wanted, real, places = getattr(codec, work)(vae, given), getattr(vae.module, work), []

    class Small(Host):
        """A card that is named, but whose module stays where it is."""

        def prepare(self, module, component, activation_bytes=0):
            return torch.device("meta")

    def run(piece):
        places.append(piece.device.type)
        if piece.is_meta:
            raise torch.OutOfMemoryError("out of memory")
        return real(piece)

    monkeypatch.setattr(vae.module, work, run)
    host = Small()
    made = getattr(codec, work)(vae, given, chunk=64, host=host)
    assert places == ["meta", "cpu"] and torch.allclose(made, wanted, atol=1e-5)
    assert "in main memory" in host.notes[-1]


@pytest.mark.parametrize("work", ("decode", "encode"))
@pytest.mark.parametrize("fits_alone", (True, False))
def test_an_autoencoder_that_finds_no_room_makes_some_or_works_in_main_memory(work, fits_alone):
    vae = models.small_vae()
    given = torch.randn(1, 40, 64) if work == "decode" else torch.rand(1, 2, 40 * 1920)
    wanted = getattr(codec, work)(vae, given)

    class Crowded(Host):
        crowd = True

        def prepare(self, module, component, activation_bytes=0):
            if self.crowd or not fits_alone:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 512 KiB")
            return torch.device("cpu")

        def make_room(self):
            self.crowd = False

    host = Crowded()
    assert torch.allclose(getattr(codec, work)(vae, given, host=host), wanted, atol=1e-4)
    assert "other models made room" in host.notes[0]
    assert [("in main memory" in note) for note in host.notes] == [False] + [True] * (not fits_alone)


def test_another_error_while_the_autoencoder_is_brought_stays_what_it_is():
    class Broken(Host):
        def prepare(self, module, component, activation_bytes=0):
            raise LookupError

    with pytest.raises(LookupError):
        codec.decode(models.small_vae(), torch.randn(1, 40, 64), host=Broken())
