"""The Python of docs/notebook.md, and docs/export.md's other formats."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, random_jpeg

from pipeline.backend import import_keras

keras = import_keras()

from pipeline.nn.googlenet import googlenet  # noqa: E402
from pipeline.recipe import Network  # noqa: E402

IMAGES = np.random.default_rng(0).integers(256, size=(3, 48, 48, 3)).astype("float32")


def test_python_of_the_documents(made_hdf5: Path, tmp_path: Path) -> None:
    document = (ROOT / "docs/notebook.md").read_text()
    train, predict = re.findall(r"```python\n(.*?)```", document, re.DOTALL)
    (tmp_path / "outs").mkdir()
    shutil.copy(ROOT / "outs" / "googlenet-tiny-imagenet.keras", tmp_path / "outs")
    (tmp_path / "holiday.jpg").write_bytes(random_jpeg(np.random.default_rng(1), 2))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}
    assert "digits/hdf5" in train
    for code in (train.replace("digits/hdf5", made_hdf5.as_posix()), predict):
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "outs" / "notebook").glob("epoch-*.keras"))) == 3
    assert (tmp_path / "outs" / "notebook" / "training_plot.jpg").exists()
    assert re.search(r"[a-z]", done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return googlenet(Network(width=0.1), 4, means=(120.0, 110.0, 100.0))


@pytest.fixture(scope="module")
def saved(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.export(folder, verbose=False)
    return folder


def close(model: keras.Model, found: np.ndarray) -> bool:
    return np.allclose(found, model.predict_on_batch(IMAGES), atol=1e-5)


def test_saved_model(model: keras.Model, saved: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    loaded = tensorflow.saved_model.load(str(saved))  # by itself ``serve`` keeps no variables
    assert close(model, loaded.serve(IMAGES).numpy())


def test_litert(model: keras.Model, tmp_path: Path) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    path = tmp_path / "model.tflite"
    pixels = keras.InputSpec(shape=(None, *IMAGES.shape[1:]), dtype="float32")
    model.export(path, format="litert", input_signature=[pixels], verbose=False)
    interpreter = litert.Interpreter(str(path))
    (pixels,), (probabilities,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(pixels["index"], IMAGES.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(pixels["index"], IMAGES)
    interpreter.invoke()
    assert close(model, interpreter.get_tensor(probabilities["index"]))


def test_onnx(model: keras.Model, saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    command = ["-m", "tf2onnx.convert", "--saved-model", saved, "--output", path]
    subprocess.run([sys.executable, *command], check=True)
    (found,) = runtime.InferenceSession(str(path)).run(None, {"pixels": IMAGES})
    assert close(model, found)
