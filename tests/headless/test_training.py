"""Training from the command line: begun here or on a canvas, stopped, continued, shared out."""

import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest
import torch
import yaml

from acestep_graph.acestep_core import audio
from acestep_graph.acestep_core.host import Host
from acestep_graph.acestep_core.lora.formats import read_adapter
from acestep_graph.acestep_core.training import preprocess, trainer
from acestep_graph.acestep_core.training.items import save_item
from acestep_graph.acestep_core.training.lock import locked
from acestep_graph.acestep_core.training.loss_log import read_points
from acestep_graph.acestep_core.training.preprocess import load_folder
from acestep_graph.headless import cli, training
from acestep_graph.nodes import training as nodes
from tests import models, tiny
from tests.pack import ROOT
from tests.training.making import SETTINGS, items, outcome, run

MODEL = models.CHECKPOINTS / "acestep-v15-turbo" / "model.safetensors"


@pytest.fixture
def place(tmp_path):
    """A folder with tensors, settings for them, and what ``main`` is to be given."""
    for item in items():
        save_item(item, tmp_path / "tensors" / f"{item.name}.safetensors")
    values = {"tensors": "tensors", "model": str(MODEL), "settings": SETTINGS.values()}
    (tmp_path / "jazz.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def main(place, *arguments):
    (place / "models").mkdir(exist_ok=True)
    folders = ("--models", place / "models", "--output", place / "output", "--input", place / "input")
    return cli.main([str(argument) for argument in (*arguments, *folders, "--device", "cpu")])


def folder(place):
    return place / "output" / "acestep" / "runs" / "jazz"


def pressing_ctrl_c(monkeypatch, at):
    plain, calls = trainer._Run._report, []

    def report(self):
        calls.append(1)
        if len(calls) == at:
            signal.raise_signal(signal.SIGINT)
        plain(self)

    monkeypatch.setattr(trainer._Run, "_report", report)


def test_settings_are_trained_and_the_result_is_named(place, capsys):
    assert main(place, "train", place / "jazz.yaml") == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(folder(place) / "final")
    assert "jazz: 4 songs" in err and "training: step 15/15, epoch 5/5, loss " in err and "lr 1e-05" in err
    run(place / "canvas" / "jazz", data=load_folder(place / "tensors"))
    assert outcome(folder(place)) == outcome(place / "canvas" / "jazz")


def test_ctrl_c_saves_and_says_how_to_go_on(place, capsys, monkeypatch):
    with monkeypatch.context() as patched:
        pressing_ctrl_c(patched, 5)
        assert main(place, "train", place / "jazz.yaml") == 130
    err = capsys.readouterr().err
    given = f"--models {place / 'models'} --output {place / 'output'} --device cpu"
    assert f"To go on: acestep-graph train {folder(place)} {given}" in err and "The checkpoint of step 4 is kept" in err
    assert len(read_points(folder(place) / "loss.csv")) == 4
    assert main(place, "train", folder(place)) == 0
    assert "Training goes on after step 4 of 15." in capsys.readouterr().err
    run(place / "canvas" / "jazz", data=load_folder(place / "tensors"))
    assert outcome(folder(place)) == outcome(place / "canvas" / "jazz")


def test_a_model_that_is_not_there_is_never_replaced_by_the_demo(place, capsys):
    values = yaml.safe_load((place / "jazz.yaml").read_text())
    (place / "jazz.yaml").write_text(yaml.safe_dump({**values, "model": "acestep-v15-base"}))
    assert main(place, "train", place / "jazz.yaml") == 2
    assert f"no diffusion model acestep-v15-base in {place / 'models'}" in capsys.readouterr().err


def test_the_canvas_goes_on_with_a_run_of_the_terminal_and_the_other_way_round(place, monkeypatch):
    data = load_folder(place / "tensors")
    run(place / "whole" / "jazz", data=data)
    run(folder(place), data=data, should_stop=iter([False] * 9 + [True] * 99).__next__)
    with monkeypatch.context() as patched:
        pressing_ctrl_c(patched, 4)
        assert main(place, "train", "jazz") == 130
    result = run(folder(place), data=data)
    assert result.steps == 15 and outcome(folder(place)) == outcome(place / "whole" / "jazz")


def test_a_run_that_started_from_an_adapter_goes_on(place):
    start = read_adapter(ROOT / "tests" / "fixtures" / "adapters" / "adapter_a", models.diffusion().config)
    data = load_folder(place / "tensors")
    run(place / "whole" / "jazz", data=data, start=start)
    run(folder(place), data=data, start=start, should_stop=iter([False] * 9 + [True] * 99).__next__)
    assert main(place, "train", "jazz") == 0
    assert outcome(folder(place)) == outcome(place / "whole" / "jazz")


def test_the_terminal_and_the_canvas_keep_each_other_s_tensors(tmp_path, capsys, monkeypatch):
    tiny.build(tmp_path / "models")
    audio.write(tmp_path / "songs" / "a.wav", 0.1 * torch.randn(2, 48000 * 6), 48000)
    (tmp_path / "songs" / "a.caption.txt").write_text("slow folk")
    monkeypatch.chdir(tmp_path)
    made, plain = [], preprocess.preprocess

    def seen(*given, **more):
        made.append((given, plain(*given, **more)))
        return made[-1][1]

    monkeypatch.setattr(preprocess, "preprocess", seen)
    assert main(tmp_path, "preprocess", "songs") == 0
    seconds = nodes.Preprocess.INPUT_TYPES()["required"]["max_seconds"][1]["default"]
    (*given, _), done = made[0]
    canvas = preprocess.PreprocessSettings(max_seconds=float(seconds), seed=42, timbre="silence", tile=256)
    assert done.made == ("a.wav",) and plain(*given, canvas, host=Host(device="cpu")).kept == ("a.wav",)
    assert main(tmp_path, "preprocess", "songs") == 0 and made[1][1].kept == ("a.wav",)
    capsys.readouterr()


def test_a_run_is_meant_where_another_folder_of_its_name_lies_here(place, capsys, monkeypatch):
    assert main(place, "train", place / "jazz.yaml", "--set", "epochs=1") == 0
    monkeypatch.chdir(place)
    (place / "jazz").mkdir()
    assert main(place, "train", "jazz", "--set", "epochs=2") == 0
    assert len(read_points(folder(place) / "loss.csv")) == 6


def test_a_name_that_tensors_cannot_have_is_said_before_songs_are_read(tmp_path, capsys, monkeypatch):
    songs = tmp_path / "live. AC:DC"
    audio.write(songs / "a.wav", 0.1 * torch.randn(2, 48000 * 6), 48000)
    (songs / "a.caption.txt").write_text("slow folk")
    tiny.build(tmp_path / "models")
    assert main(tmp_path, "preprocess", songs) == 2
    said = capsys.readouterr().err
    assert "--to" in said and "samples" not in said
    songs = songs.rename(tmp_path / "my songs")
    monkeypatch.chdir(songs)
    assert main(tmp_path, "preprocess", ".") == 0
    assert capsys.readouterr().out.strip().endswith("my songs")


def test_samples_that_are_switched_off_are_none(place):
    values = yaml.safe_load((place / "jazz.yaml").read_text())
    (place / "jazz.yaml").write_text(yaml.safe_dump({**values, "samples": {"every": 0}}))
    assert main(place, "train", place / "jazz.yaml", "--set", "epochs=1") == 0


def test_more_epochs_may_be_set_and_nothing_else(place, capsys):
    assert main(place, "train", place / "jazz.yaml", "--set", "epochs=1") == 0
    assert main(place, "train", "jazz", "--set", "epochs=2") == 0
    assert len(read_points(folder(place) / "loss.csv")) == 6
    assert main(place, "train", "jazz", "--set", "rank=8") == 1
    assert "holds a run with rank 4, not 8" in capsys.readouterr().err


def test_a_run_at_work_is_refused_before_the_model_is_loaded(place, capsys, monkeypatch):
    assert main(place, "train", place / "jazz.yaml", "--set", "epochs=1") == 0
    monkeypatch.setattr(training, "_model", lambda *_: pytest.fail("the model was loaded"))
    with locked(folder(place)):
        assert main(place, "train", "jazz") == 1
    assert "jazz is being trained already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "nothing"], "is no folder of a run|There is no run"),
        (["train", "jazz.yaml", "--set", "colour=red"], "'colour=red' sets nothing"),
        (["train", "jazz.yaml", "--set", "rank=0"], "rank is 0; allowed is a whole number from 1 to 256"),
        (["train", "jazz.yaml", "--tensors", "none"], "There is no 'none'"),
        (["train", "jazz.yaml", "--processes", "0"], "--processes is 0; allowed is 1 to 64"),
        (["preprocess", "nothing"], "There is no 'nothing'"),
        (["preprocess", "tensors", "--timbre", "mine"], "timbre is 'mine'; allowed is silence or own"),
    ],
)
def test_bad_requests_end_with_2_and_a_sentence(place, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(place)
    assert main(place, *arguments) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_songs_become_tensors_and_an_adapter_with_samples(tmp_path, capsys, monkeypatch):
    """With the models of a first try, whose files carry no silence."""
    tiny.build(tmp_path / "models")
    for number in range(2):
        audio.write(tmp_path / "songs" / f"{number}.wav", 0.1 * torch.randn(2, 48000 * 6), 48000)
        (tmp_path / "songs" / f"{number}.caption.txt").write_text("slow folk")
    monkeypatch.chdir(tmp_path)
    assert main(tmp_path, "preprocess", "songs", "--tag", "hrbr") == 0
    tensors = tmp_path / "output" / "acestep" / "tensors" / "songs"
    assert capsys.readouterr().out.strip() == str(tensors)
    assert [item.about["prompt"].count("hrbr, slow folk") for item in load_folder(tensors)] == [1, 1]
    samples = {"caption": "hrbr, slow folk", "duration": 10, "instrumental": True, "every": 2}
    values = {"tensors": "songs", "settings": {"rank": 2, "epochs": 2, "method": "lokr"}, "samples": samples}
    (tmp_path / "jazz.json").write_text(json.dumps(values))
    assert main(tmp_path, "train", "jazz.json") == 0
    assert [path.name for path in (folder(tmp_path) / "samples").iterdir()] == ["epoch_2.flac"]
    assert [path.name for path in (folder(tmp_path) / "final").iterdir()] == ["lokr_weights.safetensors"]
    assert main(tmp_path, "train", "jazz", "--set", "epochs=4") == 0
    assert len(list((folder(tmp_path) / "samples").iterdir())) == 2, "a run knows its samples"
    (tmp_path / "elsewhere").mkdir()
    elsewhere = ["--models", str(tmp_path / "elsewhere"), "--output", str(tmp_path / "output"), "--device", "cpu"]
    assert cli.main(["train", "jazz", "--set", "epochs=6", *elsewhere]) == 0, "and all of its models"
    assert len(list((folder(tmp_path) / "samples").iterdir())) == 3


@pytest.mark.usefixtures("without_nano")
def test_a_missing_model_is_said(tmp_path, place, capsys):
    (place / "jazz.yaml").write_text(yaml.safe_dump({"tensors": "tensors"}))
    assert main(place, "train", place / "jazz.yaml") == 2
    assert "There is no diffusion model in" in capsys.readouterr().err


def test_each_of_several_processes_has_its_card(monkeypatch):
    def asked(**more):
        return type("Options", (), {"device": "auto", "processes": 2, **more})

    assert training.wants_more(asked()) and not training.wants_more(asked(processes=1))
    assert training.device_of(asked()) == "auto"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not training.wants_more(asked())
    assert training.device_of(asked()) == "cuda:1" and training.device_of(asked(device="cpu")) == "cpu"


def test_the_first_failure_is_the_exit_status_and_ends_the_others(monkeypatch):
    monkeypatch.setattr(training, "PATIENCE", 0.2)
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    failing = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    assert training._watched([sleeping, failing]) == 3
    sleeping.kill()
    assert training._watched([subprocess.Popen([sys.executable, "-c", ""])]) == 0


@pytest.mark.release
def test_two_processes_from_one_command(place):
    pytest.importorskip("accelerate")
    command = [sys.executable, str(ROOT), "train", str(place / "jazz.yaml"), "--processes", "2", "--device", "cpu"]
    command += ["--output", str(place / "output"), "--models", str(place / "models")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(folder(place) / "final")]
    assert done.stderr.count("jazz: 4 songs") == 1 and done.stderr.count("step 15/15") == 1
    alone = run(place / "alone" / "jazz", data=load_folder(place / "tensors"), host=Host(device="cpu"))
    points = read_points(folder(place) / "loss.csv")
    assert [point.loss for point in points] == pytest.approx([point.loss for point in alone.points], rel=1e-4)


@pytest.mark.release
@pytest.mark.skipif(sys.platform == "win32", reason="the signal goes to a process group")
def test_ctrl_c_reaches_both_processes(place):
    pytest.importorskip("accelerate")
    command = [sys.executable, str(ROOT), "train", str(place / "jazz.yaml"), "--set", "epochs=2000", "--device", "cpu"]
    command += ["--processes", "2", "--output", str(place / "output"), "--models", str(place / "models")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    log = folder(place) / "loss.csv"
    giving_up = threading.Event()
    timer = threading.Timer(120, giving_up.set)
    timer.start()
    while not giving_up.wait(0.1) and len(read_points(log)) < 5:
        pass
    timer.cancel()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "To go on: acestep-graph train" in err
    steps = len(read_points(log))
    assert (folder(place) / "last").read_text() == f"checkpoints/step_{steps:07d}\n"
