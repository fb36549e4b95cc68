"""Downloading, against a hub that lives in this file: once as an object, once as a server on this machine."""

import hashlib
import http.server
import importlib
import json
import re
import shutil
import sys
import threading
from pathlib import Path

import pytest

from acestep_graph.acestep_core.checkpoints import catalog, download
from acestep_graph.acestep_core.host import Cancelled, Host

MAIN, SFT = catalog.MAIN_REPO, "ACE-Step/acestep-v15-sft"
FILES = {
    MAIN: {
        "acestep-v15-turbo/config.json": b'{"is_turbo": true}',
        "acestep-v15-turbo/model.safetensors": bytes(range(256)) * 400,
        "acestep-v15-turbo/silence_latent.pt": b"silence",
        "acestep-v15-turbo/modeling_acestep_v15_turbo.py": b"raise SystemExit('executed')",
        "Qwen3-Embedding-0.6B/config.json": b"{}",
        "Qwen3-Embedding-0.6B/model.safetensors": b"text" * 999,
        "Qwen3-Embedding-0.6B/tokenizer.json": b"{}" * 99,
        "vae/config.json": b"{}",
        "vae/diffusion_pytorch_model.safetensors": b"vae" * 999,
        "README.md": b"hello",
    },
    SFT: {
        "config.json": b"{}",
        "model-00001-of-00002.safetensors": b"1" * 50,
        "model-00002-of-00002.safetensors": b"2" * 60,
        "model.safetensors.index.json": b"{}",
        "sub/config.json": b"elsewhere",
    },
}
COMMIT = "c0ffee" * 6 + "beef"


def listed(repo):
    return [
        download.HubFile(path, len(data), sha256=hashlib.sha256(data).hexdigest())
        if "model" in path
        else download.HubFile(path, len(data), blob=hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest())
        for path, data in FILES[repo].items()
    ]


class FakeHub:
    """Sends chunks of 1000 bytes. ``break_at``: lose the connection there, once; ``spoil``: a path sent wrong."""

    def __init__(self, break_at=None, spoil=None):
        self.break_at, self.spoil, self.fetched = break_at, spoil, []

    def listing(self, repo, revision):
        assert revision in (None, "v1")
        return COMMIT, listed(repo)

    def fetch(self, repo, path, commit, into, start, size):
        assert commit == COMMIT and into.tell() == start
        self.fetched.append((path, start))
        data = FILES[repo][path] if path != self.spoil else b"x" * size
        for position in range(start, size, 1000):
            if self.break_at is not None and position >= self.break_at:
                self.break_at = None
                raise ConnectionResetError("connection reset by peer")
            into.write(data[position : position + 1000])


def paths(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def host(tmp_path):
    return Host(models=tmp_path / "models")


TURBO = "acestep-v15-turbo"


def test_the_turbo_set_is_fetched_and_nothing_else(host):
    reports = []
    host._on_progress = lambda *report: reports.append(report)
    folder = download.download("turbo", host, revision="v1", hub=FakeHub())
    root = host.models / "acestep"
    assert folder == root / TURBO
    expected = [path for path in FILES[MAIN] if not path.endswith((".py", ".md"))]
    assert paths(root) == sorted(expected)
    assert all((root / path).read_bytes() == FILES[MAIN][path] for path in expected)
    assert reports and all(0 <= done <= total for done, total, _ in reports)
    assert reports[-1][0] == reports[-1][1] and "MB" in reports[-1][2]


def test_a_sharded_repository_fills_the_folder_of_its_name(host):
    folder = download.download("ACEStep-v15-SFT", host, hub=FakeHub())
    assert folder == host.models / "acestep" / "acestep-v15-sft"
    assert paths(folder) == sorted(set(FILES[SFT]) - {"sub/config.json"})


def test_an_interrupted_file_goes_on_where_it_stopped(host):
    hub = FakeHub(break_at=30_000)
    with pytest.raises(download.DownloadError, match="connection.*what has arrived is kept"):
        download.download(TURBO, host, hub=hub)
    assert not (host.models / "acestep" / TURBO / "model.safetensors").exists()
    assert host.list_models("acestep") == []
    folder = download.download(TURBO, host, hub=hub)
    assert (folder / "model.safetensors").read_bytes() == FILES[MAIN][f"{TURBO}/model.safetensors"]
    assert [start for path, start in hub.fetched if path.endswith("model.safetensors")] == [0, 30_000]
    assert not (folder / download.PARTIAL_FOLDER).exists()


def test_stopping_between_chunks_keeps_what_arrived(host):
    hub = FakeHub()
    host._should_stop = lambda: len(hub.fetched) == 2
    with pytest.raises(Cancelled):
        download.download(TURBO, host, hub=hub)
    host._should_stop = None
    download.download(TURBO, host, hub=hub)
    assert hub.fetched[2][1] == 1000


def test_what_is_there_is_not_fetched_again(host):
    download.download(TURBO, host, hub=FakeHub())
    hub = FakeHub()
    download.download(TURBO, host, hub=hub)
    assert hub.fetched == []


def test_a_wrong_hash_is_refused_and_deleted(host):
    path = f"{TURBO}/model.safetensors"
    with pytest.raises(download.DownloadError, match="arrived damaged.*hash"):
        download.download(TURBO, host, hub=FakeHub(spoil=path))
    assert "model.safetensors" not in "".join(paths(host.models))
    assert (download.download(TURBO, host, hub=FakeHub()) / "model.safetensors").read_bytes() == FILES[MAIN][path]


def test_a_wrong_small_file_is_noticed_too(host):
    with pytest.raises(download.DownloadError, match="config.json arrived damaged"):
        download.download("vae", host, hub=FakeHub(spoil="vae/config.json"))


def test_a_file_of_the_users_own_is_never_overwritten(host):
    mine = host.models / "acestep" / TURBO / "model.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"my fine-tuned weights")
    with pytest.raises(download.DownloadError, match="not the published file.*21 bytes instead of"):
        download.download(TURBO, host, hub=FakeHub())
    assert mine.read_bytes() == b"my fine-tuned weights"


def test_too_little_room_is_said_before_anything_is_fetched(host, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10**12, 10**12 - 5, 5))
    hub = FakeHub()
    with pytest.raises(download.DownloadError, match="Not enough room.*GB are free"):
        download.download("turbo", host, hub=hub)
    assert hub.fetched == [] and not host.models.exists()


def test_a_disk_that_fills_up_meanwhile_keeps_what_arrived(host):
    class Full(FakeHub):
        def fetch(self, repo, path, commit, into, start, size):
            into.write(FILES[repo][path][:4])
            into.stream = open("/dev/full", "wb", buffering=0)
            into.write(b"more")

    with pytest.raises(download.DownloadError, match="could not be written.*No space left"):
        download.download("vae", host, hub=Full())
    assert any(".partial" in path for path in paths(host.models))


def test_an_unknown_name_lists_the_known_ones(host):
    with pytest.raises(ValueError, match="no published model 'turbi'.*turbo.*acestep-5Hz-lm-4B"):
        download.download("turbi", host, hub=FakeHub())
    assert {"turbo", "xl-base", "vae", "acestep-5Hz-lm-1.7B"} <= set(download.names())


def test_without_the_hub_library_the_message_says_how_to_get_it(host, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(download.DownloadError, match="pip install huggingface_hub"):
        download.download("turbo", host)


@pytest.mark.parametrize(
    "path", ["../evil.safetensors", "vae/../model.safetensors", "vae\\..\\model.safetensors", "x/vae"]
)
def test_names_from_the_hub_cannot_lead_elsewhere(path):
    assert not download._allowed(path, "", ("*",)) and not download._allowed(f"vae/{path}", "vae/", ("*",))


class _Server(http.server.BaseHTTPRequestHandler):
    """The two addresses of the hub that the download uses."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        if "/api/models/" in self.path:
            repo = re.search(r"/api/models/([^/]+/[^/?]+)", self.path)[1]
            if repo not in FILES:
                return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            siblings = [
                {"rfilename": file.path, "size": file.size}
                | ({"lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": 1}} if file.sha256 else {})
                | {"blobId": file.blob or "0" * 40}
                for file in listed(repo)
            ]
            content = {"id": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
            return self.answer(200, json.dumps(content).encode())
        repo, path = re.fullmatch(rf"/(.+?/.+?)/resolve/{COMMIT}/(.+)", self.path).groups()
        data, wanted = FILES[repo][path], self.headers.get("Range")
        if wanted:
            start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
            return self.answer(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        return self.answer(200, data)

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), "Content-Type": "application/json", **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    importlib.import_module("huggingface_hub.constants")
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    running.requests = []
    threading.Thread(target=running.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{running.server_address[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(huggingface_hub.HfApi, "__init__", _endpoint(huggingface_hub.HfApi.__init__, address))
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield running
    running.shutdown()
    running.server_close()


def _endpoint(original, address):
    def init(self, *args, **options):
        original(self, *args, **{"endpoint": address, **options})

    return init


def test_the_real_library_fetches_checks_and_resumes(host, server):
    folder = host.models / "acestep" / TURBO
    weights = next(file for file in listed(MAIN) if file.path == f"{TURBO}/model.safetensors")
    partial = folder / download.PARTIAL_FOLDER / f"model.safetensors.{weights.sha256[:16]}"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(FILES[MAIN][weights.path][:70_000])
    assert download.download(TURBO, host) == folder
    assert paths(folder) == ["config.json", "model.safetensors", "silence_latent.pt"]
    assert (folder / "model.safetensors").read_bytes() == FILES[MAIN][weights.path]
    assert [asked for path, asked in server.requests if path.endswith("model.safetensors")] == ["bytes=70000-"]


def test_the_real_library_reports_a_missing_repository(host, server):
    with pytest.raises(download.DownloadError, match="acestep-v15-base is not there or not open to you"):
        download.download("acestep-v15-base", host)


def test_the_real_library_without_a_network(host, server):
    server.shutdown()
    server.server_close()
    with pytest.raises(download.DownloadError, match="connection to .* failed.*by hand"):
        download.download("vae", host)


def test_the_catalog_names_patterns_not_programs():
    for model in catalog.MODELS:
        assert not any(pattern.endswith((".py", ".bin", ".pkl", "*")) for pattern in model.files), model.id
        assert Path(model.folder).name == model.folder
