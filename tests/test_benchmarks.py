"""The benchmarks compare like with like: both sides give the same result. Nothing here is timed."""

import json
from unittest.mock import create_autospec

import pytest

pytest.importorskip("diffusers")

from acestep_graph.acestep_core.sampling.compiled import CompiledLayers  # noqa: E402
from benchmarks import __main__ as command  # noqa: E402
from benchmarks import dit, lm, load, lyrics, summary, techniques, train, vae  # noqa: E402
from benchmarks.side_by_side import Setting, table  # noqa: E402

QUICK = Setting(size="tiny", runs=1)


@pytest.fixture(scope="module")
def compiled_simply():
    """Compiled layers without a compiler: what is compared is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(techniques, "CompiledLayers", lambda host: CompiledLayers(host, "eager"))
        yield


@pytest.fixture(scope="module")
def measured(compiled_simply):
    """The rows of each subject, measured once for all tests."""
    return {
        dit: dit.rows(QUICK, [11]),
        vae: vae.rows(QUICK, [0.4, 20.6]),
        lyrics: lyrics.rows(QUICK, [8]),
        lm: lm.rows(QUICK, tokens=2, songs=(2,)),
        techniques: techniques.rows(QUICK, 11.0),
    }


def test_every_sampler_gives_the_same_latents(measured):
    rows = measured[dit]
    assert {row["against"] for row in rows} >= {"diffusers", "ours, dense mask", "ours, nothing kept between steps"}
    guided = [row["against"] for row in rows if row["what"] == "11 s, 4 guided steps"]
    assert guided == ["diffusers", "ours, guidance as two passes"]
    assert all(row["max difference"] <= 1e-4 for row in rows), table(rows)


def test_both_decoders_give_the_same_sound(measured):
    rows = measured[vae]
    assert {row["against"] for row in rows} == {"diffusers", "ours, the whole at once", "ours, naive snake"}
    assert all(row["max difference"] <= 1e-4 for row in rows), table(rows)


def test_every_way_of_timing_lyrics_finds_the_same_path(measured):
    rows = measured[lyrics]
    assert [row["against"] for row in rows] == ["every head kept", "cell by cell"]
    assert all(row["max difference"] <= 1e-5 for row in rows), table(rows)
    assert rows[0]["our maps (GB)"] < rows[0]["their maps (GB)"] / 10


def test_both_trainers_lose_the_same(monkeypatch):
    measured = {side: train.peak_of(side, "LoRA", 6, QUICK) for side in train.SIDES}
    monkeypatch.setattr(train, "peak_of", lambda side, *_: measured[side])
    rows = train.rows(QUICK, [6])
    assert [row["what"].rpartition(" steps, ")[2] for row in rows] == list(train.CASES)
    assert all(row["max difference"] <= 1e-4 for row in rows), table(rows)


def test_every_planner_writes_the_same_codes(measured):
    rows = measured[lm]
    assert [row["against"] for row in rows] == ["transformers generate", "ours, whole vocabulary sorted"]
    assert all(row["same tokens"] == 1 for row in rows), table(rows)


def test_the_checkpoint_written_for_loading_loads(tmp_path):
    path = tmp_path / "model.safetensors"
    load.write(path, dit.SIZES["tiny"])
    found = load.measure(path, "file")
    assert found["touched"] >= found["loading"] > 0


EXACT = ("merged into the weights", "not compiled")


@pytest.mark.slow
def test_every_technique_makes_the_same_music(measured):
    rows = {row["against"]: row for row in measured[techniques]}
    assert set(EXACT) < set(rows)
    for name, row in rows.items():
        assert (row["max difference"] <= 1e-4) == (name in EXACT), table([row])
    assert 0 < rows["no LoRA"]["max difference"]


@pytest.mark.slow
def test_one_table_of_everything(measured, monkeypatch, capsys):
    for subject, rows in measured.items():
        monkeypatch.setattr(subject, "rows", create_autospec(subject.rows, return_value=rows))
    monkeypatch.setattr(summary, "settings_of", lambda asked: [asked])
    quick = ["all", "--size", "tiny", "--runs", "1", "--tokens", "2", "--seconds", "8"]
    assert command.main(quick) == 0
    lines = capsys.readouterr().out.splitlines()
    for subject in ("CPU dit", "CPU technique", "CPU vae", "CPU lm", "CPU lyrics"):
        assert any(line.startswith(subject) for line in lines), subject
    assert sum(line.startswith("on ") for line in lines) == 1


def test_rows_as_json(capsys):
    assert command.main(["vae", "--size", "tiny", "--seconds", "0.4", "--runs", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["vae"][0]["against"] == "diffusers"
