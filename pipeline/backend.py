"""Import Keras and its backend: quietly, set up for speed, with an explanation where that fails.

A host's environment variables and configuration files for libraries could change results or
figures, or stop a run. The scripts ignore them, except for devices, threads and compilation caches.
"""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from pipeline.errors import UserError, first_line, is_out_of_memory
from pipeline.printing import silence

CPU_FACTS = Path("/proc/cpuinfo")
BFLOAT16_INSTRUCTIONS = {"avx512_bf16", "amx_bf16"}
"""Of x86. Without one of them a CPU computes in bfloat16 many times slower than in float32."""
BFLOAT16_CAPABILITY = (8, 0)
"""The lowest compute capability of NVIDIA GPUs with bfloat16: Ampere's."""
BACKENDS = ("tensorflow", "jax")
BACKEND_VARIABLES = re.compile("JAX_|XLA_|CUDA_|TF_(?!CLI_|VAR_)")
"""Begins a variable that can keep a backend from starting; TF_CLI_ and TF_VAR_ are Terraform's."""
HOST_SETTINGS = re.compile(
    "KERAS_(?!BACKEND)|(TF_SET_)?ONEDNN_|DNNL_|TF_XLA_FLAGS"
    "|JAX_(?!PLATFORM|(COMPILATION|PERSISTENT)_CACHE|COORDINATOR|LOCAL_|NUM_CPU|CPU_|LOG)"
    "|MPLBACKEND|OPENCV_(?!IO_MAX_IMAGE_PIXELS|LOG_LEVEL)|HDF5_(?!USE_FILE_LOCKING)|NPY_|NUMPY_"
)
"""Begins a variable that a script drops."""


def ignore_host_settings() -> None:
    """Drop the host's settings for libraries, before any is imported."""
    for name in filter(HOST_SETTINGS.match, list(os.environ)):
        del os.environ[name]
    # an empty file that cannot be written, instead of those in the home folder
    os.environ["KERAS_HOME"] = os.environ["MATPLOTLIBRC"] = os.devnull
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it reports on its cache of fonts


def import_keras() -> ModuleType:
    """Import Keras on the backend that KERAS_BACKEND names, TensorFlow by default.

    oneDNN's kernels are not TensorFlow's default on every CPU, and must be asked for before
    the import.

    Raises:
        UserError: The backend is unknown here, not installed, or does not start.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend not in BACKENDS:
        raise UserError(f"KERAS_BACKEND is {backend!r}; set it to {' or '.join(BACKENDS)}")
    if backend == "jax" and os.environ.get("XLA_FLAGS"):
        _check_xla_flags()
    steering = [
        f"{name}={value}" for name, value in os.environ.items() if BACKEND_VARIABLES.match(name)
    ]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    if backend != "tensorflow":
        sys.meta_path.insert(0, _WithoutTensorFlow())
    try:
        with silence(1, 2):
            import keras

            _ = keras.ops.zeros(1)  # TensorFlow reports its devices when it is first used
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed, and KERAS_BACKEND={backend} needs it; "
            f"pip install keras {backend}, or choose the other backend"
        ) from error
    except Exception as error:
        if not steering or is_out_of_memory(error):
            raise
        raise UserError(
            f"{backend} does not start here ({first_line(error)}); "
            f"correct or unset {', '.join(steering)}"
        ) from error
    return keras


def _check_xla_flags() -> None:
    """Try the environment's XLA_FLAGS in another process: XLA aborts on a flag it does not know."""
    start = "import jax; jax.numpy.zeros(1)"
    on_cpu = {**os.environ, "JAX_PLATFORMS": "cpu"}  # it would take most of a GPU's memory
    tried = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, env=on_cpu
    )
    if fatal := re.search(r"^F\d.*?\] (.*)", tried.stderr, re.MULTILINE):
        raise UserError(
            f"JAX does not take XLA_FLAGS={os.environ['XLA_FLAGS']} ({fatal[1]}); "
            "correct or unset it"
        )


class _WithoutTensorFlow:
    """Hides an installed TensorFlow: on JAX too, ``fit`` imports it for type checks.

    Without it, training a thin network takes 490 MB and 5 s less.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "tensorflow":
            raise ModuleNotFoundError("TensorFlow is not used with this backend", name=name)


def has_bfloat16() -> bool:
    """Return whether the backend's first GPU, or else the CPU, computes fast in bfloat16.

    A CPU's are detected only on Linux and only for TensorFlow. On JAX every process asks the first
    device of the whole group, so that all agree.
    """
    import keras  # which keras.json may have told its backend, in a notebook

    if keras.backend.backend() == "jax":
        import jax

        capability = getattr(jax.devices()[0], "compute_capability", "")  # as "9.0"; AMD: "gfx90a"
        numbers = re.fullmatch(r"(\d+)\.(\d+)", str(capability))
        return bool(numbers) and tuple(map(int, numbers.groups())) >= BFLOAT16_CAPABILITY
    import tensorflow as tf

    if gpus := tf.config.list_physical_devices("GPU"):
        details = tf.config.experimental.get_device_details(gpus[0])
        return details.get("compute_capability", (0, 0)) >= BFLOAT16_CAPABILITY
    return not BFLOAT16_INSTRUCTIONS.isdisjoint(cpu_facts()[1])


def cores() -> int:
    """Return how many CPU cores this process may use, by its affinity where the system has it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_facts() -> tuple[str, set[str]]:
    """Return the CPU's name and the names of its instruction sets; empty where not Linux."""
    text = CPU_FACTS.read_text() if CPU_FACTS.is_file() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return name[1] if name else "", set(text.split())
