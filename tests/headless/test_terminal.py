"""Progress and messages in a terminal."""

import io
import threading

from acestep_graph.headless.terminal import StatusLine, TerminalHost, stopping_on_ctrl_c


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_has_one_line_that_is_rewritten():
    stream = Terminal()
    status = StatusLine(stream)
    for step in range(3):
        status.progress(step, 2, f"sampling: {step}/2 " + "x" * 500)
    status.say("note: done")
    status.close()
    text = stream.getvalue()
    assert text.count("\n") == 1 and text.endswith("note: done\n") and text.count("\r") == 4
    assert max(map(len, text.split("\r"))) < 500


def test_a_log_has_a_line_a_quarter():
    stream = io.StringIO()
    status = StatusLine(stream)
    for step in range(101):
        status.progress(step, 100, f"sampling: {step}/100 steps")
    status.progress(0, 4, "decoding: 0/4 tiles")
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == [
        "0/100",
        "25/100",
        "50/100",
        "75/100",
        "100/100",
        "0/4",
    ]


def test_a_closed_stream_stops_nothing():
    stream = io.StringIO()
    status = StatusLine(stream)
    stream.close()
    status.say("hello")


def test_messages_are_kept_and_shown(capsys, tmp_path):
    host = TerminalHost(models=tmp_path, device="cpu")
    host.say("clamped")
    assert host.notes == ["clamped"] and capsys.readouterr().err == "note: clamped\n"


def test_in_another_thread_ctrl_c_is_left_alone():
    stop = threading.Event()
    entered = []

    def work():
        with stopping_on_ctrl_c(stop):
            entered.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert entered == [True] and not stop.is_set()
