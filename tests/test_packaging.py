"""The lists that packaging needs twice agree with each other and with the tree."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ("acestep_core", "headless", "nodes")

tomllib = pytest.importorskip("tomllib", reason="in the standard library from Python 3.11")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_listed(project):
    found = {"acestep_graph"}
    for top in SHIPPED:
        for file in (ROOT / top).rglob("*.py"):
            found.add(".".join(["acestep_graph", *file.parent.relative_to(ROOT).parts]))
    assert sorted(found) == sorted(project["tool"]["setuptools"]["packages"])
    for package in found:
        folder = ROOT.joinpath(*package.split(".")[1:])
        assert (folder / "__init__.py").is_file(), f"{folder} needs an __init__.py"


def test_requirements_mirror_the_dependencies_and_leave_torch_alone(project):
    listed = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert listed == project["project"]["dependencies"]
    assert not any(name.startswith("torch") for name in listed)


def test_bootstrap_uses_the_standard_library_only():
    tree = ast.parse((ROOT / "bootstrap.py").read_text(encoding="utf-8"))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else name.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["sing"], 2), (["--help"], 0)])
def test_bootstrap_says_how_it_is_used(tmp_path, arguments, code):
    command = [sys.executable, str(ROOT / "bootstrap.py"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code
    assert "python3 bootstrap.py demo" in done.stderr


def test_what_is_left_out_of_the_registry_is_not_needed_to_play():
    """Patterns that begin at the root: ``docs`` alone would drop the help pages, ``nano`` the weights."""
    left_out = (ROOT / ".comfyignore").read_text("utf-8").split()
    assert all(pattern.startswith("/") and (ROOT / pattern.strip("/")).is_dir() for pattern in left_out)
    assert not {"/acestep_core/", "/headless/", "/nodes/", "/models/", "/web/", "/workflows/"} & set(left_out)
