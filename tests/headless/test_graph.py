"""Reading workflow files: each sample of ``workflows/`` shows one feature of the format."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph.headless import assign, canvas, declared, graph
from acestep_graph.headless.graph import Link, WorkflowError
from tests.headless.dummy_nodes import TABLE, TITLES

SAMPLES = Path(__file__).parent / "workflows"
QUICK = settings(max_examples=80, deadline=None)


def load(name):
    return graph.load(SAMPLES / f"{name}.json", TABLE, TITLES)


def sample(name):
    return json.loads((SAMPLES / f"{name}.json").read_text())


def inputs(read, id):
    return dict(read.nodes[id].inputs)


def test_widgets_are_read_by_position_links_by_name():
    read = load("plain")
    assert list(read.nodes) == ["1", "2", "3"]
    assert inputs(read, "2") == {
        "words": "do re mi",
        "again": Link("1", 0),
        "seed": 42,
        "voice": "tenor",
        "loud": 0.25,
        "echo": False,
    }
    assert [node.title for node in read.nodes.values()] == ["Words", "Choir", "Result"]


@pytest.mark.parametrize("other", ["plain_api", "object_links"])
def test_the_formats_mean_the_same(other):
    def known(read):
        allowed = {id: declared.declared_inputs(TABLE[node.type]) for id, node in read.nodes.items()}
        return {
            id: (node.type, node.title, {k: v for k, v in node.inputs.items() if k in allowed[id] and k != "audioUI"})
            for id, node in read.nodes.items()
        }

    ours, theirs = known(load("plain")), known(load(other))
    theirs["2"][2].setdefault("echo", False)
    assert ours == theirs


def test_untitled_nodes_have_their_display_name():
    data = sample("plain")
    del data["nodes"][1]["title"]
    assert graph.parse(data, TABLE, TITLES).nodes["2"].title == "Sing a Song"


def test_reroutes_vanish():
    read = load("reroutes")
    assert inputs(read, "4") == {"value": Link("1", 0)}
    assert inputs(read, "5") == {"text": Link("1", 0)}
    assert inputs(read, "8") == {"text": "alone"}
    assert not {"2", "3", "7"} & set(read.nodes)


def test_primitives_become_values():
    assert inputs(load("primitives"), "3") == {"a": 21, "b": 21}


def test_muted_and_bypassed_nodes():
    read = load("modes")
    assert inputs(read, "5") == {"text": Link("1", 0)}
    assert inputs(read, "6") == {"a": Link("2", 0), "b": 100}
    assert inputs(read, "11") == {"text": "kept"}
    assert not {"3", "4", "9", "10"} & set(read.nodes)


@pytest.mark.parametrize(
    ("inputs", "output", "wanted", "slot"),
    [
        (["A", "B"], 0, "B", 1),
        (["A", "B"], 1, "B", 1),
        (["A,B", "B"], 0, "B", 0),
        (["A", "B,C"], 0, "B", 1),
        (["A", "B"], 1, "*", 1),
        (["A"], 1, "*", 0),
        (["A"], 0, "C", None),
        ([], 0, "A", None),
        (["*", "B"], 0, "A", 0),
    ],
)
def test_what_a_bypassed_node_hands_through(inputs, output, wanted, slot):
    outputs = [{"type": "B"}, {"type": "B"}] if wanted != "A" else [{"type": "A"}]
    assert canvas._bypass_slot({"inputs": [{"type": t} for t in inputs], "outputs": outputs}, output, wanted) == slot


def test_subgraphs_unfold():
    read = load("subgraphs")
    assert set(read.nodes) == {"1", "10:21", "10:22", "10:23:31", "11:21", "11:22", "11:23:31", "12", "13"}
    assert inputs(read, "10:21") == {"a": Link("1", 0), "b": 10, "c": Link("10:22", 0)}
    assert inputs(read, "11:21") == {"a": Link("10:23:31", 0), "b": 20, "c": Link("11:22", 0)}
    assert inputs(read, "13") == {"value": Link("1", 0)}


def test_each_instance_keeps_its_promoted_values():
    read = load("subgraphs")
    assert [inputs(read, id)["value"] for id in ("10:22", "11:22")] == [100, 200]
    assert [inputs(read, id)["b"] for id in ("10:23:31", "11:23:31")] == [1000, 5000]


@pytest.mark.parametrize(("mode", "value"), [(2, None), (4, Link("10:23:31", 0))])
def test_a_muted_or_bypassed_subgraph(mode, value):
    data = sample("subgraphs")
    data["nodes"][2]["mode"] = mode
    read = graph.parse(data, TABLE)
    assert not [id for id in read.nodes if id.startswith("11")]
    assert inputs(read, "12") == ({} if value is None else {"value": value})


def test_a_promoted_widget_of_several_inner_inputs():
    data = sample("subgraphs")
    inner = data["definitions"]["subgraphs"][0]
    inner["nodes"][0]["inputs"][0]["link"] = 2
    data["nodes"][1]["properties"]["proxyWidgets"] = [["21", "b"]]
    data["nodes"][1]["widgets_values"] = [77]
    assert inputs(graph.parse(data, TABLE), "10:21") == {"a": 77, "b": 77, "c": Link("10:22", 0)}


def test_a_primitive_within_a_subgraph_can_be_promoted():
    data = sample("subgraphs")
    inner = data["definitions"]["subgraphs"][0]
    inner["nodes"][1] = {"id": 22, "type": "PrimitiveNode", "widgets_values": [200, "fixed"]}
    inner["nodes"][0]["inputs"][1]["link"] = 3
    data["nodes"][1]["properties"]["proxyWidgets"].append(["22", "control_after_generate"])
    read = graph.parse(data, TABLE)
    assert [inputs(read, id)["b"] for id in ("10:21", "11:21")] == [100, 200]
    left = next(alias for alias in read.aliases if alias.title == "Left")
    assert set(left.targets) == {"more", "value", "extra"} and left.targets["value"] == (("10:21", "b"), ("10:21", "c"))
    changed = assign.assign(read, "Left.value=5", TABLE)
    assert inputs(changed, "10:21")["b"] == 5 and changed.workflow["nodes"][1]["widgets_values"][1] == 5


def test_api_lists_are_links_or_wrapped_values():
    data = {"1": {"class_type": "Show", "inputs": {"a": ["2", 1], "b": {"__value__": ["2", 1]}, "c": {"x": 1}}}}
    read = graph.parse(data, TABLE)
    assert inputs(read, "1") == {"a": Link("2", 1), "b": ["2", 1], "c": {"x": 1}}
    assert graph.parse(read.prompt(), TABLE).nodes == read.nodes
    assert graph.parse({"prompt": data, "client_id": "x"}, TABLE).nodes == read.nodes


@pytest.mark.parametrize(
    ("options", "extra"),
    [
        (("INT", {}), 0),
        (("INT", {"control_after_generate": True}), 1),
        (("INT", {"control_after_generate": False}), 0),
        ((["a"], {"control_after_generate": True}), 2),
        ((["a"], {"audio_upload": True}), 1),
        (("INT", {"forceInput": True}), -1),
        (("AUDIO",), -1),
        (("FLOAT,INT", {"widgetType": "FLOAT"}), 0),
    ],
)
def test_saved_entries_of_a_widget(options, extra):
    class Probe:
        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {"x": options}, "optional": {"after": ("STRING", {})}}

    assert len(declared.saved_widgets(Probe)) == 2 + extra
    assert declared.saved_widgets(Probe)[-1].name == "after"


# -- changing inputs


def change(name, *assignments):
    read = load(name)
    for assignment in assignments:
        read = assign.assign(read, assignment, TABLE)
    return read


@pytest.mark.parametrize("key", ["Choir.words", "2.words", "Sing.words"])
def test_set_by_title_id_or_class(key):
    assert inputs(change("plain", f"{key}=a=b.c=d"), "2")["words"] == "a=b.c=d"


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("2.words=true", "true"),
        ('2.words="two\\nlines"', "two\nlines"),
        ("2.words=", ""),
        ('2.words="a \\"quoted\\" one"', 'a "quoted" one'),
        ('2.words="rock" and "roll"', '"rock" and "roll"'),
        ('2.words="C:\\temp\\new songs"', '"C:\\temp\\new songs"'),
        ('2.words="C:\\music"', '"C:\\music"'),
        ("2.seed=5", 5),
        ("2.loud=1", 1),
        ("2.echo=true", True),
        ("2.echo=no", False),
        ("2.voice=bass", "bass"),
        ("2.again=x", None),
    ],
)
def test_set_values(assignment, value):
    if value is None:
        with pytest.raises(WorkflowError, match="What can be set"):
            change("plain", assignment)
        return
    name = assignment.split("=")[0].split(".")[1]
    assert inputs(change("plain", assignment), "2")[name] == value


@pytest.mark.parametrize("assignment", ["seed=x", "seed=1.5", "seed=true", "loud=loud", "echo=5", "voice=me"])
def test_set_refuses_other_kinds(assignment):
    with pytest.raises(WorkflowError, match=r"Choir \(2\), input '\w+': .*allowed: "):
        change("plain", f"2.{assignment}")


def test_set_cuts_a_link_and_reaches_primitives_and_subgraphs():
    assert inputs(change("reroutes", "5.text=new"), "5") == {"text": "new"}
    assert inputs(change("primitives", "Number of Both.value=4"), "3") == {"a": 4, "b": 4}
    read = change("subgraphs", "Left.more=1", "Left.value=2", "11:22.value=3", "Right.extra=4", "10.extra=5")
    assert inputs(read, "10:21")["b"] == 1 and inputs(read, "10:22")["value"] == 2
    assert inputs(read, "11:22")["value"] == 3
    assert inputs(read, "11:23:31")["b"] == 4 and inputs(read, "10:23:31")["b"] == 5


def test_set_is_seen_in_the_workflow_that_is_saved():
    before = sample("subgraphs")
    settings = ["Left.more=1", "10.extra=5", "Outside.value=9"]
    after = change("subgraphs", *settings).workflow
    assert after["nodes"][1]["widgets_values"] == [1, 100, 5] and after["nodes"][0]["widgets_values"] == [9]
    assert load("subgraphs").workflow == before
    assert change("primitives", "1.value=4").workflow["nodes"][0]["widgets_values"] == [4, "fixed"]
    assert change("plain", "2.echo=true").workflow["nodes"][1]["widgets_values"][4:] == [0.25, True]
    assert change("object_links", "2.echo=on").workflow["nodes"][1]["widgets_values"]["echo"] is True
    again = graph.parse(after, TABLE)
    assert again.nodes == change("subgraphs", *settings).nodes


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("nonsense", "takes 'Node title.input=value'"),
        ("Choir.tempo=1", r"Choir \(2, Sing\): words, seed, voice, loud, echo$"),
        ("Band.words=1", r"(?s)Words \(1, Words\): text.*Choir"),
    ],
)
def test_unknown_targets_list_what_there_is(assignment, words):
    with pytest.raises(WorkflowError, match=words):
        change("plain", assignment)


def test_ambiguous_targets_are_refused():
    with pytest.raises(WorkflowError, match="1, 5, 8"):
        change("reroutes", "Words.text=x")


# -- damaged files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a JSON file"),
        ("[" * 100000, "not a JSON file"),
        ("[]", "not a ComfyUI workflow"),
        ("{}", "not a ComfyUI workflow"),
        ('{"1": {"inputs": {}}}', "not a ComfyUI workflow"),
        ('{"nodes": [{"id": 1}]}', "damaged"),
        ('{"nodes": [3]}', "damaged"),
        ('{"1": {"class_type": 3, "inputs": {}}}', "damaged"),
        ('{"1": {"class_type": "Show", "inputs": {"value": [1]}}}', "is no link"),
    ],
)
def test_damaged_files(tmp_path, text, words):
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(WorkflowError, match=words):
        graph.load(tmp_path / "w.json", TABLE)


def test_missing_files(tmp_path):
    with pytest.raises(WorkflowError, match="There is no workflow file"):
        graph.load(tmp_path / "w.json", TABLE)
    with pytest.raises(WorkflowError, match="cannot be read"):
        graph.load(tmp_path, TABLE)


def test_broken_links_are_named():
    data = sample("plain")
    data["links"].pop(0)
    with pytest.raises(WorkflowError, match=r"Choir \(2\), input 'again': refers to link 1"):
        graph.parse(data, TABLE)
    data = sample("plain")
    data["links"][0][1] = 99
    with pytest.raises(WorkflowError, match="starts at node 99"):
        graph.parse(data, TABLE)


def test_circles_of_reroutes_and_subgraphs_within_themselves():
    data = sample("reroutes")
    data["links"][0][1] = 3
    with pytest.raises(WorkflowError, match="circle"):
        graph.parse(data, TABLE)
    data = sample("subgraphs")
    data["definitions"]["subgraphs"][1]["nodes"][0]["type"] = "aaaaaaaa-0000-4000-8000-000000000001"
    with pytest.raises(WorkflowError, match="deep|instances"):
        graph.parse(data, TABLE)


def spots(value, path=()):
    """Every path in nested JSON."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from spots(inner, (*path, key))


WORDS = st.sampled_from(["", "*", "Show", "Reroute", "-10"])
KEYS = st.sampled_from(["id", "type", "link"])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-30, 40) | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=4,
)
SAMPLE_DATA = [json.loads(path.read_text()) for path in sorted(SAMPLES.glob("*.json"))]


@QUICK
@given(st.data())
def test_a_damaged_sample_is_read_or_refused(draw):
    data = copy.deepcopy(draw.draw(st.sampled_from(SAMPLE_DATA)))
    for _ in range(draw.draw(st.integers(1, 3))):
        path = draw.draw(st.sampled_from([path for path in spots(data) if path]))
        holder = data
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = draw.draw(JUNK)
    try:
        read = graph.parse(data, TABLE)
        json.dumps(read.prompt())
    except WorkflowError as error:
        assert str(error)
