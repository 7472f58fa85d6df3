"""Import Keras and its backend: quietly, set up for speed, and explained where that fails."""

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from pipeline.errors import UserError

CPU_FACTS = Path("/proc/cpuinfo")
BFLOAT16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}
"""Of x86. Without one of them a CPU computes in bfloat16 many times slower than in float32."""
BFLOAT16_CAPABILITY = (8, 0)
"""Of an NVIDIA GPU, from Ampere on."""
PACKAGES = {"tensorflow": "tensorflow", "jax": "jax"}


def import_keras() -> ModuleType:
    """Import Keras on the backend that KERAS_BACKEND names, TensorFlow by default.

    oneDNN's kernels are not TensorFlow's default on every CPU, and must be asked for before
    the import.

    Raises:
        UserError: The backend is unknown here, or not installed.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend not in PACKAGES:
        raise UserError(f"KERAS_BACKEND is {backend!r}; set it to {' or '.join(PACKAGES)}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if backend != "tensorflow":
        sys.meta_path.insert(0, _WithoutTensorFlow())
    try:
        with silence():
            keras = importlib.import_module("keras")
            _ = keras.ops.zeros(1)  # TensorFlow reports its devices when it is first used
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, and KERAS_BACKEND={backend} needs it; "
            f"pip install keras {PACKAGES[backend]}, or choose the other backend"
        ) from error
    return keras


class _WithoutTensorFlow:
    """Hides an installed TensorFlow, which ``fit`` imports on JAX too, for type checks alone.

    Training a thin network takes 490 MB and 5 s less without it.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "tensorflow":
            raise ModuleNotFoundError("TensorFlow is not used with this backend", name=name)


def has_bfloat16() -> bool:
    """Tell whether TensorFlow's device, its first GPU or else the CPU, has bfloat16 instructions.

    A CPU's are read on Linux alone. On JAX there are taken to be none, so that the processes of a
    run, which may be on unlike machines, agree.
    """
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return False
    devices = importlib.import_module("tensorflow").config
    for gpu in devices.list_physical_devices("GPU"):
        details = devices.experimental.get_device_details(gpu)
        return details.get("compute_capability", (0, 0)) >= BFLOAT16_CAPABILITY
    flags = CPU_FACTS.read_text().split() if CPU_FACTS.is_file() else []
    return not BFLOAT16_INSTRUCTIONS.isdisjoint(flags)


@contextmanager
def silence() -> Iterator[None]:
    """Hold back what libraries write past Python to the terminal; show it if they fail."""
    sys.stdout.flush()
    sys.stderr.flush()
    outputs = {number: os.dup(number) for number in (1, 2)}
    with tempfile.TemporaryFile() as noise:
        for number in outputs:
            os.dup2(noise.fileno(), number)
        try:
            yield
        except ModuleNotFoundError:
            raise
        except BaseException:
            noise.seek(0)
            os.write(outputs[2], noise.read())
            raise
        finally:
            for number, output in outputs.items():
                os.dup2(output, number)
                os.close(output)
