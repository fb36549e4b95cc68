"""Running graphs: order, caching, lists, laziness, and the equality of the two file formats."""

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acestep_graph import headless
from acestep_graph.acestep_core.host import Cancelled, Host, current
from acestep_graph.headless import graph
from acestep_graph.headless.execute import Cache, NodeFailed, execute
from acestep_graph.headless.validate import validate
from tests.headless import dummy_nodes
from tests.headless.dummy_nodes import CALLS, TABLE
from tests.headless.test_graph import SAMPLES


def run(data, host=None, table=TABLE, **options):
    CALLS.clear()
    return execute(validate(graph.parse(data, table, {}), table), table, host or Host(), **options)


def api(**nodes):
    return {id: {"class_type": kind, "inputs": inputs} for id, (kind, inputs) in nodes.items()}


def texts(result):
    return {id: ui["text"] for id, ui in result.ui.items()}


@pytest.mark.parametrize("name", ["plain", "plain_api", "object_links"])
def test_every_format_runs_alike(name):
    result = headless.run(SAMPLES / f"{name}.json", Host(), table=TABLE)
    assert texts(result) == {"3": ["do re mi/hey/42/tenor/0.25/False"]}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reroutes", {"4": ["hey"], "6": ["hey"], "9": ["alone"]}),
        ("primitives", {"4": ["42"]}),
        ("modes", {"7": ["first"], "8": ["105"], "12": ["kept"]}),
        ("subgraphs", {"12": [str(3 + 10 + 100 + 1000 + 20 + 200 + 5000)], "13": ["3"]}),
    ],
)
def test_samples_run(name, expected):
    assert texts(headless.run(SAMPLES / f"{name}.json", Host(), table=TABLE)) == expected


def test_settings_and_contents_can_be_given():
    data = api(x=("Show", {"value": ["n", 0]}), n=("Number", {"value": 1}))
    assert texts(headless.run(data, Host(), table=TABLE, settings=["n.value=8"])) == {"x": ["8"]}


def test_equal_nodes_run_once():
    data = api(
        a=("Number", {"value": 1}),
        b=("Number", {"value": 1}),
        c=("Add", {"a": ["a", 0], "b": ["b", 0]}),
        d=("Add", {"b": ["a", 0], "a": ["b", 0]}),
        x=("Show", {"value": ["c", 0]}),
        y=("Show", {"value": ["d", 0]}),
        z=("Show", {"value": 2}),
    )
    done = []
    result = run(data, on_done=done.append)
    assert sorted(CALLS) == ["Add", "Number", "Show", "Show"]
    assert texts(result) == {"x": ["2"], "y": ["2"], "z": ["2"]}
    assert [d.node.id for d in done if d.cached] == ["b", "y"]


def test_equal_looking_constants_of_other_types_differ():
    values = {"a": 1, "b": 1.0, "c": True, "d": "1"}
    result = run(api(**{id: ("Show", {"value": value}) for id, value in values.items()}))
    assert texts(result) == {"a": ["1"], "b": ["1.0"], "c": ["True"], "d": ["1"]}
    assert not any(done.cached for done in result.done)


def test_nodes_that_ask_for_their_id_are_not_shared():
    result = run(api(a=("Hidden", {}), b=("Hidden", {})))
    assert CALLS == ["Hidden", "Hidden"]
    assert [ui["seen"][0]["id"] for ui in result.ui.values()] == ["a", "b"]


def test_hidden_inputs():
    data = {"nodes": [{"id": 5, "type": "Hidden", "title": "It"}], "links": [], "extra": {"note": 1}}
    seen = run(data).ui["5"]["seen"][0]
    assert seen["extra"] == {"workflow": data}
    assert seen["prompt"] == {"5": {"class_type": "Hidden", "inputs": {}, "_meta": {"title": "It"}}}
    assert run(api(a=("Hidden", {}))).ui["a"]["seen"][0]["extra"] is None


def test_lists_repeat_the_nodes_behind_them():
    data = api(
        l=("Count", {"upto": 3}),
        m=("Count", {"upto": 2}),
        s=("Add", {"a": ["l", 0], "b": ["m", 0]}),
        n=("Words", {"text": ["l", 1]}),
        t=("Total", {"numbers": ["s", 0], "factor": 10}),
        x=("Show", {"value": ["s", 0]}),
        y=("Show", {"value": ["n", 0]}),
        z=("Show", {"value": ["t", 0]}),
    )
    assert texts(run(data)) == {"x": ["0", "2", "3"], "y": ["3 numbers"], "z": ["50"]}


def test_an_empty_list_is_told():
    with pytest.raises(NodeFailed, match=r"x\): input 'value' received an empty list"):
        run(api(l=("Count", {"upto": 0}), x=("Show", {"value": ["l", 0]})))


@pytest.mark.parametrize("second", [False, True])
def test_lazy_inputs_run_only_when_asked_for(second):
    data = api(
        one=("Number", {"value": 1}),
        two=("Add", {"a": 1, "b": 1}),
        c=("Choose", {"second": second, "one": ["one", 0], "two": ["two", 0]}),
        x=("Show", {"value": ["c", 0]}),
    )
    assert texts(run(data)) == {"x": ["2" if second else "1"]}
    assert CALLS == (["Add", "Show"] if second else ["Number", "Show"])


def test_async_nodes_run_within_and_outside_of_a_loop():
    data = api(l=("Count", {"upto": 3}), a=("Later", {"value": ["l", 0]}), x=("Show", {"value": ["a", 0]}))
    assert texts(run(data)) == {"x": ["0", "10", "20"]}

    async def within():
        return texts(run(data))

    assert asyncio.run(within()) == {"x": ["0", "10", "20"]}


def test_what_a_node_may_return():
    def node(value, **attributes):
        def run(self):
            return value

        inputs = classmethod(lambda cls: {"required": {}})
        members = {"INPUT_TYPES": inputs, "FUNCTION": "run", "RETURN_TYPES": ("INT",), "OUTPUT_NODE": True, "run": run}
        return type("Own", (), {**members, **attributes})

    def result(value, **attributes):
        table = {**TABLE, "Own": node(value, **attributes)}
        return run(api(a=("Own", {})), table=table)

    assert result((1,)).outputs["a"] == [[1]]
    assert result({"result": (1,), "ui": {"t": (1, 2)}}).ui == {"a": {"t": [1, 2]}}
    assert result({"ui": {"t": []}}).outputs["a"] == []
    assert result(None, RETURN_TYPES=()).outputs["a"] == []
    with pytest.raises(NodeFailed, match="must be a list"):
        result({"ui": {"t": "text"}})
    with pytest.raises(NodeFailed, match="only ComfyUI"):
        result({"result": (1,), "expand": {}})


def test_a_failure_names_the_node_and_keeps_what_was_done():
    done = []
    data = api(a=("Show", {"value": 1}), n=("Number", {"value": 1}), b=("Break", {"value": ["n", 0]}))
    with pytest.raises(NodeFailed, match=r"^Break \(b\): this went wrong$") as caught:
        run(data, on_done=done.append)
    assert isinstance(caught.value.__cause__, ValueError) and caught.value.node.id == "b"
    assert [d.node.id for d in done] == ["a", "n"]


def test_cancelling_stops_between_nodes():
    stop = threading.Event()
    data = api(a=("Show", {"value": 1}), b=("Show", {"value": 2}))
    with pytest.raises(Cancelled):
        run(data, Host(should_stop=stop.is_set), on_done=lambda done: stop.set())
    assert CALLS == ["Show"]


def test_the_host_is_current_and_inference_mode_is_on():
    import torch

    seen = []

    class Look(dummy_nodes.Show):
        def run(self, value):
            seen.append((current(), torch.is_inference_mode_enabled()))
            return {}

    host = Host()
    run(api(a=("Look", {"value": 1})), host, {**TABLE, "Look": Look})
    assert seen == [(host, True)] and current() is not host and not torch.is_inference_mode_enabled()


def test_a_cache_from_run_to_run_redoes_what_changed():
    def data(value):
        return api(n=("Number", {"value": 5}), a=("Add", {"a": ["n", 0], "b": value}), x=("Show", {"value": ["a", 0]}))

    cache = Cache()
    run(data(1), cache=cache)
    assert CALLS == ["Number", "Add", "Show"]
    assert texts(run(data(1), cache=cache)) == {"x": ["6"]} and CALLS == []
    assert texts(run(data(2), cache=cache)) == {"x": ["7"]} and CALLS == ["Add", "Show"]
    assert len(cache.results) == 3


def test_a_node_that_changes_always_runs_on_the_same_object():
    data = api(a=("Always", {}), b=("Always", {}), x=("Show", {"value": ["a", 0]}), y=("Show", {"value": ["b", 0]}))
    cache = Cache()
    assert texts(run(data, cache=cache)) == {"x": ["1"], "y": ["1"]}
    assert CALLS.count("Always") == 2
    assert texts(run(data, cache=cache)) == {"x": ["2"], "y": ["2"]}


# -- random graphs: the canvas form and the API form give the same results


@st.composite
def random_graphs(draw):
    """A graph of numbers as (kind, {input: constant or earlier node}) by id."""
    nodes = {}
    for id in range(1, draw(st.integers(2, 9))):
        source = st.integers(-50, 50)
        if nodes:
            source |= st.sampled_from(sorted(nodes)).map(lambda node: ("node", node))
        if draw(st.booleans()):
            nodes[id] = ("Number", {"value": draw(source)})
            continue
        nodes[id] = ("Add", {"a": draw(source), "b": draw(source)})
        if id > 1 and draw(st.booleans()):
            nodes[id][1]["c"] = ("node", draw(st.integers(1, id - 1)))
    return nodes


def as_api(nodes):
    def value(v):
        return [str(v[1]), 0] if isinstance(v, tuple) else v

    data = {str(i): {"class_type": k, "inputs": {n: value(v) for n, v in ins.items()}} for i, (k, ins) in nodes.items()}
    shows = {str(i + 100): {"class_type": "Show", "inputs": {"value": [str(i), 0]}} for i in nodes}
    return {**data, **shows}


def as_canvas(nodes, draw):
    """The same graph drawn on a canvas, with reroutes, primitives and a subgraph thrown in."""
    raw, links, wires = {}, [], {}

    def connect(origin, target, slot, type_="INT"):
        links.append([len(links) + 1, origin, 0, target, slot, type_])
        return len(links)

    for id, (kind, inputs) in nodes.items():
        names = {"Number": ["value"], "Add": ["a", "b"]}[kind]
        saved = [inputs[n] if isinstance(inputs.get(n), int) else 999 for n in names]
        raw[id] = {"id": id, "type": kind, "inputs": [], "outputs": [{"name": "INT", "type": "INT"}]}
        raw[id]["widgets_values"] = saved
        wires[id] = inputs
        raw[id + 100] = {"id": id + 100, "type": "Show", "inputs": []}
        wires[id + 100] = {"value": ("node", id)}
    fresh = 1000
    for id, inputs in wires.items():
        for name, value in inputs.items():
            way = draw(st.sampled_from(["straight", "detour"]))
            slots = raw[id]["inputs"]
            if not isinstance(value, tuple) and way == "straight":
                continue
            origin = value[1] if isinstance(value, tuple) else None
            if origin is None or way == "detour":
                fresh += 1
                kind = "PrimitiveNode" if origin is None else "Reroute"
                raw[fresh] = {"id": fresh, "type": kind, "outputs": [{"name": "", "type": "*"}]}
                if origin is None:
                    raw[fresh]["widgets_values"] = [value, "fixed"]
                    position = {"value": 0, "a": 0, "b": 1}[name]
                    raw[id]["widgets_values"][position] = -1
                else:
                    raw[fresh]["inputs"] = [{"name": "", "type": "*", "link": connect(origin, fresh, 0, "*")}]
                origin = fresh
            widget = {} if name == "c" or raw[id]["type"] == "Show" else {"widget": {"name": name}}
            slots.append({"name": name, "type": "INT", **widget, "link": connect(origin, id, len(slots))})
    order = draw(st.permutations(sorted(raw)))
    return {"nodes": [raw[id] for id in order], "links": links, "version": 0.4}


def as_subgraph(data):
    """All of a canvas but its Show nodes within one subgraph, with an output for each Show."""
    inner = [node for node in data["nodes"] if node["type"] != "Show"]
    shows = [node for node in data["nodes"] if node["type"] == "Show"]
    ids = {node["id"] for node in inner}
    links = {link[0]: link for link in data["links"]}
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    inside = [dict(zip(keys, link, strict=True)) for link in data["links"] if link[3] in ids]
    outside = []
    for slot, show in enumerate(shows):
        link = links[show["inputs"][0]["link"]]
        inside.append(dict(zip(keys, (5000 + slot, link[1], link[2], -20, slot, "INT"), strict=True)))
        outside.append([link[0], 9000, slot, show["id"], 0, "INT"])
    outputs = [{"name": str(i), "type": "INT"} for i in range(len(shows))]
    definition = {"id": "sub", "name": "All", "inputs": [], "outputs": outputs, "nodes": inner, "links": inside}
    instance = {"id": 9000, "type": "sub", "inputs": [], "outputs": outputs, "properties": {"proxyWidgets": []}}
    return {"nodes": [instance, *shows], "links": outside, "definitions": {"subgraphs": [definition]}}


@settings(max_examples=60, deadline=None)
@given(random_graphs(), st.data())
def test_random_graphs_run_alike_in_every_form(nodes, draw):
    expected = {}
    for id, (_, inputs) in nodes.items():
        expected[id] = sum(expected[v[1]] if isinstance(v, tuple) else v for v in inputs.values())
    canvas = as_canvas(nodes, draw.draw)
    for form in (as_api(nodes), canvas, as_subgraph(canvas)):
        assert {int(id) - 100: int(text[0]) for id, text in texts(run(form)).items()} == expected


def test_cancelled_while_it_is_looked_what_changed():
    class Stopped:
        CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "x", "run", (), True

        @classmethod
        def INPUT_TYPES(cls):
            return {"required": {}}

        @classmethod
        def IS_CHANGED(cls):
            raise Cancelled("Stopped by the user.")

        def run(self):
            pytest.fail("it ran")

    with pytest.raises(Cancelled):
        run(api(a=("Stopped", {})), table={**TABLE, "Stopped": Stopped})
