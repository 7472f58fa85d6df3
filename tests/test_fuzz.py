"""Damage of every kind: each mutation either works or ends in the one clear error.

FUZZ_EXAMPLES sets how many mutations of each kind are tried (default 100).
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASS_IDS, change_metadata, checkpoint, zip_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.dataset.decoding import decode_in_order
from pipeline.dataset.image_source import open_source
from pipeline.dataset.tiny_imagenet import read_labelled_images
from pipeline.errors import UserError
from pipeline.io.hdf5_dataset import open_split
from pipeline.preprocessing.images import decode_image
from pipeline.run.checkpoint import KEY, load_model, read_state

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

Mutation = tuple[str, float, bytes]
mutations = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "delete", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=16),
    ),
    min_size=1,
    max_size=4,
)


def mutate(data: bytes, changes: list[Mutation]) -> bytes:
    for kind, place, new in changes:
        start = int(place * len(data))
        after = {"replace": len(new), "insert": 0, "delete": len(new), "cut": len(data)}[kind]
        middle = new if kind in ("replace", "insert") else b""
        data = data[:start] + middle + data[start + after :]
    return data


def works_or_explains(action: Callable[[], object]) -> object | None:
    """Run ``action``; a UserError must be one line that says something."""
    try:
        return action()
    except UserError as error:
        assert len(str(error)) > 20
        assert "\n" not in str(error)
        return None


@fuzz
@given(changes=mutations)
def test_jpegs(changes: list[Mutation], made_data: Path) -> None:
    data = (made_data / "val" / "images" / "val_0.JPEG").read_bytes()
    try:
        image = decode_image(mutate(data, changes))
    except ValueError as error:
        assert str(error).startswith(("it is", "OpenCV"))
    else:
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
        assert image.size <= 3 * 2**28


@pytest.fixture(scope="module")
def zipped(made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return zip_folder(made_data, tmp_path_factory.mktemp("zip") / "data.zip").read_bytes()


@fuzz
@given(changes=mutations)
def test_zips(changes: list[Mutation], made_data: Path, zipped: bytes) -> None:
    """What survives has its right label: damage to names or contents does not pass unseen."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.zip"
        path.write_bytes(mutate(zipped, changes))

        def read() -> None:
            source = open_source(path)
            found = read_labelled_images(source)
            list(decode_in_order(source, [image.name for image in found.train], 64))
            assert found.classes.ids == tuple(sorted(CLASS_IDS))
            for image in found.train:
                name = image.name.removeprefix("tiny-imagenet-200/")
                assert name.split("/")[1] == found.classes.ids[image.label]
                assert source.read(image.name) == (made_data / name).read_bytes()

        works_or_explains(read)


@fuzz
@given(changes=mutations)
def test_annotations(changes: list[Mutation], made_data: Path) -> None:
    rows = (made_data / "val" / "val_annotations.txt").read_bytes()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for entry in ("train", "wnids.txt", "words.txt"):
            (root / entry).symlink_to(made_data / entry)
        (root / "val").mkdir()
        (root / "val" / "images").symlink_to(made_data / "val" / "images")
        changed = mutate(rows, changes)
        (root / "val" / "val_annotations.txt").write_bytes(changed)
        found = works_or_explains(lambda: read_labelled_images(open_source(root)))
    if found is not None:
        lines = [line.split(b"\t" if b"\t" in line else None) for line in changed.splitlines()]
        said = {
            name.strip().rpartition(b".")[0]: class_id for name, class_id, *_ in filter(None, lines)
        }
        for image in found.val:
            class_id = said.pop(Path(image.name).stem.encode())
            assert class_id.strip().decode() == found.classes.ids[image.label]
        left_out = {class_id.strip().decode() for class_id in said.values()}
        assert not left_out & set(CLASS_IDS)


@fuzz
@given(changes=mutations)
def test_hdf5_files(changes: list[Mutation], made_hdf5: Path) -> None:
    data = (made_hdf5 / "val.hdf5").read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "val.hdf5").write_bytes(mutate(data, changes))
        found = works_or_explains(lambda: open_split(Path(folder), "val"))
        if found is not None:
            assert found.images.shape == (len(found), *found.images.shape[1:])
            found.images.sum()  # all of them can be read
            assert 0 <= found.labels.min() <= found.labels.max() < len(found.classes.ids)


@fuzz
@given(changes=mutations)
def test_checkpoint_bytes(changes: list[Mutation], trained: Path) -> None:
    data = checkpoint(trained, 2).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "epoch-002.keras"
        path.write_bytes(mutate(data, changes))
        state = works_or_explains(lambda: read_state(path))
        assert state is None or state == read_state(checkpoint(trained, 2))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@fuzz
@given(data=st.data(), value=values)
def test_checkpoint_metadata(data: st.DataObject, value: object, trained: Path) -> None:
    """A well-formed file whose record says something else at one place."""

    def change(metadata: dict) -> None:
        place = metadata[KEY]["state"] if data.draw(st.booleans()) else metadata
        while True:
            key = data.draw(st.sampled_from(sorted(place)))
            if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
                break
            place = place[key]
        place[key] = value

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "epoch-002.keras"
        shutil.copy(checkpoint(trained, 2), path)
        change_metadata(path, change)
        state = works_or_explains(lambda: read_state(path))
        if state is not None:
            assert isinstance(state.size_to_evaluate, int)


@settings(fuzz, max_examples=max(EXAMPLES // 10, 5))
@given(changes=mutations)
def test_loading_damaged_models(changes: list[Mutation], trained: Path) -> None:
    pytest.importorskip("keras")
    data = checkpoint(trained, 2).read_bytes()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "epoch-002.keras"
        path.write_bytes(mutate(data, changes))
        works_or_explains(lambda: load_model(path))
