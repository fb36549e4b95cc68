"""Tensors of the original trainer: read safely, and what is wrong with them is said."""

import json
import os

import pytest
import torch

from acestep_graph.acestep_core.training import published
from acestep_graph.acestep_core.training.items import ItemError, TrainItem, save_item

DRAWS = torch.Generator().manual_seed(5)


def draw(*shape):
    return torch.randn(*shape, generator=DRAWS).to(torch.bfloat16)


def tensors(frames=100, real=40, tokens=60, width=32, **metadata):
    mask = torch.arange(tokens) < real
    context = torch.cat((draw(frames, 64), torch.ones(frames, 64, dtype=torch.bfloat16)), dim=1)
    about = {"filename": "tide.flac", "duration": frames // 25, "bpm": None, "preprocess_mode": "lora", **metadata}
    return {
        "target_latents": draw(frames, 64),
        "attention_mask": torch.ones(frames, dtype=torch.bfloat16),
        "encoder_hidden_states": draw(tokens, width),
        "encoder_attention_mask": mask,
        "context_latents": context,
        "metadata": about,
    }


def written(path, **changes):
    made = {**tensors(), **changes}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({key: value for key, value in made.items() if value is not None}, path)
    return made


def test_a_file_becomes_an_item_without_filling(tmp_path):
    made = written(tmp_path / "3fa1c09b.pt", metadata={"filename": "a/tide.flac", "bpm": 84, "repeat": 3})
    item, faults = published.read_published(tmp_path / "3fa1c09b.pt")
    assert torch.equal(item.latents, made["target_latents"])
    assert torch.equal(item.context, made["context_latents"])
    assert torch.equal(item.conditions, made["encoder_hidden_states"][:40])
    assert (item.name, item.repeat, item.about["bpm"]) == ("tide.flac", 3, 84)
    assert faults == (published.OLD, "the filling of their conditions was cut off")


def test_frames_that_are_filling_are_cut(tmp_path):
    mask = torch.cat((torch.ones(80), torch.zeros(20)))
    made = written(tmp_path / "a.pt", attention_mask=mask)
    item, _ = published.read_published(tmp_path / "a.pt")
    assert torch.equal(item.latents, made["target_latents"][:80])
    assert torch.equal(item.context, made["context_latents"][:80])


def test_a_leading_batch_axis_is_taken_off(tmp_path):
    made = tensors()
    torch.save({k: v[None] if isinstance(v, torch.Tensor) else v for k, v in made.items()}, tmp_path / "a.pt")
    item, _ = published.read_published(tmp_path / "a.pt")
    assert torch.equal(item.latents, made["target_latents"])
    assert torch.equal(item.conditions, made["encoder_hidden_states"][:40])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (lambda: tensors(real=60, tokens=769), published.PADDED),
        (lambda: tensors(real=769, tokens=769), published.UNMARKED),
        (lambda: tensors(preprocess_mode="lokr"), published.LEAK),
        (lambda: _leaking(), published.LEAK),
        (lambda: _masked(), published.MASKED),
        (lambda: tensors(duration=172), published.CUT),
    ],
)
def test_faults_are_named(tmp_path, changes, fault):
    written(tmp_path / "a.pt", **changes())
    assert fault in published.read_published(tmp_path / "a.pt")[1]
    written(tmp_path / "b.pt", **tensors(real=60))
    assert published.read_published(tmp_path / "b.pt")[1] == (published.OLD,)


def _leaking():
    made = tensors()
    made["context_latents"] = torch.cat((made["target_latents"], made["context_latents"][:, 64:]), dim=1)
    return made


def _masked():
    made = tensors()
    made["context_latents"][30:, 64:] = 0
    return made


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"target_latents": None}, "lacks target_latents"),
        ({"encoder_attention_mask": None, "context_latents": 3}, "lacks encoder_attention_mask, context_latents"),
        ({"target_latents": torch.zeros(100, 32)}, r"\[100, 32\]"),
        ({"target_latents": torch.zeros(2, 100, 64)}, "expected 2 dimensions"),
        ({"context_latents": torch.ones(100, 65)}, r"\[100, 65\]"),
        ({"context_latents": torch.ones(90, 128)}, "100 frames, its context 90"),
        ({"encoder_attention_mask": torch.ones(59)}, "does not fit"),
        ({"encoder_attention_mask": torch.zeros(60)}, "conditions is"),
        ({"target_latents": torch.full((100, 64), float("nan"))}, "no numbers"),
        ({"target_latents": torch.zeros(100, 64, dtype=torch.long)}, "floating point"),
        ({"metadata": Harmful()}, "more than tensors and plain values"),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path, monkeypatch, changes, reason):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "a.pt", **changes)
    with pytest.raises(ItemError, match=reason):
        published.read_published(tmp_path / "a.pt")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [b"", b"no tensors", b"PK\x03\x04 broken", b"\x80\x02."])
def test_broken_files_are_named_and_the_rest_is_read(tmp_path, content):
    written(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(content)
    torch.save([1, 2], tmp_path / "c.pt")
    found = published.load_published(tmp_path)
    assert len(found.items) == 1
    assert [name for name, _ in found.failed] == ["b.pt", "c.pt"]
    assert "Not used: b.pt: it " in found.text()


def test_a_truncated_file_is_named(tmp_path):
    written(tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ItemError, match=r"holds no tensors that can be used\.\na.pt: it "):
        published.load_published(tmp_path)


def _folder(tmp_path):
    folder = tmp_path / "tensors"
    for name, bpm in (("a", 1), ("b", 2), ("c", 3)):
        written(folder / f"{name}.pt", metadata={"filename": f"{name}.flac", "bpm": bpm})
    written(folder / "d.tmp.pt")
    written(tmp_path / "outside.pt")
    return folder


@pytest.mark.parametrize(
    "samples",
    [
        ["c.pt", "a.pt"],
        ["datasets/jazz/tensors/c.pt", "./somewhere\\a.pt"],
        [{"filename": "c.pt", "caption": "x"}, {"filename": "a.pt"}],
    ],
)
def test_the_three_forms_of_the_manifest(tmp_path, samples):
    folder = _folder(tmp_path)
    (folder / "manifest.json").write_text(json.dumps({"metadata": {}, "samples": samples, "num_samples": 2}))
    assert [item.about["bpm"] for item in published.load_published(folder).items] == [3, 1]


@pytest.mark.parametrize("text", [None, "broken {", "[]", '{"samples": 3}', '{"samples": []}'])
def test_without_a_manifest_every_finished_file_is_read(tmp_path, text):
    folder = _folder(tmp_path)
    if text is not None:
        (folder / "manifest.json").write_text(text)
    assert [item.about["bpm"] for item in published.load_published(folder).items] == [1, 2, 3]


def test_a_manifest_does_not_lead_out_of_its_folder(tmp_path):
    folder = _folder(tmp_path)
    samples = ["a.pt", "../outside.pt", str(tmp_path / "outside.pt"), "gone.pt"]
    (folder / "manifest.json").write_text(json.dumps({"samples": samples}))
    found = published.load_published(folder)
    assert len(found.items) == 1
    assert [name for name, _ in found.failed] == ["outside.pt", "outside.pt", "gone.pt"]
    assert all("not there" in reason for _, reason in found.failed)


def test_tensors_of_another_model_are_refused(tmp_path):
    written(tmp_path / "a.pt")
    written(tmp_path / "b.pt", **tensors(width=48))
    found = published.load_published(tmp_path, width=32)
    assert len(found.items) == 1
    assert "48 wide; this one's are 32" in found.failed[0][1]


def test_faults_are_counted_and_told_once(tmp_path):
    for index in range(3):
        written(tmp_path / f"{index}.pt", **tensors(real=60, duration=900 if index else 4))
    notes = published.load_published(tmp_path).notes
    assert notes[:2] == (f"3 of 3 songs: {published.OLD}.", f"2 of 3 songs: {published.CUT}.")
    assert notes[-1].startswith("Preprocess the recordings here")


def test_either_kind_of_folder_is_read(tmp_path):
    item = TrainItem("own", torch.ones(30, 64), torch.ones(9, 32), about={"bpm": 80})
    save_item(item, tmp_path / "own" / "own.safetensors")
    found = published.load_tensors(tmp_path / "own", width=32)
    assert (found.items[0].about, found.notes) == (item.about, ())
    with pytest.raises(ItemError, match="32 wide; this one's are 48"):
        published.load_tensors(tmp_path / "own", width=48)
    written(tmp_path / "theirs" / "a.pt")
    assert published.load_tensors(tmp_path / "theirs").notes
    (tmp_path / "none").mkdir()
    with pytest.raises(ItemError, match="no training items"):
        published.load_tensors(tmp_path / "none")
    with pytest.raises(ItemError, match="There is no folder"):
        published.load_tensors(tmp_path / "gone")


def test_the_report_says_how_much_there_is(tmp_path):
    written(tmp_path / "a.pt", **tensors(frames=750))
    assert published.load_published(tmp_path).text().startswith("1 songs, 0.5 min.\n1 of 1 songs: ")
