"""What a recipe leaves to the machine: bfloat16 where the device has instructions for it."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline import backend
from pipeline.recipe import Network, Recipe

RECIPE = Recipe(epochs=1, batch_size=8, network=Network(dtype="auto"))


def with_dtype(dtype: str) -> Recipe:
    return RECIPE.replaced({"network.dtype": dtype})


@pytest.mark.parametrize(
    ("facts", "dtype"),
    [
        ("flags\t: fpu avx2 avx512f avx512_bf16 sha_ni\n", "mixed_bfloat16"),
        ("flags\t: fpu avx512f amx_bf16\n", "mixed_bfloat16"),
        ("flags\t: fpu avx2 avx512f\n", "float32"),
        ("", "float32"),
        (None, "float32"),
    ],
)
def test_the_machine_decides_where_the_recipe_leaves_it(
    facts: str | None, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras.backend.backend", lambda: "tensorflow")
    monkeypatch.setattr(backend, "CPU_FACTS", tmp_path / "cpuinfo")
    if facts is not None:
        backend.CPU_FACTS.write_text(facts)
    assert RECIPE.for_this_machine() == with_dtype(dtype)
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    assert RECIPE.for_this_machine().network.dtype == "float32"
    settled = with_dtype("mixed_bfloat16")
    assert settled.for_this_machine() is settled


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), "float32"), ((8, 0), "mixed_bfloat16"), (None, "float32")]
)
def test_tensorflows_gpu_decides_where_there_is_one(
    capability: tuple[int, int] | None, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU's instructions count nothing then; on no real GPU."""
    devices = pytest.importorskip("tensorflow").config
    details = {} if capability is None else {"compute_capability": capability}
    monkeypatch.setattr("keras.backend.backend", lambda: "tensorflow")
    monkeypatch.setattr(devices, "list_physical_devices", lambda kind: [kind])
    monkeypatch.setattr(devices.experimental, "get_device_details", lambda gpu: details)
    for facts in ("flags\t: amx_bf16\n", "flags\t: avx2\n"):
        monkeypatch.setattr(Path, "read_text", lambda path, facts=facts: facts)
        assert RECIPE.for_this_machine().network.dtype == dtype


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [("7.5", "float32"), ("9.0", "mixed_bfloat16"), ("gfx90a", "float32"), (None, "float32")],
)
def test_jaxs_first_device_decides(
    capability: str | None, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the form that JAX's GPUs give it in; on no real GPU. An AMD GPU's is a name."""
    jax = pytest.importorskip("jax")
    given = {} if capability is None else {"compute_capability": capability}
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(**given)])
    assert RECIPE.for_this_machine().network.dtype == dtype


@pytest.mark.parametrize("begun_in", ["float32", "mixed_bfloat16"])
def test_a_run_goes_on_as_it_began_wherever_it_goes_on(begun_in: str) -> None:
    stored = with_dtype(begun_in)
    assert stored.differences(RECIPE) == []
    assert stored.differences(replace(RECIPE, epochs=2)) == ["epochs 1, now 2"]


def test_a_recipe_that_names_another_precision_is_another_recipe() -> None:
    stored = with_dtype("float32")
    assert stored.differences(with_dtype("mixed_bfloat16")) == [
        "network.dtype float32, now mixed_bfloat16"
    ]
