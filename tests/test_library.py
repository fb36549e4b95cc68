"""Saved results found and opened again, ours and the original's, friendly and hostile."""

import json
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core import audio, judging, keeping, library, saved_files, sidecar
from acestep_graph.acestep_core.host import Host, use
from acestep_graph.acestep_core.restoring import restore
from acestep_graph.acestep_core.sampling.settings import SamplerSettings
from acestep_graph.nodes import routes
from acestep_graph.nodes.restoring import widgets_of
from tests import results


def host_of(folder):
    for name in ("out", "in"):
        (folder / name).mkdir(exist_ok=True)
    return Host(output=folder / "out", input=folder / "in", device="cpu")


def saved(host, prefix="audio/song", prompt=None, latents=False):
    made = judging.time_lyrics(results.made(), results.named_heads())
    more = {"lm_temperature": 0.5}
    return keeping.keep(
        host, made, results.sound_of(made), prefix, keeping.Finish(), prompt=prompt, latents=latents, more=more
    )


def test_a_saved_result_comes_back_whole(tmp_path):
    host = host_of(tmp_path)
    card = saved(host, latents=True)[1]
    kept = library.load(host, card["sidecar"])
    made = results.made()
    assert kept.song == results.SONG and kept.seed == made.made.seeds[1] and not kept.codes
    sampler, guidance, steps, scale, shift = kept.sampler()
    assert sampler == made.made.settings and (steps, scale, shift) == (8, 1.0, 3.0) and guidance["momentum"] == -0.75
    assert torch.equal(kept.latent()["samples"][0].T, made.made.latents[1])
    assert kept.audio()["waveform"].shape == (1, 2, 480000) and kept.audio()["acestep"]["seed"] == kept.seed
    assert "caption: calm piano" in kept.text() and f"seed: {kept.seed}" in kept.text()
    assert library.load(host, card["file"]["subfolder"] + "/" + card["file"]["filename"]).record == kept.record


def test_a_lone_sound_tells_what_it_was_made_from(tmp_path):
    host = host_of(tmp_path)
    card = saved(host)[0]
    os.replace(tmp_path / "out/audio" / card["file"]["filename"], tmp_path / "in/friend.flac")
    kept = library.load(host, "friend.flac [input]")
    assert kept.song == results.SONG and kept.seed == 7 and kept.latent() is None


def test_any_other_sound_is_just_a_sound(tmp_path):
    host = host_of(tmp_path)
    audio.write(tmp_path / "in" / "any.wav", torch.rand(1, 4800), 48000)
    kept = library.load(host, "any.wav [input]")
    assert kept.song.caption == "" and kept.seed is None and kept.audio()["waveform"].shape == (1, 1, 4800)


def test_settings_without_a_sound_say_so(tmp_path):
    host = host_of(tmp_path)
    (tmp_path / "in" / "a.json").write_text(json.dumps({"caption": "x", "seed": 3}))
    kept = library.load(host, "a.json [input]")
    assert kept.audio() is None and "no sound" in host.notes[-1]


OLD = {
    "task_type": "text2music",
    "caption": "warm jazz",
    "lyrics": "[Instrumental]",
    "vocal_language": "unknown",
    "bpm": 90,
    "keyscale": "F# minor",
    "timesignature": "4",
    "duration": 62.0,
    "inference_steps": 8,
    "seed": 1234,
    "guidance_scale": 7.0,
    "use_adg": True,
    "cfg_interval_start": 0.1,
    "cfg_interval_end": 0.9,
    "shift": 3.0,
    "infer_method": "sde",
    "timesteps": "0.97,0.76,0.5,0",
    "audio_codes": "<|audio_code_5|><|audio_code_6|>",
    "thinking": True,
    "lm_temperature": 0.85,
    "lm_cfg_scale": 2.0,
    "use_cot_metas": True,
    "repainting_start": 0.0,
    "repainting_end": -1,
    "audio_cover_strength": 1.0,
}
NEW = {
    **OLD,
    "instrumental": False,
    "lyrics": "[Verse]\nla",
    "vocal_language": "fr",
    "sampler_mode": "heun",
    "dcw_enabled": True,
    "dcw_mode": "high",
    "dcw_scaler": 0.1,
    "retake_seed": "17",
    "retake_variance": 0.2,
    "enable_normalization": True,
    "normalization_db": -2.0,
    "fade_in_duration": 1.5,
    "timesteps": None,
    "use_adg": False,
    "seed": "55,66",
}


def test_the_originals_old_file():
    found = restore(OLD)
    assert found.song.instrumental and found.song.key == "F# minor" and found.song.bpm == 90
    assert found.song.duration == 62 and found.seed == 1234 and found.codes.items == ((5, 6),) and not found.notes
    s = found.sampler
    assert (s.guidance, s.method, s.timesteps) == ("adg", "sde", (0.97, 0.76, 0.5, 0.0))
    assert (s.cfg_interval_start, s.cfg_interval_end, s.steps) == (0.1, 0.9, 8)
    nodes = {node["type"]: node["values"] for node in widgets_of(found)}
    assert nodes["ACEStepSong"]["caption"] == "warm jazz" and nodes["ACEStepSampler"]["seed"] == 1234
    assert nodes["ACEStepThink"] == {"temperature": 0.85, "cfg_scale": 2.0, "metas": True}
    assert nodes["ACEStepText2Music"] == {"codes_strength": 1.0}
    assert nodes["ACEStepSamplerSettings"]["timesteps"] == "0.97, 0.76, 0.5, 0"


def test_the_originals_new_file():
    found = restore(NEW)
    s = found.sampler
    assert (s.solver, s.correction, s.scaler, s.retake_seed, s.retake_variance) == ("heun", "high", 0.1, 17, 0.2)
    assert found.song.language == "fr" and found.song.lyrics == "[Verse]\nla" and found.seed == 55
    nodes = {node["type"]: node["values"] for node in widgets_of(found)}
    assert nodes["ACEStepSaveResult"] == {"normalize": True, "peak_db": -2.0, "fade_in": 1.5}


@pytest.mark.parametrize(
    "task, fields, node, values",
    (
        ("cover", {"audio_cover_strength": 0.4}, "ACEStepRemix", {"strength": 0.4, "quantizer": True}),
        ("cover-nofsq", {"cover_noise_strength": 0.2}, "ACEStepRemix", {"noise_strength": 0.2, "quantizer": False}),
        ("repaint", {"repainting_start": 1, "repaint_mode": "x"}, "ACEStepRepaint", {"start": 1.0, "mode": "x"}),
        (
            "lego",
            {"track_name": "drums", "chunk_mask_mode": "auto", "global_caption": "pop"},
            "ACEStepLego",
            {"track": "drums", "mask_mode": "auto", "global_caption": "pop"},
        ),
        ("extract", {"track_name": "vocals"}, "ACEStepExtract", {"track": "vocals"}),
        ("complete", {"complete_track_classes": ["bass"]}, "ACEStepComplete", {"bass": True}),
        (
            "text2music",
            {"flow_edit_morph": True, "flow_edit_n_min": 0.6, "flow_edit_n_avg": 3},
            "ACEStepFlowEdit",
            {"start": 0.6, "draws": 3, "hears": "words"},
        ),
        ("cover", {"flow_edit_morph": True}, "ACEStepFlowEdit", {"hears": "structure"}),
    ),
)
def test_every_task_finds_its_node(task, fields, node, values):
    nodes = {n["type"]: n["values"] for n in widgets_of(restore({"caption": "x", "task_type": task, **fields}))}
    assert nodes[node] == values


def test_both_songs_of_an_edit_come_back_the_source_first():
    words = {"flow_edit_source_caption": "soft", "flow_edit_source_lyrics": "rain", "flow_edit_source_language": "en"}
    record = {"caption": "loud", "lyrics": "sun", "vocal_language": "fr", "flow_edit_morph": True, **words}
    was, song = (n["values"] for n in widgets_of(restore(record)) if n["type"] == "ACEStepSong")
    assert (was["caption"], was["lyrics"], was["language"], was["instrumental"]) == ("soft", "rain", "en", False)
    assert (song["caption"], song["lyrics"], song["language"]) == ("loud", "sun", "fr")
    silent = restore({**record, "flow_edit_source_lyrics": "[Instrumental]"})
    assert widgets_of(silent)[0]["values"]["instrumental"] and not widgets_of(silent)[0]["values"]["lyrics"]


def test_an_edit_that_was_off_is_not_spoken_of():
    found = restore({"caption": "x", "flow_edit_morph": False, "flow_edit_n_min": 0.6, "flow_edit_source_caption": "y"})
    assert not found.options and "flow_edit" not in found.text()


def test_widgets_named_here_exist():
    """Whatever file comes back, it writes only to widgets that the nodes have."""
    from acestep_graph.nodes import NODES

    full = {**NEW, "track_name": "drums", "complete_track_classes": ["bass"], "repaint_mode": "balanced"}
    full |= {"chunk_mask_mode": "auto", "global_caption": "pop"}
    tasks = [{"task_type": task} for task in ("text2music", "cover", "repaint", "lego", "extract", "complete")]
    edit = {"flow_edit_morph": True, "flow_edit_n_min": 0.1, "flow_edit_n_max": 0.9, "flow_edit_n_avg": 2}
    for task in (*tasks, {"task_type": "cover", **edit}):
        for node in widgets_of(restore({**full, **task})):
            declared = NODES[node["type"]][0].INPUT_TYPES()
            assert set(node["values"]) <= {*declared["required"], *declared.get("optional", {})}, node["type"]


def test_the_run_itself_comes_first_and_drawn_seeds_are_resolved(tmp_path):
    host = host_of(tmp_path)
    given = {"seed": 7, "more_seeds": "-1", "model": ["1", 0]}
    prompt = {
        "3": {"class_type": "ACEStepSampler", "inputs": given, "_meta": {"title": "S"}},
        "9": {"class_type": "LoadAudio", "inputs": {"audio": "a.wav"}},
    }
    card = saved(host, prompt=prompt)[0]
    nodes = widgets_of(library.load(host, card["sidecar"]).restored)
    other = str(results.made().made.seeds[1])
    assert nodes[0] == {"id": "3", "type": "ACEStepSampler", "title": "S", "values": {"seed": 7, "more_seeds": other}}
    assert nodes[1]["values"] == {"audio": "a.wav"}


# -- hostile files


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
MORE = (
    "seeds scores lines peaks prompt workflow item batch models time_costs notes lrc vtt seconds guidance_variant "
    "noise_source score_report"
)
KNOWN = sorted({*NEW, *MORE.split()})


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(KNOWN), JSON))
def test_wrong_types_become_nothing(record):
    found = restore(record)
    assert isinstance(found.sampler, SamplerSettings) and isinstance(found.text(), str)
    widgets_of(found)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(st.sampled_from(KNOWN), JSON))
def test_the_panel_gets_values_of_the_right_types(tmp_path_factory, record):
    folder = tmp_path_factory.mktemp("hostile")
    host = host_of(folder)
    (folder / "out" / "a.flac").write_bytes(b"x")
    (folder / "out" / "a.json").write_text(json.dumps({"caption": 3, **record}))
    answer = json.loads(json.dumps(library.batches(host), allow_nan=False))
    (batch,) = answer["batches"]
    (card,) = batch["items"]
    assert isinstance(card["title"], str) and isinstance(card["seconds"], (int, float)) and len(card["peaks"]) <= 400
    assert card["seed"] is None or card["seed"] >= 0
    with use(host):
        status, text = routes.answer(routes.result, {"file": "a.json"})
    detail = json.loads(text)
    assert status == 200 and isinstance(detail["codes"], str) and isinstance(detail["nodes"], list)
    latest = 0
    for line in detail["card"]["lines"]:
        assert latest <= line["start"] <= line["end"] and isinstance(line["text"], str)
        latest = line["start"]


def test_names_stay_inside_the_folders(tmp_path):
    host = host_of(tmp_path)
    (tmp_path / "secret.json").write_text('{"caption": "x"}')
    (tmp_path / "out" / "notes.txt").write_text("x")
    inside = tmp_path / "out" / "sub"
    inside.mkdir()
    for name in (
        *("../secret.json", str(tmp_path / "secret.json"), "sub/../../secret.json", "../secret.json [input]"),
        *("notes.txt", "sub", "", "a\0.json", "..", "sub/..", "~/x.json"),
    ):
        assert saved_files.find(host, name) is None
        with pytest.raises(FileNotFoundError):
            library.load(host, name)
        with use(host):
            for make in (routes.result, routes.workflow):
                assert routes.answer(make, {"file": name})[0] in (400, 404)


@pytest.mark.parametrize(
    "field",
    (
        '"peaks": [1e999, -1e999, 50, NaN, 1' + 400 * "0" + "]",
        '"item": 1' + 400 * "0",
        '"audio_codes": "<|audio_code_"',
        '"bpm": 1' + 400 * "0",
        '"duration": 1' + 400 * "0",
        '"inference_steps": 1' + 400 * "0",
        '"retake_seed": 1' + 400 * "0",
        '"prompt": {"1": {"class_type": "x", "inputs": {"a": NaN, "b": 1e999}}}',
        '"workflow": {"nodes": [NaN]}',
    ),
)
def test_one_bad_field_hides_nothing(tmp_path, field):
    host = host_of(tmp_path)
    saved(host, "good")
    (tmp_path / "out" / "bad.flac").write_bytes(b"x")
    (tmp_path / "out" / "bad.json").write_text(f'{{"caption": "x", {field}}}')
    answer = json.loads(json.dumps(library.batches(host), allow_nan=False))
    assert sum(len(batch["items"]) for batch in answer["batches"]) == 3 and not answer["skipped"]
    assert library.load(host, "bad.json").restored.song.caption == "x"
    with use(host):
        assert routes.answer(routes.result, {"file": "bad.json"})[0] == 200


@pytest.mark.parametrize(
    "field, value",
    (
        ("guidance_scale", "abc"),
        ("inference_steps", 8.9),
        ("shift", []),
        ("dcw_mode", "strange"),
        ("dcw_wavelet", "db4"),
        ("use_adg", "true"),
        ("audio_codes", "<|audio_code_"),
    ),
)
def test_what_cannot_be_taken_over_is_said(field, value):
    record = {"caption": "x", "dcw_enabled": True, field: value}
    assert len(restore(record).notes) == 1 + len(restore({"caption": "x", "dcw_enabled": True}).notes)


def test_what_the_original_writes_of_its_file_comes_back():
    nodes = {n["type"]: n["values"] for n in widgets_of(restore({"caption": "x", "mp3_bitrate": "192k"}))}
    assert nodes["ACEStepSaveResult"]["quality"] == "192k"
    nodes = {n["type"]: n["values"] for n in widgets_of(restore({"caption": "x", "timesteps": [0.97654321, 0.5, 0]}))}
    assert nodes["ACEStepSamplerSettings"]["timesteps"] == "0.97654321, 0.5, 0"


@pytest.mark.parametrize("sound, settings_file", (("Song.FLAC", "Song.json"), ("Song.flac", "Song.JSON")))
def test_endings_in_capitals_are_found(tmp_path, sound, settings_file):
    host = host_of(tmp_path)
    (tmp_path / "out" / sound).write_bytes(b"x")
    (tmp_path / "out" / settings_file).write_text('{"caption": "x"}')
    assert saved_files.names(host) == [settings_file]
    assert saved_files.sound_of(tmp_path / "out" / settings_file).name == sound
    (batch,) = library.batches(host)["batches"]
    assert batch["items"][0]["file"]["filename"] == sound


def test_an_unforeseen_error_is_answered_as_one():
    status, text = routes.answer(lambda _: 1 // 0, {})
    assert status == 500 and "ZeroDivisionError" in json.loads(text)["error"]


def test_a_huge_or_broken_file_is_left_out_with_a_reason(tmp_path):
    host = host_of(tmp_path)
    card = saved(host, "good")[0]
    bad = {
        "huge": b'{"caption": "' + b"x" * (sidecar.LARGEST_BYTES + 10) + b'"}',
        "deep": b"[" * 200_000,
        "text": b"no json",
        "bytes": b"\xff\xfe\x00",
        "other": b'{"prompt": {}}',
        "list": b"[1, 2]",
    }
    for name, content in bad.items():
        (tmp_path / "out" / f"{name}.json").write_bytes(content)
        (tmp_path / "out" / f"{name}.flac").write_bytes(b"x")
    answer = library.batches(host)
    assert [len(batch["items"]) for batch in answer["batches"]] == [2]
    assert {entry["file"] for entry in answer["skipped"]} == {f"{name}.json" for name in bad}
    assert "16 MB" in next(e["reason"] for e in answer["skipped"] if e["file"] == "huge.json")
    with use(host):
        for name in bad:
            status, text = routes.answer(routes.result, {"file": f"{name}.json"})
            assert status == 400 and name in json.loads(text)["error"]
        assert routes.answer(routes.result, {"file": card["sidecar"]})[0] == 200


def test_html_stays_text(tmp_path):
    host = host_of(tmp_path)
    name = "<img src=x onerror=alert(1)>"
    (tmp_path / "out" / f"{name}.flac").write_bytes(b"x")
    (tmp_path / "out" / f"{name}.json").write_text(json.dumps({"caption": "<script>1</script>"}))
    (batch,) = library.batches(host)["batches"]
    assert batch["items"][0]["title"] == "<script>1</script>" and batch["items"][0]["sidecar"] == f"{name}.json"


# -- listing


def test_batches_come_newest_first_and_page_by_page(tmp_path):
    host, ids = host_of(tmp_path), []
    for number in range(5):
        cards = saved(host, f"b{number}/x")
        ids.insert(0, cards[0]["batch"])
        for path in (tmp_path / "out" / f"b{number}").iterdir():
            os.utime(path, (1000 + number, 1000 + number))
    first = library.batches(host, limit=2)
    assert [batch["id"] for batch in first["batches"]] == ids[:2] and first["more"]
    second = library.batches(host, limit=3, before=ids[1])
    assert [batch["id"] for batch in second["batches"]] == ids[2:] and not second["more"]
    assert library.batches(host, before="unknown")["batches"] == []
    (batch, *_) = first["batches"]
    assert [card["item"] for card in batch["items"]] == [0, 1] and batch["items"][0]["timed"]
    assert batch["title"] == "calm piano" and batch["items"][0]["lines"] == []
    assert saved_files.names(host)[0].startswith("b4/")


@pytest.fixture
def used(tmp_path):
    with use(host_of(tmp_path)) as host:
        yield host


def test_routes_answer_with_sentences(used):
    host = used
    for limit in ("0", "x", "9999", "-1", "1.5"):
        status, text = routes.answer(routes.results, {"limit": limit})
        assert status == 400 and "whole number" in json.loads(text)["error"]
    assert json.loads(routes.answer(routes.results, {})[1]) == {"batches": [], "more": False, "skipped": []}
    assert routes.answer(routes.result, {})[0] == 400
    cards = saved(host, prompt={"1": {"class_type": "X", "inputs": {}}})
    status, text = routes.answer(routes.result, {"file": cards[0]["sidecar"]})
    detail = json.loads(text)
    assert status == 200 and {f["label"] for f in detail["files"]} == {"audio", "settings", "lrc", "vtt"}
    assert detail["lrc"] and detail["times"]["auto_lrc_time"] >= 0 and detail["models"][0]["fingerprint"]
    assert not detail["has_workflow"] and routes.answer(routes.workflow, {"file": cards[0]["sidecar"]})[0] == 404
    examples = json.loads(routes.answer(routes.examples, {})[1])
    assert len(examples["descriptions"]) > 50 and examples["songs"][0]["caption"]
