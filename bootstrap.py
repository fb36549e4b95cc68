"""Sets everything up in this checkout and runs it: ``python3 bootstrap.py demo``, ``python3 bootstrap.py test``.

Needs Python 3.10 or newer and a package index, nothing else. All that is installed goes to ``.venv`` beside
this file; the Python that runs it stays as it is. Later runs skip what is done already.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
SCRIPTS = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = SCRIPTS / ("python.exe" if os.name == "nt" else "python")
STAMP = VENV / "acestep-graph.json"
OLDEST = (3, 10)

USAGE = """usage: python3 bootstrap.py demo [options of acestep-graph demo]
       python3 bootstrap.py test [options of pytest]"""
EXTRAS = {"demo": {"standalone"}, "test": {"standalone", "test"}}
PIP_TO_UV = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
}
"""Settings of pip that its users expect to apply; uv does not read them by itself."""


class SetupError(Exception):
    """Setting up failed; the message says what to do."""


def main(arguments: list[str]) -> int:
    """Set up what the command needs and run it. Returns its exit code; 2 for a wrong command, 1 for failed set-up."""
    if sys.version_info < OLDEST:
        print(f"Python 3.10 or newer is needed; this is {sys.version.split()[0]}. Run: python3.10 bootstrap.py demo")
        return 2
    if not arguments or arguments[0] not in EXTRAS:
        print(USAGE, file=sys.stderr)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    command, rest = arguments[0], arguments[1:]
    try:
        prepare(EXTRAS[command])
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The next run goes on from here.", file=sys.stderr)
        return 130
    if command == "test":
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side, one process a core
        together = ["-n", "auto", "--dist", "worksteal"]  # neighbours share what a file prepares for its tests
        return run([str(PYTHON), "-m", "pytest", *together, *rest], ROOT)
    return run([str(SCRIPTS / "acestep-graph"), "demo", *rest], Path.cwd())


def prepare(extras: set[str]) -> None:
    """Bring ``.venv`` to the state that ``pyproject.toml`` and ``extras`` ask for."""
    if not usable():
        create()
    done = read_stamp()
    state = fingerprint()
    if done.get("state") == state and extras <= set(done.get("extras", ())) and (VENV / "pyvenv.cfg").is_file():
        return
    if done.get("state") == state:
        extras = extras | set(done["extras"])
    STAMP.unlink(missing_ok=True)
    uv = SCRIPTS / ("uv.exe" if os.name == "nt" else "uv")
    if not succeeds([str(uv), "--version"]):
        step("Installing uv", [str(PYTHON), "-m", "pip", "install", "--quiet", "--force-reinstall", "uv"])
    target = f".[{','.join(sorted(extras))}]"
    step(
        f"Installing acestep-graph {target[1:]} into {VENV} (the first time this fetches PyTorch)",
        [str(uv), "pip", "install", "--python", str(PYTHON), "--editable", target],
    )
    STAMP.write_text(json.dumps({"state": state, "extras": sorted(extras)}), encoding="utf-8")


def usable() -> bool:
    """Whether ``.venv`` holds a Python of the right version that has pip; a half-made one does not."""
    check = f"import sys, pip; sys.exit(sys.version_info < {OLDEST} or sys.prefix == sys.base_prefix)"
    return (VENV / "pyvenv.cfg").is_file() and succeeds([str(PYTHON), "-c", check])


def create() -> None:
    """Make ``.venv`` anew, in place of whatever unusable rest is there."""
    if VENV.is_symlink() or VENV.is_file():
        VENV.unlink()
    elif VENV.exists():
        shutil.rmtree(VENV)
    if importlib.util.find_spec("ensurepip") and not system_withholds_pip():
        step(f"Making {VENV}", [sys.executable, "-m", "venv", str(VENV)])
        return
    step(f"Making {VENV}", [sys.executable, "-m", "venv", "--without-pip", str(VENV)])
    try:
        wheel = fetch_pip()
        environment = {**os.environ, "PYTHONPATH": str(wheel)}
        step("Installing pip", [str(PYTHON), "-m", "pip", "install", "--quiet", str(wheel)], environment)
        wheel.unlink()
    except (OSError, ValueError, KeyError) as error:
        raise SetupError(
            f"This Python comes without ensurepip, and pip could not be fetched from the package index ({error}).\n"
            "On Debian and Ubuntu run `sudo apt install python3-venv`, elsewhere install a complete Python; "
            "then try again."
        ) from error


def system_withholds_pip() -> bool:
    """Debian's Python can carry an ensurepip package without the wheels that it installs."""
    return not succeeds([sys.executable, "-c", "import ensurepip; ensurepip.version()"])


def fetch_pip() -> Path:
    """Download pip's newest wheel from the package index, checked against the index's hash."""
    index = (os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple").rstrip("/") + "/pip/"
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    with urllib.request.urlopen(urllib.request.Request(index, headers=accept), timeout=60) as answer:
        files = json.load(answer)["files"]
    wheels = {}
    for file in files:
        name = re.fullmatch(r"pip-(\d+(?:\.\d+)*)-py3-none-any\.whl", file["filename"])
        oldest = re.search(r">=\s*3\.(\d+)", file.get("requires-python") or "")
        if name and not file.get("yanked") and (not oldest or int(oldest[1]) <= sys.version_info[1]):
            wheels[tuple(map(int, name[1].split(".")))] = file
    if not wheels:
        raise ValueError(f"{index} lists no wheel of pip")
    chosen = wheels[max(wheels)]
    with urllib.request.urlopen(
        urllib.request.Request(urllib.parse.urljoin(index, chosen["url"])), timeout=60
    ) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != chosen["hashes"]["sha256"]:
        raise ValueError("pip's wheel arrived damaged")
    wheel = VENV / chosen["filename"]
    wheel.write_bytes(content)
    return wheel


def fingerprint() -> str:
    """Changes when what is to be installed, or where it lies, changes."""
    return hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()


def read_stamp() -> dict:
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def step(what: str, command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run one step of the set-up, its output to stderr."""
    print(f"{what} …", file=sys.stderr, flush=True)
    environment = dict(os.environ if environment is None else environment)
    environment.pop("PYTHONHOME", None)
    for pip_name, uv_name in PIP_TO_UV.items():
        if environment.get(pip_name):
            environment.setdefault(uv_name, environment[pip_name])
    code = subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr).returncode
    if code:
        raise SetupError(
            f"{what} failed (exit code {code}); the lines above say why. "
            "Check the connection to the package index and the room on the disk, then run the same command again."
        )


def succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def run(command: list[str], folder: Path) -> int:
    """Run the command proper in ``folder``; its exit code and signals are passed on."""
    environment = {**os.environ, "VIRTUAL_ENV": str(VENV)}
    environment["PATH"] = os.pathsep.join([str(SCRIPTS), *filter(None, [environment.get("PATH")])])
    environment.setdefault("OMP_NUM_THREADS", "2")
    environment.pop("PYTHONHOME", None)
    sys.stdout.flush()
    if os.name == "nt":
        return subprocess.run(command, cwd=folder, env=environment).returncode
    os.chdir(folder)
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
