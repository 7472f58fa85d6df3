"""build_dataset.py, run as a user runs it, held against files made by hand."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from conftest import CLASS_IDS, ROOT, TRAIN_IMAGES, VAL_IMAGES, WORDS, Run, zip_folder

import build_dataset
from pipeline.dataset.image_source import open_source
from pipeline.errors import UserError
from pipeline.io.hdf5_dataset import open_split
from pipeline.preprocessing.images import encode_jpeg
from pipeline.run.output_folder import find_hdf5

OUTPUTS = ("train.hdf5", "val.hdf5", "test.hdf5", "tiny_imagenet_mean.json")
TEST_PER_CLASS = 30


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in OUTPUTS if (folder / name).exists()}


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name not in (*OUTPUTS, ".lock")]


def decoded(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_files_hold_every_image_once_with_its_label(made_data: Path, made_hdf5: Path) -> None:
    classes = len(CLASS_IDS)
    found: dict[bytes, tuple[int, str]] = {}
    for split, per_class in (("train", TRAIN_IMAGES - TEST_PER_CLASS), ("test", TEST_PER_CLASS)):
        with h5py.File(made_hdf5 / f"{split}.hdf5") as file:
            images, labels = file["Images"][:], file["Labels"][:]
            assert images.shape == (classes * per_class, 64, 64, 3)
            assert images.dtype == np.uint8
            assert np.bincount(labels).tolist() == [per_class] * classes
            assert list(file["Label_Names"].asstr()) == sorted(CLASS_IDS)
            assert list(file["Class_Names"].asstr()) == list(WORDS)
            assert file.attrs["complete"]
            truths = zip(labels, file["File_Names"].asstr(), strict=True)
            found |= {i.tobytes(): truth for i, truth in zip(images, truths, strict=True)}
    for label, class_id in enumerate(sorted(CLASS_IDS)):
        for path in (made_data / "train" / class_id / "images").iterdir():
            assert found.pop(decoded(path).tobytes()) == (label, path.name)
    assert not found


def test_val_follows_the_annotations(made_data: Path, made_hdf5: Path) -> None:
    rows = (made_data / "val" / "val_annotations.txt").read_text().splitlines()
    with h5py.File(made_hdf5 / "val.hdf5") as file:
        assert len(file["Labels"]) == len(rows) == len(CLASS_IDS) * VAL_IMAGES
        for row, image, label in zip(rows, file["Images"], file["Labels"], strict=True):
            name, class_id = row.split("\t")[:2]
            assert np.array_equal(image, decoded(made_data / "val" / "images" / name))
            assert label == sorted(CLASS_IDS).index(class_id)


def test_means_are_those_of_the_train_split(made_hdf5: Path) -> None:
    means = json.loads((made_hdf5 / "tiny_imagenet_mean.json").read_text())
    with h5py.File(made_hdf5 / "train.hdf5") as file:
        expected = file["Images"][:].astype(np.float64).mean(axis=(0, 1, 2))
        stored = file.attrs["means"].tolist()
    assert stored == [means[channel] for channel in "RGB"]
    assert np.allclose(stored, expected, rtol=0, atol=1e-9)


def add_an_image(data_set: Path) -> None:
    folder = data_set / "train" / CLASS_IDS[0] / "images"
    shutil.copy(folder / f"{CLASS_IDS[0]}_5.JPEG", folder / "one_more.JPEG")


def change_a_val_image(data_set: Path) -> None:
    folder = data_set / "val" / "images"
    shutil.copy(folder / "val_0.JPEG", folder / "val_1.JPEG")


@pytest.mark.parametrize(
    ("change", "seed"), [(add_an_image, 42), (change_a_val_image, 42), (lambda data_set: None, 7)]
)
def test_files_of_two_builds_never_train_together(
    change: Callable[[Path], None], seed: int, made_hdf5: Path, own_data: Path
) -> None:
    """What a kill between two renames of an --overwrite leaves."""
    mixture = Path(shutil.copytree(made_hdf5, own_data / "mixture"))
    change(own_data)
    build_dataset.main(["-d", str(own_data), "--seed", str(seed)])
    for renamed, mixed in ((OUTPUTS[0], ("val", "test")), (OUTPUTS[1], ("test",))):
        shutil.copy(own_data / "hdf5" / renamed, mixture)
        for split in mixed:
            with pytest.raises(UserError, match=r"of another build than train\.hdf5; build it"):
                open_split(mixture, split)


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", np.inf), ("seed", -1), ("seed", 2**40), ("seed", "x"), ("seed", np.arange(3)),
     ("means", [1.0, 2.0]), ("means", [1.0, 2.0, np.nan]), ("means", [1.0, 2.0, 1e30])],
)  # fmt: skip
def test_attributes_out_of_range_are_refused(
    name: str, value: object, made_hdf5: Path, tmp_path: Path
) -> None:
    shutil.copy(made_hdf5 / "train.hdf5", tmp_path)
    with h5py.File(tmp_path / "train.hdf5", "r+") as file:
        file.attrs[name] = value
    with pytest.raises(UserError, match=r"not a readable HDF5 file.*build it again"):
        open_split(tmp_path, "train")


@pytest.mark.parametrize("threads", [1, 7])
def test_thread_count_changes_no_byte(
    threads: int, made_data: Path, made_hdf5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.dataset.decoding.cores", lambda: threads)
    monkeypatch.setattr("pipeline.dataset.decoding.MAX_THREADS", threads)
    # so that each thread has work
    monkeypatch.setattr("pipeline.dataset.decoding.CHUNK_PIXELS", 5 * 64**2)
    build_dataset.main(["-d", str(made_data), "-o", str(tmp_path)])
    assert contents(tmp_path) == contents(made_hdf5)


def test_greyscale_and_other_sizes_are_brought_into_form(own_data: Path, run: Run) -> None:
    folder = own_data / "val" / "images"
    grey = np.random.default_rng(1).integers(256, size=(64, 64), dtype=np.uint8)
    cv2.imwrite(str(folder / "val_0.JPEG"), grey)
    (folder / "val_1.JPEG").write_bytes(encode_jpeg(np.full((90, 120, 3), 77, np.uint8)))
    run("build_dataset.py", "-d", own_data)
    with h5py.File(own_data / "hdf5" / "val.hdf5") as file:
        first, second = file["Images"][:2]
    assert np.array_equal(first[..., 0], first[..., 1])
    assert np.array_equal(first[..., 0], first[..., 2])
    assert np.array_equal(first[..., 0], cv2.imread(str(folder / "val_0.JPEG"), 0))
    assert np.abs(second.astype(int) - 77).max() <= 1


def test_sample_is_a_data_set_like_any_other(tmp_path: Path, run: Run) -> None:
    done = run("build_dataset.py", "--sample", "-d", tmp_path / "digits")
    assert "10 classes: 1,197 train, 250 val, 300 test images" in done.stdout
    with h5py.File(tmp_path / "digits" / "hdf5" / "val.hdf5") as file:
        assert list(file["Class_Names"].asstr())[:3] == ["zero", "one", "two"]
    run("build_dataset.py", "--sample", "-d", tmp_path / "digits", "--overwrite")
    (tmp_path / "mine").mkdir()
    another = ("build_dataset.py", "--sample", "-d", tmp_path / "mine")
    assert "is not a sample" in run(*another, status=2).stderr
    (tmp_path / "mine" / "wnids.txt").write_text("n00000000\n", encoding="utf-16")
    assert "is not a sample" in run(*another, status=2).stderr


def test_earlier_build_stays_unless_overwritten(own_data: Path, run: Run) -> None:
    run("build_dataset.py", "-d", own_data)
    before = contents(own_data / "hdf5")
    again = run("build_dataset.py", "-d", own_data).stdout
    assert "is built already" in again
    assert "next: python model_train.py -r quick --hdf5 " in again
    assert again.endswith(" -b 32\n")  # 48 images are few batches
    error = run("build_dataset.py", "-d", own_data, "--seed", 1, status=2).stderr
    assert "holds another build (other seed); give --overwrite" in error
    means = own_data / "hdf5" / OUTPUTS[-1]
    means.write_text("as a kill between two renames leaves it, of another build")
    error = run("build_dataset.py", "-d", own_data, status=2).stderr
    assert f"holds another build (other {means.name}); give --overwrite" in error
    means.write_bytes(before[means.name])
    add_an_image(own_data)
    error = run("build_dataset.py", "-d", own_data, status=2).stderr
    assert "holds another build (other images); give --overwrite" in error
    (own_data / "wnids.txt").write_text("\n".join(CLASS_IDS[1:]))
    error = run("build_dataset.py", "-d", own_data, status=2).stderr
    assert "holds another build (other classes); give --overwrite" in error
    (own_data / "wnids.txt").write_text("\n".join(CLASS_IDS))
    assert contents(own_data / "hdf5") == before
    drawn = [drawn_for_test(own_data / "hdf5")]
    run("build_dataset.py", "-d", own_data, "--overwrite", "--seed", 1)
    drawn.append(drawn_for_test(own_data / "hdf5"))
    assert drawn[0].keys() == drawn[1].keys()
    assert all(drawn[0][label] != drawn[1][label] for label in drawn[0])


def drawn_for_test(hdf5: Path) -> dict[int, set[bytes]]:
    """Return the names of each class's test images, but of the class that got one more."""
    with h5py.File(hdf5 / "test.hdf5") as file:
        names, labels = file["File_Names"][:], file["Labels"][:]
    return {label: set(names[labels == label]) for label in set(labels.tolist()) - {0}}


TRAIN_IMAGE = f"train/{CLASS_IDS[0]}/images/{CLASS_IDS[0]}_5.JPEG"


def test_corrupt_image_is_named_or_skipped(own_data: Path, run: Run) -> None:
    path = own_data / TRAIN_IMAGE
    path.write_bytes(path.read_bytes()[:400])
    error = run("build_dataset.py", "-d", own_data, status=2).stderr
    assert TRAIN_IMAGE in error
    assert "it is truncated" in error
    assert not contents(own_data / "hdf5")
    assert not leftovers(own_data / "hdf5")
    done = run("build_dataset.py", "-d", own_data, "--skip-corrupt")
    assert "skipped 1 corrupt image" in done.stdout
    assert TRAIN_IMAGE in done.stderr
    with h5py.File(own_data / "hdf5" / "train.hdf5") as file:
        assert len(file["Labels"]) == len(CLASS_IDS) * (TRAIN_IMAGES - TEST_PER_CLASS) - 1


def remove(root: Path, name: str) -> None:
    path = root / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def edit(root: Path, name: str, old: str, new: str) -> None:
    path = root / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def keep_images(root: Path, count: int) -> None:
    for path in sorted((root / "train" / CLASS_IDS[1] / "images").iterdir())[count:]:
        path.unlink()


def first_line(root: Path) -> str:
    return (root / ANNOTATIONS).read_text().splitlines(keepends=True)[0]


ANNOTATIONS = "val/val_annotations.txt"


def test_no_data_set_there(tmp_path: Path, run: Run) -> None:
    assert "--download" in run("build_dataset.py", "-d", tmp_path / "none", status=2).stderr
    (tmp_path / "empty").mkdir()
    error = run("build_dataset.py", "-d", tmp_path / "empty", status=2).stderr
    assert "this is no data set" in error


def test_zip_with_a_damaged_member(made_data: Path, tmp_path: Path, run: Run) -> None:
    path = zip_folder(made_data, tmp_path / "whole.zip")
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"tiny-imagenet-200/{TRAIN_IMAGE}")
    data = bytearray(path.read_bytes())
    data[member.header_offset + 200] ^= 0xFF
    path.write_bytes(data)
    error = run("build_dataset.py", "-d", path, status=2).stderr
    assert f"{TRAIN_IMAGE} in {path} is damaged" in error


def test_zip_member_below_many_folders(made_data: Path, tmp_path: Path) -> None:
    archive = zip_folder(made_data, tmp_path / "deep.zip")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("a/" * 2000 + "b", b"")
    source = open_source(archive)
    assert "a/" * 2000 + "b" in source.names


def test_zip_is_never_unpacked(made_data: Path, made_hdf5: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "data").mkdir()
    path = zip_folder(made_data, tmp_path / "data" / "whole.zip")
    link = zipfile.ZipInfo("tiny-imagenet-200/link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
        for name in ("../outside.txt", "/outside.txt", "a/../../outside.txt"):
            archive.writestr(name, "x")
    (tmp_path / "temporary").mkdir()
    done = run("build_dataset.py", "-d", path, TMPDIR=str(tmp_path / "temporary"))
    assert contents(path.parent / "hdf5") == contents(made_hdf5)
    assert f"--hdf5 {path.parent / 'hdf5'}" in done.stdout
    assert {p.name for p in tmp_path.iterdir()} == {"data", "temporary"}
    assert list((tmp_path / "temporary").iterdir()) == []


def test_build_from_the_zip_is_found_when_it_is_unpacked_later(
    made_data: Path, tmp_path: Path, run: Run
) -> None:
    zip_folder(made_data, tmp_path / "tiny-imagenet-200.zip")
    run("build_dataset.py", cwd=tmp_path)
    archive = (tmp_path / "tiny-imagenet-200.zip").rename(tmp_path / "away")
    assert find_hdf5(None, None, tmp_path / "tiny-imagenet-200") == tmp_path / "hdf5"
    archive.rename(tmp_path / "tiny-imagenet-200.zip")
    shutil.copytree(made_data, tmp_path / "tiny-imagenet-200")
    again = run("build_dataset.py", cwd=tmp_path).stdout
    assert "hdf5 is built already" in again
    assert "--hdf5" not in again  # for training looks there too
    shutil.rmtree(tmp_path / "hdf5")
    assert "to tiny-imagenet-200/hdf5" in run("build_dataset.py", cwd=tmp_path).stdout


def test_zip_that_swells_is_refused_unread(made_data: Path, tmp_path: Path, run: Run) -> None:
    path = zip_folder(made_data, tmp_path / "whole.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("tiny-imagenet-200/bomb", "small")
        archive.filelist[-1].file_size = 3 * 2**30
    assert "over 2 GiB" in run("build_dataset.py", "-d", path, status=2).stderr


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder here refuses even root")
def test_folder_that_cannot_be_written(made_data: Path, run: Run) -> None:
    """/proc refuses even root."""
    error = run("build_dataset.py", "-d", made_data, "-o", "/proc/self/hdf5", status=2).stderr
    assert "/proc/self/hdf5" in error


def test_usage_errors_end_with_status_2(run: Run) -> None:
    assert "from 0" in run("build_dataset.py", "--seed", "-1", status=2).stderr
    run("build_dataset.py", "--sample", "--download", status=2)


@pytest.mark.parametrize(("flag", "status"), [("--help", 0), ("--nonsense", 2)])
def test_answer_before_the_heavy_imports(flag: str, status: int) -> None:
    heavy = ("numpy", "cv2", "h5py", "keras", "tensorflow", "matplotlib", "sklearn")
    for script in ("build_dataset.py", "model_train.py", "model_eval.py", "view_model.py"):
        code = (
            f"import sys, {Path(script).stem} as script\n"
            f"try: script.main(['-o', 'x', {flag!r}])\n"
            f"finally: print('loaded:', *set({heavy!r}) & set(sys.modules))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        *text, loaded = done.stdout.splitlines()
        assert (done.returncode, loaded) == (status, "loaded:"), done.stderr
        assert ("example:" in text) == (flag == "--help")


def test_real_data_set_agrees_with_the_counted_facts(tmp_path: Path, run: Run) -> None:
    """Means over train and test together are those counted on the official train images."""
    root = os.environ.get("TINY_IMAGENET")
    if not root:
        pytest.skip("TINY_IMAGENET does not name the real data set")
    run("build_dataset.py", "-d", root, "-o", tmp_path)
    classes = (Path(root) / "wnids.txt").read_text().split()
    with h5py.File(tmp_path / "train.hdf5") as train, h5py.File(tmp_path / "test.hdf5") as test:
        assert np.bincount(train["Labels"]).tolist() == [470] * len(classes)
        assert np.bincount(test["Labels"]).tolist() == [30] * len(classes)
        of_train, of_test = (f["Images"][:].mean(axis=(0, 1, 2)) for f in (train, test))
        means = (of_train * 470 + of_test * 30) / 500
    paths = (p for name in classes for p in Path(root, "train", name, "images").glob("*.JPEG"))
    images = [cv2.imread(str(path)).mean(axis=(0, 1)) for path in paths]
    assert np.allclose(means, np.mean(images, axis=0)[::-1], atol=5e-5)
    if len(classes) == 200:
        assert np.allclose(means, (122.4604, 114.2571, 101.3634), atol=5e-5)
    size = (tmp_path / "train.hdf5").stat().st_size
    assert size / (470 * len(classes)) < 12_300 + 20_000 / len(classes)
