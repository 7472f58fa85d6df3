"""What the host holds: terminals that are none, names that cannot be shown, libraries' settings."""

import io
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT, Run

from pipeline.backend import HOST_SETTINGS
from pipeline.command_line import quote
from pipeline.printing import Output, printable, silence

FORGED = "a\nerror: \x1b[2J\u2028\udcff\u4e2d"


def build_in_shell(
    data: Path, output: Path | bytes, redirection: str = "", **environment: str
) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "build_dataset.py", "-d", data, "-o", output]
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$@" {redirection}', "bash", *command],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("redirection", "status"),
    [
        (">&-", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
        ("| true", 0),
        ("2>&1 | true", 0),
        ("2> /dev/full", 0),
        (">& /dev/full", 2),
        ("> /dev/full", 2),
    ],
)
def test_what_is_printed_may_be_lost(
    redirection: str, status: int, made_data: Path, made_hdf5: Path, tmp_path: Path
) -> None:
    done = build_in_shell(made_data, tmp_path, redirection)
    assert done.returncode == status, done.stderr
    assert b"Traceback" not in done.stderr
    for file in made_hdf5.glob("*.hdf5"):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()
    if redirection == "> /dev/full":
        assert done.stderr.startswith(b"error: cannot write to stdout: ")
        assert done.stderr.count(b"\n") == 1
    else:
        assert done.stderr == b""


@pytest.mark.parametrize("encoding", ["ascii:strict", "cp1252:strict", "utf-8:strict", "utf-16"])
def test_names_reach_any_terminal(encoding: str, made_data: Path, tmp_path: Path) -> None:
    """And forge no line there: they show as Python writes them."""
    output = tmp_path / FORGED
    done = build_in_shell(made_data, output, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode(encoding.partition(":")[0])
    assert len(shown.splitlines()) == 5
    assert r"a\nerror: \x1b[2J\u2028\udcff" in shown
    assert "\x1b" not in shown
    # of a folder that is there already
    assert b"is built already" in build_in_shell(made_data, output).stdout


def test_error_stays_one_line(tmp_path: Path, run: Run) -> None:
    error = run("build_dataset.py", "-d", tmp_path / FORGED, status=2).stderr
    assert r"a\nerror: \x1b[2J" in error


@pytest.mark.parametrize("word", [FORGED, "plain", "it's two", "\udcff'\\", "\t", ""])
def test_quoted_words_are_what_the_shell_reads(word: str) -> None:
    done = subprocess.run(["bash", "-c", f"printf %s {quote(word)}"], capture_output=True)
    assert os.fsdecode(done.stdout) == word
    assert printable(quote(word)) == quote(word)


def test_libraries_are_silenced(capfd: pytest.CaptureFixture) -> None:
    with silence(1, 2):
        os.write(1, b"noise")
        os.write(2, b"noise")
    os.write(2, b"heard")
    assert capfd.readouterr() == ("", "heard")


@pytest.mark.parametrize("module", ["msgspec", "keras"])
def test_interrupted_while_modules_are_imported(module: str, tmp_path: Path, run: Run) -> None:
    """Ctrl-C arrives as ``module`` is first looked for."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, *more):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
    )
    done = subprocess.run(
        [sys.executable, "view_model.py", "-r", "demo", "-o", tmp_path / "network.png"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (130, -signal.SIGINT)  # 130 in a shell, both
    assert done.stderr == "stopped by Ctrl-C\n"


COMPILES = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"
"""Stays in C for minutes, as XLA's compiler does."""


@pytest.mark.parametrize("end", ["time.sleep(60)", "raise ValueError", COMPILES])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_that_a_library_swallows_ends_a_script(number: int, end: str) -> None:
    code = (
        "import sys, time\n"
        "from pipeline import command_line, signals\n"
        "signals.GRACE_S = 0.5\n"
        "class Swallows:\n"
        "    def __del__(self):\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(20)\n"
        "def main(_):\n"
        "    Swallows()\n"
        "    with signals.hint_when_stopped(lambda: 'to resume: this'):\n"
        f"        {end}\n"
        "command_line.run_script(main)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, error = process.communicate(timeout=15)
    assert process.returncode == 128 + number
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert error == f"stopped by {name}\n" + "to resume: this\n" * (end != "raise ValueError")


def test_training_is_that_of_any_other_host(
    trained: Path, made_hdf5: Path, tmp_path: Path, run: Run
) -> None:
    """With settings for the libraries, and where stdout ends: the same bytes, figures as well."""
    home, output = tmp_path / "home", tmp_path / "run"
    (home / ".keras").mkdir(parents=True)
    (home / ".keras" / "keras.json").write_text(
        '{"floatx": "float16", "epsilon": 0.1, "image_data_format": "channels_first"}'
    )
    rc = "figure.facecolor: black\nsavefig.bbox: tight\ntext.usetex: True\nno.such.key: 1\n"
    (tmp_path / "matplotlibrc").write_text(rc)
    run(
        "model_train.py", "-r", "thin", "--hdf5", made_hdf5, "-o", output, cwd=tmp_path,
        HOME=str(home), MPLBACKEND="module://matplotlib_inline.backend_inline",
        KERAS_MAX_EPOCHS="1", KERAS_MAX_STEPS_PER_EPOCH="1", TF_XLA_FLAGS="--tf_xla_auto_jit=2",
        ONEDNN_MAX_CPU_ISA="SSE41", OPENCV_IO_MAX_IMAGE_PIXELS="9", HDF5_DRIVER="none",
        LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", preexec_fn=lambda: os.umask(0o077),
    )  # fmt: skip
    files = [*trained.glob("epoch-*"), trained / "training_plot.jpg"]
    assert len(files) == 4
    for file in files:
        assert (output / file.name).read_bytes() == file.read_bytes()


def test_where_it_computes_is_left_to_the_host() -> None:
    kept = ("KERAS_BACKEND", "JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS",
            "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HDF5_USE_FILE_LOCKING")  # fmt: skip
    assert not any(map(HOST_SETTINGS.match, kept))
    for name in ("JAX_ENABLE_X64", "JAX_DEBUG_NANS", "KERAS_HOME", "MPLBACKEND", "NPY_PROMOTION"):
        assert HOST_SETTINGS.match(name)


def test_bars_of_a_build_on_a_terminal(made_data: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    command = [sys.executable, ROOT / "build_dataset.py", "-d", made_data, "-o", tmp_path]
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    shown = b""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env=environment
    ) as building:
        os.close(theirs)
        with suppress(OSError):  # Linux: the other end is closed
            while data := os.read(ours, 4096):
                shown += data
        assert b"100%" not in building.stdout.read()
    os.close(ours)
    assert building.returncode == 0
    assert all(part in shown for part in (b"train", b"val", b"test", b"100%"))
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown.decode())
    assert 40 < max(map(len, re.split("[\r\n]", plain))) <= 60


class InterruptedOnce(io.BytesIO):
    """Raises what a signal raises, after it has written."""

    interrupted = False

    def flush(self) -> None:
        if not self.interrupted:
            self.interrupted = True
            raise KeyboardInterrupt


def test_line_that_a_signal_interrupts_is_printed_once() -> None:
    stream = InterruptedOnce()
    output = io.TextIOWrapper(Output(stream), line_buffering=True)
    with pytest.raises(KeyboardInterrupt):
        print("one", file=output)
    print("two", file=output)
    assert stream.getvalue() == b"one\ntwo\n"
