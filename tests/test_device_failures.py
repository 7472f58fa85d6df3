"""Full memory of a device, which no CPU here can have: made up, in the words of the libraries."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from pipeline.errors import is_out_of_memory

ERRORS = {
    "RuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate')": True,
    "type('ResourceExhaustedError', (Exception,), {})('OOM when allocating')": True,
    "MemoryError()": True,
    "RuntimeError('INTERNAL: a fault')": False,
}
WHERE = {
    "anywhere": "fail()",
    "load a checkpoint": """
    from pipeline.backend import import_keras
    import_keras().saving.load_model = fail
    from pipeline.run.checkpoint import load_model
    load_model(RELEASED_MODEL)""",
    "import the backend": """
    import types
    sys.modules["keras"] = types.SimpleNamespace(ops=types.SimpleNamespace(zeros=fail))
    from pipeline.backend import import_keras
    import_keras()""",
    "one of two processes": """
    from contextlib import nullcontext
    from pipeline.run import distributed
    distributed.rendezvous = lambda *meeting: nullcontext()
    distributed.ProcessGroup._initialize_jax = lambda group: None
    with distributed.ProcessGroup(2, 0, ("localhost", 1)).connected(""):
        fail()""",
}


@pytest.mark.parametrize("error", ERRORS)
def test_full_memory_is_told_from_other_errors(error: str) -> None:
    assert is_out_of_memory(eval(error)) == ERRORS[error]


@pytest.mark.parametrize("place", WHERE)
def test_full_memory_is_one_line(place: str) -> None:
    script = f"""
import sys
from config.setup_config import RELEASED_MODEL
from pipeline.command_line import run_script
def fail(*arguments, **settings):
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
def main(arguments):
    {WHERE[place]}
run_script(main)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("error: this machine or its device is out of memory; ")
