"""Kills, full disks, second processes and hostile files."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from conftest import ROOT, Run, change_member, checkpoint, numbers, train_command, zip_folder
from kill_many import RECIPE, check_equal, train_with_kills

from pipeline.backend import import_keras

import_keras()

from pipeline.callbacks.run_log import RunLog  # noqa: E402
from pipeline.callbacks.training_monitor import TrainingMonitor  # noqa: E402
from pipeline.dataset.image_source import FolderSource, ZipSource  # noqa: E402
from pipeline.errors import UserError  # noqa: E402
from pipeline.io.files import (  # noqa: E402
    atomic_write,
    check_outputs,
    explain_write_errors,
    folder_lock,
    write_json,
)
from pipeline.io.hdf5_dataset import open_split  # noqa: E402
from pipeline.io.photographs import read_photograph  # noqa: E402
from pipeline.run.checkpoint import read_state  # noqa: E402
from pipeline.run.output_folder import find_hdf5  # noqa: E402


def test_killed_run_ends_as_one_never_killed(made_hdf5: Path, tmp_path: Path, run: Run) -> None:
    """The short form of tests/kill_many.py."""
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    run("model_train.py", "-r", RECIPE, "-n", 9, "--hdf5", made_hdf5, "-o", straight)
    train_with_kills(made_hdf5, killed, kills=1, epochs=9, seed=1)
    check_equal(killed, straight)


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
@pytest.mark.parametrize("epochs_there", [2, 3])
def test_disk_full_while_a_checkpoint_is_written(
    epochs_there: int, own_run: Path, made_hdf5: Path, run: Run
) -> None:
    """A limit on the size of files stands in for a full disk.

    Resuming after the last epoch it fails as the next one ends; going back behind one, at once.
    """
    if epochs_there == 2:
        checkpoint(own_run, 3).unlink()
    before = {path: path.read_bytes() for path in own_run.glob("epoch-*")}
    resume = ("model_train.py", "-m", checkpoint(own_run, 2), "-o", own_run, "--hdf5", made_hdf5)
    largest = checkpoint(own_run, 2).stat().st_size // 2
    error = run(*resume, status=2, preexec_fn=limit_files(largest)).stderr
    assert error.startswith("error: cannot write ")
    assert "; to resume: python " in error
    kept = {path: path.read_bytes() for path in own_run.rglob("epoch-*")}
    assert set(before.values()) == set(kept.values())
    assert read_state(checkpoint(own_run, 2)).epoch == 2
    assert len(numbers(own_run)["loss"]) == epochs_there
    assert not list(own_run.glob(".unfinished*"))


def limit_files(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_disk_full_while_the_data_set_is_built(made_data: Path, tmp_path: Path, run: Run) -> None:
    build = ("build_dataset.py", "-d", made_data, "-o", tmp_path)
    error = run(*build, status=2, preexec_fn=limit_files(300_000)).stderr
    assert error.startswith("error: cannot write ")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.fixture(scope="session")
def small_disk() -> Callable[..., subprocess.CompletedProcess]:
    """Run a command whose folder ``full/`` in ``folder`` is a file system of so many kB."""

    def run_there(kilobytes: int, folder: Path, *command: object) -> subprocess.CompletedProcess:
        (folder / "full").mkdir(exist_ok=True)
        mount = f'mount -t tmpfs -o size={kilobytes}k none {folder}/full && exec "$@"'
        return subprocess.run(
            ["unshare", "-rm", "sh", "-c", mount, "sh", *map(str, command)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    mounting = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/tmp"]
    if shutil.which("unshare") is None or subprocess.run(mounting).returncode:
        pytest.skip("no file systems of one's own here")
    return run_there


@pytest.mark.parametrize("kilobytes", [4, 8, 64, 700, 1400])
def test_build_on_a_full_disk(
    kilobytes: int, made_data: Path, tmp_path: Path, small_disk: Callable
) -> None:
    """Unlike a limit on files, it refuses single pages; HDF5 then crashed the process."""
    command = ("build_dataset.py", "-d", made_data, "-o", tmp_path / "full" / "hdf5")
    done = small_disk(kilobytes, tmp_path, sys.executable, *command)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: cannot write ")
    assert "No space left on device; free some space" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr


def test_preview_on_a_full_disk(
    made_hdf5: Path, made_data: Path, tmp_path: Path, small_disk: Callable
) -> None:
    sheet = tmp_path / "full" / "sheet.pdf"
    command = ("build_dataset.py", "-d", made_data, "-o", made_hdf5, "--preview", sheet)
    done = small_disk(8, tmp_path, sys.executable, *command)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: cannot write {sheet}: No space left on device")
    assert done.stderr.count("\n") == 1, done.stderr


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
    before = os.umask(0o027)
    try:
        with atomic_write(path) as unfinished:
            assert unfinished.suffix == ".txt"
            unfinished.write_text("new")
    finally:
        os.umask(before)
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_link_leads_to_what_is_written(tmp_path: Path) -> None:
    """By its own suffix, for libraries choose a format by it."""
    link, target = tmp_path / "link.txt", tmp_path / "elsewhere" / "file"
    link.symlink_to(target)
    for text in ("new", "newer"):
        with atomic_write(link) as unfinished:
            assert unfinished.suffix == ".txt"
            unfinished.write_text(text)
        assert link.is_symlink() and target.read_text() == text


def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path) -> None:
    pipe, folder, link, circle = (tmp_path / name for name in ("pipe", "folder", "link", "circle"))
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to(pipe)
    circle.symlink_to(circle)
    before = sorted(tmp_path.iterdir())
    for path in (pipe, folder, link, circle, Path(os.devnull)):
        with pytest.raises(UserError, match=f"cannot write {path}: it is not a regular file"):
            check_outputs([path], [])
        if path.parent == tmp_path:
            with pytest.raises(UserError, match="not a regular file"), atomic_write(path) as new:
                new.write_text("new")
    assert sorted(tmp_path.iterdir()) == before
    assert pipe.is_fifo()


def test_name_of_full_length(tmp_path: Path) -> None:
    for name in (f"{'n' * 250}.json", f"{'ä' * 120}.json", f"{'😀' * 62}.json"):
        with atomic_write(tmp_path / name) as unfinished:
            assert unfinished.suffix == ".json"
            unfinished.write_text("new")
        assert (tmp_path / name).read_text() == "new"


def test_output_that_is_an_input(own_run: Path, made_hdf5: Path, run: Run) -> None:
    """Under whatever name."""
    file = checkpoint(own_run, 2)
    link, hard, roundabout = own_run / "link.keras", own_run / "hard.keras", own_run / ".." / "run"
    link.symlink_to(file)
    hard.hardlink_to(file)
    before = {path: path.read_bytes() for path in own_run.iterdir() if path.is_file()}
    settings = ("model_eval.py", "-m", file, "--hdf5", made_hdf5)
    (own_run / "superseded").mkdir()
    superseded = shutil.copy(file, own_run / "superseded")
    names = "run.jsonl", "metric_values.json", "metrics.csv", "training_plot.jpg"
    others = [checkpoint(own_run, 3), superseded, made_hdf5 / "train.hdf5",
              *(own_run / name for name in names)]  # fmt: skip
    for output in (link, hard, roundabout / file.name, os.path.relpath(file, ROOT), *others):
        assert "would replace" in run(*settings, "--json", output, status=2).stderr
    assert "would replace" in run(*settings, "--export", link, status=2).stderr
    plot = own_run / "training_plot.jpg"
    assert "would replace" in run("view_model.py", "-m", file, "-o", plot, status=2).stderr
    twice = ("--export", own_run / "own.keras", "--json", roundabout / "own.keras")
    assert "would replace" in run(*settings, *twice, status=2).stderr
    inside = ("--report", own_run / "r", "--json", own_run / "r" / "predictions.csv")
    assert "would replace" in run(*settings, *inside, status=2).stderr
    own = own_run / "own.json"
    with own.open("w") as printed:
        command = [sys.executable, *map(str, settings), "--json", own]
        done = subprocess.run(command, cwd=ROOT, stdout=printed, stderr=subprocess.PIPE)
    assert (done.returncode, b"would replace" in done.stderr) == (2, True)
    for flags in (("--json", file / "own.json"), ("--report", file)):
        assert "no folder to write to" in run(*settings, *flags, status=2).stderr
    assert all(path.read_bytes() == contents for path, contents in before.items())


def test_photograph_is_not_replaced(
    made_data: Path, trained: Path, tmp_path: Path, run: Run
) -> None:
    photo = shutil.copy(next(made_data.glob("val/images/*")), tmp_path / "photo.png")
    command = ("model_eval.py", "-m", trained, "--images", tmp_path, "--sheet", photo)
    assert "would replace" in run(*command, status=2).stderr


def test_nothing_is_written_among_the_images(own_data: Path, tmp_path: Path, run: Run) -> None:
    link = tmp_path / "link"
    link.symlink_to(own_data / "train")
    image = next(own_data.glob("val/images/*")).with_suffix(".jpg")
    for flags in (["-o", own_data / "train"], ["-o", link / "hdf5"], ["--preview", image]):
        error = run("build_dataset.py", "-d", own_data, *flags, status=2).stderr
        assert "lies among the images" in error
    run("build_dataset.py", "-d", own_data)


@pytest.mark.parametrize("place", ["valid/sheet.png", "below/Val/images/sheet.png"])
def test_nothing_is_written_among_images_wherever_they_lie(
    place: str, own_data: Path, run: Run
) -> None:
    command = ("build_dataset.py", "-d", own_data, "-o", own_data / place)
    assert "lies among the images" in run(*command, status=2).stderr
    assert not (own_data / place).exists()


def test_preview_replaces_no_image_some_folders_down(own_data: Path, run: Run) -> None:
    image = next(own_data.glob("train/*/images/*"))
    image = image.rename(image.with_suffix(".png"))
    before = image.read_bytes()
    command = ("-d", own_data.parent, "-o", own_data.parent / "hdf5", "--preview", image)
    assert "lies among the images" in run("build_dataset.py", *command, status=2).stderr
    assert image.read_bytes() == before


def test_preview_beside_the_splits_is_drawn_again(own_data: Path, run: Run) -> None:
    sheet = own_data / "sheet.png"
    for _ in range(2):
        run("build_dataset.py", "-d", own_data, "--preview", sheet)
        assert sheet.stat().st_size
        sheet.write_bytes(b"")


def test_link_to_itself_is_no_place_to_write(made_data: Path, tmp_path: Path, run: Run) -> None:
    circle = tmp_path / "circle.png"
    circle.symlink_to(circle)
    for flags in (["-o", circle], ["-o", tmp_path / "hdf5", "--preview", circle]):
        error = run("build_dataset.py", "-d", made_data, *flags, status=2).stderr
        assert f"cannot write {circle}" in error


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_system_without_locks(
    number: int, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", flock)
    with folder_lock(tmp_path):
        pass
    noted = capsys.readouterr().err
    assert noted.startswith(f"note: {tmp_path} is on a file system without locks")
    assert noted.count("\n") == 1


def test_checkpoint_with_foreign_code_is_refused(own_run: Path, made_hdf5: Path, run: Run) -> None:
    """A file holds the code of a Lambda layer's lambda; the marker shows whether it ran."""
    path, marker = checkpoint(own_run, 3), own_run / "ran"
    act = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    code = (
        "import keras, sys\n"
        f"planted = lambda x: ({act}, x)[1]\n"
        "model = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(planted)])\n"
        "model.save(sys.argv[1])\n"
    )
    planted = own_run / "planted.keras"
    subprocess.run([sys.executable, "-c", code, planted], check=True, capture_output=True)
    marker.unlink()  # it ran as the layer was built
    with zipfile.ZipFile(planted) as theirs:
        assert b"__lambda__" in theirs.read("config.json")
        for name in ("config.json", "model.weights.h5"):
            change_member(path, name, lambda _, name=name: theirs.read(name))
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


def test_drives_that_number_no_files(
    made_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As some on Windows: all would pass for one file."""
    names = FolderSource(made_data).names
    stat = Path.stat

    def without_numbers(path: Path, **settings: bool) -> os.stat_result:
        values = list(stat(path, **settings))
        values[1] = 0
        return os.stat_result(values)

    monkeypatch.setattr(Path, "stat", without_numbers)
    assert FolderSource(made_data).names == names
    (tmp_path / "old.json").touch()
    check_outputs([tmp_path / "old.json"], [made_data / "wnids.txt"])
    with pytest.raises(UserError, match="would replace"):
        check_outputs([made_data / "wnids.txt"], [made_data / "wnids.txt"])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), "No space left; free some space, or name another"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system; name another"),
        (OSError(), "OSError; name another"),
    ],
)
def test_advice_fits_why_a_file_cannot_be_written(error: OSError, message: str) -> None:
    with (
        pytest.raises(UserError, match=f"cannot write x.json: {message} place"),
        explain_write_errors(Path("x.json")),
    ):
        raise error


def test_output_on_a_drive_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: False)
    with pytest.raises(UserError, match="is no folder to write to"):
        check_outputs([Path("/gone/x.json")], [])


def refuse_to_replace(name: str, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows does while another program has the file open."""
    replace, left = Path.replace, [times]

    def refusing(path: Path, target: Path) -> Path:
        if target.name == name and left[0]:
            left[0] -= 1
            raise PermissionError(errno.EACCES, "Access is denied")
        return replace(path, target)

    monkeypatch.setattr("pipeline.io.files.ON_WINDOWS", True)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(Path, "replace", refusing)


def test_file_that_a_scanner_has_open_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_replace("scores.json", 3, monkeypatch)
    write_json(tmp_path / "scores.json", [1])
    assert json.loads((tmp_path / "scores.json").read_text()) == [1]


def test_table_that_a_spreadsheet_has_open_ends_no_training(
    own_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run = SimpleNamespace(state=read_state(checkpoint(own_run, 3)), steps_per_epoch=3)
    monitor = TrainingMonitor(own_run, run)
    table = own_run / "metrics.csv"
    table.unlink()
    refuse_to_replace(table.name, 6, monkeypatch)
    monitor.on_epoch_end(2)
    assert "Access is denied; close the program that has it open" in capsys.readouterr().out
    assert not table.exists()
    monitor.on_epoch_end(2)
    assert table.exists()


def group_for_labels(file: h5py.File) -> None:
    del file["Labels"]
    file.create_group("Labels")


def names_of_a_gigabyte(file: h5py.File) -> None:
    count = len(file["Labels"])
    del file["File_Names"]
    file.create_dataset("File_Names", (count,), f"S{10**9}")


def a_name_too_few(file: h5py.File) -> None:
    names = file["File_Names"][:-1]
    del file["File_Names"]
    file["File_Names"] = names


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (link_to_another_file, "without Images, .* of its own"),
        (raw_file_elsewhere, "not stored contiguously"),
        (claims_a_billion_labels, "of shape"),
        (group_for_labels, "not a readable HDF5 file"),
        (names_of_a_gigabyte, "without a file name for each image"),
        (a_name_too_few, "without a file name for each image"),
    ],
)
def test_hdf5_that_reaches_out_is_refused(
    plant: "callable", message: str, made_hdf5: Path, tmp_path: Path
) -> None:
    for name in ("train", "val"):
        (tmp_path / f"{name}.hdf5").write_bytes((made_hdf5 / f"{name}.hdf5").read_bytes())
    with h5py.File(tmp_path / "train.hdf5", "r+") as file:
        plant(file)
    with pytest.raises(UserError, match=rf"train\.hdf5 is {message}"):
        open_split(tmp_path, "train")


def test_map_reads_what_hdf5_reads(made_hdf5: Path) -> None:
    with h5py.File(made_hdf5 / "train.hdf5") as file:
        assert np.array_equal(open_split(made_hdf5, "train").images, file["Images"])


def test_hdf5_held_open_elsewhere_is_read(made_hdf5: Path, tmp_path: Path) -> None:
    """A notebook holds HDF5's own lock."""
    folder = Path(shutil.copytree(made_hdf5, tmp_path / "hdf5"))
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print(1, flush=True); input()"
    command = [sys.executable, "-c", code, str(folder / "train.hdf5")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as notebook:
        notebook.stdout.readline()
        assert len(open_split(folder, "train")) == len(open_split(made_hdf5, "train"))
        notebook.communicate("\n")


def test_hdf5_cut_short_while_it_is_mapped(made_hdf5: Path, tmp_path: Path) -> None:
    """The system kills a process that reads a map where the file has ended. Until it ends, training
    holds its folder."""
    folder = Path(shutil.copytree(made_hdf5, tmp_path / "hdf5"))
    command = train_command("-r", "thin-long", "--hdf5", folder, "-o", tmp_path / "run")
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as training:
        for line in training.stdout:
            if line.startswith("  1/"):
                break
        with pytest.raises(UserError, match="another process"), folder_lock(tmp_path / "run"):
            pass
        os.truncate(folder / "train.hdf5", 10_000)
        _, error = training.communicate()
    assert training.returncode == 2, error
    assert error.startswith(f"error: {folder}/train.hdf5 is truncated since it was opened")
    assert error.count("\n") == 1, error


def test_zip_cut_short_while_it_is_read(made_data: Path, tmp_path: Path) -> None:
    path = zip_folder(made_data, tmp_path / "data.zip")
    source = ZipSource(path)
    os.truncate(path, 10_000)
    with pytest.raises(UserError, match="damaged"):
        source.read(source.names[-1])


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


@pytest.mark.skipif(sys.platform == "win32", reason="no such files there")
@pytest.mark.parametrize("make", [pipe, endless, huge])
def test_what_cannot_be_read_to_an_end_is_refused(make: Callable, own_data: Path) -> None:
    image = next(own_data.glob("train/*/images/*"))
    image.unlink()
    make(image)
    with pytest.raises(UserError, match=f"cannot read {image}: it is "):
        FolderSource(own_data).read(str(image.relative_to(own_data)))
    with pytest.raises(UserError, match=f"cannot read {image}: it is "):
        read_photograph(image, 64)


@pytest.mark.parametrize("make", [pipe, endless, huge])
def test_log_that_is_no_regular_file(make: Callable, own_run: Path) -> None:
    log = own_run / "run.jsonl"
    log.unlink()
    make(log)
    assert find_hdf5(None, own_run, own_run) == own_run / "hdf5"
    with pytest.raises(UserError, match=f"cannot write {log}: it is "):
        RunLog(own_run, None, None)


def test_lines_of_the_log_that_cannot_be_read_spoil_no_other(
    own_run: Path, made_hdf5: Path
) -> None:
    log = own_run / "run.jsonl"
    lines = log.read_bytes() + b"\xff\xfe\n[]\n{}\n"
    log.write_bytes(lines + b'{"event": "ep')
    assert find_hdf5(None, own_run, own_run) == made_hdf5
    RunLog(own_run, None, None).write("start")
    assert log.read_bytes().startswith(lines + b'{"event": "start"')


def test_members_that_swell(own_run: Path) -> None:
    path = checkpoint(own_run, 3)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name in ("metadata.json", "config.json"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for other, contents in members.items():
                archive.writestr(other, contents + b" " * 2**23 * (other == name))
        with pytest.raises(UserError, match="larger than a checkpoint's can be"):
            read_state(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in members.items():
            archive.writestr(name, contents)
    with pytest.raises(UserError, match="it is compressed"):
        read_state(path)


def test_unreadable_is_not_called_damaged(
    own_run: Path, made_hdf5: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An administrator may read all, so the refusal is made up."""

    def refuse(*arguments: object, **settings: object) -> None:
        raise PermissionError(errno.EACCES, "Unable to open file\nname = x, errno = 13")

    file = checkpoint(own_run, 3)
    monkeypatch.setattr("pipeline.run.checkpoint.ZipFile", refuse)
    with pytest.raises(UserError, match=f"cannot read {file}: Permission denied; change"):
        read_state(file)
    monkeypatch.setattr("h5py.File", refuse)
    with pytest.raises(UserError, match=r"train\.hdf5: Permission denied; change"):
        open_split(made_hdf5, "train")
