"""TensorFlow and JAX train alike: the losses of an epoch, and what the callbacks do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Run


def losses(backend: str, weights: Path, hdf5: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "first_epoch.py", weights, hdf5],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_first_epochs_losses_agree(made_hdf5: Path, tmp_path: Path) -> None:
    weights = tmp_path / "initial.weights.h5"
    on_tensorflow, on_jax = (losses(b, weights, made_hdf5) for b in ("tensorflow", "jax"))
    assert on_jax == pytest.approx(on_tensorflow, rel=1e-4)  # 1e-6 here


def test_callbacks_work_on_jax_too(jax_settings: dict[str, str]) -> None:
    subprocess.run(
        # but one that needs a run on TensorFlow, to measure what another test measures too
        [sys.executable, "-m", "pytest", ROOT / "tests" / "test_callbacks.py",
         "-k", "not checkpoints_hold"],
        env={**os.environ, **jax_settings},
        check=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("variable", "value"), [("XLA_FLAGS", "--nonsense"), ("JAX_PLATFORMS", "cuda")]
)
def test_backend_that_the_environment_keeps_from_starting(
    variable: str, value: str, run: Run, tmp_path: Path
) -> None:
    done = run("view_model.py", "-r", "demo", "-o", tmp_path / "x.png", status=2, backend="jax",
               **{variable: value})  # fmt: skip
    assert "correct or unset" in done.stderr
    assert f"{variable}={value}" in done.stderr
