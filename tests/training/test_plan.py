"""Plans: a run's own file, and settings written by hand."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from acestep_graph.acestep_core.song import make_song
from acestep_graph.acestep_core.training.items import ItemError, fingerprint, save_item
from acestep_graph.acestep_core.training.plan import NAMES, PlanError, model_of, read_plan, song_of, with_settings
from acestep_graph.acestep_core.training.preprocess import load_folder
from acestep_graph.acestep_core.training.settings import TrainSettings

from .making import SETTINGS, items, run


@pytest.fixture
def tensors(tmp_path):
    for item in items():
        save_item(item, tmp_path / "tensors" / f"{item.name}.safetensors")
    return tmp_path / "tensors"


def test_a_run_tells_all_that_going_on_needs(tmp_path, tensors):
    data = load_folder(tensors)[::-1]
    run(tmp_path / "jazz", data=data)
    for path in (tmp_path / "jazz", tmp_path / "jazz" / "run.json"):
        plan = read_plan(path)
        assert (plan.folder, plan.name, plan.settings, plan.kind) == (tmp_path / "jazz", "jazz", SETTINGS, "turbo")
        assert plan.model.endswith("acestep-v15-turbo/model.safetensors") and plan.samples == {}
        assert fingerprint(plan.items()) == fingerprint(data)
    assert run(tmp_path / "jazz", data=plan.items()).notes == ()
    (tensors / "song 2.safetensors").unlink()
    with pytest.raises(ItemError, match=r"song 2\.safetensors, which jazz learns from, is gone\. Give the folder"):
        plan.items()


def test_a_run_of_items_in_memory_asks_for_its_tensors(tmp_path):
    run(tmp_path / "jazz")
    with pytest.raises(PlanError, match="jazz does not say where its tensors are. Give their folder with --tensors"):
        read_plan(tmp_path / "jazz").items()


@pytest.mark.parametrize("ending", ["json", "yaml", "yml"])
def test_settings_by_hand(tmp_path, tensors, ending):
    values = {"tensors": "tensors", "model": "mine", "settings": {"rank": 8, "mlp": True}}
    values["samples"] = {"caption": "folk", "duration": 20, "every": 5}
    text = json.dumps(values) if ending == "json" else yaml.safe_dump(values)
    (tmp_path / f"jazz.{ending}").write_text("\ufeff" + text, "utf-8")
    plan = read_plan(tmp_path / f"jazz.{ending}")
    assert (plan.folder, plan.name, plan.model, plan.tensors) == (None, "jazz", "mine", str(tensors))
    assert plan.settings == TrainSettings(rank=8, mlp=True) and len(plan.items()) == 4
    assert song_of(plan.samples) == make_song("folk", duration=20)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("learning_rate: 1e-4", {"learning_rate": 1e-4}),
        ("learning_rate: 5e-5", {"learning_rate": 5e-5}),
        ("learning_rate: 1.0e-4", {"learning_rate": 1e-4}),
        ("weight_decay: 1E-3", {"weight_decay": 1e-3}),
        ("rank: '32'", {"rank": 32}),
        ("mlp: 'on'", {"mlp": True}),
        ("method: dora", {"method": "dora"}),
    ],
)
def test_numbers_as_people_write_them(tmp_path, line, wanted):
    (tmp_path / "jazz.yaml").write_text(f"tensors: x\nsettings:\n  {line}\n")
    assert read_plan(tmp_path / "jazz.yaml").settings == TrainSettings(**wanted)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"tensors": "x", "settings": {"rank": "1e1"}}, "rank is 10.0; allowed is a whole number"),
        ({"tensors": "x", "settings": {"rank": "many"}}, "rank is 'many'; allowed is a whole number"),
        ({"tensors": "x", "settings": {"learning_rate": "nan"}}, "learning_rate is nan; allowed is a number from"),
        ([], "holds no settings"),
        ({"tensors": "x", "colour": "red"}, "says colour, which means nothing here; known are run, model"),
        ({"tensors": "x", "settings": {"rank": 0}}, "rank is 0; allowed is a whole number from 1 to 256"),
        ({"tensors": "x", "settings": {"colour": 1}}, "colour is no training setting"),
        ({"tensors": "x", "settings": [1]}, "settings in jazz.json is no list of names and values"),
        ({"tensors": 3}, "tensors in jazz.json is 3; expected is text"),
        ({"settings": {}}, "does not say its tensors"),
        ({"tensors": "x", "samples": {"colour": 1}}, "samples in jazz.json say colour; known are every"),
        ({"tensors": "x", "samples": {"duration": 5000}}, "samples in jazz.json: .*5000"),
        ({"tensors": "x", "samples": {"every": 5}}, "samples in jazz.json: they need a caption or lyrics"),
        ({"tensors": "x", "samples": {"every": -1, "caption": "a"}}, "every is -1; .* or 0 for no samples"),
        ({"tensors": "x", "samples": {"every": True, "caption": "a"}}, "every is True"),
    ],
)
def test_what_is_wrong_with_settings_is_said(tmp_path, values, sentence):
    (tmp_path / "jazz.json").write_text(json.dumps(values))
    with pytest.raises(PlanError, match=sentence):
        read_plan(tmp_path / "jazz.json")


def test_what_is_no_plan_is_said(tmp_path):
    with pytest.raises(PlanError, match=r"is no folder of a run: there is no run\.json in it"):
        read_plan(tmp_path)
    with pytest.raises(PlanError, match="There is no run and no settings file"):
        read_plan(tmp_path / "none")
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(PlanError, match="has no settings in it; it is not the file of a run"):
        read_plan(tmp_path)


@how(max_examples=60, deadline=None)
@given(
    content=st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)),
    ending=st.sampled_from(["json", "yaml"]),
)
def test_any_file_is_read_or_refused_in_a_sentence(tmp_path_factory, content, ending):
    path = tmp_path_factory.mktemp("any") / f"jazz.{ending}"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=r"\w"):
        read_plan(path)


PIECES = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)), st.lists, max_leaves=3)


@how(max_examples=100, deadline=None)
@given(values=st.dictionaries(st.sampled_from([*NAMES, "items", "model_files"]), PIECES))
def test_any_values_are_read_or_refused_in_a_sentence(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("any")
    for name in ("run.json", "jazz.json"):
        (folder / name).write_text(json.dumps(values))
        try:
            read_plan(folder / name)
        except PlanError as error:
            assert str(error)


def test_assignments():
    made = with_settings(TrainSettings(), ["rank=16", "mlp=on", "learning_rate = 3e-4", "method=lokr", "alpha=16"])
    assert made == TrainSettings(rank=16, mlp=True, learning_rate=3e-4, method="lokr", alpha=16)
    for wrong, sentence in (
        ("colour=red", "'colour=red' sets nothing. Write NAME=VALUE with one of method, rank"),
        ("rank", "'rank' sets nothing"),
        ("rank=many", "rank is 'many'; allowed is a whole number"),
        ("mlp=perhaps", "mlp is 'perhaps'; allowed is on or off"),
        ("method=magic", "method is 'magic'; allowed is one of lora"),
    ):
        with pytest.raises(PlanError, match=sentence):
            with_settings(TrainSettings(), [wrong])


def test_a_model_of_several_files_is_their_folder():
    assert model_of([]) == "" and model_of(["a/b.safetensors"]) == "a/b.safetensors"
    assert model_of(["a/1.safetensors", "a/2.safetensors"]) == "a"
