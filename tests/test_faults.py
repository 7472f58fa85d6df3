"""Kills, full disks, second processes and hostile files."""

import json
import os
import resource
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import ROOT, Run, checkpoint, train_command
from kill_many import RECIPE, check_equal, train_with_kills

from pipeline.errors import UserError
from pipeline.io.files import atomic_write, folder_lock
from pipeline.io.hdf5_dataset import open_split
from pipeline.run.checkpoint import read_state


def test_killed_run_ends_as_one_never_killed(made_hdf5: Path, tmp_path: Path, run: Run) -> None:
    """The short form of tests/kill_many.py."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    run("model_train.py", "-r", RECIPE, "-n", 10, "--hdf5", made_hdf5, "-o", straight)
    train_with_kills(made_hdf5, killed, kills=2, epochs=10, seed=1)
    check_equal(killed, straight)


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
@pytest.mark.parametrize("epochs_there", [2, 3])
def test_disk_full_while_a_checkpoint_is_written(
    epochs_there: int, own_run: Path, made_hdf5: Path
) -> None:
    """A limit on the size of files stands in for a full disk.

    Resuming after the last epoch it fails as the next one ends; going back behind one, at once.
    """
    if epochs_there == 2:
        checkpoint(own_run, 3).unlink()
    before = {path: path.read_bytes() for path in own_run.glob("epoch-*")}
    command = train_command("-m", checkpoint(own_run, 2), "-o", own_run, "--hdf5", made_hdf5)
    largest = checkpoint(own_run, 2).stat().st_size // 2
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, preexec_fn=limit_files(largest)
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: cannot write ")
    assert done.stderr.count("\n") == 1
    kept = {path: path.read_bytes() for path in own_run.rglob("epoch-*")}
    assert set(before.values()) == set(kept.values())
    assert read_state(checkpoint(own_run, 2)).epoch == 2
    assert len(json.loads((own_run / "metric_values.json").read_text())["loss"]) == epochs_there
    assert not list(own_run.glob(".unfinished*"))


def limit_files(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_disk_full_while_the_data_set_is_built(made_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "build_dataset.py", "-d", made_data, "-o", tmp_path]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, preexec_fn=limit_files(300_000)
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: cannot write ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_second_process_is_refused_and_a_dead_one_holds_nothing(
    made_hdf5: Path, tmp_path: Path, run: Run
) -> None:
    settings = ("--hdf5", made_hdf5, "-o", tmp_path)
    first = subprocess.Popen(
        train_command("-r", RECIPE, *settings), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    with first:
        for line in first.stdout:
            if line.startswith("  1/"):
                break
        error = run("model_train.py", "-m", tmp_path, *settings, status=2).stderr
        assert "another process" in error
        first.kill()
        first.wait()
    with folder_lock(tmp_path):
        pass


def test_two_builds_into_one_folder(made_data: Path, tmp_path: Path, run: Run) -> None:
    with folder_lock(tmp_path):
        error = run("build_dataset.py", "-d", made_data, "-o", tmp_path, status=2).stderr
    assert "another process" in error
    run("build_dataset.py", "-d", made_data, "-o", tmp_path)


def test_interrupted_build_leaves_the_old_one(made_data: Path, tmp_path: Path, run: Run) -> None:
    run("build_dataset.py", "-d", made_data, "-o", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    code = (
        "import os, signal, sys, build_dataset\n"
        "from pipeline import command_line\n"
        "from pipeline.io import hdf5_writer\n"
        "append = hdf5_writer.HDF5Writer.append\n"
        "def interrupted(self, *chunk):\n"
        "    append(self, *chunk)\n"
        "    os.kill(os.getpid(), int(os.environ['SIGNAL']))\n"
        "hdf5_writer.HDF5Writer.append = interrupted\n"
        "command_line.run_script(build_dataset.main)\n"
    )
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        done = subprocess.run(
            [sys.executable, "-c", code, "-d", made_data, "-o", tmp_path, "--overwrite"],
            cwd=ROOT,
            env={**os.environ, "SIGNAL": str(int(number))},
            capture_output=True,
        )
        assert done.returncode == status, done.stderr
        assert b"Traceback" not in done.stderr
        whole = [path for path in tmp_path.iterdir() if not path.name.startswith(".unfinished")]
        assert {path.name: path.read_bytes() for path in whole} == before
    run("build_dataset.py", "-d", made_data, "-o", tmp_path, "--overwrite")
    assert {path.name for path in tmp_path.iterdir()} == set(before)


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as unfinished:
        unfinished.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with atomic_write(path) as unfinished:
        assert unfinished.suffix == ".txt"
        unfinished.write_text("new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o666 & ~os.umask(os.umask(0o22))
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_checkpoint_with_foreign_code_is_refused(own_run: Path, made_hdf5: Path, run: Run) -> None:
    """A Lambda layer holds Python code; the marker shows whether it ran."""
    path, marker = checkpoint(own_run, 3), own_run / "ran"
    code = (
        "import keras, sys\n"
        "def planted(x):\n"
        "    open(sys.argv[2], 'w').close()\n"
        "    return x\n"
        "model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(planted)])\n"
        "model.save(sys.argv[1])\n"
    )
    planted = own_run / "planted.keras"
    subprocess.run([sys.executable, "-c", code, planted, marker], check=True, capture_output=True)
    marker.unlink(missing_ok=True)
    with zipfile.ZipFile(path) as ours, zipfile.ZipFile(planted) as theirs:
        members = {name: theirs.read(name) for name in theirs.namelist()}
        members["metadata.json"] = ours.read("metadata.json")
    with zipfile.ZipFile(path, "w") as archive:
        for name, contents in members.items():
            archive.writestr(name, contents)
    run("model_eval.py", "-m", path, "--hdf5", made_hdf5, status=2)
    run("view_model.py", "-m", path, "-o", own_run / "x.png", status=2)
    run(
        "model_train.py", "-m", path, "-n", 4, "-l", 1, "-o", own_run, "--hdf5", made_hdf5, status=2
    )
    assert not marker.exists()


def link_to_another_file(file: h5py.File) -> None:
    del file["Images"]
    file["Images"] = h5py.ExternalLink("val.hdf5", "Images")


def raw_file_elsewhere(file: h5py.File) -> None:
    del file["Images"]
    file.create_dataset("Images", (48, 64, 64, 3), "u1", external=[("/etc/passwd", 0, 589_824)])


def claims_a_billion_labels(file: h5py.File) -> None:
    del file["Labels"]
    file.create_dataset("Labels", (10**12,), "i8", chunks=(1000,))


@pytest.mark.parametrize(
    "plant", [link_to_another_file, raw_file_elsewhere, claims_a_billion_labels]
)
def test_hdf5_that_reaches_out_is_refused(
    plant: "callable", made_hdf5: Path, tmp_path: Path
) -> None:
    for name in ("train", "val"):
        (tmp_path / f"{name}.hdf5").write_bytes((made_hdf5 / f"{name}.hdf5").read_bytes())
    with h5py.File(tmp_path / "train.hdf5", "r+") as file:
        plant(file)
    with pytest.raises(UserError, match=r"train\.hdf5"):
        open_split(tmp_path, "train")


def test_map_reads_what_hdf5_reads(made_hdf5: Path) -> None:
    with h5py.File(made_hdf5 / "train.hdf5") as file:
        assert np.array_equal(open_split(made_hdf5, "train").images, file["Images"])
