"""Training items: values, files, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import save_file

from acestep_graph.acestep_core.training.items import ItemError, TrainItem, fingerprint, load_item, save_item

from .making import items


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_context", [False, True])
def test_a_file_gives_back_the_item(tmp_path, dtype, with_context):
    context = torch.rand(30, 128).to(dtype) if with_context else None
    about = {"prompt": "# Caption\n歌 🎵", "bpm": None, "crop": [0, 1.5]}
    item = TrainItem("ünï 🎵", torch.randn(30, 64).to(dtype), torch.randn(7, 32).to(dtype), context, 3, about)
    again = load_item(save_item(item, tmp_path / "deep" / "song 🎵.safetensors"))
    assert (again.name, again.repeat, again.about, again.seconds, again.shape) == (item.name, 3, about, 1.2, (30, 7))
    assert again.tensors().keys() == item.tensors().keys()
    for name, tensor in item.tensors().items():
        assert again.tensors()[name].dtype == dtype and torch.equal(again.tensors()[name], tensor)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["song 🎵.safetensors"]


def test_equal_items_are_equal_files(tmp_path):
    about = {"prompt": "folk", "bpm": 90}
    item = TrainItem("tide", torch.ones(4, 64), torch.ones(2, 8), torch.ones(4, 128), 2, about)
    raw = save_item(item, tmp_path / "a.safetensors").read_bytes()
    assert save_item(item, tmp_path / "b.safetensors").read_bytes() == raw
    header = raw[8 : 8 + int.from_bytes(raw[:8], "little")].decode()
    assert header == json.dumps(json.loads(header), sort_keys=True, separators=(",", ":")).ljust(len(header))


def test_an_item_knows_its_file(tmp_path):
    path = save_item(items()[0], tmp_path / "a.safetensors")
    assert items()[0].path == "" and load_item(path).path == str(path)


def test_a_view_is_stored_alone(tmp_path):
    whole = torch.randn(100, 64)
    path = save_item(TrainItem("part", whole[10:20], torch.randn(1, 8).expand(5, 8)), tmp_path / "a.safetensors")
    assert path.stat().st_size < 4000 and torch.equal(load_item(path).latents, whole[10:20])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"latents": torch.zeros(64)}, r"latents is \[64\], expected \[length, 64\]"),
        ({"latents": torch.zeros(5, 63)}, r"latents is \[5, 63\]"),
        ({"latents": torch.zeros(0, 64)}, r"latents is \[0, 64\]"),
        ({"conditions": torch.zeros(1, 2, 3)}, r"conditions is \[1, 2, 3\], expected \[length, width\]"),
        ({"conditions": torch.zeros(2, 3).long()}, "holds torch.int64"),
        ({"latents": torch.full((5, 64), float("nan"))}, "values that are no numbers. Preprocess it again"),
        ({"conditions": torch.full((5, 8), float("inf"))}, "values that are no numbers"),
        ({"context": torch.zeros(4, 128)}, "context has 4 frames, the latents 5"),
        ({"repeat": 0}, "allowed is a whole number from 1 to 1000"),
        ({"repeat": True}, "allowed is a whole number"),
    ],
)
def test_what_cannot_be_trained_is_said(changes, sentence):
    given = {"name": "song", "latents": torch.zeros(5, 64), "conditions": torch.zeros(3, 8)} | changes
    with pytest.raises(ItemError, match=f"song: .*{sentence}"):
        TrainItem(**given)


def test_other_and_broken_files_are_said(tmp_path):
    path = save_item(items()[0], tmp_path / "a.safetensors")
    content = path.read_bytes()
    for wrong in (b"", b"hello", content[:100], content[:-10]):
        path.write_bytes(wrong)
        with pytest.raises(ItemError, match=r"a\.safetensors cannot be read: .* Preprocess it again"):
            load_item(path)
    save_file({"latents": torch.zeros(2, 64), "conditions": torch.zeros(2, 8)}, path)
    with pytest.raises(ItemError, match="is no training item"):
        load_item(path)
    header = {"format": "acestep-graph training item 1", "about": json.dumps({})[:1]}
    save_file({"latents": torch.zeros(2, 64), "conditions": torch.zeros(2, 8)}, path, header)
    with pytest.raises(ItemError, match="broken header"):
        load_item(path)
    with pytest.raises(FileNotFoundError):
        load_item(tmp_path / "none.safetensors")


def test_the_fingerprint_follows_everything_that_is_trained_on():
    plain = items()
    seen = {fingerprint(plain), fingerprint(plain[::-1]), fingerprint(plain[:3]), fingerprint(items(seed=1))}
    seen |= {fingerprint(items(dtype=torch.bfloat16)), fingerprint(items(((22, 9, 2), *((19, 12, 2), (22, 9, 1)))))}
    assert len(seen) == 6 and fingerprint(items()) in seen
