"""What a run's numbers depend on besides its settings: threads, processor, versions.

Resuming is exact if they are equal. They are in ``run.jsonl`` and not in the checkpoints, because
equal runs write equal checkpoints.
"""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import keras
import numpy as np

from pipeline.backend import cores, cpu_facts
from pipeline.run.distributed import code_hash
from pipeline.run.output_folder import logged_events
from pipeline.run.state import RunState

NUMERICS_VARIABLES = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_ENABLE_ONEDNN_OPTS", "NPROC",
            "XLA_FLAGS")  # fmt: skip
"""Environment variables that change the order of summation."""
INSTRUCTIONS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16")
"""Of x86; libraries choose kernels by them."""


def conditions(devices: list[str]) -> Mapping[str, object]:
    """Return the present conditions; ``devices`` are those that train."""
    name, flags = cpu_facts()
    backend = keras.backend.backend()
    return {
        "cores": cores(),
        "cpu": " ".join([name or platform.machine(), *(f for f in INSTRUCTIONS if f in flags)]),
        "devices": devices,
        backend: sys.modules[backend].__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "code": code_hash(),
        **{name: os.environ[name] for name in NUMERICS_VARIABLES if os.environ.get(name)},
    }


def note_on_conditions(checkpoint: Path, state: RunState, devices: list[str]) -> list[str]:
    """Return a line, or none, on what has changed since ``checkpoint`` was trained."""
    now, then, trained = conditions(devices), None, None
    for event in logged_events(checkpoint):
        if event.get("event") == "start":
            then = event.get("conditions")
        elif event.get("epoch") == state.epoch:
            trained = then
    if not isinstance(trained, dict) or state.backend not in now:
        return []
    trained = {"code": now["code"], **trained}  # older logs lack it
    changed = [
        f"{name} {trained.get(name)!r}, now {now.get(name)!r}"
        for name in (*now, *(name for name in NUMERICS_VARIABLES if name not in now))
        if trained.get(name) != now.get(name)
    ]
    what = "trained so far under other conditions, so the last digits may differ"
    return [f"note: {what} ({'; '.join(changed)})"] if changed else []
