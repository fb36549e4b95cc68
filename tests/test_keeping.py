"""Saving a result: the sound in its form, and everything beside it."""

import json
from dataclasses import replace

import pytest
import torch

from acestep_graph.acestep_core import audio, judging, keeping, sidecar
from acestep_graph.acestep_core.checkpoints.header import safetensors_header
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lm.score import PlannerScore
from acestep_graph.acestep_core.result import Score, source_of
from acestep_graph.acestep_core.sampling.conditioning import Splice
from acestep_graph.acestep_core.song import edited
from acestep_graph.acestep_core.tasks.codes import Codes
from tests import models, results

GIVEN = {"class_type": "ACEStepSong", "inputs": {"caption": "calm piano"}, "_meta": {"title": "Song"}}
PROMPT = {"1": {**GIVEN, "is_changed": [""]}}
EXTRA = {"workflow": {"nodes": [{"id": 1}]}}


def judged():
    timed = judging.time_lyrics(results.made(), results.named_heads())
    score = Score(planner=PlannerScore(0.7, 0.8, None, {"bpm": 0.5}))
    record = {**timed.record, "audio_codes": Codes(((1, 2), (3, 4))).text()}
    return replace(timed, scores=(score, None), record=record)


def test_everything_lies_beside_the_sound(tmp_path):
    host, finish = Host(output=tmp_path), keeping.Finish("flac", "320k", -1.0, 0.5, 1.0)
    made = judged()
    cards = keeping.keep(host, made, results.sound_of(made), "x/song", finish, latents=True, prompt=PROMPT, extra=EXTRA)
    names = sorted(path.name for path in (tmp_path / "x").iterdir())
    endings = (".flac", ".json", ".latents.safetensors", ".lrc", ".vtt")
    assert names == sorted(f"song_0000{n}_{ending}" for n in (1, 2) for ending in endings)
    records = [sidecar.read(tmp_path / card["sidecar"]) for card in cards]
    first, second = records
    assert first["seed"] == 7 and [r["seed"] for r in records] == first["seeds"]
    assert first["batch"] == second["batch"] and first["key"] != second["key"]
    assert first["scores"] == {"total": 0.7, "planner": 0.7, "lyrics": None}
    assert second["scores"] == {"total": None, "planner": None, "lyrics": None}
    assert first["audio_codes"] == "<|audio_code_1|><|audio_code_2|>" and "code_3" in second["audio_codes"]
    assert first["lrc"] == (tmp_path / "x/song_00001_.lrc").read_text("utf-8").rstrip("\n")
    assert [line["text"] for line in first["lines"]][2] == "星が歌う"
    assert first["fade_out_duration"] == 1.0 and first["normalization_db"] == -1.0 and first["audio_format"] == "flac"
    assert first["prompt"]["1"] == GIVEN
    assert first["workflow"] == EXTRA["workflow"]
    assert len(first["peaks"]) == 400 and max(first["peaks"]) == 89
    components = {(entry["component"], entry["name"]) for entry in first["models"]}
    assert ("dit", "model.safetensors") in components and ("text", "model.safetensors") in components
    assert all(len(entry["fingerprint"]) == 64 and entry["bytes"] > 0 for entry in first["models"])
    for card, record in zip(cards, records, strict=True):
        assert card["file"]["filename"] == record["file"] and card["lines"] == record["lines"]
        assert card["title"] == "calm piano" and card["batch"] == record["batch"] and card["seconds"] == 10.0


def test_the_sound_is_levelled_faded_and_tagged(tmp_path):
    made = judged()
    finish = keeping.Finish("flac", "320k", -6.0, 1.0, 2.0)
    keeping.keep(Host(output=tmp_path), made, results.sound_of(made), "a", finish, prompt=PROMPT, extra=EXTRA)
    clip, rate = audio.read(tmp_path / "a_00001_.flac")
    assert clip.abs().max() == pytest.approx(10 ** (-6 / 20), abs=1e-3)
    assert clip[:, :480].abs().max() < 0.01 and clip[:, -480:].abs().max() < 0.01
    tags = audio.read_tags(tmp_path / "a_00001_.flac")
    assert json.loads(tags["workflow"]) == EXTRA["workflow"] and json.loads(tags["prompt"])["1"]
    assert tags["title"] == "calm piano" and "We walk along" in tags["lyrics"] and tags["bpm"] == "90"
    inside = json.loads(tags["acestep"])
    assert inside["seed"] == 7 and not {"time_costs", "lines", "peaks", "prompt"} & set(inside)


def test_the_same_result_gives_the_same_bytes(tmp_path):
    made, sounds = judged(), []
    for run in ("a", "b"):
        host = Host(output=tmp_path / run)
        keeping.keep(host, made, results.sound_of(made), "song", keeping.Finish("mp3"), prompt=PROMPT, extra=EXTRA)
        sounds.append((tmp_path / run / "song_00001_.mp3").read_bytes())
        made = replace(made, record={**made.record, "time_costs": {"other": 9.9}})
    assert sounds[0] == sounds[1]


def test_each_piece_keeps_its_own_length(tmp_path):
    """A batch is evened out with silence, which is not saved; a repaint is as long as its source."""
    made = results.made()
    shorter = replace(made, made=replace(made.made, frames=(250, 100)))
    keeping.keep(Host(output=tmp_path), shorter, results.sound_of(made), "b", keeping.Finish("wav"))
    assert [audio.read(tmp_path / f"b_0000{n}_.wav")[0].shape[1] for n in (1, 2)] == [480000, 192000]
    splice = Splice(torch.zeros(2, 479123), 0, 10, 0)
    items = tuple(replace(item, splice=splice) for item in made.conditioning.items)
    repainted = replace(made, conditioning=replace(made.conditioning, items=items))
    keeping.keep(Host(output=tmp_path), repainted, results.sound_of(made), "c", keeping.Finish("wav32"))
    assert audio.read(tmp_path / "c_00001_.wav")[0].shape[1] == 479123


@pytest.mark.parametrize(
    "format, ending", (("flac", "flac"), ("mp3", "mp3"), ("wav", "wav"), ("wav32", "wav"), ("opus", "opus"))
)
def test_every_format_keeps_its_settings(format, ending, tmp_path):
    made = results.made(1)
    (card,) = keeping.keep(
        Host(output=tmp_path), made, results.sound_of(made), "s", keeping.Finish(format, "192k"), prompt=PROMPT
    )
    assert card["file"] == {"filename": f"s_00001_.{ending}", "subfolder": "", "type": "output"}
    assert json.loads(audio.read_tags(tmp_path / card["file"]["filename"])["acestep"])["audio_format"] == format
    assert sidecar.read(tmp_path / card["sidecar"])["mp3_bitrate"] == ("192k" if format == "mp3" else None)


def test_a_sound_of_another_result_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has 2 items, the result has 1"):
        keeping.keep(Host(output=tmp_path), results.made(1), results.sound_of(results.made()), "s", keeping.Finish())
    six = {"waveform": torch.zeros(1, 6, 4800), "sample_rate": 48000}
    with pytest.raises(ValueError, match="6 channels"):
        keeping.keep(Host(output=tmp_path), results.made(1), six, "s", keeping.Finish())
    assert not list(tmp_path.rglob("*"))


def test_a_prefix_cannot_leave_the_output_folder(tmp_path):
    with pytest.raises(ValueError, match="outside the output folder"):
        made = results.made(1)
        keeping.keep(Host(output=tmp_path / "out"), made, results.sound_of(made), "../x", keeping.Finish())
    assert not list(tmp_path.rglob("*.json"))


def test_latents_beside_a_file_come_back_bit_for_bit(tmp_path):
    made = results.made()
    keeping.keep(Host(output=tmp_path), made, results.sound_of(made), "s", keeping.Finish(), latents=True)
    path = tmp_path / "s_00002_.latents.safetensors"
    again = keeping.load_latents(path)["samples"]
    assert torch.equal(again[0].T, made.made.latents[1])
    assert json.loads(safetensors_header(path)[1]["acestep"])["item"] == 1
    sound = {"waveform": torch.rand(1, 2, 250 * 1920), "sample_rate": 48000}
    assert torch.equal(source_of(models.small_vae(), sound, {"samples": again}).latents[0], made.made.latents[1])
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match="no latents"):
        keeping.load_latents(path)


def test_any_sound_can_be_saved_and_previewed(tmp_path):
    sound = {"waveform": torch.rand(3, 2, 4800) - 0.5, "sample_rate": 44100}
    host = Host(output=tmp_path)
    cards = keeping.save_sound(host, sound, "mix", keeping.Finish("mp3", "128k"), PROMPT, EXTRA)
    assert [card["file"]["filename"] for card in cards] == [f"mix_0000{n}_.mp3" for n in (1, 2, 3)]
    assert all(card["sidecar"] == "" and len(card["peaks"]) == 400 and card["lines"] == [] for card in cards)
    shown = keeping.preview(host, sound)
    assert shown[2]["file"]["type"] == "temp" and (host.temp / shown[2]["file"]["filename"]).is_file()


def test_peaks_follow_the_sound():
    clip = torch.cat((torch.zeros(2, 5000), torch.full((2, 5000), -0.5)), dim=1)
    peaks = keeping.peaks_of(clip, 10)
    assert peaks == [0] * 5 + [50] * 5 and keeping.peaks_of(torch.zeros(2, 0)) == []
    assert keeping.peaks_of(torch.full((1, 3), 7.0)) == [100, 100, 100]


def test_the_key_names_the_settings_and_nothing_else():
    made = results.made()
    record = sidecar.item_record(made, 0, {})
    later = replace(made, record={**made.record, "time_costs": {"x": 1.0}})
    assert sidecar.item_record(later, 0, {})["key"] == record["key"] != sidecar.item_record(made, 1, {})["key"]
    assert [len(part) for part in record["key"].split("-")] == [8, 4, 4, 4, 12]


def test_half_an_emoji_loses_nothing(tmp_path):
    song = edited(results.SONG, caption="soft \ud83d folk")
    keeping.keep(
        Host(output=tmp_path), results.made(1, 7, song), results.sound_of(results.made(1)), "x", keeping.Finish()
    )
    assert sidecar.read(tmp_path / "x_00001_.json")["caption"] == "soft ? folk"


class Closed(Host):
    """ComfyUI started with --disable-metadata."""

    shares_workflows = False


def test_where_workflows_are_not_shared_no_file_holds_one(tmp_path):
    host, made = Closed(output=tmp_path, temp=tmp_path), judged()
    sound = results.sound_of(made)
    keeping.keep(host, made, sound, "x", keeping.Finish("flac"), latents=True, prompt=PROMPT, extra=EXTRA)
    keeping.save_sound(host, sound, "y", keeping.Finish("flac"), PROMPT, EXTRA)
    keeping.preview(host, sound, PROMPT, EXTRA)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert b'"nodes"' not in content and b"class_type" not in content, path.name
        assert path.suffix in (".json", ".lrc", ".vtt") or b"calm piano" not in content, path.name


def test_a_failed_write_leaves_no_half_file(tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        sidecar.write(tmp_path / "a.json", {"caption": "x"})
    assert not list(tmp_path.iterdir())


def test_unwritable_numbers_are_never_written(tmp_path):
    with pytest.raises(ValueError):
        sidecar.write(tmp_path / "a.json", {"caption": "x", "shift": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_result_without_lyrics_writes_none(tmp_path):
    song = edited(results.SONG, instrumental=True)
    made = judging.time_lyrics(results.made(1, 7, song), results.named_heads(), host=Host())
    keeping.keep(Host(output=tmp_path), made, results.sound_of(made), "i", keeping.Finish())
    assert {path.suffix for path in tmp_path.iterdir()} == {".flac", ".json"}
