"""The canvas side's pure parts on plain Node, and what all of its files keep to."""

import json
import re
import shutil
import subprocess

import pytest

from tests.pack import ROOT

MODULES = sorted((ROOT / "web").rglob("*.js"))
LOCALES = sorted(path for path in (ROOT / "locales").glob("*/*.json") if path.stem != "help")
NODE = shutil.which("node")
OLDEST = 20


def node_version():
    if NODE is None:
        return 0
    said = subprocess.run([NODE, "--version"], capture_output=True, text=True).stdout
    found = re.match(r"v(\d+)", said)
    return int(found[1]) if found else 0


@pytest.mark.skipif(node_version() < OLDEST, reason=f"needs Node {OLDEST} or newer")
def test_the_pure_parts_on_plain_node():
    tests = sorted(str(path) for path in (ROOT / "tests" / "js").glob("*.test.js"))
    done = subprocess.run([NODE, "--test", *tests], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"^# pass (\d+)$", done.stdout, re.MULTILINE)[1]) >= 20


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_text_is_never_run(path):
    """No data becomes markup or code, and nothing is loaded from elsewhere."""
    source = path.read_text("utf-8")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "import("):
        assert word not in source, word
    for address in re.findall(r"https?://[^\s\"'`]+", source):
        assert address == "http://www.w3.org/2000/svg"
    imported = re.findall(r'from "([^"]+)"', source)
    assert all(name.startswith(".") for name in imported)
    if path.parent.name == "pure":
        assert all(name.startswith("./") for name in imported)


def test_every_text_of_the_canvas_is_in_the_english_file_and_used():
    texts = json.loads((ROOT / "locales/en/main.json").read_text("utf-8"))["acestepGraph"]
    source = "\n".join(path.read_text("utf-8") for path in MODULES)
    used = set(re.findall(r'"((?:player|panel|about|send|use|workflow|compare|dice|train|table)\.[a-z. ]+)"', source))
    assert used == set(texts)


@pytest.mark.parametrize("path", LOCALES, ids=lambda path: "/".join(path.parts[-2:]))
def test_no_text_that_the_frontend_reads_holds_signs_of_its_own(path):
    """It takes braces and @ in names and tooltips for signs of its message format and stops; | parts plurals."""

    def texts(content):
        return [text for inner in content.values() for text in texts(inner)] if isinstance(content, dict) else [content]

    content = json.loads(path.read_text("utf-8"))
    if path.stem == "main":
        content = {key: value for key, value in content.items() if key != "acestepGraph"}  # read by our own words.js
    assert not [text for text in texts(content) if re.search(r"[{}@|]", text)]


def test_settings_and_commands_are_named_in_the_english_files():
    source = (ROOT / "web/js/acestep.js").read_text("utf-8")
    for file, prefix in (("commands", 'id: "ACEStep.'), ("settings", 'const (?:LYRICS|LIMIT) = "ACEStep.')):
        names = {f"ACEStep_{name}" for name in re.findall(prefix + r'(\w+)"', source)}
        assert names == set(json.loads((ROOT / f"locales/en/{file}.json").read_text("utf-8")))
