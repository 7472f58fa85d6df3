"""Attack the scripts in more than 400 ways; print how many were tried and held, by kind.

    python tests/attacks.py --only outputs numbers

An attack held if the script ended in time, with status 0 or with status 2 and one line that says
what is wrong, as the attack allows, without a traceback; and if what it was given is still there,
byte for byte, with no half-written file beside it.
"""

import argparse
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZIP_LZMA, ZipFile

import h5py
import numpy as np
from conftest import (
    ROOT,
    change_metadata,
    random_jpeg,
    script_command,
    write_tiny_imagenet,
    zip_folder,
)
from test_layouts import EQUAL, REFUSED

from pipeline.run.checkpoint import KEY

LONGEST_S = 300
FULLWIDTH_1 = "\uff11"
"""A digit to Python too."""
LIKE_DEV_NULL = stat.S_IFCHR | 0o666, os.makedev(1, 3)
EVALUATE = ("model_eval.py", "-m", "run", "--hdf5", "hdf5")
PREDICT = ("model_eval.py", "-m", "run", "--images", "photo.jpg")
VIEW = ("view_model.py", "-m", "run", "-o", "out.png")
BUILD = ("build_dataset.py", "-d", "data", "-o", "out")
TRAIN = ("model_train.py", "-r", "thin", "-n", "1", "--hdf5", "hdf5", "-o", "out")
RESUME = ("model_train.py", "-m", "run", "-n", "2", "-l", "0.01", "--hdf5", "hdf5", "-o", "run")
INPUTS = ("data", "data.zip", "hdf5", "photo.jpg", "run")
"""What no attack may change, but for a run by what resumes it."""


@dataclass(frozen=True)
class Attack:
    """A command, run in a copy of a small world after ``prepare`` has spoiled it."""

    name: str
    command: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda world: None
    environment: dict[str, str] = field(default_factory=dict)
    shell: str = "{}"
    """Around the command, as ``{} >&-``."""
    statuses: tuple[int, ...] = (0, 2)
    """That it may end with."""


def outputs() -> Iterator[Attack]:
    """Places to write to that are an input, no regular file, or cannot be named."""
    flags = {
        (*EVALUATE, "--json"): ".json",
        (*EVALUATE, "--report"): "",
        (*EVALUATE, "--export"): ".keras",
        (*PREDICT, "--sheet"): ".png",
        (*PREDICT, "--csv"): ".csv",
        VIEW[:-1]: ".svg",
        BUILD[:-1]: "",
        (*BUILD, "--preview"): ".png",
        (*TRAIN[:-1],): "",
    }
    for command, suffix in flags.items():
        *rest, flag = command
        for what, (name, prepare) in places(suffix).items():
            yield Attack(f"{flag} {what}", (*rest, f"{flag}={name}"), prepare)
    for flag in ("--json", "--csv", "--sheet", "--export", "--report"):
        command, name = (EVALUATE, "hdf5/../hdf5/test.hdf5")
        if flag in ("--csv", "--sheet"):
            command, name = PREDICT, "./photo.jpg"
        yield Attack(f"{flag} over {name}", (*command, f"{flag}={name}"))
        yield Attack(
            f"{flag} over a link to {name}",
            (*command, f"{flag}=link"),
            lambda world, name=name: (world / "link").symlink_to(name),
        )


def make_device(path: Path) -> None:
    try:
        os.mknod(path, *LIKE_DEV_NULL)
    except PermissionError:  # not root, who alone could replace the real one
        path.symlink_to(os.devnull)


def places(suffix: str) -> dict[str, tuple[str, Callable[[Path], object]]]:
    """Return names that end in ``suffix``, and what makes them what they are."""
    name = f"place{suffix}"
    return {
        "a link": (name, lambda world: (world / name).symlink_to(write("old.txt", b"old", world))),
        "a folder": (name, lambda world: (world / name).mkdir()),
        "a device": (name, lambda world: make_device(world / name)),
        "a FIFO": (name, lambda world: os.mkfifo(world / name)),
        "a link to nothing": (name, lambda world: (world / name).symlink_to("nothing")),
        "a link to itself": (name, lambda world: (world / name).symlink_to(name)),
        "below a file": (f"photo.jpg/{name}", lambda world: None),
        "below /proc": (f"/proc/self/{name}", lambda world: None),
        "a long name": ("n" * (250 - len(suffix)) + suffix, lambda world: None),
        "a name of bytes": (os.fsdecode(b"n\xff") + suffix, lambda world: None),
        "two lines": (f"a\nb{suffix}", lambda world: None),
        "a dash": (f"-x{suffix}", lambda world: None),
        "nothing": ("", lambda world: None),
    }  # fmt: skip


def numbers() -> Iterator[Attack]:
    """Values that are no numbers, or beyond all use."""
    values = {
        (*BUILD, "--seed"): ("-1", "1e3", "nan", str(2**64), "", "0x10", FULLWIDTH_1),
        (*TRAIN, "-b"): ("0", "-1", "1000000", "9" * 30, "1.5", "nan", ""),
        (*TRAIN, "-n"): ("0", "-1", "nan", "9" * 400),
        (*TRAIN, "-l"): ("0", "-1", "nan", "inf", "1e39", "1e-50", ""),
        (*TRAIN, "-e"): ("0", "-1", "99", "x"),
        (*TRAIN, "--keep"): ("0", "-1", "x"),
        (*TRAIN, "--seed"): ("-1", str(2**40), "x"),
        (*EVALUATE, "-b"): ("0", "-1", "10000000", "x"),
        (*EVALUATE, "--image-size"): ("0", "-5", "31", "1000000", "x"),
        (*RESUME, "-e"): ("0", "2", "x"),
    }
    for command, given in values.items():
        for value in given:
            name = f"{command[0]} {command[-1]} {value[:12]}"
            yield Attack(name, (*command, value), statuses=(0,) if value == FULLWIDTH_1 else (2,))


def data_sets() -> Iterator[Attack]:
    """States of the data set, whole and spoiled."""
    for states, status in ((EQUAL, 0), (REFUSED, 2)):
        for name, state in states.items():
            prepare = partial(spoil_data, state)
            yield Attack(name, BUILD, prepare, statuses=(status,))


def archives() -> Iterator[Attack]:
    """Zips that are damaged, dangerous or none."""
    command = ("build_dataset.py", "-d", "data.zip", "-o", "out")
    for tenth in range(10):
        yield Attack(f"cut to {tenth}/10", command, partial(cut, "data.zip", tenth))
    members = ("../x", "/x", "a/../../x", "C:\\x", "..\\x", "train/\0x", "x" * 60_000)
    for member in members:
        yield Attack(f"a member {member[:12]!r}", command, partial(add_member, member))
    for data in (b"", b"<html>", b"7z\xbc\xaf\x27\x1c" * 9, b"Rar!\x1a\x07" * 9, b"\x1f\x8b" * 99):
        yield Attack(f"only {data[:6]!r}", command, partial(write, "data.zip", data))
    yield Attack("a FIFO", command, lambda world: replace_by_fifo(world / "data.zip"))


def checkpoints() -> Iterator[Attack]:
    """Models that are truncated, forged, or of another make."""
    readers = (EVALUATE, VIEW, RESUME)
    for tenth in range(0, 10, 3):
        for command in readers:
            yield Attack(
                f"{command[0]} cut to {tenth}/10", command, partial(cut, "run/*.keras", tenth)
            )
    values = (None, -1, 1e39, "x" * 10_000, [], {"a": 1}, True)
    for name in ("epoch", "recipe", "means", "classes", "history", "seed", "batch_size"):
        for value in values:
            yield Attack(f"{name} = {str(value)[:12]}", EVALUATE, partial(forge, name, value))
    for data in (b"", b"PK", b"\x89HDF\r\n\x1a\n" * 99, b"{}"):
        yield Attack(
            f"only {data[:6]!r}",
            EVALUATE,
            lambda world, data=data: checkpoint(world).write_bytes(data),
        )


def hdf5_files() -> Iterator[Attack]:
    """Splits that are damaged, or hold what does not fit."""
    for tenth in range(10):
        yield Attack(f"test cut to {tenth}/10", EVALUATE, partial(cut, "hdf5/test.hdf5", tenth))
    spoils: dict[str, Callable[[h5py.File], object]] = {
        "no images": lambda file: file.__delitem__("Images"),
        "no labels": lambda file: file.__delitem__("Labels"),
        "labels beyond the classes": lambda file: file["Labels"].__setitem__(0, 10**6),
        "labels below 0": lambda file: file["Labels"].__setitem__(0, -1),
        "a seed of infinity": lambda file: file.attrs.__setitem__("seed", np.inf),
        "a build id that is a number": lambda file: file.attrs.__setitem__("build_id", 7),
        "no attributes": lambda file: [file.attrs.__delitem__(name) for name in list(file.attrs)],
    }
    for split, command in (("test", EVALUATE), ("train", TRAIN)):
        for name, spoil in spoils.items():
            yield Attack(f"{split}: {name}", command, partial(change_hdf5, split, spoil))


def terminals() -> Iterator[Attack]:
    """Where what is printed cannot be shown."""
    help_ = ("model_eval.py", "--help")
    for name, command in {"build": BUILD, "predict": PREDICT, "view": VIEW, "help": help_}.items():
        for shell in ("{} >&-", "{} 2>&-", "{} >&- 2>&-", "{} <&-", "{} | true"):
            yield Attack(f"{name}: {shell}", command, shell=shell)
        for encoding in ("ascii", "cp1252", "utf-8:strict"):
            yield Attack(
                f"{name}: {encoding}",
                command,
                name_in_chinese,
                {"PYTHONIOENCODING": encoding, "LC_ALL": "C"},
            )


def hosts() -> Iterator[Attack]:
    """Settings that a machine holds for other programs."""
    settings = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MPLCONFIGDIR": "/proc/none",
        "TMPDIR": "/proc/none",
        "HOME": "/proc/none",
        "JAX_PLATFORMS": "none",
        "XLA_FLAGS": "--nonsense",
        "KERAS_BACKEND": "none",
        "OMP_NUM_THREADS": "x",
        "PYTHONHASHSEED": "7",
        "COLUMNS": "1",
        "SLURM_STEP_NUM_TASKS": "x",
        "SLURM_PROCID": "2",
        "OPENCV_IO_MAX_IMAGE_PIXELS": "1",
        "HDF5_USE_FILE_LOCKING": "x",
    }
    for name, value in settings.items():
        for command in (PREDICT, TRAIN):
            yield Attack(f"{name}={value} {command[0]}", command, environment={name: value})
    for text in ('{"floatx": "float16"}', '{"image_data_format": "channels_first"}', "no JSON"):
        yield Attack(
            f"keras.json {text}",
            PREDICT,
            partial(write, ".keras/keras.json", text.encode()),
            {"HOME": "."},
        )


def words() -> Iterator[Attack]:
    """Names of classes that mean something to a terminal, a table, a plot or a page."""
    for text in ("$x$", "$", "\\frac", "\x1b[31m", "a\0b", "a\u2028b", "=1+1", "@x", '"', "<b>",
                 "\U0001f600", "\u202eabc", "x" * 10_000, "%s", "{}", "a\tb"):  # fmt: skip
        yield Attack(
            repr(text[:9]), (*BUILD, "--preview", "sheet.png"), partial(rename_classes, text)
        )


def processes() -> Iterator[Attack]:
    """Coordinators and process groups that cannot be."""
    several = (*TRAIN, "--processes", "2", "--process-id")
    for place in ("nonsense", "host:abc", "host:", "[::1", "127.0.0.1:99999", ":", "", "a b:1"):
        yield Attack(
            f"coordinator {place!r}",
            (*several, "0", "--coordinator", place),
            environment={"KERAS_BACKEND": "jax"},
        )
    for number in ("2", "-1", "x"):
        yield Attack(
            f"process {number}",
            (*several, number, "--coordinator", "127.0.0.1:1"),
            environment={"KERAS_BACKEND": "jax"},
        )


def photographs() -> Iterator[Attack]:
    """What is named as an image and is none."""
    for data in (b"", b"\xff\xd8", b"GIF89a", b"<svg/>", b"\0\0\0\x18ftypheic",
                 b"\x89PNG\r\n\x1a\n", b"P6 9999999 9999999 255\n"):  # fmt: skip
        yield Attack(f"only {data[:8]!r}", PREDICT, partial(write, "photo.jpg", data))
    for name in ("none.jpg", "https://example.org/cat.jpg", "", "/dev/zero", "run", "data",
                 "hdf5/val.hdf5", "-x"):  # fmt: skip
        yield Attack(f"named {name!r}", (*PREDICT[:-2], f"--images={name}"))
    yield Attack("a FIFO", PREDICT, lambda world: replace_by_fifo(world / "photo.jpg"))


def downloads() -> Iterator[Attack]:
    """Servers that answer, but not with the archive."""
    for answer in ("200 none", "404", "416", "500", "301 loop", "301 nowhere", "206 wrong",
                   "no HTTP"):  # fmt: skip
        yield Attack(
            answer,
            ("build_dataset.py", "--download", "-d", "new", "-o", "out"),
            environment={"ATTACK_PATH": answer.replace(" ", "-")},
        )


KINDS: dict[str, Callable[[], Iterator[Attack]]] = {
    kind.__name__: kind
    for kind in (outputs, numbers, data_sets, archives, checkpoints, hdf5_files, terminals, hosts,
                 words, processes, photographs, downloads)
}  # fmt: skip


def checkpoint(world: Path) -> Path:
    return next((world / "run").glob("*.keras"))


def spoil_data(state: Callable[[Path], object], world: Path) -> None:
    state(world / "data")


def cut(pattern: str, tenths: int, world: Path) -> None:
    (path,) = world.glob(pattern)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * tenths // 10])


def write(name: str, data: bytes, world: Path) -> Path:
    (world / name).parent.mkdir(exist_ok=True)
    (world / name).write_bytes(data)
    return world / name


def add_member(name: str, world: Path) -> None:
    with ZipFile(world / "data.zip", "a", ZIP_LZMA if len(name) > 99 else 0) as archive:
        archive.writestr(name, b"")


def replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def forge(name: str, value: object, world: Path) -> None:
    """Change a value of the run's state in a checkpoint's metadata."""
    change_metadata(checkpoint(world), lambda it: it[KEY]["state"].update({name: value}))


def change_hdf5(split: str, spoil: Callable[[h5py.File], object], world: Path) -> None:
    with h5py.File(world / "hdf5" / f"{split}.hdf5", "r+") as file:
        spoil(file)


def name_in_chinese(world: Path) -> None:
    (world / "out").symlink_to("\u732b")
    (world / "\u732b").mkdir()


def rename_classes(text: str, world: Path) -> None:
    path = world / "data" / "words.txt"
    rows = (line.split("\t")[0] for line in path.read_text().splitlines())
    path.write_text("".join(f"{class_id}\t{text}\n" for class_id in rows))


class Answers(BaseHTTPRequestHandler):
    """Answers as its path says."""

    def do_GET(self) -> None:
        status, _, how = self.path.strip("/").partition("-")
        if not status.isdigit():
            self.wfile.write(b"no HTTP at all\n" * 9)
            return
        self.send_response(int(status))
        if status == "301":
            self.send_header("Location", self.path if how == "loop" else "http://127.0.0.1:9/x")
        if status == "206":
            self.send_header("Content-Range", "bytes 7-3/nonsense")
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"none")

    def log_message(self, *arguments: object) -> None:
        pass


WITH_ANOTHER_URL = f"""
import os, sys; sys.path.insert(0, {str(ROOT)!r})
import build_dataset
from pipeline import command_line
build_dataset.config.DOWNLOAD_URL = os.environ["ATTACK_URL"]
command_line.run_script(build_dataset.main)
"""


def make_world(world: Path) -> None:
    """Write a small data set, its archive and build, a run of one epoch and a photograph."""
    write_tiny_imagenet(world / "data")
    zip_folder(world / "data", world / "data.zip")
    (world / "photo.jpg").write_bytes(random_jpeg(np.random.default_rng(1), 2))
    for command in (("build_dataset.py", "-d", "data", "-o", "hdf5"), (*TRAIN[:-1], "run")):
        subprocess.run(command_line(command), cwd=world, check=True, capture_output=True)


def command_line(command: tuple[str, ...]) -> list[str]:
    script, *arguments = command
    return [sys.executable, *(str(ROOT / part) for part in script_command(script)), *arguments]


def what_went_wrong(pristine: Path, server: str, attack: Attack) -> str:
    """Return what went wrong; "" if the attack held."""
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder) / "world"
        shutil.copytree(pristine, world)
        attack.prepare(world)
        resumes = attack.command[:3] == RESUME[:3]
        inputs = [name for name in INPUTS if not (resumes and name == "run")]
        before = fingerprints(world, inputs)
        try:
            done = run(attack, world, server)
        except subprocess.TimeoutExpired:
            return f"not over after {LONGEST_S} s"
        after, said = fingerprints(world, inputs), done.stderr.decode(errors="replace")
        changed = [name for name, value in before.items() if after.get(name) != value]
        unfinished = list(world.rglob(".unfinished-*"))
        if done.returncode not in attack.statuses:
            return f"status {done.returncode}: {said[-300:]}"
        if "Traceback" in said or "Error:" in said:
            return said[-300:]
        if done.returncode == 2 and not explained(said) and "2>&-" not in attack.shell:
            return f"status 2 with {said[-300:]!r}"
        return " ".join([*(f"changed {name}" for name in changed), *map(str, unfinished)])


def run(attack: Attack, world: Path, server: str) -> subprocess.CompletedProcess:
    """Run the command in the world, as a shell would."""
    command = command_line(attack.command)
    environment = {"KERAS_BACKEND": "tensorflow", **attack.environment}
    if path := environment.pop("ATTACK_PATH", ""):
        command = [sys.executable, "-c", WITH_ANOTHER_URL, *attack.command[1:]]
        environment["ATTACK_URL"] = f"{server}/{path}"
    wrapped = ["bash", "-c", f"set -o pipefail; {attack.shell}".format('"$@"'), "bash", *command]
    return subprocess.run(
        wrapped,
        cwd=world,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LONGEST_S,
    )


def explained(said: str) -> bool:
    return said.startswith("error: ") and said.count("\n") == 1


def fingerprints(world: Path, inputs: Collection[str]) -> dict[str, object]:
    """Return the contents of each input file, and the kind of all that is no regular file."""
    found: dict[str, object] = {}
    for path in world.rglob("*"):
        name, mode = str(path.relative_to(world)), path.lstat().st_mode
        if not stat.S_ISREG(mode):
            found[name] = stat.S_IFMT(mode)
        elif name.split("/")[0] in inputs:
            found[name] = path.read_bytes()
    return found


def main() -> None:
    """Make all attacks of the kinds that are named, and print a row for each kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        pristine = Path(folder) / "pristine"
        make_world(pristine)
        tried, held = 0, Counter[str]()
        for kind in args.only:
            attacks = list(KINDS[kind]())
            tried += len(attacks)
            results = pool.map(partial(what_went_wrong, pristine, address), attacks)
            for one, wrong in zip(attacks, results, strict=True):
                held[kind] += not wrong
                if wrong:
                    print(f"{kind}: {one.name}: {wrong}", flush=True)
            print(f"{kind:12} {len(attacks):4} tried {held[kind]:4} held", flush=True)
    server.shutdown()
    sys.exit(held.total() < tried)


if __name__ == "__main__":
    main()
