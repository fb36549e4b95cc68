"""One process for each run: who is refused, and what an ended one leaves behind."""

import errno
import os
import subprocess
import sys
import types

import pytest

from acestep_graph.acestep_core.training import lock
from acestep_graph.acestep_core.training.lock import RunInUse, locked, require_free
from acestep_graph.acestep_core.training.trainer import TrainError
from tests.pack import ROOT

from .making import SETTINGS, run

HOLD = """
import sys, time
from pathlib import Path
from tests import pack
pack.load()
from acestep_graph.acestep_core.training.lock import locked
with locked(Path(sys.argv[1])):
    print("here", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the run in ``jazz``."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "jazz")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path, holder):
    sentence = rf"jazz is being trained already \(process {holder.pid} on .*\)\. Wait .* another name"
    with pytest.raises(TrainError, match=sentence):
        run(tmp_path / "jazz")
    with pytest.raises(RunInUse, match=sentence):
        require_free(tmp_path / "jazz")
    assert [path.name for path in (tmp_path / "jazz").iterdir()] == ["lock"]
    holder.kill()
    holder.wait()
    assert run(tmp_path / "jazz", SETTINGS).steps == 15


def test_a_second_thread_of_this_process_is_refused(tmp_path):
    with locked(tmp_path / "jazz"), pytest.raises(RunInUse, match=f"process {os.getpid()} "), locked(tmp_path / "jazz"):
        pass
    with locked(tmp_path / "jazz"):
        pass


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path):
    with locked(tmp_path / "jazz"):
        assert (tmp_path / "jazz").is_dir()
    assert not (tmp_path / "jazz").exists()
    (tmp_path / "kept").mkdir()
    with locked(tmp_path / "kept"):
        pass
    assert (tmp_path / "kept").is_dir()
    require_free(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("junk", [b"", b"hello", b"[1]", b'{"process": 1}'])
def test_what_stands_in_the_file_does_not_matter(tmp_path, junk):
    (tmp_path / "lock").write_bytes(junk)
    with locked(tmp_path):
        (tmp_path / "lock").write_bytes(junk)
        with pytest.raises(RunInUse, match=r"is being trained already\. Wait"), locked(tmp_path):
            pass


def test_a_file_system_without_locks_is_trained_on(tmp_path, monkeypatch):
    def unknown(_handle):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "_lock", unknown)
    with locked(tmp_path):
        pass


def test_on_windows_a_byte_behind_the_text_is_locked(tmp_path, monkeypatch):
    """The module as it is where there is no fcntl."""
    asked = []

    def locking(handle, mode, count):
        asked.append((os.lseek(handle, 0, os.SEEK_CUR), mode, count))
        if len(asked) > 1:
            raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    there = types.ModuleType(lock.__name__)
    exec(compile(open(lock.__file__).read(), lock.__file__, "exec"), there.__dict__)  # noqa: S102
    with there.locked(tmp_path), pytest.raises(there.RunInUse, match=f"process {os.getpid()} "), there.locked(tmp_path):
        pass
    assert asked == [(there.FAR, 2, 1)] * 2
