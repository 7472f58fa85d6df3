"""Full memory of a device, which no CPU here can have: made up, in the words of the libraries."""

import subprocess
import sys

import pytest
from conftest import ROOT

WHERE = {
    "fit": "fail()",
    "load a checkpoint": (
        "from pipeline.backend import import_keras; import_keras().saving.load_model = fail;"
        "from pipeline.run.checkpoint import load_model; load_model(RELEASED_MODEL)"
    ),
    "begin": (
        "import os, types; os.environ['CUDA_VISIBLE_DEVICES'] = '0';"
        "sys.modules['keras'] = types.SimpleNamespace(ops=types.SimpleNamespace(zeros=fail));"
        "from pipeline.backend import import_keras; import_keras()"
    ),
}


@pytest.mark.parametrize(
    ("error", "explained"),
    [
        ("RuntimeError('RESOURCE_EXHAUSTED: Out of memory while trying to allocate')", True),
        ("type('ResourceExhaustedError', (Exception,), {})('OOM when allocating')", True),
        ("MemoryError()", True),
        ("RuntimeError('INTERNAL: a fault')", False),
    ],
)
@pytest.mark.parametrize("place", WHERE)
def test_full_memory_is_one_line(place: str, error: str, explained: bool) -> None:
    script = f"""
import sys
from config.setup_config import RELEASED_MODEL
from pipeline.command_line import run_script
def fail(*arguments, **settings):
    raise {error}
def main(arguments):
    {WHERE[place]}
run_script(main)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    line = "error: the memory of this machine or its device is full; "
    assert done.stderr.startswith(line) == explained, done.stderr
    if explained:
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    else:
        assert "a fault" in done.stderr
