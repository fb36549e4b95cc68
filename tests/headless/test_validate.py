"""What is refused before anything runs, and in which words."""

import pytest

from acestep_graph.headless import graph
from acestep_graph.headless.graph import WorkflowError
from acestep_graph.headless.validate import types_fit, validate
from tests.headless.dummy_nodes import TABLE


def api(**nodes):
    data = {id: {"class_type": kind, "inputs": inputs} for id, (kind, inputs) in nodes.items()}
    return graph.parse(data, TABLE, {})


def problems(**nodes):
    with pytest.raises(WorkflowError) as caught:
        validate(api(**nodes), TABLE)
    return [str(problem) for problem in caught.value.problems]


SING = {"words": "a", "again": ["w", 0], "seed": 1, "voice": "alto"}
REST = {"w": ("Words", {"text": "x"}), "out": ("Show", {"value": ["s", 0]})}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": -1}, "Sing (s), input 'seed': -1 is out of range; allowed: a whole number from 0 up to 900719"),
        ({"loud": 1.5}, "Sing (s), input 'loud': 1.5 is out of range; allowed: a number from 0.0 up to 1.0."),
        ({"loud": float("nan")}, "Sing (s), input 'loud': nan is out of range; allowed: a number from 0.0 up to 1.0."),
        ({"seed": "many"}, "input 'seed': 'many' is not a whole number from"),
        ({"seed": None}, "input 'seed': None is not a whole number"),
        ({"seed": 1e400}, "input 'seed': inf is not a whole number"),
        ({"voice": "cat"}, "Sing (s), input 'voice': 'cat' is not in its list; allowed: one of alto, bass, tenor."),
        ({"voice": {"a": 1}}, "is not in its list"),
        ({"again": ["w", 3]}, "input 'again': is linked to output 3 of Words (w), which has only 1."),
        ({"again": ["nobody", 0]}, "input 'again': is linked to node nobody, which is not in the workflow."),
        ({"again": ["n", 0]}, "input 'again': takes STRING, but Number (n) gives INT there."),
    ],
)
def test_one_problem(change, expected):
    found = problems(s=("Sing", {**SING, **change}), n=("Number", {"value": 1}), **REST)
    assert len(found) == 1 and expected in found[0]


def test_all_problems_are_told_at_once():
    found = problems(s=("Sing", {"words": "a", "voice": "cat"}), w=("Words", {}), out=("Show", {"value": ["s", 0]}))
    assert found == [
        "Sing (s), input 'again': is missing; connect or give text.",
        "Sing (s), input 'seed': is missing; connect or give a whole number from 0 up to 9007199254740991.",
        "Sing (s), input 'voice': 'cat' is not in its list; allowed: one of alto, bass, tenor.",
    ]


def test_unknown_nodes_and_workflows_without_output():
    assert "no node type 'Nothing'" in problems(a=("Nothing", {}), b=("Show", {"value": 1}))[0]
    assert "no output node" in problems(a=("Number", {"value": 1}))[0]


def test_what_no_output_needs_is_not_checked():
    validate(api(a=("Number", {"value": 10**9}), b=("Show", {"value": 1})), TABLE)


def test_circles_are_named():
    adds = {"a": ("Add", {"a": ["b", 0], "b": 1}), "b": ("Add", {"a": ["a", 0], "b": 1})}
    found = problems(**adds, c=("Show", {"value": ["a", 0]}))
    assert found == ["The workflow goes in a circle: Add (a) → Add (b) → Add (a)."]


def test_deep_graphs_are_no_trouble():
    chain = {f"n{i}": ("Add", {"a": [f"n{i - 1}", 0], "b": [f"n{i - 1}", 0]}) for i in range(1, 400)}
    validate(api(n0=("Number", {"value": 1}), **chain, out=("Show", {"value": ["n399", 0]})), TABLE)


def test_constants_are_cast_as_comfyui_does():
    checked = validate(api(s=("Sing", {**SING, "seed": "12", "words": 5, "loud": 1, "echo": "false"}), **REST), TABLE)
    inputs = checked.nodes["s"].inputs
    assert (inputs["seed"], inputs["words"], inputs["loud"], inputs["echo"]) == (12, "5", 1.0, True)
    assert [type(inputs[k]) for k in ("seed", "words", "loud")] == [int, str, float]


def test_a_class_checks_its_own_inputs():
    found = problems(a=("Strict", {"odd": 4, "name": "x"}))
    assert found == ["Strict (a), input 'odd': 4 is even; give an odd number."]
    validate(api(a=("Strict", {"odd": 99, "name": "x"})), TABLE)
    assert "not in its list" in problems(a=("Strict", {"odd": 1, "name": "z"}))[0]
    validate(api(n=("Number", {"value": 2}), a=("Strict", {"odd": ["n", 0], "name": "x"})), TABLE)


class Base:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "run", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"a": ("INT", {"max": 3}), "b": ("STRING", {"forceInput": True})}}


def verdict(check, a=1):
    node = type("Own", (Base,), {"VALIDATE_INPUTS": classmethod(check)})
    data = {"x": {"class_type": "Own", "inputs": {"a": a, "b": ["n", 0]}}}
    data["n"] = {"class_type": "Number", "inputs": {"value": 1}}
    table = {**TABLE, "Own": node}
    try:
        validate(graph.parse(data, table, {}), table)
    except WorkflowError as error:
        return str(error)
    return None


def test_the_forms_of_validate_inputs():
    seen = {}

    def types(cls, input_types):
        seen.update(input_types)
        return True

    def everything(cls, **kwargs):
        seen.update(kwargs)
        return True

    assert "takes STRING" in verdict(lambda cls, a: True)
    assert verdict(types) is None and seen == {"b": "INT"}

    def both(cls, input_types, **kwargs):
        return types(cls, input_types) and everything(cls, **kwargs)

    seen.clear()
    assert verdict(both, a=99) is None and seen == {"a": 99, "b": None}


def test_a_check_that_fails_is_a_problem_of_its_node():
    def fails(cls, a, input_types):
        raise RuntimeError("oops")

    assert "Own (x)" in verdict(fails) and "RuntimeError: oops" in verdict(fails)
    assert "is not allowed" in verdict(lambda cls, a, input_types: False)


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        ("INT", "INT", True),
        ("INT", "FLOAT", False),
        ("*", "INT", True),
        ("INT", "*", True),
        ("INT,STRING", "STRING", True),
        ("INT", "STRING, INT", True),
        (["a", "b"], "COMBO", True),
        (["a", "b"], "INT", False),
    ],
)
def test_types_fit(given, wanted, fits):
    assert types_fit(given, wanted) is fits
