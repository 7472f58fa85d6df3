"""Several devices and several processes train as one device does, and end together."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import (
    ROOT,
    Run,
    checkpoint,
    heed_hangups,
    numbers,
    stored_arrays,
    train_command,
)

from pipeline.errors import UserError
from pipeline.run.distributed import ProcessGroup, find_process_group
from pipeline.run.rendezvous import _connect, _join

StartTwo = Callable[..., list[subprocess.Popen]]
THIN = ("-r", "thin", "-b", 20)
"""48 images: the last batch has 8."""
FOUR_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}


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


def check_alike(ours: Path, theirs: Path) -> None:
    """Compare the weights and the optimizer's state in the first checkpoints of two runs."""
    found, expected = (stored_arrays(checkpoint(folder, 1)) for folder in (ours, theirs))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(found[name], value, rtol=0.02, atol=0.002, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


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
    check_alike(tmp_path, on_one)


def test_two_processes_train_as_one_and_others_resume(
    on_one: Path, trained: Path, made_hdf5: Path, tmp_path: Path, run: Run, start_two: StartTwo
) -> None:
    """Two resume a run of one on TensorFlow, which evaluates theirs; one after two: see below."""
    folder = tmp_path / "run"
    processes = start_two(*THIN, "-n", 1, "--hdf5", made_hdf5, "-o", folder)
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[1][0] == ""
    assert numbers(folder)["loss"] == pytest.approx(numbers(on_one)["loss"], rel=1e-3)
    assert len(list(folder.glob("*.keras"))) == 1
    check_alike(folder, on_one)
    run("model_eval.py", "-m", checkpoint(folder, 1), "--hdf5", made_hdf5)
    resumed = Path(shutil.copytree(trained, tmp_path / "resumed"))
    resume = ("-m", resumed, "-n", 4, "-l", 0.01, "--hdf5", made_hdf5, "-o", resumed)
    processes = start_two(*resume)
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "note: begun on tensorflow; on jax the numbers will differ" in outputs[0][0]
    assert len(numbers(resumed)["loss"]) == 4


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
        return
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
    assert "with -b a multiple of 4, or use fewer devices" in error


SLURM = {
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_PROCID": "3",
    "SLURM_JOB_ID": "4099",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "node[007-009],other1",
}


def test_process_group_comes_from_the_flags_or_from_slurm() -> None:
    assert find_process_group(None, None, None, {}) == ProcessGroup()
    assert find_process_group(None, None, None, {"SLURM_STEP_NUM_TASKS": "1"}) == ProcessGroup()
    coordinator = "node007", 61443
    assert find_process_group(None, None, None, SLURM) == ProcessGroup(8, 3, coordinator, 1)
    for nodes, host in (("rack[1-2]n[03,5],x", "rack1n03"), ("n[1-2]-ib", "n1-ib"), ("a,b", "a")):
        group = find_process_group(None, None, None, {**SLURM, "SLURM_STEP_NODELIST": nodes})
        assert group.coordinator == (host, 61443)
    for name, value, gpu in (
        ("CUDA_VISIBLE_DEVICES", "0,1,2,3", 1),
        ("CUDA_VISIBLE_DEVICES", "0", None),
        ("SLURM_STEP_TASKS_PER_NODE", "1(x8)", None),
        ("JAX_LOCAL_DEVICE_IDS", "2,3", None),
    ):
        group = find_process_group(None, None, None, {**SLURM, name: value})
        assert group == ProcessGroup(8, 3, coordinator, gpu)
    assert find_process_group(2, 1, "host:1", SLURM) == ProcessGroup(2, 1, ("host", 1))
    assert find_process_group(2, 1, "[::1]:65535", {}) == ProcessGroup(2, 1, ("::1", 65535))
    for incomplete in ((2, None, None), (None, 0, None), (2, 1, None), (None, None, "host:1")):
        for environment in ({}, SLURM):
            with pytest.raises(UserError, match="all three"):
                find_process_group(*incomplete, environment)
    for number in (2, -1):
        with pytest.raises(UserError, match="below 2"):
            find_process_group(2, number, "host:1", {})


def test_jax_gets_no_gpu_from_a_cluster_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take the one of SLURM_LOCALID or OMPI_COMM_WORLD_LOCAL_RANK alone."""
    given = []
    monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    monkeypatch.setattr("jax.config.update", lambda *_: None)
    monkeypatch.setattr("jax.distributed.initialize", lambda *_, **named: given.append(named))
    for gpu in (None, 1):
        ProcessGroup(2, 1, ("host", 1), gpu)._initialize_jax()
    assert [named["local_device_ids"] for named in given] == [None, 1]
    assert {named["cluster_detection_method"] for named in given} == {"deactivate"}


@pytest.mark.parametrize(
    "coordinator",
    ["", "nonsense", "host:abc", "host:", ":123", "[::1", "[::1]", "::1", "h:0", "h:99999", "h:-1",
     "http://h:1", "me@h:1", "h:1/x", "h:1 "],
)  # fmt: skip
def test_coordinator_that_is_no_address_is_refused(coordinator: str) -> None:
    with pytest.raises(UserError, match="HOST:PORT"):
        find_process_group(2, 0, coordinator, {})


@pytest.mark.parametrize(
    "changed",
    [
        *({name: value} for name in list(SLURM)[:4] for value in (None, "", "x")),
        {"SLURM_STEP_NODELIST": None},
        {"SLURM_STEP_NODELIST": ""},
        {"SLURM_PROCID": "8"},
        {"SLURM_PROCID": "-1"},
    ][1:],  # without SLURM_STEP_NUM_TASKS there is no step
)
def test_slurm_variables_that_are_half_set_are_refused(changed: dict[str, str | None]) -> None:
    environment = {name: value for name, value in {**SLURM, **changed}.items() if value is not None}
    with pytest.raises(UserError, match="Slurm"):
        find_process_group(None, None, None, environment)


MEET = """
import sys
from pipeline import command_line
from pipeline.run.rendezvous import rendezvous

def main(_):
    host, port, number, processes, settings = sys.argv[1:]
    print("ready", flush=True)
    with rendezvous((host, int(port)), int(number), int(processes), settings):
        print("met", flush=True)
        input()

command_line.run_script(main)
"""


@pytest.fixture
def meet() -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a process that meets another one and stays until it has a line to read."""
    started = []

    def start(
        port: int, number: int, settings: str = "", host: str = "localhost", processes: int = 2
    ) -> subprocess.Popen:
        started.append(
            process := subprocess.Popen(
                [sys.executable, "-c", MEET, host, str(port), str(number), str(processes),
                 settings], cwd=ROOT,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                preexec_fn=heed_hangups,
            )
        )  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen) -> tuple[int, str]:
    return process.wait(60), process.stderr.read()


def test_connection_to_itself_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """TCP makes such, where nobody listens; kept open, it holds the port of the primary."""
    ours, theirs = socket.socketpair()  # both without a name, as equal as those of one
    answers = [ours]

    def connect(*_: object) -> socket.socket:
        if not answers:
            raise ConnectionRefusedError
        return answers.pop()

    monkeypatch.setattr("socket.create_connection", connect)
    with pytest.raises(TimeoutError), theirs:
        _connect(("localhost", 1), time.monotonic() + 0.3)
    assert ours.fileno() == -1


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_process_that_waits_alone_can_be_stopped(
    number: int, sent: int, status: int, meet: Callable
) -> None:
    process = meet(free_port(), number)
    if number == 0:
        assert process.stdout.readline().startswith("waiting for 1 more")
    else:
        time.sleep(0.5)
    process.send_signal(sent)
    returned, errors = ended(process)
    assert (returned, errors.count("\n")) == (status, 1), errors


def test_processes_meet_and_part(meet: Callable) -> None:
    """One stopped while it waits can be started again; whoever else knocks counts for nothing."""
    port = free_port()
    primary = meet(port, 0, processes=3)
    primary.stdout.readline()
    stopped = meet(port, 1, processes=3)
    time.sleep(1)
    stopped.kill()
    with socket.create_connection(("localhost", port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\n")
    last = meet(port, 2, processes=3)
    time.sleep(1)
    processes = [primary, meet(port, 1, processes=3), last]
    assert [process.stdout.readline() for process in processes] == ["met\n"] * 3
    for process in (processes[1], primary, processes[2]):
        process.communicate("\n", timeout=60)
        assert process.returncode == 0


def test_processes_with_other_settings_end_with_one_line(meet: Callable) -> None:
    port = free_port()
    for process in [meet(port, 0, "--seed 1"), meet(port, 1, "--seed 2")]:
        status, errors = ended(process)
        assert (status, errors.count("\n")) == (2, 1)
        assert "start all with the same command" in errors


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_process_that_ends_takes_the_other_along(victim: int, sent: int, meet: Callable) -> None:
    port = free_port()
    processes = [meet(port, 0), meet(port, 1)]
    processes[0].stdout.readline()
    assert [process.stdout.readline() for process in processes] == ["met\n", "met\n"]
    processes[victim].send_signal(sent)
    assert ended(processes[victim])[0] == (130 if sent == signal.SIGINT else -sent)
    status, errors = ended(processes[1 - victim])
    assert (status, errors.count("\n")) == (1, 1)
    assert errors.startswith("error: training stopped, since another process of the run ended")


def test_port_of_a_program_that_hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """So soon that the handshake cannot be sent any more."""
    ours, theirs = socket.socketpair()
    theirs.close()
    monkeypatch.setattr("pipeline.run.rendezvous._connect", lambda *_: ours)
    with pytest.raises(UserError, match="is not this run's first"):
        _join(("localhost", 1), b"1 digest", 0)


@pytest.mark.parametrize(
    ("answer", "end"), [(socket.EAI_NONAME, UserError), (socket.EAI_AGAIN, TimeoutError)]
)
def test_name_of_the_coordinator_is_waited_for_unless_there_is_none(
    answer: int, end: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that has no answer yet may have one soon."""

    def unknown(*_: object) -> None:
        raise socket.gaierror(answer, "unknown")

    monkeypatch.setattr("socket.create_connection", unknown)
    with pytest.raises(end):
        _connect(("host", 1), 0)


def test_coordinator_whose_port_is_taken_or_whose_name_is_none(meet: Callable) -> None:
    with socket.create_server(("", 0)) as listener:
        status, errors = ended(meet(listener.getsockname()[1], 0))
        assert (status, "cannot listen on port" in errors) == (2, True), errors
    status, errors = ended(meet(free_port(), 1, host="n" * 99))  # longer than a name can be
    assert (status, "cannot resolve the host name" in errors) == (2, True), errors
