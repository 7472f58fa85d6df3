"""A data set of some classes of another: links to its images, and its texts cut down."""

from pathlib import Path

from pipeline.dataset.image_source import open_source
from pipeline.dataset.tiny_imagenet import read_labelled_images


def some_classes(data_set: Path, target: Path, classes: int) -> None:
    """Make ``target`` a data set of the first ``classes`` of the unpacked ``data_set``."""
    ids = sorted((data_set / "wnids.txt").read_text().split())[:classes]
    target.mkdir(parents=True)
    (target / "wnids.txt").write_text("\n".join(ids) + "\n")
    (target / "words.txt").write_text((data_set / "words.txt").read_text())
    rows = (data_set / "val" / "val_annotations.txt").read_text().splitlines(keepends=True)
    rows = [row for row in rows if row.split("\t")[1] in ids]
    found = read_labelled_images(open_source(data_set))
    images = [image.name for image in found.train if image.label < classes]
    for name in [*images, *("val/images/" + row.split("\t")[0] for row in rows)]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).symlink_to((data_set / name).resolve())
    (target / "val" / "val_annotations.txt").write_text("".join(rows))


def train_images(data_set: Path) -> list[tuple[str, int]]:
    """Return the files and labels of all train images."""
    found = read_labelled_images(open_source(data_set))
    return [(str(data_set / image.name), image.label) for image in found.train]
