"""The shipped workflows: as the builder makes them, complete, and running without ComfyUI on tiny and nano models."""

import json
import runpy
import shutil

import pytest
import torch

from acestep_graph import headless
from acestep_graph.acestep_core import audio
from acestep_graph.acestep_core.checkpoints import bundled, catalog
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lora.adapter import low_rank
from acestep_graph.acestep_core.lora.writing import write_file
from acestep_graph.headless import cli
from acestep_graph.headless.declared import node_table, saved_widgets
from acestep_graph.headless.execute import Cache
from nano.sizes import NANO
from tests import tiny
from tests.pack import ROOT

FILES = sorted((ROOT / "workflows").glob("*.json"))
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


WITH_NANO = pytest.mark.skipif(not bundled.names("lm"), reason="the nano weights were left out")


@pytest.fixture(scope="session", params=["tiny", pytest.param("nano", marks=WITH_NANO)])
def model_folder(request, tmp_path_factory):
    """The tiny models; or no models, where the nano ones that come with the project play."""
    folder = tmp_path_factory.mktemp("models")
    if request.param == "tiny":
        tiny.build(folder)
    return folder


@pytest.fixture
def tiny_models(model_folder):
    if not any(model_folder.iterdir()):
        pytest.skip("needs models of which one can be taken away")
    return model_folder


def test_the_files_are_what_the_builder_makes():
    built = runpy.run_path(str(ROOT / "tools" / "build_workflows.py"), run_name="builder")["build"]()
    assert {name: (ROOT / "workflows" / name).read_text("utf-8") for name in built} == built
    assert {file.name for file in FILES} == set(built)


@each_file
def test_every_widget_value_and_link_is_there(file):
    workflow = json.loads(file.read_text("utf-8"))
    table = node_table()
    for node in workflow["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        assert len(node["widgets_values"]) == len(saved_widgets(table[node["type"]])), node["title"]
    ids = {node["id"] for node in workflow["nodes"]}
    assert all(link[1] in ids and link[3] in ids for link in workflow["links"])
    assert len({node["title"] for node in workflow["nodes"]}) == len(workflow["nodes"])


@each_file
def test_it_has_a_note_groups_and_models_to_download(file):
    workflow = json.loads(file.read_text("utf-8"))
    kinds = [node["type"] for node in workflow["nodes"]]
    assert "MarkdownNote" in kinds and workflow["groups"]
    models = [m for node in workflow["nodes"] for m in node["properties"].get("models", ())]
    assert models and all(m["url"].startswith("https://huggingface.co/") and m["directory"] for m in models)


SHORT = {
    "custom": ["Song.duration=10"],
    "simple": ["Change what you like.duration=10"],
    "think": ["Song.duration=10"],
    "best-of": ["Song.duration=10"],
    "lora": ["Song.duration=10"],
}
"""Settings that keep pieces short whose length is otherwise open."""

SECONDS = {**dict.fromkeys(SHORT, 10), "extend": 24}
"""Length of the music where it is not the example recording's twelve seconds."""

FILES_MADE = {"custom": 2, "simple": 2, "think": 2, "lora": 2, "remix": 2, "lego": 2, "all-stems": 12}
WITHOUT_SOUND = ("transcribe", "train-lora", "use-lora")
"""Those whose runs have tests of their own."""
with_sound = pytest.mark.parametrize(
    "file", [file for file in FILES if file.stem not in WITHOUT_SOUND], ids=lambda file: file.stem
)


@with_sound
def test_it_runs_without_comfyui(file, model_folder, tmp_path):
    host = Host(models=model_folder, output=tmp_path, device="cpu")
    headless.run(file, host, settings=[*SHORT.get(file.stem, ()), "Sampler.steps=2"])
    made = sorted(path for path in tmp_path.rglob("*") if path.suffix in (".mp3", ".flac"))
    assert len(made) == FILES_MADE.get(file.stem, 1)
    seconds = SECONDS.get(file.stem, 12)
    for path in made:
        sound, rate = audio.read(path)
        assert rate == 48000 and sound.shape[0] == 2 and abs(sound.shape[1] - seconds * rate) < 5000
        assert sound.abs().max() > 0.01 and torch.isfinite(sound).all()
    tags = audio.read_tags(made[0])
    assert json.loads(tags["workflow"])["nodes"] and json.loads(tags["prompt"])
    settings = min(tmp_path.rglob("*.json"), key=lambda path: path.stem)
    record = json.loads(settings.read_text("utf-8"))
    assert 42 in record["seeds"] and record["seed"] in record["seeds"]
    sound = next(path for path in made if path.stem == settings.stem)
    assert json.loads(audio.read_tags(sound)["acestep"])["key"] == record["key"]


def test_transcribe_describes_a_recording(model_folder, tmp_path):
    host = Host(models=model_folder, output=tmp_path, device="cpu")
    made = headless.run(ROOT / "workflows" / "transcribe.json", host)
    (text,) = [text for done in made.done for text in done.ui.get("text", ())]
    for field in ("caption: ", "bpm: ", "key: ", "time signature: ", "duration: ", "language: ", "tokens/s"):
        assert field in text


TRAINED = (
    *("Training settings.epochs=2", "Training settings.rank=4", "Training settings.learning_rate=0.01"),
    *("Train LoRA.samples_every=1", "What samples play.duration=10"),
)


def test_a_lora_is_trained_and_then_used(model_folder, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(model_folder, models)
    host, cache = Host(models=models, output=tmp_path / "out", device="cpu"), Cache()
    made = headless.run(ROOT / "workflows" / "train-lora.json", host, settings=TRAINED, cache=cache)
    room = host.output / "acestep"
    assert (room / "datasets" / "examples.json").is_file() and (models / "loras" / "my-lora.safetensors").is_file()
    samples = {path.name for path in (room / "runs" / "my-lora" / "samples").iterdir()}
    assert samples == {"epoch_1.flac", "epoch_2.flac"}
    texts = [text for done in made.done for text in done.ui.get("text", ())]
    assert any("16 steps: 2 epochs of 8" in text for text in texts) and any("step 16 of 16" in text for text in texts)
    assert any(path.suffix == ".png" for path in host.temp.rglob("*"))
    again = headless.run(ROOT / "workflows" / "train-lora.json", host, settings=TRAINED, cache=cache)
    assert all(done.cached for done in again.done)

    wanted = ["Song.duration=10", "Sampler (with).steps=2", "Sampler (without).steps=2"]
    headless.run(ROOT / "workflows" / "use-lora.json", host, settings=wanted)
    files = (next(host.output.rglob(f"ACE-Step-{name}_*.mp3")) for name in ("with", "without"))
    with_it, without = (audio.read(file)[0] for file in files)
    assert with_it.shape == without.shape and float((with_it - without).abs().max()) > 0.01
    none = Host(models=models, output=tmp_path / "other", device="cpu")
    with pytest.raises(Exception, match="no run 'my-lora'"):
        headless.run(ROOT / "workflows" / "use-lora.json", none, settings=wanted)


NEEDS_PLANNER = ("simple", "think", "best-of", "transcribe", "train-lora")


def test_without_a_planner_only_its_workflows_stop_and_say_what_to_download(tiny_models, tmp_path):
    lean = tmp_path / "models"
    shutil.copytree(tiny_models, lean, ignore=shutil.ignore_patterns("qwen_1.7b*"))
    host = Host(models=lean, output=tmp_path / "out", device="cpu")
    for file in FILES:
        if file.stem in NEEDS_PLANNER:  # train-lora asks it for captions
            with pytest.raises(Exception, match="acestep-graph download acestep-5Hz-lm-1.7B"):
                headless.run(file, host)
    headless.run(ROOT / "workflows" / "custom.json", host, settings=[*SHORT["custom"], "Sampler.steps=1"])
    assert list((tmp_path / "out").rglob("*.mp3"))


def renamed(tiny_models, folder, old, new):
    """The tiny models in ``folder``, with one file under another name."""
    shutil.copytree(tiny_models, folder)
    (file,) = folder.rglob(old)
    file.rename(file.with_name(new))
    return folder


@pytest.mark.parametrize("name", NEEDS_PLANNER)
def test_any_planner_plans(tiny_models, tmp_path, capsys, name):
    models = renamed(tiny_models, tmp_path / "models", "qwen_1.7b*", "acestep-5Hz-lm-0.6B.safetensors")
    assert cli.main(["check", name, "--models", str(models)]) == 0, capsys.readouterr()
    host = Host(models=models, device="cpu")
    found = catalog.resolve(host, "lm", "qwen_1.7b_ace15.safetensors")
    assert "acestep-5Hz-lm-0.6B.safetensors plans instead" in found.note


def test_the_demo_plays_the_model_that_there_is(tiny_models, tmp_path, monkeypatch):
    played = []
    monkeypatch.setattr(cli, "_run", lambda options: played.append((options.workflow, options.set)) or 0)
    models = renamed(tiny_models, tmp_path / "models", "acestep_v1.5_turbo*", "acestep_v1.5_sft.safetensors")
    for file in models.rglob("*v1.5_*"):
        file.unlink() if "sft" not in file.name else None
    for folder in (tiny_models, models):
        assert cli.main(["demo", "--models", str(folder)]) == 0
    (plain, nothing), (workflow, changes) = played
    assert plain == workflow and plain.endswith("simple.json") and nothing == []
    check = ["check", workflow, "--models", str(models)]
    assert cli.main(check) != 0
    assert cli.main([*check, *(part for change in changes for part in ("--set", change))]) == 0


def test_a_new_sampler_seed_does_not_ask_the_planner_again(model_folder, tmp_path):
    host, cache = Host(models=model_folder, output=tmp_path, device="cpu"), Cache()
    for seed in (1, 2):
        wanted = [*SHORT["simple"], "Sampler.steps=1", f"Sampler.seed={seed}"]
        made = headless.run(ROOT / "workflows" / "simple.json", host, settings=wanted, cache=cache)
        cached = {done.node.title: done.cached for done in made.done}
        asked_again = {title for title in ("Create Sample", "Think", "Text to music") if not cached.get(title, True)}
        assert asked_again == ({"Create Sample", "Think", "Text to music"} if seed == 1 else set())
        assert not cached["Sampler"]


def test_repaint_leaves_the_rest_of_the_file_as_it_was(model_folder, tmp_path):
    host = Host(models=model_folder, output=tmp_path, device="cpu")
    headless.run(ROOT / "workflows" / "repaint.json", host, settings=["Sampler.steps=2"])
    ours, _ = audio.read(next(tmp_path.rglob("*.flac")))
    theirs, _ = audio.read(ROOT / "assets" / "example-mix.flac")
    fade = 4800
    assert ours.shape == theirs.shape
    assert torch.equal(ours[:, : 4 * 48000 - fade], theirs[:, : 4 * 48000 - fade])
    assert torch.equal(ours[:, 8 * 48000 + fade :], theirs[:, 8 * 48000 + fade :])
    assert not torch.equal(ours[:, 4 * 48000 : 8 * 48000], theirs[:, 4 * 48000 : 8 * 48000])


HOSTILE = {
    "mono": lambda t: (torch.sin(t / 9)[None], 48000),
    "eight channels": lambda t: (torch.sin(t / 9)[None].repeat(8, 1), 48000),
    "22.05 kHz": lambda t: (torch.sin(t / 9)[None], 22050),
    "96 kHz": lambda t: (torch.sin(t / 9)[None], 96000),
    "silence": lambda t: (torch.zeros(2, len(t)), 48000),
    "clipped": lambda t: ((9 * torch.sin(t / 9)).clamp(-1, 1)[None], 48000),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("name", ("remix", "repaint", "extract"))
def test_any_recording_gives_music(kind, name, model_folder, tmp_path):
    import soundfile

    wave, rate = HOSTILE[kind](torch.arange(9 * 48000, dtype=torch.float32)[: 9 * 22050])
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "own.wav", wave.T.numpy(), rate)
    workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text("utf-8"))
    example = next(node for node in workflow["nodes"] if node["type"] == "ACEStepExampleAudio")
    example.update(type="LoadAudio", widgets_values=["own.wav", None, ""])
    host = Host(models=model_folder, input=tmp_path / "in", output=tmp_path / "out", device="cpu")
    regions = ["Repaint.start=0.5", "Repaint.end=1.5"] if name == "repaint" else []
    headless.run(workflow, host, settings=["Sampler.steps=1", *regions])
    made = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".mp3", ".flac")]
    assert made and torch.isfinite(audio.read(made[0])[0]).all()


def test_a_text_file_named_wav_is_answered(model_folder, tmp_path):
    (tmp_path / "own.wav").write_text("these are words")
    workflow = json.loads((ROOT / "workflows" / "remix.json").read_text("utf-8"))
    example = next(node for node in workflow["nodes"] if node["type"] == "ACEStepExampleAudio")
    example.update(type="LoadAudio", widgets_values=["own.wav", None, ""])
    host = Host(models=model_folder, input=tmp_path, output=tmp_path / "out", device="cpu")
    with pytest.raises(Exception, match="own.wav"):
        headless.run(workflow, host)


def test_the_same_file_gives_the_same_sound_twice(model_folder, tmp_path):
    sounds = []
    for run in ("a", "b"):
        host = Host(models=model_folder, output=tmp_path / run, device="cpu")
        wanted = ["Song.duration=10", "Save and play.format=flac", "Sampler.steps=2"]
        headless.run(ROOT / "workflows" / "custom.json", host, settings=wanted)
        sounds.append(audio.read(next((tmp_path / run).rglob("*.flac")))[0])
    assert torch.equal(*sounds)


def test_a_lora_changes_the_music_and_leaves_no_trace(model_folder, tmp_path):
    """With it another piece; at strength 0, switched off, or without any, the same piece bit for bit."""
    models = tmp_path / "models"
    shutil.copytree(model_folder, models)
    config = tiny.DIT if any(model_folder.iterdir()) else NANO.dit
    width, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    draw = torch.Generator().manual_seed(1)
    pair = (torch.randn(heads, 4, generator=draw), torch.randn(4, width, generator=draw))
    names = [f"layers.{layer}.self_attn.q_proj" for layer in range(config.num_hidden_layers)]
    adapter = low_rank("style", dict.fromkeys(names, pair), width, alpha=4.0)
    (models / "loras").mkdir()
    write_file(adapter, models / "loras" / "style.safetensors")
    sounds, cache = {}, Cache()
    for name, settings in {
        "none": [],
        "full": ["Load LoRA.lora=style.safetensors"],
        "zero": ["Load LoRA.lora=style.safetensors", "Load LoRA.strength=0"],
        "off": ["Load LoRA.lora=style.safetensors", "Load LoRA.enabled=false"],
    }.items():
        host = Host(models=models, output=tmp_path / name, device="cpu")
        wanted = [*SHORT["lora"], "Sampler.steps=2", "Text to music.batch_size=1", "Save and play.format=flac"]
        headless.run(ROOT / "workflows" / "lora.json", host, settings=[*wanted, *settings], cache=cache)
        sounds[name] = audio.read(next((tmp_path / name).rglob("*.flac")))[0]
        record = json.loads(next((tmp_path / name).rglob("*.json")).read_text("utf-8"))
        assert record["use_lora"] == (name == "full")
    assert torch.equal(sounds["none"], sounds["zero"]) and torch.equal(sounds["none"], sounds["off"])
    assert (sounds["none"] - sounds["full"]).abs().max() > 0.01
