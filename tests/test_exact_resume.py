"""A run that was stopped and resumed is the run that was never stopped, bit for bit."""

import os
import re
from pathlib import Path

import pytest
from conftest import Run, change_metadata, checkpoint

from pipeline.backend import import_keras
from pipeline.run.checkpoint import KEY, read_state


@pytest.mark.parametrize(
    ("recipe", "backend", "stops"),
    [
        ("thin-published", "tensorflow", [1]),
        ("thin-published", "jax", [1]),
        ("thin-best", "tensorflow", [1, 2]),  # whose image size changes after epoch 2
        ("thin-best", "jax", [2]),
        ("thin-quick", "tensorflow", [1]),  # in bfloat16, which JAX on a CPU is not asked for
    ],
)
def test_resumed_run_writes_the_same_checkpoints(
    recipe: str, backend: str, stops: list[int], made_hdf5: Path, tmp_path: Path, run: Run
) -> None:
    """Checkpoints hold weights, optimizer state and history, and no time or path."""
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    hdf5 = ("--hdf5", made_hdf5)
    run("model_train.py", "-r", recipe, *hdf5, "-o", straight, backend=backend)
    start = checkpoint(straight, stops[0])
    for last in (*stops[1:], 3):
        run("model_train.py", "-m", start, "-n", last, *hdf5, "-o", resumed, backend=backend)
        start = resumed
    later = [checkpoint(straight, epoch).name for epoch in range(stops[0] + 1, 4)]
    for name in (*later, "metric_values.json"):
        assert (resumed / name).read_bytes() == (straight / name).read_bytes()
    model = import_keras().saving.load_model(resumed / later[-1])  # as anybody may
    assert int(model.optimizer.iterations) == 3 * 3


def test_recipe_of_another_version(own_run: Path, made_hdf5: Path, run: Run) -> None:
    """What this version lacks was not done where it says no; otherwise it would be dropped."""
    path = checkpoint(own_run, 3)
    resume = ("model_train.py", "-m", path, "-o", own_run, "--hdf5", made_hdf5)

    def with_mixup(value: float) -> None:
        change_metadata(
            path, lambda it: it[KEY]["state"]["recipe"]["augmentation"].update(mixup=value)
        )

    with_mixup(0.0)
    assert "epoch 3 is done" in run(*resume, status=2).stderr
    with_mixup(0.2)
    said = run(*resume, status=2).stderr
    assert "was trained with mixup 0.2, which this version of the project no longer has" in said
    assert "Rank-1" in run("model_eval.py", "-m", path, "--hdf5", made_hdf5).stdout


def test_resuming_under_other_conditions_is_said(
    own_run: Path, made_hdf5: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log knows them, so that checkpoints are the same wherever they are written."""
    import_keras()
    from pipeline.run.conditions import note_on_conditions

    start = checkpoint(own_run, 3)
    state = read_state(start)
    assert note_on_conditions(start, state, ["cpu:0"]) == []
    cores = set(range(1000))
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores, raising=False)
    monkeypatch.setattr("pipeline.run.conditions.code_hash", lambda: "0123")
    (note,) = note_on_conditions(start, state, ["cpu:0"])
    assert re.search(r"\(cores \d+, now 1000; code '[0-9a-f]{8}', now '0123'\)", note)
    log = own_run / "run.jsonl"
    log.write_text(re.sub(r', "code": "\w+"', "", log.read_text()))  # as older versions wrote it
    assert "code" not in note_on_conditions(start, state, ["cpu:0"])[0]
    said = run("model_train.py", "-m", own_run, "-l", 0.01, "-n", 4, "--hdf5", made_hdf5, "-o",
               own_run, TF_ENABLE_ONEDNN_OPTS="0", OMP_NUM_THREADS="1").stdout  # fmt: skip
    assert "(OMP_NUM_THREADS None, now '1'; TF_ENABLE_ONEDNN_OPTS '1', now '0')" in said
    for damaged in (
        '{"event": "start", "conditions": []}\n{"epoch": 3}',
        "[" * 100_000,
        "[3]",
        "\0",
    ):
        (own_run / "run.jsonl").write_text(damaged)
        assert note_on_conditions(start, state, ["cpu:0"]) == []
