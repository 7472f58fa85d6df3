"""Data made for the tests, and the scripts run as a user runs them."""

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# the tests are of CPUs and of signals, whatever the shell holds
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_ENABLE_ONEDNN_OPTS", "NPROC",
             "XLA_FLAGS"):  # fmt: skip
    os.environ.pop(name, None)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a script's background
    signal.signal(signal.SIGINT, signal.default_int_handler)

from pipeline.preprocessing.images import encode_jpeg  # noqa: E402

CLASS_IDS = ("n01443537", "n01629819", "n02124075", "n07749582")
WORDS = ("goldfish, Carassius auratus", "European fire salamander", "Egyptian cat", "lemon")
TRAIN_IMAGES, VAL_IMAGES, TEST_IMAGES = 42, 5, 3

Run = Callable[..., subprocess.CompletedProcess]


def write_tiny_imagenet(root: Path) -> Path:
    """Write a data set of four colours, as unlike the real one as its layout allows."""
    stream = np.random.default_rng(7)
    annotations = []
    for folder in ("val/images", "test/images"):
        (root / folder).mkdir(parents=True)
    for label, class_id in enumerate(CLASS_IDS):
        folder = root / "train" / class_id / "images"
        folder.mkdir(parents=True)
        boxes = []
        for number in range(TRAIN_IMAGES):
            name = f"{class_id}_{number}.JPEG"
            (folder / name).write_bytes(random_jpeg(stream, label))
            boxes.append(f"{name}\t0\t0\t63\t63\n")
        (folder.parent / f"{class_id}_boxes.txt").write_text("".join(boxes))
        for _ in range(VAL_IMAGES):
            name = f"val_{len(annotations)}.JPEG"
            (root / "val" / "images" / name).write_bytes(random_jpeg(stream, label))
            annotations.append(f"{name}\t{class_id}\t0\t0\t63\t63\n")
    for number in range(TEST_IMAGES):
        (root / "test" / "images" / f"test_{number}.JPEG").write_bytes(random_jpeg(stream, number))
    (root / "val" / "val_annotations.txt").write_text("".join(annotations))
    (root / "wnids.txt").write_text("\n".join(reversed(CLASS_IDS)) + "\n")
    rows = [f"{c}\t{w}\n" for c, w in zip(CLASS_IDS, WORDS, strict=True)]
    (root / "words.txt").write_text("n00001740\tentity\n" + "".join(rows))
    return root


def with_odd_profile(png: bytes) -> bytes:
    """Put a colour profile that libpng warns of behind a PNG's header."""
    profile = bytes.fromhex("00000011694343506f64640000789c6360181e000000c800010f8d9919")
    return png[:33] + profile + png[33:]


def random_jpeg(stream: np.random.Generator, label: int) -> bytes:
    """Return a noisy 64x64 image whose colour tells its class."""
    colour = np.eye(4, 3)[label] * 120 + 60
    return encode_jpeg(np.uint8(np.clip(stream.normal(colour, 40, (64, 64, 3)), 0, 255)))


def zip_folder(root: Path, path: Path) -> Path:
    """Pack ``root`` as the official archive is packed: one folder at its top, deflated, dated."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            name = Path("tiny-imagenet-200") / file.relative_to(root)
            member = zipfile.ZipInfo.from_file(file, name)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.extra = struct.pack("<HHBI", 0x5455, 5, 1, 0)  # a time, as Info-ZIP adds
            archive.writestr(member, b"" if file.is_dir() else file.read_bytes())
    return path


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set in the official layout; do not change it."""
    return write_tiny_imagenet(tmp_path_factory.mktemp("made") / "tiny-imagenet-200")


@pytest.fixture
def own_data(made_data: Path, tmp_path: Path) -> Path:
    """A copy of the small data set to spoil."""
    return Path(shutil.copytree(made_data, tmp_path / "tiny-imagenet-200"))


@pytest.fixture(scope="session")
def jax_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment for JAX, with one cache of compiled programs for all tests."""
    return {
        "KERAS_BACKEND": "jax",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.getbasetemp().parent / "jax-cache"),
        "JAX_COMPILATION_CACHE_MAX_SIZE": str(2**30),  # with a limit, JAX locks the cache
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    }


@pytest.fixture(scope="session")
def run(jax_settings: dict[str, str]) -> Run:
    """Run a script in a process of its own, in a folder of its own, and return what it did."""

    def run_script(
        script: str,
        *arguments: object,
        status: int = 0,
        backend: str = "tensorflow",
        cwd: Path = ROOT,
        preexec_fn: Callable[[], None] | None = None,
        **environment: str,
    ) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [sys.executable, *map(str, script_command(script)), *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **jax_settings, "KERAS_BACKEND": backend, **environment},
            capture_output=True,
            text=True,
            timeout=400,
            preexec_fn=preexec_fn,
        )
        assert done.returncode == status, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        if status == 2:
            assert done.stderr.startswith("error: ") and "; " in done.stderr, done.stderr
            assert done.stderr.count("\n") == 1, done.stderr
        return done

    return run_script


def script_command(script: str) -> list[Path]:
    """Return what to give to Python to run a script; training knows the thin recipes too."""
    if script == "model_train.py":
        return [ROOT / "tests" / "with_recipes.py", Path(script)]
    return [ROOT / script]


@pytest.fixture(scope="session")
def made_hdf5(made_data: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data set, built; do not change it."""
    folder = tmp_path_factory.mktemp("hdf5")
    run("build_dataset.py", "-d", made_data, "-o", folder)
    return folder


@pytest.fixture(scope="session")
def trained(made_hdf5: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three epochs; do not change it."""
    folder = tmp_path_factory.mktemp("trained")
    done = run("model_train.py", "-r", "thin", "--hdf5", made_hdf5, "-o", folder)
    assert done.stderr == ""
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def own_run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the finished run to spoil."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def checkpoint(folder: Path, epoch: int) -> Path:
    """Return the checkpoint that ``folder`` has of ``epoch``."""
    return next(folder.glob(f"epoch-{epoch:03d}-*.keras"))


def numbers(folder: Path) -> dict[str, list[float]]:
    """Return the metrics of the run in ``folder``, by epoch."""
    return json.loads((folder / "metric_values.json").read_text())


def stored_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return each array of the weights and the optimizer's state in a Keras file."""
    found = {}

    def keep(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with zipfile.ZipFile(path) as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights) as file:
        file.visititems(keep)
    return found


def change_metadata(path: Path, change: Callable[[dict], object]) -> None:
    """Let ``change`` change what a Keras file says of itself and, by ``KEY``, of its run."""

    def change_text(text: bytes) -> bytes:
        metadata = json.loads(text)
        change(metadata)
        return json.dumps(metadata).encode()

    change_member(path, "metadata.json", change_text)


def change_member(path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Replace a member of a Keras file by what ``change`` makes of it."""
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    members[name] = change(members[name])
    with zipfile.ZipFile(path, "w") as archive:
        for member, contents in members.items():
            archive.writestr(member, contents)


def train_command(*arguments: object) -> list[str]:
    """Return the command that trains, for tests that start it themselves."""
    return [sys.executable, *map(str, script_command("model_train.py")), *map(str, arguments)]


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A headless Chromium, as Debian packages it."""
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if not (driver and chromium):
        pytest.skip("no Chromium here: apt install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(driver))
    yield window
    window.quit()


def heed_hangups() -> None:
    """Undo what nohup did to the tests: a process that ignores SIGHUP starts others that do."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
