"""build_dataset.py on the states that scripts, archivers and editors leave the data set in."""

import re
import shutil
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from conftest import (
    CLASS_IDS,
    TRAIN_IMAGES,
    VAL_IMAGES,
    Run,
    random_jpeg,
    with_odd_profile,
    zip_folder,
)
from test_build import ANNOTATIONS, contents, edit, first_line, keep_images, remove

import build_dataset
from pipeline.errors import UserError

State = Callable[[Path], object]


def build(data: Path, output: Path, *flags: str) -> dict[str, bytes]:
    build_dataset.main(["-d", str(data), "-o", str(output), *flags])
    return contents(output)


def classes_of_val(root: Path) -> dict[str, str]:
    rows = (root / ANNOTATIONS).read_text().splitlines()
    return {name: class_id for name, class_id, *_ in (row.split("\t") for row in rows)}


def sort_val(root: Path, layout: str, move: Callable = shutil.move) -> None:
    """Put val's images into class folders, as most training scripts want them."""
    for name, class_id in classes_of_val(root).items():
        folder = root / layout.format(ID=class_id)
        folder.mkdir(parents=True, exist_ok=True)
        move(root / "val" / "images" / name, folder / name)
    if move is shutil.move and not any((root / "val" / "images").iterdir()):
        (root / "val" / "images").rmdir()


def flatten_train(root: Path) -> None:
    for folder in (root / "train").iterdir():
        for image in (folder / "images").iterdir():
            image.rename(folder / image.name)
        (folder / "images").rmdir()


def remove_texts(root: Path) -> None:
    for path in root.rglob("*.txt"):
        path.unlink()


def sorted_without_texts(root: Path) -> None:
    sort_val(root, "val/{ID}")
    flatten_train(root)
    remove_texts(root)


def rename_images(root: Path, suffix: str) -> None:
    for path in list(root.rglob("*.JPEG")):
        path.rename(path.with_suffix(suffix))


def put_down(root: Path, *folders: str) -> None:
    """Move all into folders within, as unpacking an archive into a folder of its name does."""
    entries = list(root.iterdir())
    inner = root.joinpath(*folders)
    inner.mkdir(parents=True)
    for entry in entries:
        entry.rename(inner / entry.name)


def clutter(root: Path) -> None:
    """What Windows, macOS, Jupyter and people leave, in every folder."""
    for folder in [root, *(path for path in list(root.rglob("*")) if path.is_dir())]:
        for name in ("desktop.ini", "Thumbs.db", ".DS_Store", "._val_0.JPEG", "README", "notes.md"):
            (folder / name).write_bytes(b"\0")
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".ipynb_checkpoints" / "val_0-checkpoint.JPEG").write_bytes(b"\0")
        (folder / "@eaDir" / "val_0.JPEG").mkdir(parents=True)
        (folder / "@eaDir" / "val_0.JPEG" / "SYNOPHOTO_THUMB_M.jpg").write_bytes(b"\0")
    (root / "train" / "empty folder").mkdir()
    (root / "__MACOSX" / "train" / "n0").mkdir(parents=True)
    (root / "__MACOSX" / "train" / "n0" / "x.JPEG").write_bytes(b"\0")


def rewrite_texts(root: Path, change: Callable[[str], bytes]) -> None:
    for name in ("wnids.txt", "words.txt", ANNOTATIONS):
        (root / name).write_bytes(change((root / name).read_text()))


def append_to_images(root: Path) -> None:
    for path in root.rglob("*.JPEG"):
        path.write_bytes(path.read_bytes() + b"\0\0 what a camera appends")


def link_folders(root: Path) -> None:
    """Train on another disk, and a link that leads back."""
    (root / "train").rename(root.with_name("elsewhere"))
    (root / "train").symlink_to(root.with_name("elsewhere"))
    (root / "val" / "back").symlink_to(root)


EQUAL: dict[str, State] = {
    "val/images/ID/*": lambda root: sort_val(root, "val/images/{ID}"),
    "val/ID/images/*": lambda root: sort_val(root, "val/{ID}/images"),
    "val/ID/*": lambda root: sort_val(root, "val/{ID}"),
    "val/ID/* without annotations": lambda root: (
        sort_val(root, "val/{ID}"),
        remove(root, ANNOTATIONS),
    ),
    "val/ID/* copied, the originals left": lambda root: sort_val(root, "val/{ID}", shutil.copy),
    "the same, without annotations": lambda root: (
        sort_val(root, "val/{ID}", shutil.copy),
        remove(root, ANNOTATIONS),
    ),
    "val/*": lambda root: sort_val(root, "val"),
    "validation/": lambda root: (root / "val").rename(root / "Validation"),
    "valid/ID/*": lambda root: (sort_val(root, "valid/{ID}"), shutil.rmtree(root / "val")),
    "annotations beside val/": lambda root: (root / ANNOTATIONS).rename(
        root / "val_annotations.txt"
    ),
    "annotations in val/images/": lambda root: (root / ANNOTATIONS).rename(
        root / "val" / "images" / "val_annotations.txt"
    ),
    "train/ID/*": flatten_train,
    "train/images/ID/*": lambda root: (
        flatten_train(root),
        put_down(root / "train", "images"),
    ),
    "no wnids.txt": lambda root: remove(root, "wnids.txt"),
    "a class twice in wnids.txt": lambda root: (root / "wnids.txt").write_text(
        "\n".join(CLASS_IDS * 2)
    ),
    "images.JPG": lambda root: rename_images(root, ".JPG"),
    "images.jpeg, annotated as .JPEG": lambda root: rename_images(root, ".jpeg"),
    "images.jfif": lambda root: rename_images(root, ".jfif"),
    "one folder down": lambda root: put_down(root, "tiny-imagenet-200"),
    "three folders down": lambda root: put_down(root, "My data", "(1)", "tiny-imagenet-200"),
    "clutter": clutter,
    "links": link_folders,
    "bytes behind each image's end": append_to_images,
    "CRLF": lambda root: rewrite_texts(root, lambda t: t.replace("\n", "\r\n").encode()),
    "CR": lambda root: rewrite_texts(root, lambda t: t.replace("\n", "\r").encode()),
    "a BOM": lambda root: rewrite_texts(root, lambda t: t.encode("utf-8-sig")),
    "UTF-16": lambda root: rewrite_texts(root, lambda t: t.encode("utf-16")),
    "blank lines": lambda root: rewrite_texts(root, lambda t: f"\n{t}\n \n\t\n".encode()),
    "trailing spaces": lambda root: rewrite_texts(
        root, lambda t: t.replace("\n", " \t\n").encode()
    ),
    "no line end at the end": lambda root: rewrite_texts(root, lambda t: t.rstrip().encode()),
    "annotations of two columns": lambda root: (root / ANNOTATIONS).write_text(
        "".join(f"{name}\t{class_id}\n" for name, class_id in classes_of_val(root).items())
    ),
    "annotations with spaces": lambda root: (root / ANNOTATIONS).write_text(
        (root / ANNOTATIONS).read_text().replace("\t", "  ")
    ),
    "annotations with paths": lambda root: (root / ANNOTATIONS).write_text(
        (root / ANNOTATIONS).read_text().replace("val_", "val/images/val_")
    ),
    "annotations backwards": lambda root: (root / ANNOTATIONS).write_text(
        "\n".join(reversed((root / ANNOTATIONS).read_text().splitlines()))
    ),
    "annotations twice": lambda root: (root / ANNOTATIONS).write_text(
        (root / ANNOTATIONS).read_text() * 2
    ),
}
"""States that hold all of the official data set."""
OTHER_FILES = (
    "images.JPG", "images.jpeg, annotated as .JPEG", "images.jfif", "bytes behind each image's end"
)  # fmt: skip
"""Of them, those whose files have other names or contents: only pixels and labels are equal."""


@pytest.mark.parametrize("state", EQUAL)
def test_builds_what_the_official_layout_does(
    state: str, own_data: Path, made_hdf5: Path, tmp_path: Path
) -> None:
    EQUAL[state](own_data)
    built = build(own_data, tmp_path / "hdf5")
    if state in OTHER_FILES:
        check_pixels(tmp_path / "hdf5", made_hdf5)
    else:
        assert built == contents(made_hdf5)


@pytest.mark.parametrize("state", ["val/ID/*", "three folders down", "clutter", "UTF-16"])
@pytest.mark.parametrize(("before", "separator"), [("", "/"), ("", "\\"), ("./", "/")])
def test_zip_of_such_a_state(
    state: str, before: str, separator: str, own_data: Path, made_hdf5: Path, tmp_path: Path
) -> None:
    """PowerShell's Compress-Archive once wrote backslashes, and ``tar -a -cf data.zip .`` dots."""
    EQUAL[state](own_data)
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        if before:
            archive.writestr(before, b"")
        for file in own_data.rglob("*"):
            member = zipfile.ZipInfo("placeholder")
            member.filename = before + str(file.relative_to(own_data)).replace("/", separator)
            if file.is_file():
                archive.writestr(member, file.read_bytes())
    assert build(path, tmp_path / "hdf5") == contents(made_hdf5)


def check_pixels(built: Path, expected: Path, classes: tuple[str, ...] = CLASS_IDS) -> None:
    """Compare images and labels, and the ids of the classes, not their words."""
    for split in ("train", "val", "test"):
        with (
            h5py.File(built / f"{split}.hdf5") as ours,
            h5py.File(expected / f"{split}.hdf5") as theirs,
        ):
            kept = np.isin(theirs["Labels"], [sorted(CLASS_IDS).index(c) for c in classes])
            assert np.array_equal(ours["Images"], theirs["Images"][kept])
            ids, all_ids = (list(f["Label_Names"].asstr()) for f in (ours, theirs))
            assert ids == sorted(classes)
            assert [ids[n] for n in ours["Labels"]] == [all_ids[n] for n in theirs["Labels"][kept]]


@pytest.mark.parametrize("state", [lambda root: remove(root, "words.txt"), sorted_without_texts])
def test_without_words_the_id_is_the_name(
    state: State, own_data: Path, made_hdf5: Path, tmp_path: Path
) -> None:
    state(own_data)
    build(own_data, tmp_path)
    check_pixels(tmp_path, made_hdf5)
    with h5py.File(tmp_path / "val.hdf5") as file:
        assert list(file["Class_Names"].asstr()) == sorted(CLASS_IDS)


@pytest.mark.parametrize("suffix", [".png", ".BMP", ".tif", ".webp"])
def test_other_formats(suffix: str, own_data: Path, made_hdf5: Path, tmp_path: Path) -> None:
    """All of them without loss."""
    for path in list(own_data.rglob("*.JPEG")):
        lossless = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
        assert cv2.imwrite(str(path.with_suffix(suffix)), cv2.imread(str(path)), lossless)
        path.unlink()
    build(own_data, tmp_path)
    check_pixels(tmp_path, made_hdf5)


def test_a_folder_may_be_two_classes(own_images: Path, tmp_path: Path) -> None:
    (own_images / "train" / "double").symlink_to(own_images / "train" / "naïve 猫")
    build(own_images, tmp_path / "hdf5")
    with h5py.File(tmp_path / "hdf5" / "train.hdf5") as file:
        assert np.bincount(file["Labels"]).tolist() == [5] * 4


def test_half_of_val_moved_to_test(
    own_data: Path, made_hdf5: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """As scripts do that want a test split with labels: val is the rest."""
    shutil.rmtree(own_data / "test")
    sort_val(own_data, "val/{ID}/images")
    for number in range(10):
        (path,) = (own_data / "val").glob(f"*/images/val_{number}.JPEG")
        folder = own_data / "test" / path.parent.relative_to(own_data / "val")
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(folder / path.name)
    build(own_data, tmp_path)
    assert "left out 10 images in class folders of test/" in capsys.readouterr().out
    with h5py.File(tmp_path / "val.hdf5") as ours, h5py.File(made_hdf5 / "val.hdf5") as theirs:
        assert np.array_equal(ours["Images"], theirs["Images"][10:])
        assert np.array_equal(ours["Labels"], theirs["Labels"][10:])
    for name in ("train.hdf5", "test.hdf5"):
        with h5py.File(tmp_path / name) as ours, h5py.File(made_hdf5 / name) as theirs:
            assert np.array_equal(ours["Images"], theirs["Images"])


@pytest.mark.parametrize("state", [lambda root: None, lambda root: sort_val(root, "val/{ID}")])
def test_wnids_chooses_the_classes(
    state: State,
    own_data: Path,
    made_hdf5: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    state(own_data)
    (own_data / "wnids.txt").write_text(f"{CLASS_IDS[3]}\n{CLASS_IDS[1]}\n")
    build(own_data, tmp_path)
    check_pixels(tmp_path, made_hdf5, (CLASS_IDS[1], CLASS_IDS[3]))
    printed = capsys.readouterr().out
    for split, count in (("train", TRAIN_IMAGES), ("val", VAL_IMAGES)):
        assert f"left out {2 * count} {split} images of 2 classes" in printed


@pytest.fixture
def own_images(tmp_path: Path) -> Path:
    """A person's own: class names as they are, any sizes, several formats, no text file."""
    root = tmp_path / "my pictures"
    stream = np.random.default_rng(3)
    for label, name in enumerate(("Hund & Katze", "naïve 猫", "train")):
        for split, count in (("train", 35), ("val", 4)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = cv2.imdecode(np.frombuffer(random_jpeg(stream, label), np.uint8), 1)
                wide = cv2.resize(pixels, (90 + number, 70))
                assert cv2.imwrite(str(folder / f"{number}.{'jpg' if number % 2 else 'png'}"), wide)
    return root


def test_own_images(own_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    build(own_images, tmp_path / "with val")
    shutil.rmtree(own_images / "val")
    with pytest.raises(UserError, match="has 35 usable train images, the fewest; 60 of each"):
        build(own_images, tmp_path / "without")
    for number in range(30):
        shutil.copy(
            own_images / "train" / "train" / "0.png",
            own_images / "train" / "train" / f"{number + 50}.png",
        )
        for name in ("Hund & Katze", "naïve 猫"):
            shutil.copy(
                own_images / "train" / name / "0.png",
                own_images / "train" / name / f"{number + 50}.png",
            )
    build(own_images, tmp_path / "without")
    printed = capsys.readouterr().out
    assert "3 classes: 15 train, 12 val, 90 test images" in printed
    assert "3 classes: 15 train, 90 val, 90 test images" in printed
    assert "no val images of these classes: they are drawn from train/" in printed
    assert "no test images of these classes: they are drawn from train/" in printed
    with h5py.File(tmp_path / "without" / "val.hdf5") as file:
        assert list(file["Label_Names"].asstr()) == ["Hund & Katze", "naïve 猫", "train"]
        assert np.bincount(file["Labels"]).tolist() == [30] * 3


def test_own_test_images_are_the_test_split(
    own_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(own_images / "val", own_images / "TEST")
    shutil.copytree(own_images / "val", own_images / "testing")
    (own_images / "val").rename(own_images / "valid")
    shutil.copy(own_images / "TEST" / "train" / "0.png", own_images / "TEST" / "unlabelled.png")
    for _ in range(2):  # the second time it is built already
        build(own_images, tmp_path / "hdf5")
    printed = capsys.readouterr().out
    assert "each test image's class from its folder" in printed
    assert "left out 1 images of test/ that lie in no class folder" in printed
    assert "left out 12 images that lie in no split, such as testing/" in printed
    assert "no test images" not in printed
    assert "3 classes: 105 train, 12 val, 12 test images" in printed
    val, test = (h5py.File(tmp_path / "hdf5" / f"{split}.hdf5") for split in ("val", "test"))
    with val, test:
        assert np.array_equal(val["Images"], test["Images"])
        assert np.array_equal(val["Labels"], test["Labels"])


def test_what_is_taken_otherwise_than_named_is_told(
    own_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    animals = own_images / "train" / "Hund & Katze"
    (animals / "Hund").mkdir()
    next(animals.glob("*.jpg")).rename(animals / "Hund" / "0.jpg")
    for name in ("jpg", "list.csv"):
        (animals / name).touch()
    shutil.rmtree(own_images / "val" / "train")
    build(own_images, tmp_path / "hdf5")
    printed = capsys.readouterr().out
    assert "folders within class folders, such as train/Hund & Katze/Hund" in printed
    assert "left out 1 files without an image's suffix, such as train/Hund & Katze/jpg" in printed
    assert "val/ has no image of 1 of the classes, such as train" in printed
    assert "note: 15 of 113 images are left to train on" in printed


def test_copies_of_train_images_are_told(
    own_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(own_images / "val", own_images / "test")
    for image in (own_images / "train").glob("*/[1-9]*"):
        image.unlink()
    val, train = own_images / "val" / "train", own_images / "train" / "Hund & Katze"
    shutil.copy(val / "3.jpg", train / "3 (1).jpg")
    (own_images / "test" / "train" / "3.jpg").unlink()
    build(own_images, tmp_path / "hdf5")
    printed = capsys.readouterr().out
    assert "note: 1 of 12 val images are copies of train images, such as val/train/3.jpg" in printed
    assert "test images are copies" not in printed
    assert "left to train on" not in printed  # nothing is drawn
    for image in train.iterdir():
        image.write_bytes(b"")
    with pytest.raises(UserError, match="has 0 usable train images, the fewest; add images"):
        build(own_images, tmp_path / "less", "--skip-corrupt")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("train/train/0.png", "train/naïve 猫/0 (1).png"),
        ("train/train/0.png", "val/train/0 (1).png"),
        ("val/train/0.png", "val/train/00.png"),
        ("train/train/0.png", None),
    ],
)
def test_images_moved_or_removed_since_are_another_build(
    old: str, new: str | None, own_images: Path, tmp_path: Path
) -> None:
    """Where their number stays the same, and where corrupt ones are left out, too."""
    output = tmp_path / "hdf5"
    for _ in range(2):
        build(own_images, output, "--skip-corrupt")
    if new:
        (own_images / old).rename(own_images / new)
    else:
        (own_images / old).write_bytes(b"")
    preview = ("--preview", str(tmp_path / "sheet.png"))
    with pytest.raises(UserError, match=r"holds another build \(other images\)"):
        build(own_images, output, "--skip-corrupt", *preview)


def test_another_number_to_draw_is_another_build(
    own_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_images / "val").rename(own_images / "test")  # so that val is drawn
    build(own_images, tmp_path / "hdf5")
    monkeypatch.setattr("config.setup_config.TEST_IMAGES_PER_CLASS", 20)
    with pytest.raises(UserError, match=r"\(other TEST_IMAGES_PER_CLASS\)"):
        build(own_images, tmp_path / "hdf5")
    for image in (own_images / "train").glob("*/2*"):
        image.unlink()  # fewer are left than were drawn
    with pytest.raises(UserError, match=r"\(other TEST_IMAGES_PER_CLASS, images\)"):
        build(own_images, tmp_path / "hdf5")


def test_names_composed_otherwise_are_the_same(own_images: Path, tmp_path: Path) -> None:
    """macOS decomposes what is typed; and names hold spaces of other scripts."""
    train, val = own_images / "train", own_images / "val"
    (train / "naïve 猫").rename(train / unicodedata.normalize("NFD", "naïve 猫"))
    for split in (train, val):
        (split / "train").rename(split / "a\u3000b")
    (own_images / "wnids.txt").write_text("naïve 猫\nHund & Katze\na\u3000b\n")
    build(own_images, tmp_path / "hdf5")
    with h5py.File(tmp_path / "hdf5" / "val.hdf5") as file:
        assert list(file["Label_Names"].asstr()) == ["Hund & Katze", "a\u3000b", "naïve 猫"]
        assert np.bincount(file["Labels"]).tolist() == [4] * 3


def test_class_called_images_is_refused(own_images: Path, tmp_path: Path) -> None:
    (own_images / "train" / "train").rename(own_images / "train" / "images")
    with pytest.raises(UserError, match="nothing says of which class train/images/"):
        build(own_images, tmp_path / "hdf5")


def test_one_class_is_none(own_images: Path, tmp_path: Path) -> None:
    outer = own_images / "train" / "train"
    shutil.rmtree(own_images / "val")
    (own_images / "train").rename(own_images / "inner")
    outer.parent.mkdir()
    (own_images / "inner").rename(outer)
    with pytest.raises(UserError, match="one class alone, train"):
        build(own_images, tmp_path / "hdf5")


def test_odd_colour_profiles_are_not_reported(own_images: Path, run: Run) -> None:
    for image in own_images.rglob("*.png"):
        image.write_bytes(with_odd_profile(image.read_bytes()))
    assert run("build_dataset.py", "-d", own_images).stderr == ""


def test_the_middle_of_an_oblong_image_is_taken(own_images: Path, tmp_path: Path) -> None:
    build(own_images, tmp_path / "hdf5")
    with h5py.File(tmp_path / "hdf5" / "val.hdf5") as file:
        image = cv2.imread(str(own_images / "val" / "Hund & Katze" / "0.png"))[..., ::-1]
        height, width, _ = image.shape
        left = (width - height) // 2
        assert left > 0
        middle = image[:, left : left + height]
        expected = cv2.resize(middle, (64, 64), interpolation=cv2.INTER_AREA)
        assert np.array_equal(file["Images"][0], expected)


def test_val_of_tiny_imagenet_is_drawn_where_asked(
    own_data: Path, made_hdf5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    shutil.rmtree(own_data / "val")
    error = run("build_dataset.py", "-d", own_data, "-o", tmp_path / "a", status=2).stderr
    assert "give --draw-val" in error
    monkeypatch.setattr("config.setup_config.TEST_IMAGES_PER_CLASS", 10)
    build(own_data, tmp_path / "b", "--draw-val")
    with h5py.File(tmp_path / "b" / "val.hdf5") as file:
        assert np.bincount(file["Labels"]).tolist() == [10] * 4
    splits = [
        h5py.File(tmp_path / "b" / f"{name}.hdf5")["Images"] for name in ("train", "val", "test")
    ]
    images = {image.tobytes() for split in splits for image in split}
    assert len(images) == TRAIN_IMAGES * 4
    build(own_data, tmp_path / "b", "--draw-val")  # and once more: it is built already


def two_data_sets(root: Path) -> None:
    put_down(root, "first")
    shutil.copytree(root / "first", root / "second")


def add_namesake(root: Path) -> None:
    shutil.copy(root / "val" / "images" / "val_0.JPEG", root / "val" / "images" / "val_0.jpg")


def sort_twice(root: Path) -> None:
    """Copies of two scripts: the split would hold each image twice."""
    for layout in ("val/{ID}", "val/images/{ID}"):
        sort_val(root, layout, shutil.copy)


def lose_an_image(root: Path) -> None:
    path = next((root / "train" / CLASS_IDS[0] / "images").iterdir())
    path.unlink()
    path.symlink_to(root / "moved away")


def misplace(root: Path) -> None:
    sort_val(root, "val/{ID}")
    path = next((root / "val" / CLASS_IDS[0]).iterdir())
    path.rename(root / "val" / CLASS_IDS[1] / path.name)


def name_a_class_in_two_lines(root: Path) -> None:
    sorted_without_texts(root)
    for split in ("train", "val"):
        (root / split / CLASS_IDS[0]).rename(root / split / "two\nlines")


REFUSED: dict[str, State] = {
    "there are several data sets: first/, second/": two_data_sets,
    "no folder in it is named train": lambda root: (root / "train").rename(root / "trains"),
    "names val_0, of which val/ has 2 images, not one (1 such lines)": add_namesake,
    "names val_0, of which val/ has 2 images, not one (20 such lines)": sort_twice,
    f"{CLASS_IDS[1]} by its folder and {CLASS_IDS[0]} by val_annotations.txt": misplace,
    "nothing says of which class val/images/val_0.JPEG is": lambda root: remove(root, ANNOTATIONS),
    "val/images/val_0.JPEG is: it lies in no class folder": lambda root: edit(
        root, ANNOTATIONS, first_line(root), ""
    ),
    "of which train/ has no image": lambda root: (
        remove(root, "wnids.txt"),
        shutil.rmtree(root / "train" / CLASS_IDS[2]),
    ),
    "no image of 1 of the 4 classes in wnids.txt": lambda root: keep_images(root, 0),
    "lower TEST_IMAGES_PER_CLASS": lambda root: keep_images(root, 30),
    "names val_2, of which val/ has 0 images, not one (1 such lines)": lambda root: remove(
        root, "val/images/val_2.JPEG"
    ),
    "gives no class id for val_0.JPEG": lambda root: edit(
        root, ANNOTATIONS, first_line(root), "val_0.JPEG\n"
    ),
    f"is of class {CLASS_IDS[0]} and of n777": lambda root: (root / ANNOTATIONS).write_text(
        (root / ANNOTATIONS).read_text() + "val_0.JPEG\tn777\n"
    ),
    "No such file or directory; replace it by a readable file": lose_an_image,
    "words.txt is not text in UTF-8": lambda root: (root / "words.txt").write_bytes(b"a\0"),
    "is not text in UTF-8": lambda root: (root / "words.txt").write_bytes(b"caf\xe9"),
    "wnids.txt names one class alone, n01443537; add others": lambda root: (
        root / "wnids.txt"
    ).write_text(f"{CLASS_IDS[0]}\n"),
    "cannot be the name of a class; rename its folder": name_a_class_in_two_lines,
    "cannot be the name of a class; write one id a line": lambda root: shutil.copy(
        root / "words.txt", root / "wnids.txt"
    ),
    "val/ holds no image of these classes": lambda root: shutil.rmtree(root / "val"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused_and_explained(message: str, own_data: Path) -> None:
    REFUSED[message](own_data)
    with pytest.raises(UserError, match=re.escape(message)) as refusal:
        build(own_data, own_data / "out")
    assert "\n" not in str(refusal.value)
    assert not contents(own_data / "out")


def test_folder_that_holds_the_zip(made_data: Path, tmp_path: Path, run: Run) -> None:
    zip_folder(made_data, tmp_path / "tiny-imagenet-200.zip")
    error = run("build_dataset.py", "-d", tmp_path, status=2).stderr
    assert "name the folder or the zip (there is tiny-imagenet-200.zip) that holds" in error
