"""model_eval.py --images: images that bear no labels."""

import csv
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import (
    CLASS_IDS,
    TEST_IMAGES,
    WORDS,
    Run,
    checkpoint,
    random_jpeg,
    with_odd_profile,
)
from PIL import Image

import model_eval
from pipeline.backend import import_keras

keras = import_keras()

from pipeline.errors import UserError  # noqa: E402
from pipeline.evaluation.predictions import Photograph, Prediction  # noqa: E402
from pipeline.evaluation.sheet import write_sheet  # noqa: E402
from pipeline.io.photographs import find_photographs, read_photograph  # noqa: E402
from pipeline.preprocessing.images import centre_crop, decode_image  # noqa: E402

UPSIDE_DOWN = bytes.fromhex(
    "ffe1002245786966000049492a00080000000100120103000100000003000000000000000000"
)
"""A JPEG segment in which a camera says that it was held upside down."""


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """RGB, wider than high: a red, a green and a blue third."""
    return np.repeat(np.eye(3, dtype=np.uint8)[None] * 200, 40, axis=1).repeat(90, axis=0)


def save(path: Path, image: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)
    return path


def test_the_middle_square_is_taken(scene: np.ndarray, tmp_path: Path) -> None:
    assert centre_crop(scene).shape == (90, 90, 3)
    pixels = read_photograph(save(tmp_path / "scene.png", scene), 30)
    assert pixels.shape == (30, 30, 3)
    # 25 columns of red, 40 of green and 25 of blue become 30
    assert pixels[15, [0, 7, 15, 22, 29]].argmax(axis=1).tolist() == [0, 0, 1, 2, 2]
    upright = read_photograph(save(tmp_path / "tall.png", scene.transpose(1, 0, 2)), 30)
    assert np.array_equal(upright, pixels.transpose(1, 0, 2))


@pytest.mark.parametrize(
    ("suffix", "bound"),
    [*((s, 12) for s in ("jpg", "webp", "bmp", "tif", "ppm", "pam", "avif", "jp2", "ras")),
     ("gif", 25)],
)  # fmt: skip
def test_formats_show_the_same(suffix: str, bound: int, scene: np.ndarray, tmp_path: Path) -> None:
    """A GIF's palette is coarse."""
    pixels = read_photograph(save(tmp_path / f"scene.{suffix}", scene), 30)
    expected = read_photograph(save(tmp_path / "scene.png", scene), 30)
    assert np.abs(pixels[:, [3, 15, 26]] - expected[:, [3, 15, 26]].astype(int)).max() < bound


def test_grey_deep_and_opaque_images(scene: np.ndarray, tmp_path: Path) -> None:
    grey = read_photograph(save(tmp_path / "grey.png", scene[..., 1]), 30)
    middle = scene[:, 15:105, 1]
    expected = cv2.resize(middle, (30, 30), interpolation=cv2.INTER_AREA)
    assert all(np.array_equal(grey[..., channel], expected) for channel in range(3))
    deep = read_photograph(save(tmp_path / "deep.png", scene.astype(np.uint16) * 257), 30)
    expected = read_photograph(save(tmp_path / "scene.png", scene), 30)
    assert np.abs(deep - expected.astype(int)).max() <= 1
    opaque = cv2.cvtColor(scene, cv2.COLOR_RGB2BGRA)
    assert cv2.imwrite(str(tmp_path / "alpha.png"), opaque)
    assert np.array_equal(read_photograph(tmp_path / "alpha.png", 30), expected)


@pytest.mark.parametrize("suffix", ["png", "webp", "gif"])
def test_transparent_images_lie_on_white(suffix: str, scene: np.ndarray, tmp_path: Path) -> None:
    """Pillow wrote them, and lays them on white as the reference."""
    alpha = np.full(scene.shape[:2], 255, np.uint8)
    alpha[:45] = 0  # what is hidden there is black, as programs leave it
    if suffix != "gif":
        alpha[45:60] = 128
    visible = np.dstack([scene * (alpha > 0)[..., None], alpha])
    for name, pixels in (("opaque", np.dstack([scene, alpha | 255])), ("clear", visible)):
        path = tmp_path / f"{name}.{suffix}"
        image = Image.fromarray(pixels)
        image.save(path)
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
        expected = np.asarray(white.convert("RGB"), int)
        found = decode_image(path.read_bytes())
        assert np.abs(found[20::30, 20::40] - expected[20::30, 20::40]).max() < 12


@pytest.mark.parametrize("suffix", ["avif", "tif", "jp2"])
def test_colours_of_other_formats_with_alpha(
    suffix: str, scene: np.ndarray, tmp_path: Path
) -> None:
    """IMREAD_COLOR_RGB swapped those of AVIF."""
    image = Image.fromarray(np.dstack([scene, np.full(scene.shape[:2], 255, np.uint8)]))
    image.save(tmp_path / f"opaque.{suffix}")
    found = decode_image((tmp_path / f"opaque.{suffix}").read_bytes())
    assert np.abs(found[20::30, 20::40] - scene[20::30, 20::40].astype(int)).max() < 12


def test_transparent_colour_of_a_palette(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 0, 0])
    image.paste(0, (0, 0, 8, 4))
    image.save(tmp_path / "palette.png", transparency=0)
    found = decode_image((tmp_path / "palette.png").read_bytes())
    assert found[2, 2].tolist() == [255, 255, 255]
    assert found[6, 6].tolist() == [200, 0, 0]


def test_half_transparent_16_bit_image(tmp_path: Path) -> None:
    bgra = np.full((8, 8, 4), (0, 0, 65535, 32768), np.uint16)
    assert cv2.imwrite(str(tmp_path / "half.png"), bgra)
    assert (decode_image((tmp_path / "half.png").read_bytes()) == (255, 127, 127)).all()


def test_photographs_are_turned_upright(scene: np.ndarray, tmp_path: Path) -> None:
    plain = save(tmp_path / "plain.jpg", scene).read_bytes()
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(plain[:2] + UPSIDE_DOWN + plain[2:])
    expected = read_photograph(tmp_path / "plain.jpg", 30)[::-1, ::-1]
    assert np.array_equal(read_photograph(turned, 30), expected)


def absurdly_large_jpeg(data: bytes) -> bytes:
    """Claim 17,000 x 17,000 pixels in the frame header (SOF0: height and width in its 5 to 8).

    OpenCV by itself would take them, and 867 MB.
    """
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + (17_000).to_bytes(2) * 2 + data[start + 4 :]


def test_what_cannot_be_read_is_named(scene: np.ndarray, tmp_path: Path) -> None:
    cut = save(tmp_path / "cut.jpg", scene)
    data = cut.read_bytes()
    cut.write_bytes(data[:-200])
    with pytest.raises(UserError, match=r"cut\.jpg: it is truncated"):
        read_photograph(cut, 30)
    thumbnail = b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data
    cut.write_bytes(data[:2] + thumbnail + data[2:-200])
    with pytest.raises(UserError, match=r"cut\.jpg: it is truncated"):
        read_photograph(cut, 30)
    cut.write_bytes(absurdly_large_jpeg(data))
    with pytest.raises(UserError, match=r"cut\.jpg: it is larger than any camera's"):
        read_photograph(cut, 30)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UserError, match=r"empty\.jpg: it is empty"):
        read_photograph(tmp_path / "empty.jpg", 30)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"notes\.txt: OpenCV cannot decode it"):
        read_photograph(tmp_path / "notes.txt", 30)
    with pytest.raises(UserError, match="does not exist"):
        find_photographs([tmp_path / "none.jpg"])
    with pytest.raises(UserError, match="is a URL"):
        find_photographs([Path("https://example.com/cat.jpg")])
    album = tmp_path / "album"
    album.mkdir()
    (album / ".thumbnails").mkdir()
    latin_1 = os.fsdecode(b"caf\xe9.txt")
    for name in ("empty.JPEG", "._mac.jpg", "notes.txt", latin_1, ".thumbnails/small.jpg"):
        (album / name).touch()
    assert find_photographs([tmp_path / "album"]) == [album / "empty.JPEG"]  # named as damaged
    (album / "2019").mkdir()
    (album / "2019" / "b.png").touch()
    assert find_photographs([album]) == [album / "2019" / "b.png", album / "empty.JPEG"]
    twice = find_photographs([album / "empty.JPEG", album, album / "empty.JPEG"])
    assert twice == [album / "empty.JPEG", album / "2019" / "b.png"]
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "album").symlink_to(album)
    (album / "back").symlink_to(tmp_path / "links")
    found = find_photographs([tmp_path / "links"])
    assert found == [tmp_path / "links/album/2019/b.png", tmp_path / "links/album/empty.JPEG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no image"):
        find_photographs([tmp_path / "empty"])


def test_photographs_are_named(trained: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "album"
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")
    stream = np.random.default_rng(3)
    for label, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        (folder / name).write_bytes(random_jpeg(stream, label))
    alone = tmp_path / "alone.png"
    save(alone, np.full((200, 300, 3), (180, 60, 60), np.uint8))
    alone.write_bytes(with_odd_profile(alone.read_bytes()))
    model = checkpoint(trained, 3)
    done = run("model_eval.py", "-m", model, "--images", folder, folder / "notes.txt", alone,
               "--batch-size", "3", "--json", tmp_path / "named.json",
               OPENCV_IO_MAX_IMAGE_PIXELS="9")  # fmt: skip
    assert done.stderr.startswith("skipped: cannot read")
    assert done.stderr.count("\n") == 1
    assert "skipped 1 of 5 images" in done.stdout
    record = json.loads((tmp_path / "named.json").read_text())
    assert [Path(entry["image"]).name for entry in record] == [
        "a.jpg",
        "b.jpg",
        "c.jpg",
        "alone.png",
    ]
    network = keras.saving.load_model(model, compile=False)
    for entry in record:
        image = cv2.imread(entry["image"])[..., ::-1]
        height, width, _ = image.shape
        left = (width - height) // 2
        image = cv2.resize(image[:, left : left + height], (32, 32), interpolation=cv2.INTER_AREA)
        expected = np.asarray(network(image[None]))[0]
        order = np.argsort(-expected)
        found = entry["predictions"]
        assert [predicted["class_id"] for predicted in found] == [
            CLASS_IDS[label] for label in order
        ]
        assert [predicted["words"] for predicted in found] == [WORDS[label] for label in order]
        probabilities = [predicted["probability"] for predicted in found]
        assert np.allclose(probabilities, expected[order], atol=1e-4)
        assert f"{found[0]['probability']:.1%}  {found[0]['class_id']}" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--images x.jpg --report r", "not allowed with argument"),
        ("--csv t.csv", "--csv and --sheet go with --images"),
        ("--sheet s.png", "--csv and --sheet go with --images"),
        ("--images x.jpg --export e.keras", "--export cannot be combined with --images"),
    ],
)
def test_flags_that_do_not_go_together(
    flags: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as end:
        model_eval.parse_arguments(flags.split())
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_table_holds_every_image_that_can_be_read(
    made_data: Path, trained: Path, tmp_path: Path, run: Run
) -> None:
    """The unlabelled test images, as one would hand in predictions for them."""
    folder, table = shutil.copytree(made_data / "test" / "images", tmp_path / "x"), tmp_path / "t"
    command = ("model_eval.py", "-m", checkpoint(trained, 3), "--images", folder, "--csv", table)
    run(*command, "-b", 2, "--json", tmp_path / "named.json")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    record = json.loads((tmp_path / "named.json").read_text())
    assert [row["image"] for row in rows] == [entry["image"] for entry in record]
    assert len(rows) == TEST_IMAGES
    for row, entry in zip(rows, record, strict=True):
        for place, predicted in enumerate(entry["predictions"], 1):
            assert row[f"class_{place}"] == predicted["class_id"]
            assert float(row[f"probability_{place}"]) == pytest.approx(
                predicted["probability"], abs=1e-6
            )
    table.unlink()
    last = folder / "test_2.JPEG"
    last.write_bytes(last.read_bytes()[:-100])
    done = run(*command)
    assert done.stderr.startswith(f"skipped: cannot read {last}: it is truncated")
    with table.open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [r["image"] for r in rows[:2]]
    named = (*command[:3], "--images", last, "--csv", tmp_path / "none.csv")
    assert "test_2.JPEG: it is truncated" in run(*named, status=2).stderr
    assert not (tmp_path / "none.csv").exists()


def test_sheet_shows_each_photograph_with_its_classes(
    made_data: Path, trained: Path, tmp_path: Path, run: Run
) -> None:
    sheet = tmp_path / "sheet.png"
    command = ("model_eval.py", "-m", checkpoint(trained, 3), "--images", made_data / "test")
    done = run(*command, "--sheet", sheet)
    assert f"wrote {sheet}" in done.stdout
    height, width, _ = cv2.imread(str(sheet)).shape
    assert width > 3 * height
    error = run(*command, "--sheet", tmp_path / "sheet.txt", status=2).stderr
    assert "must end in .png" in error


def test_sheet_has_names_bars_and_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    monkeypatch.setattr(
        "pipeline.evaluation.sheet.save_figure",
        lambda figure, path: (figures.append(figure), path.touch()),
    )
    photographs = [
        Photograph(Path(f"{n}.png"), np.full((4, 4, 3), n, np.uint8),
                   [Prediction(f"id{n}", f"word{n}, other", 0.7), Prediction("x", "last", 0.3)])
        for n in range(4)
    ]  # fmt: skip
    write_sheet(tmp_path / "sheet.png", photographs)
    pictures = [axes for axes in figures[0].axes if axes.images]
    bars = [axes for axes in figures[0].axes if axes.patches]
    for n, (picture, bar) in enumerate(zip(pictures, bars, strict=True)):
        assert picture.get_title() == f"{n}.png"
        assert (picture.images[0].get_array() == n).all()
        assert [patch.get_width() for patch in bar.patches] == [0.7, 0.3]
        assert [text.get_text() for text in bar.texts] == [f"70%  word{n}", "30%  last"]


def test_missing_photograph_is_named_before_keras_is_there(
    trained: Path, tmp_path: Path, run: Run
) -> None:
    """A Keras that cannot be imported shows that it was not asked for."""
    (tmp_path / "keras.py").write_text("raise SystemExit(9)")
    error = run("model_eval.py", "-m", checkpoint(trained, 3), "--images", tmp_path / "none.jpg",
                status=2, PYTHONPATH=str(tmp_path)).stderr  # fmt: skip
    assert "none.jpg does not exist" in error
