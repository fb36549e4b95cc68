"""Node classes against ComfyUI's V1 protocol, and what their widgets promise."""

import inspect
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.acestep_core.host import Host, use
from acestep_graph.acestep_core.lm.settings import PlannerSettings
from acestep_graph.acestep_core.sampling.settings import SamplerSettings
from acestep_graph.acestep_core.song import make_song
from acestep_graph.acestep_core.tasks.instructions import TRACKS
from acestep_graph.nodes import NODES
from tests.pack import ROOT

CLASSES = [(name, cls) for name, (cls, _) in NODES.items()]
each_node = pytest.mark.parametrize("name, cls", CLASSES, ids=[name for name, _ in CLASSES])


def inputs(cls):
    declared = cls.INPUT_TYPES()
    return {**declared.get("required", {}), **declared.get("optional", {})}


@each_node
def test_ids_titles_and_categories(name, cls):
    assert name.startswith("ACEStep") and name.isalnum()
    assert cls.CATEGORY.split("/")[0] == "ACE-Step"
    assert len(cls.DESCRIPTION) > 20 and cls.SEARCH_ALIASES
    assert len({title for _, title in NODES.values()}) == len(NODES)


@each_node
def test_every_input_has_a_tooltip_and_a_default_within_its_range(name, cls):
    for input_name, (kind, options) in inputs(cls).items():
        assert len(options["tooltip"]) > 3, f"{name}.{input_name}"
        default = options.get("default")
        if kind in ("INT", "FLOAT"):
            assert options["min"] <= default <= options["max"], f"{name}.{input_name}"
            assert options["max"] <= 2**53 - 1
        if kind == "COMBO":
            assert default in options["options"], f"{name}.{input_name}"


@each_node
def test_the_function_takes_exactly_what_is_declared(name, cls):
    parameters = inspect.signature(getattr(cls, cls.FUNCTION)).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    declared = {*inputs(cls), *cls.INPUT_TYPES().get("hidden", {})}
    assert set(parameters) - {"self"} == declared
    for optional in cls.INPUT_TYPES().get("optional", {}):
        assert parameters[optional].default is not inspect.Parameter.empty


@each_node
def test_outputs_are_named_and_explained(name, cls):
    assert len(cls.RETURN_TYPES) == len(getattr(cls, "RETURN_NAMES", ())) == len(getattr(cls, "OUTPUT_TOOLTIPS", ()))
    assert cls.RETURN_TYPES or cls.OUTPUT_NODE


@each_node
def test_listing_a_node_works_where_there_is_no_model_at_all(name, cls, tmp_path):
    with use(Host(models=tmp_path)):
        assert cls.INPUT_TYPES()


def test_every_sampler_setting_has_a_widget():
    widgets = {
        name
        for node in ("Sampler", "SamplerSettings", "GuidanceSettings")
        for name in inputs(NODES[f"ACEStep{node}"][0])
    }
    assert set(SamplerSettings.__dataclass_fields__) <= widgets


def test_start_up_imports_nothing_heavy():
    script = (
        "import sys\nfrom tests import pack\npack.load()\n"
        "known = {'torch', 'transformers', 'safetensors', 'tokenizers', 'av', 'numpy', 'huggingface_hub'}\n"
        "heavy = known & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True)


SONG = NODES["ACEStepSong"][0]
VALUES = st.one_of(st.none(), st.integers(-10, 1000), st.floats(), st.text(max_size=8), st.booleans())


@settings(deadline=None)
@given(bpm=VALUES, key=VALUES, time=VALUES, duration=VALUES)
def test_bad_song_values_are_answered_before_the_queue(bpm, key, time, duration):
    """What validation lets through, the node accepts: nothing fails after a model was loaded."""
    answer = SONG.VALIDATE_INPUTS(bpm=bpm, key=key, time_signature=time, duration=duration)
    if answer is True:
        made = SONG().make(caption="x", lyrics="", bpm=bpm, key=key, time_signature=time, duration=duration)
        assert made[0].caption == "x"
    else:
        assert isinstance(answer, str) and len(answer) > 20


@settings(deadline=None)
@given(steps=st.integers(-5, 500), scale=st.floats(-5, 30), shift=st.floats(-5, 9), timesteps=st.text(max_size=12))
def test_bad_sampler_values_are_answered_before_the_queue(steps, scale, shift, timesteps):
    sampler, more = NODES["ACEStepSampler"][0], NODES["ACEStepSamplerSettings"][0]
    accepted = sampler.VALIDATE_INPUTS(steps=steps, guidance_scale=scale, shift=shift)
    if accepted is True:
        SamplerSettings(steps=steps, guidance_scale=scale, shift=shift)
    else:
        assert "allowed" in accepted or "must" in accepted
    answer = more.VALIDATE_INPUTS(timesteps=timesteps)
    assert answer is True or "timesteps" in answer


@pytest.mark.usefixtures("without_nano")
def test_a_missing_model_says_where_to_put_it_and_how_to_get_it(tmp_path):
    loader = NODES["ACEStepLoadModels"][0]
    with use(Host(models=tmp_path)):
        answer = loader.VALIDATE_INPUTS(diffusion_model="acestep_v1.5_turbo.safetensors")
        assert "acestep-graph download" in answer and str(tmp_path) in answer
        assert loader.VALIDATE_INPUTS(diffusion_model="acestep_v1.5_turbo.safetensors", download_missing=True) is True
        assert loader.VALIDATE_INPUTS(diffusion_model="../../etc/passwd", download_missing=True) is not True


def test_drawn_seeds_run_again_and_given_ones_are_cached():
    changed = NODES["ACEStepSampler"][0].IS_CHANGED
    assert changed(seed=5) == changed(seed=5, more_seeds="6, 7") == ""
    assert changed(seed=5, more_seeds="-1") != changed(seed=5, more_seeds="-1")


OWN_WIDGETS = {
    "Text2Music": {"batch_size", "codes_strength"},
    "Remix": {"strength", "noise_strength", "quantizer", "batch_size"},
    "Repaint": {"start", "end", "mode", "strength", "batch_size"},
    "Extract": {"track", "batch_size"},
    "Lego": {"track", "start", "end", "batch_size", "mask_mode", "global_caption"},
    "Complete": {*TRACKS, "batch_size"},
    "ExtractTracks": {*TRACKS, "prefix"},
}


@pytest.mark.parametrize("task", OWN_WIDGETS)
def test_a_task_has_only_its_own_parameters(task):
    """What belongs to another task cannot even be given, so it cannot leak into this one."""
    cls = NODES[f"ACEStep{task}"][0]
    widgets = {name for name, (kind, _) in inputs(cls).items() if not kind.startswith("ACESTEP_")}
    assert widgets == OWN_WIDGETS[task]
    foreign = set().union(*OWN_WIDGETS.values()) - widgets
    parameters = inspect.signature(cls.prepare).parameters
    assert not foreign & set(parameters)


def test_a_remix_needs_exactly_one_thing_to_remix():
    remix = NODES["ACEStepRemix"][0]()
    for source, codes in ((None, None), (object(), object())):
        with pytest.raises(ValueError, match="either a source or codes"):
            remix.prepare(None, None, None, 1.0, 0.0, True, 1, source=source, codes=codes)


def test_the_noise_of_a_song_cannot_be_left_to_chance_by_a_helper_seed():
    """Only the sampler's seed changes by itself; every other one would spoil ComfyUI's cache at each queue."""
    changing = [
        (node, name)
        for node, cls in CLASSES
        for name, (_, options) in inputs(cls).items()
        if options.get("control_after_generate", name in ("seed", "noise_seed")) not in (False, "fixed")
    ]
    assert changing == [("ACEStepSampler", "seed")]


PLANNER_NODES = ("CreateSample", "Format", "Think", "Transcribe", "PlannerSettings")


def test_every_planner_setting_has_a_widget():
    widgets = {name for node in PLANNER_NODES for name in inputs(NODES[f"ACEStep{node}"][0])}
    assert set(PlannerSettings.__dataclass_fields__) <= widgets


NUMBERS = st.one_of(st.integers(-5, 70000), st.floats())


@settings(deadline=None)
@given(temperature=NUMBERS, top_k=NUMBERS, top_p=NUMBERS, cfg_scale=NUMBERS)
def test_bad_planner_values_are_answered_before_the_queue(temperature, top_k, top_p, cfg_scale):
    given_values = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "cfg_scale": cfg_scale}
    answer = NODES["ACEStepThink"][0].VALIDATE_INPUTS(**given_values)
    if answer is True:
        PlannerSettings(**given_values)
    else:
        assert "allowed is" in answer


@pytest.mark.usefixtures("without_nano")
def test_without_a_planner_its_loader_says_what_to_download(tmp_path):
    loader = NODES["ACEStepLoadLanguageModel"][0]
    with use(Host(models=tmp_path)):
        name = inputs(loader)["language_model"][1]["default"]
        answer = loader.VALIDATE_INPUTS(language_model=name)
        assert "acestep-graph download acestep-5Hz-lm-1.7B" in answer and str(tmp_path) in answer
        assert loader.VALIDATE_INPUTS(language_model=name, download_missing=True) is True


def defaults(cls, **changed):
    """Keyword arguments of a fresh node, some of them changed."""
    return {
        name: changed.get(name, options.get("default"))
        for name, (_, options) in cls.INPUT_TYPES()["required"].items()
        if name in changed or "default" in options
    }


def test_an_untouched_edit_node_changes_nothing():
    edit = NODES["ACEStepEditSong"][0]
    song = make_song("jazz", "[Verse]\nla", "fr", bpm=90, duration=33)
    assert edit.VALIDATE_INPUTS(**{k: v for k, v in defaults(edit).items() if k in ("bpm", "duration")}) is True
    assert edit().edit(**defaults(edit, song=song))[0] == song
    changed, text = edit().edit(**defaults(edit, song=song, bpm=0, key="Bb minor", vocals="instrumental", duration=-1))
    assert (changed.bpm, changed.key, changed.instrumental, changed.duration) == (None, "Bb minor", True, -1)
    assert "key: Bb minor" in text and "bpm: auto" in text
    assert "allowed" in edit.VALIDATE_INPUTS(bpm=7, duration=0.0)


def test_merging_and_showing_songs():
    merge, info = NODES["ACEStepMergeSongs"][0], NODES["ACEStepSongInfo"][0]
    mine, theirs = make_song("jazz"), make_song("rock", "la", "de", bpm=120)
    assert merge().merge(**defaults(merge, song=mine, proposal=theirs))[0] == mine.filled_from(theirs)
    made, _ = merge().merge(**defaults(merge, song=mine, proposal=theirs, caption="proposal first"))
    assert info().show(made)[1:5] == ("rock", "la", "de", 120)


def test_a_random_song_needs_no_planner():
    draw = NODES["ACEStepRandomSong"][0]().draw
    assert draw(3, "auto") == draw(3, "auto") != draw(4, "auto")
    assert draw(3, "ja")[0].language == "ja"


def test_a_random_example_is_what_create_sample_asks_for(monkeypatch):
    from acestep_graph.acestep_core.lm import examples, songs

    asked = []
    proposal = SimpleNamespace(song="song", report=lambda: "report")
    monkeypatch.setattr(songs, "create", lambda lm, text, **given: asked.append((text, given)) or proposal)
    create = NODES["ACEStepCreateSample"][0]
    made = create().create(**defaults(create, lm=None, random_example=True, seed=5, language="fr"))
    wanted = examples.random_description(5)
    assert made == ("song", "report", wanted.description)
    assert asked[0][0] == wanted.description and asked[0][1]["language"] == wanted.language
    create().create(**defaults(create, lm=None, description="my own", instrumental=True, temperature=0.5))
    assert asked[1][0] == "my own" and asked[1][1]["instrumental"] and asked[1][1]["settings"].temperature == 0.5


def test_names_and_words_reach_the_page_as_text(monkeypatch):
    """ComfyUI puts what is shown under a node into the page as HTML."""
    from acestep_graph.nodes.comfy_host import ComfyHost

    shown = []
    server = SimpleNamespace(client_id="a", send_progress_text=lambda text, node: shown.append(text))
    context = SimpleNamespace(node_id="3")
    for name, content in (
        ("comfy_execution.utils", {"get_executing_context": lambda: context}),
        ("server", {"PromptServer": SimpleNamespace(instance=server)}),
    ):
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    ComfyHost.__new__(ComfyHost).say("<img src=x onerror=alert(1)>.safetensors isn't here & nano plays")
    assert shown == ["&lt;img src=x onerror=alert(1)&gt;.safetensors isn't here &amp; nano plays"]
