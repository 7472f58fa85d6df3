"""model_train.py as a user runs it: what it writes, how it resumes, and what it refuses."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from conftest import (
    CLASS_IDS,
    ROOT,
    Run,
    change_member,
    change_metadata,
    checkpoint,
    numbers,
    stored_arrays,
    train_command,
)

import build_dataset
import model_eval
import model_train
from pipeline.backend import import_keras
from pipeline.errors import UserError
from pipeline.io.hdf5_dataset import open_split
from pipeline.preprocessing.images import resize_images
from pipeline.recipe import Recipe, choose_recipe
from pipeline.run.checkpoint import (
    KEY,
    WEIGHTS,
    export,
    load_model,
    read_state,
    read_state_to_resume,
    save_checkpoint,
)
from pipeline.run.output_folder import (
    begin_branch,
    checkpoint_to_evaluate,
    find_hdf5,
    latest_checkpoint,
)
from pipeline.run.start import check_trainable, find_checkpoint, may_have_seen
from pipeline.run.state import best_epoch

METRICS = {
    "loss", "accuracy", "top5_accuracy", "val_loss", "val_accuracy", "val_top5_accuracy",
    "learning_rate",
}  # fmt: skip


def test_each_epoch_leaves_its_files(trained: Path) -> None:
    history = numbers(trained)
    assert set(history) == METRICS
    assert all(len(values) == 3 for values in history.values())
    names = sorted(path.name for path in trained.glob("*.keras"))
    losses = history["val_loss"]
    assert names == [f"epoch-{e:03d}-val_loss-{v:.3f}.keras" for e, v in enumerate(losses, 1)]
    with (trained / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert {name: [float(row[name]) for row in rows] for name in METRICS} == history
    plot = cv2.imread(str(trained / "training_plot.jpg"))
    assert plot.shape[0] > 400 < plot.shape[1]
    events = [json.loads(line) for line in (trained / "run.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events] == ["start", "epoch", "epoch", "epoch"]
    assert not list(trained.glob(".unfinished*"))


def test_output_tells_what_runs_and_what_next(trained: Path) -> None:
    text = (trained / "stdout.txt").read_text()
    for part in ("tensorflow on cpu:0", "48 train", "20 val", "4 classes", "recipe thin, ",
                 "float32"):  # fmt: skip
        assert part in text
    titles, *rows = text.splitlines()[-7:-3]
    assert titles.split() == ["epoch", "loss", "rank-1", "loss", "rank-1", "rank-5", "left"]
    names = ("loss", "accuracy", "val_loss", "val_accuracy", "val_top5_accuracy")
    for epoch, row in enumerate(rows):
        for name, shown in zip(names, row.split()[1:6], strict=True):
            value = numbers(trained)[name][epoch]
            assert shown in (f"{value:.3f}", f"{value:.2%}")
        so_far = {name: values[: epoch + 1] for name, values in numbers(trained).items()}
        assert row.endswith(" *") == (best_epoch(so_far) == epoch + 1)
    assert all(len(line) <= 60 for line in text.splitlines()[:-3])
    assert "next: python model_eval.py -m" in text


def test_learning_rate_follows_the_recipe(trained: Path) -> None:
    """Linear over 9 steps: the last steps of the epochs are 2, 5 and 8."""
    expected = [0.1 * (1 - step / 9) for step in (2, 5, 8)]
    assert np.allclose(numbers(trained)["learning_rate"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("part", "field", "value", "named"),
    [
        ("optimizer", "name", "'mouun'", "optimizer.name"),
        ("optimizer", "learning_rate", "'0.1'", "optimizer.learning_rate"),
        ("optimizer", "learning_rate", "1e39", "optimizer.learning_rate"),
        ("optimizer", "warmup_epochs", "3", "with the cosine schedule alone"),
        ("optimizer", "rate_drops", "((3, 1e-4), (2, 1e-5))", "epochs of rate_drops must rise"),
        ("network", "stem", "'wide'", "network.stem"),
        ("network", "dtype", "'bfloat61'", "network.dtype"),
        ("augmentation", "mixed_from", "True", "augmentation.mixed_from"),
        ("augmentation", "flip", "'sometimes'", "augmentation.flip"),
        ("augmentation", "zoom", "None", "augmentation.zoom"),
    ],
)
def test_typo_in_the_config_is_one_line(
    part: str, field: str, value: str, named: str, made_hdf5: Path, tmp_path: Path, run: Run
) -> None:
    error = run("model_train.py", "-r", "thin", "--hdf5", made_hdf5, "-o", tmp_path / "run",
                status=2, EDITED=f"thin {part} {field} {value}").stderr  # fmt: skip
    assert error.startswith("error: recipe 'thin' in config/setup_config.py: ")
    assert named in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [31, 1025])
def test_recipe_of_a_size_the_network_does_not_take_is_refused(size: int) -> None:
    own = Recipe(epochs=3, batch_size=8, image_sizes=((1, size),))
    with pytest.raises(UserError, match=r"image_sizes\[0\]\[1\]"):
        choose_recipe({"own": own}, "own")


def test_plain_keras_opens_a_checkpoint(trained: Path, made_hdf5: Path) -> None:
    """In a process that knows nothing of this project, and with the numbers we recorded."""
    code = """
import sys, h5py, keras, numpy as np, cv2
from sklearn.metrics import log_loss, top_k_accuracy_score
model = keras.saving.load_model(sys.argv[1])
with h5py.File(sys.argv[2]) as file:
    images, labels = file["Images"][:], file["Labels"][:]
images = np.stack([cv2.resize(i, (32, 32), interpolation=cv2.INTER_AREA) for i in images])
p = model.predict(images, verbose=0).astype(float)
p /= p.sum(axis=1, keepdims=True)
print(int(model.optimizer.iterations), log_loss(labels, p), top_k_accuracy_score(labels, p, k=1))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, checkpoint(trained, 3), made_hdf5 / "val.hdf5"],
        cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip
    steps, loss, rank1 = map(float, done.stdout.split())
    assert steps == 9
    assert loss == pytest.approx(numbers(trained)["val_loss"][-1], abs=1e-4)
    assert rank1 == pytest.approx(numbers(trained)["val_accuracy"][-1])


def test_eval_scores_every_image(trained: Path, made_hdf5: Path, tmp_path: Path, run: Run) -> None:
    """In batches that do not divide the split; val scores are those of the training."""
    outcomes = []
    for flags in (("--split", "val", "-b", 7), ("--flip",)):
        done = run("model_eval.py", "-m", checkpoint(trained, 3), "--hdf5", made_hdf5,
                   "--json", tmp_path / "scores.json", *flags)  # fmt: skip
        outcomes.append(json.loads((tmp_path / "scores.json").read_text()))
        assert re.search(r"Rank-1: \d+\.\d\d%  Rank-5: 100\.00%  \(\d+ images\)", done.stdout)
    val, test = outcomes
    assert (val["images"], test["images"]) == (20, 120)
    assert done.stderr == val["warning"] == test["warning"] == ""
    assert (val["epoch"], val["split"], val["flip"], test["flip"]) == (3, "val", False, True)
    assert val["rank1"] == numbers(trained)["val_accuracy"][-1]
    assert val["loss"] == pytest.approx(numbers(trained)["val_loss"][-1], rel=1e-5)
    model = import_keras().saving.load_model(checkpoint(trained, 3), compile=False)
    with h5py.File(made_hdf5 / "test.hdf5") as file:
        images, labels = resize_images(file["Images"][:], 32), file["Labels"][:]
    plain, mirrored = (
        model.predict(seen, verbose=0)[np.arange(120), labels]
        for seen in (images, images[:, :, ::-1])
    )
    assert test["loss"] == pytest.approx(-np.log((plain + mirrored) / 2).mean(), rel=1e-5)
    assert test["loss"] != pytest.approx(-np.log(plain).mean(), rel=1e-5)


def test_folder_stands_for_its_best_epoch(
    trained: Path, made_hdf5: Path, tmp_path: Path, run: Run
) -> None:
    """The next command names the folder again, so that one can carry on."""
    accuracies = numbers(trained)["val_accuracy"]
    best = checkpoint(trained, 1 + accuracies.index(max(accuracies)))
    measured = run("model_eval.py", "-m", trained, "--split", "val", "--hdf5", made_hdf5).stdout
    assert f"best epoch by val rank-1: {best}\n" in measured
    assert f"Rank-1: {max(accuracies):.2%}" in measured
    assert measured.endswith(f"next: python view_model.py -m {trained}\n")
    drawn = run("view_model.py", "-m", trained, "-o", tmp_path / "network.svg").stdout
    assert f"best epoch by val rank-1: {best}\n" in drawn
    replaced = run("model_eval.py", "-m", trained, "--export", best, status=2).stderr
    assert f"{best} is named like a run's checkpoint" in replaced
    for script in ("model_eval.py", "view_model.py"):
        assert "holds no checkpoint" in run(script, "-m", made_hdf5, status=2).stderr


def test_image_size_to_evaluate_at(
    trained: Path, made_hdf5: Path, tmp_path: Path, run: Run
) -> None:
    """Scored at 48 pixels by hand, by the flag, and by the exported model, which remembers it."""
    exported, scores = tmp_path / "at-48.keras", tmp_path / "scores.json"
    run("model_eval.py", "-m", trained, "--hdf5", made_hdf5, "--split", "val", "--image-size", 48,
        "--export", exported, "--json", scores)  # fmt: skip
    by_flag = json.loads(scores.read_text())
    run("model_eval.py", "-m", exported, "--hdf5", made_hdf5, "--split", "val", "--json", scores)
    by_record = json.loads(scores.read_text())
    keras = import_keras()
    with h5py.File(made_hdf5 / "val.hdf5") as file:
        images, labels = resize_images(file["Images"][:], 48), file["Labels"][:]
    model = keras.saving.load_model(checkpoint_to_evaluate(trained), compile=False)
    probabilities = model.predict(images, verbose=0)
    assert by_flag["image_size"] == by_record["image_size"] == 48
    assert by_flag["rank1"] == by_record["rank1"] == (probabilities.argmax(axis=1) == labels).mean()
    of_truth = np.maximum(probabilities[np.arange(len(labels)), labels], 1e-7)
    assert by_flag["loss"] == pytest.approx(-np.log(of_truth).mean(), rel=1e-4)


def test_recipe_decides_the_size_to_evaluate_at() -> None:
    sizes = ((1, 32), (4, 64))
    recipe = Recipe(epochs=6, batch_size=8, image_sizes=sizes, evaluation_size=56)
    assert [recipe.size_to_evaluate(epoch) for epoch in (3, 4, 6)] == [32, 56, 56]
    assert [recipe.image_size(epoch) for epoch in (3, 4, 6)] == [32, 64, 64]


def test_exported_model_is_small_and_predicts_the_same(
    trained: Path, made_hdf5: Path, tmp_path: Path, run: Run
) -> None:
    original, small = checkpoint(trained, 3), tmp_path / "released" / "small.keras"
    run("model_eval.py", "-m", original, "--hdf5", made_hdf5, "--export", small)
    assert small.stat().st_size < original.stat().st_size
    kinds = {(array.ndim > 1, str(array.dtype)) for array in stored_arrays(small).values()}
    assert {dtype for is_kernel, dtype in kinds if is_kernel} == {"float16"}
    assert "float16" not in {dtype for is_kernel, dtype in kinds if not is_kernel}
    keras = import_keras()
    with h5py.File(made_hdf5 / "test.hdf5") as file:
        images = file["Images"][:]
    full, half = (keras.saving.load_model(path) for path in (original, small))
    assert not half.compiled
    assert {weight.dtype for weight in half.weights} == {"float32"}
    for ours, theirs in zip(half.weights, full.weights, strict=True):
        tolerance = 1e-3 * np.abs(theirs).max() if ours.name == "kernel" else 0
        assert np.abs(np.asarray(ours) - np.asarray(theirs)).max() <= tolerance
    predictions = [np.asarray(model.predict_on_batch(images)) for model in (full, half)]
    assert np.abs(predictions[0] - predictions[1]).mean() < 0.005
    assert read_state(small) == read_state(original)
    with pytest.raises(UserError, match="is a model to predict with"):
        read_state_to_resume(small)


def test_export_of_a_16_bit_model_computes_in_32(trained: Path, tmp_path: Path) -> None:
    keras = import_keras()
    from pipeline.run.training import build_model

    state = read_state(checkpoint(trained, 3))
    state = replace(state, recipe=state.recipe.replaced({"network.dtype": "mixed_bfloat16"}))
    model = build_model(state, steps_per_epoch=3)
    save_checkpoint(model, tmp_path / "large.keras", state)
    export(load_model(tmp_path / "large.keras"), tmp_path / "small.keras", state)
    exported = keras.saving.load_model(tmp_path / "small.keras")
    blocks = [layer for layer in exported.layers if isinstance(layer, keras.Model)]
    layers = [*exported.layers, *(layer for block in blocks for layer in block.layers)]
    assert {layer.compute_dtype for layer in layers} == {"float32"}
    assert {block.input.dtype for block in blocks} == {"float32"}
    for ours, theirs in zip(exported.weights, model.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * np.abs(theirs).max())
    assert len(blocks) == 10


def test_export_leaves_names_as_they_are(trained: Path, tmp_path: Path) -> None:
    keras = import_keras()
    layer = keras.layers.Dense(4, dtype="mixed_bfloat16", name="bfloat16")
    model = keras.Sequential([keras.Input((3,)), layer], name="mixed_bfloat16")
    model.compile("sgd")
    state = read_state(checkpoint(trained, 3))
    save_checkpoint(model, tmp_path / "large.keras", state)
    export(load_model(tmp_path / "large.keras"), tmp_path / "small.keras", state)
    exported = keras.saving.load_model(tmp_path / "small.keras")
    assert exported.name == "mixed_bfloat16"
    assert exported.get_layer("bfloat16").compute_dtype == "float32"


def test_branching_back_by_hand(own_run: Path, made_hdf5: Path, run: Run) -> None:
    """As the published procedure: back to an earlier epoch, with a lower rate set by hand.

    So low a rate scales the velocity down to nothing: the weights stay.
    """
    before = {path.name: path.read_bytes() for path in own_run.glob("*.keras")}
    first = numbers(own_run)
    start = checkpoint(own_run, 1)
    done = run("model_train.py", "-m", start, "-e", 1, "-l", "1e-10", "-n", 2, "-o", own_run,
               "--hdf5", made_hdf5)  # fmt: skip
    assert "\n  2/2 " in done.stdout
    assert latest_checkpoint(own_run) == checkpoint(own_run, 2)
    kept = {path.name: path.read_bytes() for path in (own_run / "superseded").iterdir()}
    assert kept == before
    curves = numbers(own_run)
    assert {len(values) for values in curves.values()} == {2}
    assert [values[0] for values in curves.values()] == [first[name][0] for name in curves]
    assert curves["learning_rate"][1] == pytest.approx(1e-10, rel=1e-6, abs=0)
    assert curves["loss"][1] != first["loss"][1]
    load = import_keras().saving.load_model
    before, after = (load(checkpoint(own_run, epoch), compile=False) for epoch in (1, 2))
    for old, new in zip(before.trainable_variables, after.trainable_variables, strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)

    run("model_train.py", "-m", own_run, "-n", 3, "-o", own_run, "--hdf5", made_hdf5)
    first_rate, by_hand = curves["learning_rate"]
    assert numbers(own_run)["learning_rate"] == [first_rate, by_hand, by_hand]


def test_longer_run_sets_nothing_aside(own_run: Path) -> None:
    last = checkpoint(own_run, 3)
    longer = replace(read_state(last), epochs=9)
    copy = Path(shutil.copy(last, last.with_stem(f"{last.stem} (copy)")))
    assert begin_branch(last, longer, own_run) == (longer, last, [])
    assert copy.is_file()
    assert read_state(last) == longer
    assert not (own_run / "superseded").exists()


def test_rate_set_by_hand_survives_a_kill_before_the_next_epoch(
    own_run: Path, made_hdf5: Path
) -> None:
    """Once training resumes, the folder alone says how."""
    command = train_command("-m", checkpoint(own_run, 2), "-l", "1e-4", "-n", 5, "-o", own_run,
                            "--hdf5", made_hdf5)  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("resuming"):
                process.kill()
    state = read_state(latest_checkpoint(own_run))
    assert (state.epoch, state.learning_rate, state.epochs) == (2, 1e-4, 5)


def test_going_back_to_a_branch_that_was_left(own_run: Path) -> None:
    """A kill between the two moves of a branch, and then back to what was set aside."""
    old = checkpoint(own_run, 2).read_bytes()
    first, second = read_state(checkpoint(own_run, 1)), read_state(checkpoint(own_run, 2))
    lowered = replace(first, learning_rate=1e-4)
    _, begun, aside = begin_branch(checkpoint(own_run, 1), lowered, own_run)
    assert read_state(begun) == replace(lowered, branch=1)
    assert sorted(path.name[:9] for path in aside) == ["epoch-001", "epoch-002", "epoch-003"]
    for path in aside[1:]:  # as a kill before they were moved would leave them
        path.rename(own_run / path.name)
    assert latest_checkpoint(own_run) == begun
    _, again, aside = begin_branch(begun, read_state(begun), own_run)
    assert read_state(again) == replace(lowered, branch=1)
    assert len(list(own_run.glob("epoch-*"))) == 1

    left = next(path for path in aside if path.name.startswith("epoch-002"))
    _, begun, _ = begin_branch(left, second, own_run)
    assert latest_checkpoint(own_run) == begun
    assert read_state(begun) == replace(second, branch=2)
    assert left.read_bytes() == old


def test_branch_from_a_renamed_file_keeps_to_its_own_line(own_run: Path) -> None:
    renamed = checkpoint(own_run, 2).rename(own_run / "good.keras")
    second, third = read_state(renamed), read_state(checkpoint(own_run, 3))
    _, begun, _ = begin_branch(renamed, replace(second, learning_rate=1e-4), own_run)
    assert begun == checkpoint(own_run, 2) == latest_checkpoint(own_run)
    assert read_state(renamed) == second

    other = {**third.history, "loss": [9.0, 9.0, 9.0]}
    stranger = replace(third, history=other)
    _, begun, aside = begin_branch(renamed, stranger, own_run)
    assert list(own_run.glob("epoch-*")) == [begun]
    assert {path.name[:9] for path in aside} == {"epoch-001", "epoch-002"}


def test_terminated_run_prints_the_command_that_resumes(
    made_hdf5: Path, tmp_path: Path, run: Run
) -> None:
    output = tmp_path / "my run"
    command = train_command("-r", "thin-long", "-o", output, "--hdf5", made_hdf5)
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("  2/500 "):
                process.send_signal(signal.SIGTERM)
        errors = process.stderr.read()
        assert process.wait(timeout=30) == 143, errors
    stopped, last = errors.splitlines()[-2:]
    assert stopped.startswith("stopped by ")
    assert last.startswith(
        "the running epoch is lost, finished ones are kept; to resume: python model_train.py -m "
    )
    assert not list(output.glob(".unfinished*"))
    reached = read_state(latest_checkpoint(output)).epoch
    assert reached >= 2
    _, script, *arguments = command_of(last)
    done = run(script, *arguments, "-n", reached + 1)
    assert f"resuming after epoch {reached}" in done.stdout


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_run_interrupted_in_its_first_epoch_prints_its_own_command(
    backend: str, made_hdf5: Path, tmp_path: Path
) -> None:
    """Here while JAX compiles: XLA would go on to the end, and Python then crash."""
    command = train_command("-r", "thin-long", "-o", tmp_path, "--hdf5", made_hdf5)
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
    ) as process:  # fmt: skip
        for line in process.stdout:
            if line.startswith(f"{backend} on "):
                break
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        last = process.stderr.read().splitlines()[-1]
    assert process.returncode == 130
    words = [word for word in command_of(last) if word != f"KERAS_BACKEND={backend}"]
    assert words[1:] == [command[1], *command[3:]]  # without the script that stands in


def command_of(line: str) -> list[str]:
    return shlex.split(line.partition(": ")[2])


def change_weights(path: Path, change: Callable[[h5py.File], object]) -> None:
    """Let ``change`` change the weights and the optimizer's state in a checkpoint."""

    def changed(weights: bytes) -> bytes:
        with h5py.File(memory := io.BytesIO(weights), "r+") as file:
            change(file)
        return memory.getvalue()

    change_member(path, WEIGHTS, changed)


def test_incomplete_optimizer_state_is_refused(own_run: Path, made_hdf5: Path, run: Run) -> None:
    """Keras itself would warn, and begin again with the momentum at zero."""
    change_weights(checkpoint(own_run, 2), lambda file: file["optimizer/vars"].pop("3"))
    before = sorted(own_run.iterdir())
    error = run("model_train.py", "-m", checkpoint(own_run, 2), "-o", own_run, "--hdf5", made_hdf5,
                status=2).stderr  # fmt: skip
    assert "does not hold this optimizer's state" in error
    assert set(before) <= set(own_run.iterdir())


def test_weights_that_are_not_finite_are_refused(own_run: Path, made_hdf5: Path, run: Run) -> None:
    """Otherwise they would score, and the metrics be no JSON; a run would blame its rate."""
    path, scores = checkpoint(own_run, 2), own_run / "scores.json"
    change_weights(path, lambda file: file["layers/dense/vars/1"].write_direct(np.full(4, np.nan)))
    error = run("model_eval.py", "-m", path, "--hdf5", made_hdf5, "--json", scores, status=2).stderr
    assert "some of its weights are not finite" in error
    assert not scores.exists()
    resume = ("-m", path, "-n", 4, "-l", 1, "-o", own_run, "--hdf5", made_hdf5)
    assert "some of its weights are not finite" in run("model_train.py", *resume, status=2).stderr


def test_predictions_that_are_no_numbers_are_refused(
    own_run: Path, made_hdf5: Path, made_data: Path
) -> None:
    """Finite weights, whose sums are infinite."""
    path, scores = checkpoint(own_run, 2), own_run / "scores.json"
    change_weights(path, lambda file: file["layers/dense/vars/0"].__setitem__(..., 3e38))
    photo = next((made_data / "val" / "images").iterdir())
    for what in (("--hdf5", made_hdf5), ("--images", photo)):
        command = map(str, ("-m", path, *what, "--json", scores))
        with pytest.raises(
            UserError, match="predictions are NaN or infinite; use another checkpoint"
        ):
            model_eval.main([*command])
    assert not scores.exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


REFUSED = {
    "epoch 2, not 1; leave the flag out to resume, or name the checkpoint of epoch 1": (
        lambda run: None,
        ("-e", 1),
    ),
    "name a later one with -n": (lambda run: None, ("-n", 2)),
    "batch size 16, not 8": (lambda run: None, ("-b", 8)),
    "seed 42, not 1": (lambda run: None, ("--seed", 1)),
    "recipe name thin, not thin-best": (lambda run: None, ("-r", "thin-best")),
    "is zero after epoch 3; give -n 3, and resume": (lambda run: None, ("-n", 9)),
    "not a whole Keras file": (lambda run: truncate(checkpoint(run, 2)), ()),
    "it is HDF5, as Keras 2 wrote models": (
        lambda run: h5py.File(checkpoint(run, 2), "w").close(),
        (),
    ),
    "does not exist": (lambda run: checkpoint(run, 2).unlink(), ()),
    "was written by another version of this project": (
        lambda run: change_metadata(checkpoint(run, 2), lambda it: it[KEY].update(format=1)),
        (),
    ),
    "holds no record of a run": (
        lambda run: change_metadata(checkpoint(run, 2), lambda it: it.pop(KEY)),
        (),
    ),
    "or move it out of": (lambda run: truncate(checkpoint(run, 3)), ("-n", 4, "-l", 1)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_resuming_is_refused(message: str, own_run: Path, made_hdf5: Path, run: Run) -> None:
    start = checkpoint(own_run, 2)
    spoil, flags = REFUSED[message]
    spoil(own_run)
    before = {path: path.read_bytes() for path in own_run.glob("*.*")}
    arguments = ("-m", start, "-o", own_run, "--hdf5", made_hdf5, *flags)
    assert message in run("model_train.py", *arguments, status=2).stderr
    assert {path: path.read_bytes() for path in own_run.glob("*.*")} == before


def test_finished_run_trains_on_at_a_rate_of_its_own(trained: Path) -> None:
    finished = replace(read_state(checkpoint(trained, 3)), epochs=9)
    with pytest.raises(UserError, match="is zero after epoch 3; to train to epoch 9 give a rate"):
        check_trainable(finished, 48)
    check_trainable(replace(finished, learning_rate=0.1), 48)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("thin optimizer label_smoothing 0.31", "optimizer.label_smoothing 0.1, now 0.31"),
        ("thin optimizer label_smoothing '0.1'", "recipe 'thin' in config/setup_config.py"),
        ("published optimizer name 'adma'", "is done and the run ends at epoch 3"),
    ],
)
def test_only_the_own_recipe_must_hold(
    edit: str, message: str, own_run: Path, made_hdf5: Path, run: Run
) -> None:
    error = run("model_train.py", "-m", own_run, "-n", 3, "-l", 1, "-o", own_run, "--hdf5",
                made_hdf5, status=2, EDITED=edit).stderr  # fmt: skip
    assert message in error


def test_other_data_is_named(own_run: Path, made_data: Path, tmp_path: Path, run: Run) -> None:
    hdf5 = tmp_path / "hdf5"
    run("build_dataset.py", "-d", made_data, "-o", hdf5, "--seed", 7)
    error = run("model_train.py", "-m", own_run, "-n", 9, "-o", own_run, "--hdf5", hdf5, status=2)
    assert "train split differs" in error.stderr
    data = Path(shutil.copytree(made_data, tmp_path / "data"))
    shutil.copy(data / "val/images/val_0.JPEG", data / "val/images/val_1.JPEG")
    run("build_dataset.py", "-d", data)
    error = run("model_train.py", "-m", own_run, "-n", 9, "-o", own_run, "--hdf5", data / "hdf5",
                status=2)  # fmt: skip
    assert "val split differs" in error.stderr


def test_images_that_a_model_may_have_seen_are_no_measure(
    trained: Path, made_hdf5: Path, own_data: Path, tmp_path: Path, run: Run
) -> None:
    state = read_state(checkpoint(trained, 3))

    def seen(hdf5: Path, split: str) -> bool:
        return may_have_seen(state, open_split(hdf5, split))

    assert not any(seen(made_hdf5, split) for split in ("val", "test"))
    for image in list(own_data.glob("train/*/images/*")):
        shutil.copy(image, image.with_name(f"more_{image.name}"))
    more, drawn, scores = own_data / "more", own_data / "drawn", tmp_path / "scores.json"
    build_dataset.main(["-d", str(own_data), "-o", str(more)])
    assert [seen(more, split) for split in ("val", "test")] == [False, True]
    (more / "train.hdf5").unlink()  # as on a machine that only evaluates
    assert [seen(more, split) for split in ("val", "test")] == [False, True]
    shutil.rmtree(own_data / "val")
    build_dataset.main(["-d", str(own_data), "-o", str(drawn), "--draw-val"])
    assert seen(drawn, "val")
    done = run("model_eval.py", "-m", checkpoint(trained, 3), "--hdf5", drawn, "--split", "val",
               "--json", scores)  # fmt: skip
    assert "may have seen" in done.stderr
    assert "may have seen" in json.loads(scores.read_text())["warning"]


def test_data_is_found_and_what_is_missing_is_named(
    own_run: Path, made_hdf5: Path, own_data: Path, tmp_path: Path, run: Run
) -> None:
    assert find_hdf5(own_data, None, tmp_path) == own_data
    shutil.copytree(made_hdf5, own_data / "hdf5")
    assert find_hdf5(own_data, None, tmp_path) == own_data / "hdf5"
    missing = ("model_train.py", "-m", tmp_path / "typo", "-o", tmp_path / "out")
    assert "typo does not exist" in run(*missing, status=2).stderr
    log = own_run / "run.jsonl"
    log.write_text(log.read_text().replace(str(made_hdf5), str(tmp_path / "moved")))
    error = run("model_eval.py", "-m", own_run, status=2, cwd=own_run).stderr
    assert f"{tmp_path / 'moved' / 'test.hdf5'} does not exist" in error


def test_other_classes_are_refused(own_run: Path, own_data: Path, run: Run) -> None:
    (own_data / "wnids.txt").write_text("\n".join(CLASS_IDS[1:]))
    shutil.rmtree(own_data / "train" / CLASS_IDS[0])
    rows = (own_data / "val" / "val_annotations.txt").read_text().splitlines(keepends=True)
    for row in (row for row in rows if CLASS_IDS[0] in row):
        (own_data / "val" / "images" / row.split("\t")[0]).unlink()
    kept = (row for row in rows if CLASS_IDS[0] not in row)
    (own_data / "val" / "val_annotations.txt").write_text("".join(kept))
    run("build_dataset.py", "-d", own_data)
    hdf5 = own_data / "hdf5"
    model = checkpoint(own_run, 3)
    for command in (("model_train.py", "-m", model, "-o", own_run), ("model_eval.py", "-m", model)):
        assert "4 classes" in run(*command, "--hdf5", hdf5, status=2).stderr


def test_two_runs_do_not_mix(own_run: Path, made_hdf5: Path, tmp_path: Path, run: Run) -> None:
    settings = ("--hdf5", made_hdf5, "-o", own_run)
    assert "holds a run already" in run("model_train.py", *settings, status=2).stderr
    (tmp_path / "his").mkdir()
    curves = shutil.copy(own_run / "metric_values.json", tmp_path / "his")
    his = ("model_train.py", "--hdf5", made_hdf5, "-o", tmp_path / "his")
    for start in ((), ("-m", own_run, "-n", 4, "-l", 1)):
        error = run(*his, *start, status=2).stderr
        assert "holds another run's metric_values.json" in error
    assert Path(curves).read_bytes() == (own_run / "metric_values.json").read_bytes()
    foreign = shutil.copy(checkpoint(own_run, 1), tmp_path)
    error = run("model_train.py", "-m", foreign, *settings, status=2).stderr
    assert f"{foreign} is not in it; resume it by -m {own_run}" in error


def test_checkpoints_that_are_links_are_the_runs(own_run: Path, tmp_path: Path) -> None:
    """As DVC and git-annex keep them."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in own_run.glob("epoch-*"):
        path.rename(elsewhere / path.name)
        path.symlink_to(Path("..", "elsewhere", path.name))
    for start in (own_run, checkpoint(own_run, 3)):
        assert find_checkpoint(start, own_run) == checkpoint(own_run, 3)
    before = {path: path.read_bytes() for path in elsewhere.iterdir()}
    state = replace(read_state(checkpoint(own_run, 2)), learning_rate=0.01)
    _, _, kept = begin_branch(checkpoint(own_run, 2), state, own_run)
    assert read_state(checkpoint(own_run, 2)).learning_rate == 0.01
    assert sorted(read_state(path).epoch for path in kept) == [2, 3]
    assert {path: path.read_bytes() for path in elsewhere.iterdir()} == before


def test_run_without_a_finished_epoch_is_begun_anew(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no epoch of a run has ended in .* yet; leave -m out"):
        find_checkpoint(tmp_path, tmp_path)


USAGE = {
    "'0' is not a whole number from 1 to 1000000": ("-b", 0),
    "'1.5' is not a whole number": ("-n", "1.5"),
    "'4294967296' is not a whole number from 0 to 4294967295": ("--seed", 2**32),
    "'fast' is not a number from 1e-12 to 1000": ("-l", "fast"),
    "'nan' is not": ("-l", "nan"),
    "'inf' is not": ("-l", "inf"),
    "'1e39' is not": ("-l", "1e39"),
    "'10000000' is not": ("-n", 10**7),
    "invalid choice: 'none'": ("-r", "none"),
    "-e needs -m": ("-e", 3),
    "'-3' is not": ("-m", "x", "-e=-3"),
}


@pytest.mark.parametrize("message", USAGE)
def test_usage_errors(message: str, tmp_path: Path, run: Run) -> None:
    arguments = [str(a) for a in USAGE[message]]
    done = run("model_train.py", "-o", tmp_path / "run", *arguments, status=2)
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_batch_larger_than_the_data(made_hdf5: Path, tmp_path: Path, run: Run) -> None:
    error = run("model_train.py", "-o", tmp_path, "-b", 49, "--hdf5", made_hdf5, status=2).stderr
    assert "48 train images" in error


def rewrite(path: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def chunked(file: h5py.File) -> None:
    images = file["Images"][:]
    del file["Images"]
    file.create_dataset("Images", data=images, chunks=(1, 64, 64, 3))


def reshaped(file: h5py.File) -> None:
    del file["Images"]
    file["Images"] = np.zeros((48, 3, 64, 64), np.uint8)


def redrawn(file: h5py.File) -> None:
    file.attrs["seed"] = 7


def mislabelled(file: h5py.File) -> None:
    file["Labels"][5] = 9


SPOILED_HDF5 = {
    "does not exist": lambda path: path.unlink(),
    "of another build than train.hdf5": lambda path: rewrite(path, redrawn),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:100_000]),
    "not a readable HDF5 file": lambda path: path.write_bytes(b"text" * 500),
    "interrupted build": lambda path: rewrite(path, lambda f: f.attrs.modify("complete", False)),
    "of shape (48, 3, 64, 64)": lambda path: rewrite(path, reshaped),
    "not stored contiguously": lambda path: rewrite(path, chunked),
    "labels outside the range of its classes": lambda path: rewrite(path, mislabelled),
    "the val split under another name": lambda p: shutil.copy(p.with_name("val.hdf5"), p),
}


@pytest.mark.parametrize("message", SPOILED_HDF5)
def test_spoiled_hdf5_is_explained(message: str, made_hdf5: Path, tmp_path: Path) -> None:
    hdf5 = Path(shutil.copytree(made_hdf5, tmp_path / "hdf5"))
    SPOILED_HDF5[message](hdf5 / "train.hdf5")
    with pytest.raises(UserError, match=re.escape(message)) as refusal:
        model_train.main(["-o", str(tmp_path / "run"), "--hdf5", str(hdf5)])
    assert "train.hdf5" in str(refusal.value)
    assert not (tmp_path / "run").exists()


def test_keep_thins_old_checkpoints_of_a_run_of_another_seed(
    trained: Path, made_hdf5: Path, tmp_path: Path, run: Run
) -> None:
    run("model_train.py", "-r", "thin", "--keep", 1, "--seed", 7, "--hdf5", made_hdf5,
        "-o", tmp_path)  # fmt: skip
    assert read_state(checkpoint(tmp_path, 3)).seed == 7
    assert numbers(tmp_path)["loss"][0] != numbers(trained)["loss"][0]
    best = best_epoch(numbers(tmp_path))
    assert {int(p.name[6:9]) for p in tmp_path.glob("*.keras")} == {best, 3}


def test_seed_decides_weights_and_batches(trained: Path, made_hdf5: Path) -> None:
    import_keras()
    from pipeline.run.training import build_model, training_batches

    state, train = read_state(checkpoint(trained, 3)), open_split(made_hdf5, "train")
    states = [state, replace(state, seed=7)]
    first, other = (np.array(build_model(s, 3).trainable_variables[0]) for s in states)
    assert not np.array_equal(first, other)
    ours, theirs = (training_batches(train, state)[0][0] for state in states)
    assert not np.array_equal(ours, theirs)


def test_kill_after_the_last_checkpoint_is_healed(own_run: Path, made_hdf5: Path, run: Run) -> None:
    """A kill between the last checkpoint and the curves leaves these an epoch short."""
    whole = (own_run / "metric_values.json").read_bytes()
    (own_run / "metric_values.json").write_text("{}")
    (own_run / "training_plot.jpg").unlink()
    error = run("model_train.py", "-m", own_run, "-o", own_run, "--hdf5", made_hdf5, status=2)
    assert "name a later one with -n" in error.stderr
    assert (own_run / "metric_values.json").read_bytes() == whole
    assert (own_run / "training_plot.jpg").is_file()


def test_diverging_run_stops_without_a_checkpoint(
    made_hdf5: Path, tmp_path: Path, run: Run
) -> None:
    """Each step multiplies the weights by a thousand."""
    error = run("model_train.py", "-r", "thin", "-l", 1000, "-b", 4, "--hdf5", made_hdf5, "-o",
                tmp_path, status=2, EDITED="thin optimizer weight_decay 0.99").stderr  # fmt: skip
    assert "is NaN or infinite; start again at a lower rate (-l)" in error
    assert not list(tmp_path.glob("*.keras"))


def test_unusable_backend_is_explained(tmp_path: Path, run: Run) -> None:
    error = run("view_model.py", "-o", tmp_path / "n.png", status=2, backend="theano").stderr
    assert "set it to tensorflow or jax" in error
