"""The command line: exit status, stdout and stderr."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core import audio
from acestep_graph.acestep_core.host import current
from acestep_graph.headless import cli, declared
from tests.headless.dummy_nodes import TABLE, Show
from tests.headless.test_graph import JUNK, SAMPLES

ROOT = Path(__file__).resolve().parents[2]


class Talk(Show):
    """Says something, prints something, reports progress."""

    def run(self, value):
        current().say("the tempo was clamped")
        print("a library talks to stdout")
        bar = current().progress(8, "sampling")
        for step in range(1, 9):
            bar.update(step)
        return {"ui": {"text": [f"{value}"]}}


@pytest.fixture(autouse=True)
def nodes(monkeypatch):
    full = {**declared.node_table(), **TABLE, "Talk": Talk}
    monkeypatch.setattr(cli, "node_table", lambda: full)


@pytest.fixture
def folders(tmp_path):
    (tmp_path / "input").mkdir()
    audio.write(tmp_path / "input" / "song.wav", torch.zeros(2, 4800), 48000)
    return ["--input", str(tmp_path / "input"), "--output", str(tmp_path / "output"), "--models", str(tmp_path)]


def write(tmp_path, data):
    path = tmp_path / "workflow.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return str(path)


def api(**nodes):
    return {id: {"class_type": kind, "inputs": inputs} for id, (kind, inputs) in nodes.items()}


SAVE = api(
    l=("LoadAudio", {"audio": "song.wav"}),
    s=("SaveAudio", {"audio": ["l", 0], "filename_prefix": "take"}),
    t=("Talk", {"value": 5}),
)
PLAIN = api(a=("PrimitiveInt", {"value": 1}), b=("PreviewAny", {"source": ["a", 0]}))


def test_run_prints_what_was_made(tmp_path, folders, capsys):
    assert cli.main(["run", write(tmp_path, SAVE), *folders]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"Save Audio (FLAC) (s): {tmp_path / 'output' / 'take_00001_.flac'}", "Talk (t): 5"]
    assert "note: the tempo was clamped" in err and "a library talks" in err and "[3/3] Talk" in err
    assert "sampling: 0/8" in err and "sampling: 8/8" in err and "sampling: 3/8" not in err


def test_run_json(tmp_path, folders, capsys):
    assert cli.main(["run", write(tmp_path, SAVE), *folders, "--json", "--set", "t.value=x"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False and "no 't.value' to set" in report["error"]
    assert cli.main(["run", write(tmp_path, SAVE), *folders, "--json", "--set", "s.filename_prefix=a/b"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True and report["notes"] == ["the tempo was clamped"] and report["seconds"] > 0
    assert [output["files"] for output in report["outputs"]] == [[str(tmp_path / "output" / "a" / "b_00001_.flac")], []]
    assert report["outputs"][1]["text"] == ["5"]
    assert [timing["node"] for timing in report["timings"]] == ["l", "s", "t"]


def test_a_failing_node_is_1_and_keeps_what_was_made(tmp_path, folders, capsys):
    path = write(tmp_path, {**SAVE, **api(z=("Break", {"value": 1}))})
    assert cli.main(["run", path, *folders, "--json"]) == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["error"] == "Break (z): this went wrong" and report["node"] == "z" and len(report["outputs"]) == 2
    assert "Traceback" not in err
    assert cli.main(["run", path, *folders, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_bad_requests_are_2(tmp_path, folders, capsys):
    path = write(tmp_path, api(a=("Sing", {"voice": "cat"}), b=("Show", {"value": ["a", 0]})))
    assert cli.main(["run", path, *folders, "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert [problem["input"] for problem in report["problems"]] == ["words", "again", "seed", "voice"]
    assert report["problems"][3]["message"].endswith("allowed: one of alto, bass, tenor.")
    assert cli.main(["check", path, *folders]) == 2
    assert "- Sing (a), input 'words': is missing" in capsys.readouterr().err
    for arguments in (
        [],
        ["sing"],
        ["run"],
        ["run", "nowhere.json"],
        ["run", path, "--device", "toaster"],
        ["run", path, "--set", "x"],
        ["nodes", "Nope"],
        ["download", "no-such-model"],
    ):
        assert cli.main(arguments) == 2, arguments
        out, err = capsys.readouterr()
        assert out == "" and err and "Traceback" not in err
    assert cli.main(["run", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_check(capsys):
    assert cli.main(["check", str(SAMPLES / "subgraphs.json"), "--set", "Left.more=4"]) == 0
    assert "9 nodes for Sum (12), Same (13)" in capsys.readouterr().out


def test_nodes(capsys):
    assert cli.main(["nodes"]) == 0
    assert "LoadAudio" in capsys.readouterr().out
    assert cli.main(["nodes", "Sing"]) == 0
    out = capsys.readouterr().out
    assert "seed (INT): a whole number from 0 up to 9007199254740991, default 7" in out and "What is sung." in out
    assert "1: seed (INT)" in out
    assert cli.main(["nodes", "SaveAudi"]) == 2
    assert "SaveAudio" in capsys.readouterr().err


def test_models(tmp_path, capsys):
    assert cli.main(["models", "--models", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip()


def test_help_is_0(capsys):
    assert cli.main(["--help"]) == 0
    assert "run" in capsys.readouterr().out


@settings(max_examples=40, deadline=None)
@given(st.recursive(JUNK, lambda x: st.fixed_dictionaries({"nodes": st.lists(x), "links": st.lists(x)}), max_leaves=6))
def test_garbage_is_2_and_never_a_traceback(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "garbage.json"
    path.write_text(json.dumps(data))
    assert cli.main(["check", str(path)]) == 2


def test_light_commands_do_not_import_torch(tmp_path):
    code = f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from tests import pack
        pack.load()
        from acestep_graph.headless.cli import main
        assert main(["nodes"]) == 0
        assert main(["check", {write(tmp_path, PLAIN)!r}]) == 0
        print("torch" in sys.modules, file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stderr.strip().endswith("False")


@pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")
def test_ctrl_c_is_130(tmp_path):
    code = f"""
        import os, signal, sys
        sys.path.insert(0, {str(ROOT)!r})
        sys.modules["torch"] = None
        from tests import pack
        pack.load()
        from acestep_graph.acestep_core.host import current
        from acestep_graph.headless import cli
        from tests.headless.dummy_nodes import TABLE, Show

        class Slow(Show):
            def run(self, value):
                bar = current().progress(1000, "sampling")
                for step in range(1000):
                    bar.update(step)
                    if step == 3:
                        for _ in range(value):
                            os.kill(os.getpid(), signal.SIGINT)
                print("never reached")

        cli.node_table = lambda: {{**TABLE, "Slow": Slow}}
        sys.exit(cli.main(["run", sys.argv[1], "--json"]))
    """
    for presses, expected in ((1, 130), (2, -signal.SIGINT)):
        path = write(tmp_path, api(a=("Show", {"value": 1}), b=("Slow", {"value": presses})))
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), path], capture_output=True, text=True)
        assert done.returncode == expected and "never reached" not in done.stderr
        assert "Stopping after this step" in done.stderr
        if presses == 1:
            report = json.loads(done.stdout)
            assert report["cancelled"] is True and report["outputs"][0]["text"] == ["1"]


def test_running_the_folder_as_a_program(tmp_path):
    path = write(tmp_path, PLAIN)
    done = subprocess.run([sys.executable, str(ROOT), "check", path], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and "can run" in done.stdout


def heard(tmp_path, capsys, *more, workflow="remix.json"):
    """The graph that ``run`` would execute with these options, and what it said."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "execute", lambda graph, *_, **__: seen.append(graph))
        code = cli.main(["run", str(ROOT / "workflows" / workflow), *more])
    return code, (seen or [None])[0], capsys.readouterr().err


def test_a_recording_of_ones_own_takes_the_place_of_the_workflows(tmp_path, folders, capsys):
    own = tmp_path / "my söng.wav"
    audio.write(own, torch.full((2, 4800), 0.5), 48000)
    code, graph, _ = heard(tmp_path, capsys, *folders, "--audio", str(own))
    node = next(node for node in graph.nodes.values() if node.title == "Your recording")
    assert code == 0 and (node.type, node.inputs) == ("LoadAudio", {"audio": "my söng.wav"})
    assert (tmp_path / "input" / "my söng.wav").read_bytes() == own.read_bytes()
    (drawn,) = [entry for entry in graph.workflow["nodes"] if str(entry["id"]) == node.id]
    assert (drawn["type"], drawn["widgets_values"]) == ("LoadAudio", ["my söng.wav"])
    heard(tmp_path, capsys, *folders, "--audio", str(own))
    assert len(list((tmp_path / "input").iterdir())) == 2  # not copied twice
    other = tmp_path / "else" / own.name
    other.parent.mkdir()
    audio.write(other, torch.zeros(2, 4800), 48000)
    code, graph, _ = heard(tmp_path, capsys, *folders, "--audio", f"Your recording={other}")
    assert {"audio": "my söng (1).wav"} in [node.inputs for node in graph.nodes.values()]
    code, graph, _ = heard(tmp_path, capsys, *folders, "--audio", str(tmp_path / "input" / "song.wav"))
    assert {"audio": "song.wav"} in [node.inputs for node in graph.nodes.values()]


@pytest.mark.parametrize(
    "workflow, given, said",
    (("remix.json", "nowhere.wav", "no file nowhere.wav"), ("custom.json", "nowhere.wav", "no place for --audio")),
)
def test_a_recording_that_has_no_place_or_is_none_is_answered(tmp_path, folders, capsys, workflow, given, said):
    code, _, err = heard(tmp_path, capsys, *folders, "--audio", given, workflow=workflow)
    assert code == 2 and said in err


def in_a_subgraph(workflow, title):
    """The workflow with one of its nodes moved into a subgraph, twice nested."""
    node = next(entry for entry in workflow["nodes"] if entry.get("title") == title)
    hull = {**node, "title": "Hull", "widgets_values": [], "properties": {}}
    link = workflow["links"].index(next(link for link in workflow["links"] if link[1] == node["id"]))
    number, _, slot, *_, kind = workflow["links"][link]
    out = {"id": "out", "name": "audio", "type": kind, "linkIds": [1]}
    inner = {**node, "outputs": [{**node["outputs"][0], "links": [1]}]}
    graphs = []
    for id, inside in (("inner", inner), ("outer", {**hull, "id": 7, "type": "inner"})):
        inside = {**inside, "outputs": [{**inside["outputs"][0], "links": [1]}]}
        flow = [
            {"id": 1, "origin_id": inside["id"], "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": kind}
        ]
        graphs.append({"id": id, "nodes": [inside], "links": flow, "inputs": [], "outputs": [out], "widgets": []})
    nodes = [{**hull, "id": node["id"], "type": "outer"} if one is node else one for one in workflow["nodes"]]
    return {**workflow, "nodes": nodes, "definitions": {"subgraphs": graphs}}


def test_a_recording_inside_a_subgraph_is_changed_in_the_workflow_that_is_saved(tmp_path, folders, capsys):
    plain = json.loads((ROOT / "workflows" / "remix.json").read_text("utf-8"))
    (tmp_path / "sub.json").write_text(json.dumps(in_a_subgraph(plain, "Your recording")))
    code, graph, err = heard(tmp_path, capsys, *folders, "--audio", str(tmp_path / "input" / "song.wav"),
                             workflow=tmp_path / "sub.json")  # fmt: skip
    assert code == 0, err
    (node,) = [node for node in graph.nodes.values() if node.type == "LoadAudio"]
    assert node.id.count(":") == 2 and node.inputs == {"audio": "song.wav"}
    inner = next(one for one in graph.workflow["definitions"]["subgraphs"] if one["id"] == "inner")
    assert [(one["type"], one["widgets_values"]) for one in inner["nodes"]] == [("LoadAudio", ["song.wav"])]
    assert not [one for one in graph.workflow["nodes"] if one["type"] == "LoadAudio"]


@pytest.mark.parametrize("name", ("acestep_v1.5_turbo.safetensors", "acestep-v15-turbo"))
def test_set_takes_the_name_of_a_model_in_another_layout(tmp_path, folders, capsys, name):
    assert heard(tmp_path, capsys, *folders, "--set", f"Load models.diffusion_model={name}")[0] == 0
    code, _, err = heard(tmp_path, capsys, *folders, "--set", "Song.language=xx")
    assert code == 2 and "xx" in err and "allowed" in err


@pytest.mark.parametrize(("seeds", "fits"), [("", 1), ("7, -1", 1), ("1;2", 0), ("1, x", 0), ("foo", 0), ("1,,2", 1)])
def test_more_seeds_that_are_none_are_answered_and_not_drawn(tmp_path, folders, capsys, seeds, fits):
    code, _, err = heard(tmp_path, capsys, *folders, "--set", f"Sampler.more_seeds={seeds}")
    assert code == (0 if fits else 2), err
    assert fits or "is no seed" in err


def test_a_home_folder_behind_an_equals_sign_is_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert cli._parser().parse_args(["models", "--models=~/mine"]).models == tmp_path / "mine"
    code, _, err = heard(tmp_path, capsys, "--models=~/typo")
    assert code == 2 and str(tmp_path / "typo") in err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
@pytest.mark.parametrize("command", ("run", "check", "demo"))
def test_a_device_that_is_not_there_is_answered_at_once(tmp_path, folders, capsys, command):
    given = [command, *(["custom"] if command != "demo" else []), *folders]
    for device in ("cuda", "cuda:7"):
        assert cli.main([*given, "--device", device]) == 2
        assert f"There is no device {device} here" in capsys.readouterr().err


def test_a_sound_is_no_workflow_and_names_have_no_case(tmp_path, folders, capsys):
    code, _, err = heard(tmp_path, capsys, *folders, workflow=tmp_path / "input" / "song.wav")
    assert code == 2 and "is a sound" in err
    assert cli._workflow_of("Custom") == cli._workflow_of("custom")


def test_who_reads_only_the_first_lines_is_no_error(tmp_path):
    command = f'"{sys.executable}" "{ROOT}" nodes | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == ""


def test_a_model_folder_that_is_not_there_is_answered(tmp_path, capsys):
    code, _, err = heard(tmp_path, capsys, "--models", str(tmp_path / "typo"))
    assert code == 2 and "There is no folder" in err and "typo" in err


def test_without_pytorch_it_is_said_where_it_is(monkeypatch, tmp_path, folders, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(Talk, "run", lambda *_, **__: __import__("torch"))
    assert cli.main(["run", write(tmp_path, api(a=("Talk", {"value": 1}))), *folders]) == 1
    assert "bootstrap.py demo" in capsys.readouterr().err.replace("\n", " ")


def test_a_file_that_cannot_be_written_is_answered_before_anything_runs(tmp_path, folders, capsys):
    for setting in ("Save and play.filename_prefix=../evil", "Save and play.filename_prefix="):
        code, graph, err = heard(tmp_path, capsys, *folders, "--set", setting)
        assert code == 2 and graph is None and "prefix" in err


def test_workflows_that_come_along_run_by_their_names(tmp_path, folders, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("custom", "custom.json", "workflows/custom.json"):
        assert cli.main(["check", name, *folders]) == 0
    for wrong in ("mine/custom.json", "", "kustom.json"):
        assert cli.main(["check", wrong, *folders]) == 2, wrong
    assert "no workflow file kustom.json" in (said := capsys.readouterr().err) and "best-of, complete, custom" in said
    (tmp_path / "custom.json").write_text("{}")
    assert cli.main(["check", "custom.json", *folders]) == 2, "one's own file comes first"
