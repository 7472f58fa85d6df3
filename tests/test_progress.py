"""What a person sees while a network trains: the bar, the advice, the curves."""

import io
import re
import shlex
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import numpy as np
import progressbar
import pytest
from conftest import Run, checkpoint, numbers

import model_train
from config import setup_config
from pipeline.backend import import_keras

keras = import_keras()

from pipeline.callbacks.epoch_summary import EpochSummary  # noqa: E402
from pipeline.callbacks.progress_bar import ProgressBar  # noqa: E402
from pipeline.callbacks.run_history import RunHistory  # noqa: E402
from pipeline.callbacks.tensorboard import TensorBoardCurves, check_tensorboard  # noqa: E402
from pipeline.errors import UserError  # noqa: E402
from pipeline.plotting.curves import plot_history  # noqa: E402
from pipeline.run.checkpoint import copy_checkpoint, read_state  # noqa: E402
from pipeline.run.messages import header, rate_advice, results  # noqa: E402
from pipeline.run.output_folder import checkpoint_to_evaluate  # noqa: E402
from pipeline.run.state import RunState, best_epoch  # noqa: E402


@pytest.fixture
def state(trained: Path) -> RunState:
    return read_state(checkpoint(trained, 3))


def test_loss_of_a_run_is_the_cross_entropy(state: RunState) -> None:
    """Without what L2 and label smoothing add to what is minimised."""
    logs = {name: values[-1] for name, values in state.history.items()}
    run = RunHistory(state, steps_per_epoch=3)
    run.on_epoch_end(3, {**logs, "loss": 9.0, "cross_entropy": 1.5})
    assert run.state.history["loss"][-1] == 1.5
    for name in ("cross_entropy", "val_loss"):
        with pytest.raises(UserError, match="loss of epoch 4 is NaN or infinite"):
            RunHistory(state, 3).on_epoch_end(3, {**logs, "cross_entropy": 1.5, name: np.nan})


def test_advice_stands_below_its_epoch(state: RunState, capsys: pytest.CaptureFixture) -> None:
    run, bar = SimpleNamespace(state=state), SimpleNamespace(time_left=lambda epoch: 0.0)
    logs = {name: values[-1] for name, values in state.history.items()}
    EpochSummary(run, bar, lambda state: "lower the rate").on_epoch_end(2, logs)
    assert capsys.readouterr().out.splitlines()[-1] == "lower the rate"


@pytest.mark.parametrize("columns", [60, 80])
def test_bar_tells_epoch_metrics_and_time_left(
    columns: int, state: RunState, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """100 steps of 2 s for 6,400 images, and two later epochs: one of the same, one 4 x as slow."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progressbar.streams, "original_stderr", terminal)  # put back afterwards
    monkeypatch.setenv("COLUMNS", str(columns))
    recipe = replace(state.recipe, image_sizes=((1, 32), (6, 64)))
    bar = ProgressBar(replace(state, epochs=6, recipe=recipe), images=6400)
    bar.set_params({"steps": 100})
    bar.on_train_begin()
    with closing(bar):
        bar.on_epoch_begin(3)
        now[0] = 30  # the first three steps compile
        for step in range(51):
            bar.on_train_batch_begin(step)
            now[0] += 2 if step >= 3 else 0
            bar.on_train_batch_end(step, {"cross_entropy": 2.345, "accuracy": 0.12})
        bar._bar.update(50, force=True)
    plain = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())
    lines = re.split(r"[\r\n]", plain)
    assert "compiling" in next(line for line in lines if "epoch" in line)
    shown = next(line for line in reversed(lines) if "epoch" in line)
    assert "epoch 4/6" in shown
    assert "50%" in shown
    # 100 s are left of this epoch, then 200 s and 800 s
    assert ("32/s, " in shown) == (columns == 80)
    assert "loss 2.35, rank-1 12%, " in shown
    assert "18 min 20 s left" in shown
    assert max(map(len, lines)) <= columns
    assert "about 20 min 00 s for epochs 4 to 6, at 32 images/s" in capsys.readouterr().out


def test_time_left_counts_what_comes_between_epochs(
    state: RunState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100 s of steps an epoch; 90 s follow the first, which compile, and 10 s each later one."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    recipe = replace(state.recipe, image_sizes=((1, 32),))
    bar = ProgressBar(replace(state, epochs=6, recipe=recipe), images=6400)
    bar.set_params({"steps": 100})
    left = []
    with closing(bar):
        bar.on_train_begin()
        for epoch in range(3):
            bar.on_epoch_begin(epoch)
            for step in range(100):
                now[0] += 1
                bar.on_train_batch_end(step, {})
            bar.on_epoch_end(epoch)
            now[0] += 10 if epoch else 90
            left.append(bar.time_left(epoch + 1))
    assert left == pytest.approx([500, 400, 330])


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_gpu_that_is_not_used_is_told(
    on_cpu: bool, state: RunState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both backends go on in silence where they were installed for the CPU alone."""
    devices = SimpleNamespace(devices=["a:0"], on_cpu=on_cpu)
    monkeypatch.setattr("pipeline.run.messages.NVIDIA_DRIVER", tmp_path / "nvidiactl")
    assert "GPU" not in " ".join(header(state, "jax", devices, (10, 10)))
    (tmp_path / "nvidiactl").touch()
    assert ("jax does not use" in " ".join(header(state, "jax", devices, (10, 10)))) == on_cpu


def test_speed_is_that_of_the_device_however_far_ahead_fit_is(
    state: RunState, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """On JAX the steps return at once, and their metrics come 2 s a step later."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    bar = ProgressBar(state, images=6400)
    bar.set_params({"steps": 100})
    bar.on_train_begin()
    with closing(bar):
        bar.on_epoch_begin(0)
        for step in range(100):
            if step >= 30:
                now[0] += 2
                bar.on_train_batch_end(step - 30, {})
            bar.on_train_batch_begin(step)
    assert "at 32 images/s" in capsys.readouterr().out


@pytest.mark.parametrize(("epoch", "advice"), [(1, "start again"), (2, "earlier checkpoint")])
def test_first_batch_whose_loss_is_no_number_ends_training(epoch: int, advice: str) -> None:
    """Of 400 batches, the loss of the 151st is none; it may be noticed a few steps later."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    images = np.where(np.arange(4000) < 1500, 1.0, np.nan)[:, None]
    bar = ProgressBar(read_state(setup_config.RELEASED_MODEL), images=4000)
    with (
        pytest.raises(UserError, match=f"loss of epoch {epoch} is NaN or infinite.*{advice}"),
        closing(bar),
    ):
        model.fit(images, images, 10, epoch, 0, [bar], shuffle=False, initial_epoch=epoch - 1)
    assert 150 < model.optimizer.iterations.numpy() < 400


def with_history(state: RunState, losses: list[float], rates: list[float]) -> RunState:
    history = dict.fromkeys(state.history, losses)
    return replace(
        state,
        epoch=len(losses),
        epochs=20,
        history=history | {"val_loss": losses, "learning_rate": rates},
    )


@pytest.mark.parametrize(
    ("losses", "rates", "stalled"),
    [
        ([3.0], [0.1], 0),
        ([3.0, 2.0, 2.5, 2.0, 2.1], [0.1] * 5, 3),
        ([3.0, 2.0, 2.5, 2.4, 2.1], [0.1, 0.1, 0.1, 0.01, 0.01], 2),
        ([2.0, 2.1, 2.2, 2.3, 2.4], [0.1, 0.09, 0.08, 0.07, 0.06], 1),
    ],
)
def test_stalled_epochs(
    losses: list[float], rates: list[float], stalled: int, state: RunState
) -> None:
    assert with_history(state, losses, rates).stalled_epochs == stalled


def test_advice_is_a_command_that_lowers_the_rate(
    state: RunState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    output = tmp_path / "my run"
    flags = ["-o", str(output), "--hdf5", "h", "--keep", "3", "--tensorboard"]
    args = model_train.parse_arguments(flags)
    stalled = with_history(state, [2.0] + [2.5] * 5, [float(np.float32(1e-3))] * 6)
    proposed = rate_advice(args, stalled, 5)
    assert "\n" not in proposed
    command = proposed.partition("run: ")[2]
    program = "KERAS_BACKEND=jax python model_train.py "
    assert command.startswith(program)
    again = model_train.parse_arguments(shlex.split(command.removeprefix(program)))
    assert (again.model, again.epoch, again.learning_rate) == (output, None, 1e-4)
    assert (again.output, again.hdf5, again.keep) == (output, Path("h"), 3)
    assert again.tensorboard
    for losses in ([2.0] + [2.5] * 4, [2.0] + [2.5] * 6, [2.5] * 5 + [2.0]):
        assert rate_advice(args, with_history(state, losses, [1e-3] * len(losses)), 5) == ""
    assert rate_advice(args, replace(stalled, epochs=6), 5) == ""


def test_best_of_equals_has_the_lowest_val_loss() -> None:
    losses = {"val_loss": [3.0, 2.5, 2.0, 2.0, 1.9]}
    assert best_epoch(losses | {"val_accuracy": [0.1, 0.3, 0.3, 0.3, 0.2]}) == 3
    assert best_epoch(losses | {"val_accuracy": [0.1, 0.3, 0.2, 0.2, 0.2]}) == 2


def test_plot_rings_the_best_epoch() -> None:
    metrics = ("loss", "accuracy", "val_loss", "val_top5_accuracy", "learning_rate")
    curves = {name: [0.5] * 5 for name in metrics} | {"val_loss": [0.5, 0.6, 0.5, 0.5, None]}
    axes = plot_history({**curves, "val_accuracy": [0.1, 0.4, 0.4, 0.4, None]}, "title").axes[1]
    ring = next(line for line in axes.lines if line.get_label() == "best so far, 40.0%")
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (3, 0.4)


def test_summary_names_the_best_checkpoint(trained: Path) -> None:
    *_, summary, _, next_command = (trained / "stdout.txt").read_text().splitlines()
    accuracies = numbers(trained)["val_accuracy"]
    best = checkpoint(trained, accuracies.index(max(accuracies)) + 1)
    assert checkpoint_to_evaluate(trained) == best
    assert summary.endswith(f"rank-1 {max(accuracies):.2%}, in {best}")
    assert next_command == f"next: python model_eval.py -m {best.parent}"


def test_summary_says_where_the_best_checkpoint_is_not(
    own_run: Path, capsys: pytest.CaptureFixture
) -> None:
    last = checkpoint(own_run, 3)
    state = read_state(last)
    losses = [0.0, *state.history["val_loss"][1:]]
    history = {**state.history, "val_accuracy": [1.0, 0.5, 0.6], "val_loss": losses}
    copy_checkpoint(last, last, replace(state, history=history))
    checkpoint(own_run, 1).unlink()
    expected = f"best epoch by val: 1, rank-1 100.00%, whose checkpoint is not in {own_run}"
    assert results(own_run, tensorboard=False)[0] == expected
    checkpoint_to_evaluate(own_run)
    noted = f"note: epoch 1 was better, and its checkpoint is not in {own_run}\n"
    assert capsys.readouterr().out.endswith(noted)


def event_values(folder: Path) -> dict[str, dict[int, float]]:
    """Return what TensorBoard itself reads."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: {event.step: float(make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)}
        for tag in events.Tags()["tensors"]
    }


def test_tensorboard_deletes_its_own_curves_alone(own_run: Path) -> None:
    state = read_state(checkpoint(own_run, 3))
    TensorBoardCurves(own_run, state)
    old = set(own_run.glob("tensorboard/*/events*"))
    others = [own_run / "tensorboard" / name for name in ("notes.txt", "other/events.out.tfevents")]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    TensorBoardCurves(own_run, state)
    assert not old & set(own_run.glob("tensorboard/*/events*"))
    assert [path.read_text() for path in others] == ["mine", "mine"]


def test_tensorboard_that_cannot_be_written(own_run: Path) -> None:
    (own_run / "tensorboard").write_text("mine")
    with pytest.raises(UserError, match="cannot write"):
        TensorBoardCurves(own_run, read_state(checkpoint(own_run, 3)))
    assert (own_run / "tensorboard").read_text() == "mine"


def test_tensorboard_where_the_disk_is_full(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensorflow = pytest.importorskip("tensorflow")

    def refuse(*arguments: object) -> None:
        message = "{{node x}} file.v2; No space left on device\n\tFailed to flush [Op:Flush] name: "
        raise tensorflow.errors.ResourceExhaustedError(None, None, message)

    curves = TensorBoardCurves(own_run, read_state(checkpoint(own_run, 3)))
    for writer in curves._writers.values():
        monkeypatch.setattr(writer, "flush", refuse)
    with pytest.raises(UserError, match=r"train: No space left on device; free some"):
        curves.on_epoch_end(3, {"learning_rate": 0.1})


def test_tensorboard_shows_the_whole_run(own_run: Path, made_hdf5: Path, run: Run) -> None:
    """Going back to epoch 2 with it: two epochs from the history, one trained, none of before."""
    before = read_state(checkpoint(own_run, 3))
    longer = replace(before, epoch=7, history={k: [9.0] * 7 for k in before.history})
    TensorBoardCurves(own_run, longer)
    with ZipFile(checkpoint(own_run, 3)) as archive:
        weights = archive.read("model.weights.h5")
    done = run("model_train.py", "-m", checkpoint(own_run, 2), "-o", own_run, "--hdf5", made_hdf5,
               "--tensorboard")  # fmt: skip
    assert f"tensorboard --logdir={own_run}" in done.stdout
    with ZipFile(checkpoint(own_run, 3)) as archive:
        assert archive.read("model.weights.h5") == weights
    history = numbers(own_run)
    training = event_values(own_run / "tensorboard" / "train")
    validation = event_values(own_run / "tensorboard" / "validation")
    for name, values in history.items():
        kind = validation if name.startswith("val_") else training
        points = kind[f"epoch_{name.removeprefix('val_')}"]
        assert points == pytest.approx(dict(enumerate(values, start=1)))


def test_tensorboard_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="leave --tensorboard out on jax"):
        check_tensorboard("jax")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install tensorboard"):
        check_tensorboard("tensorflow")
