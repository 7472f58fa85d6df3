"""A run that was stopped and resumed is the run that was never stopped, to the bit."""

from pathlib import Path

import pytest
from conftest import Run


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
@pytest.mark.parametrize("recipe", ["thin-published", "thin-best", "thin-quick"])
def test_resumed_run_writes_the_same_checkpoints(
    recipe: str, backend: str, made_hdf5: Path, tmp_path: Path, run: Run
) -> None:
    """Checkpoints hold weights, EMA, optimizer state and history, and no time or path."""
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    hdf5 = ("--hdf5", made_hdf5)
    run("model_train.py", "-r", recipe, *hdf5, "-o", straight, backend=backend)
    start = next(straight.glob("epoch-001-*"))
    run("model_train.py", "-m", start, "-e", 1, "-n", 2, *hdf5, "-o", resumed, backend=backend)
    run("model_train.py", "-m", resumed, "-n", 3, *hdf5, "-o", resumed, backend=backend)
    for name in ("epoch-002-*", "epoch-003-*", "metric_values.json"):
        ours, theirs = next(resumed.glob(name)), next(straight.glob(name))
        assert ours.name == theirs.name
        assert ours.read_bytes() == theirs.read_bytes()
