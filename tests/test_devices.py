"""Several devices and several processes train as one device does, and end together."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Run, checkpoint, train_command

from pipeline.errors import UserError
from pipeline.run.distributed import ProcessGroup, find_process_group

StartTwo = Callable[..., list[subprocess.Popen]]
THIN = ("-r", "thin", "-b", 20)
"""48 images: the last batch has 8."""
FOUR_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}


def numbers(folder: Path) -> dict[str, list[float]]:
    return json.loads((folder / "metric_values.json").read_text())


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def start_two(jax_settings: dict[str, str]) -> Iterator[StartTwo]:
    """Start the leader and the other process of a run; whatever happens, they end."""
    started = []

    def start(*arguments: object) -> list[subprocess.Popen]:
        started.extend(processes := both(jax_settings, *arguments))
        return processes

    yield start
    for process in started:
        process.kill()


def both(settings: dict[str, str], *arguments: object) -> list[subprocess.Popen]:
    coordinator = f"127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            train_command(*arguments, "--processes", 2, "--process-id", number,
                          "--coordinator", coordinator),
            env={**os.environ, **settings}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for number in range(2)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def on_one(made_hdf5: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one-device")
    run("model_train.py", *THIN, "-n", 1, "--hdf5", made_hdf5, "-o", folder, backend="jax")
    return folder


def test_four_devices_train_as_one(on_one: Path, made_hdf5: Path, tmp_path: Path, run: Run) -> None:
    done = run("model_train.py", *THIN, "-n", 1, "--hdf5", made_hdf5, "-o", tmp_path,
               backend="jax", **FOUR_DEVICES)  # fmt: skip
    assert "jax on cpu:0, cpu:1, cpu:2, cpu:3" in done.stdout
    assert numbers(tmp_path)["loss"] == pytest.approx(numbers(on_one)["loss"], rel=1e-3)


def test_two_processes_train_as_one_and_others_go_on(
    on_one: Path, made_hdf5: Path, tmp_path: Path, run: Run, start_two: StartTwo
) -> None:
    """One process resumes after two, and two after one; another backend evaluates."""
    folder = tmp_path / "run"
    processes = start_two(*THIN, "-n", 1, "--hdf5", made_hdf5, "-o", folder)
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[1][0] == ""
    assert numbers(folder)["loss"] == pytest.approx(numbers(on_one)["loss"], rel=1e-3)
    assert len(list(folder.glob("*.keras"))) == 1
    run("model_eval.py", "-m", checkpoint(folder, 1), "--hdf5", made_hdf5)
    run("model_train.py", "-m", folder, "-n", 2, "--hdf5", made_hdf5, "-o", folder, backend="jax")
    processes = start_two("-m", folder, "-n", 3, "--hdf5", made_hdf5, "-o", folder)
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(numbers(folder)["loss"]) == 3


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_run(
    victim: int, made_hdf5: Path, tmp_path: Path, run: Run, start_two: StartTwo
) -> None:
    processes = start_two("-r", "thin-long", "--hdf5", made_hdf5, "-o", tmp_path)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("epoch-002-*")):
        assert time.monotonic() < deadline
        assert [process.poll() for process in processes] == [None, None]
        time.sleep(0.1)
    processes[victim].send_signal(signal.SIGKILL)
    other = processes[1 - victim]
    _, errors = other.communicate(timeout=60)
    processes[victim].communicate()
    assert other.returncode != 0
    if victim == 1:  # without the primary, JAX may speak first
        assert other.returncode == 1
        assert errors.count("\n") == 1
        assert errors.startswith("error: training stopped, since another process of the run ended")
    last = max(tmp_path.glob("epoch-*.keras"))
    epoch = int(last.name[6:9])
    run("model_train.py", "-m", tmp_path, "-n", epoch + 1, "--hdf5", made_hdf5, "-o", tmp_path,
        backend="jax")  # fmt: skip
    assert len(numbers(tmp_path)["loss"]) == epoch + 1


def test_tensorflow_names_the_backend_for_several(
    made_hdf5: Path, tmp_path: Path, run: Run
) -> None:
    flags = ("--processes", 2, "--process-id", 0, "--coordinator", "127.0.0.1:1")
    error = run("model_train.py", "-r", "thin", "--hdf5", made_hdf5, "-o", tmp_path, *flags,
                status=2).stderr  # fmt: skip
    assert "KERAS_BACKEND=jax" in error


def test_devices_that_do_not_divide_the_batch(made_hdf5: Path, tmp_path: Path, run: Run) -> None:
    error = run("model_train.py", "-r", "thin", "-b", 10, "--hdf5", made_hdf5, "-o", tmp_path,
                backend="jax", status=2, **FOUR_DEVICES).stderr  # fmt: skip
    assert "give -b a multiple of 4" in error


def test_team_comes_from_the_flags_or_from_slurm() -> None:
    slurm = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "3"}
    assert find_process_group(None, None, None, {}) == ProcessGroup()
    assert find_process_group(None, None, None, {"SLURM_STEP_NUM_TASKS": "1"}) == ProcessGroup()
    assert find_process_group(None, None, None, slurm) == ProcessGroup(8, 3)
    assert find_process_group(2, 1, "host:1", slurm) == ProcessGroup(2, 1, "host:1")
    for incomplete in ((2, None, None), (None, 0, None), (2, 1, None), (None, None, "host:1")):
        with pytest.raises(UserError, match="all three"):
            find_process_group(*incomplete, {})
    with pytest.raises(UserError, match="below 2"):
        find_process_group(2, 2, "host:1", {})
