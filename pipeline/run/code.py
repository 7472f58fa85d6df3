"""What tells versions of this project apart."""

import hashlib

from pipeline.command_line import SCRIPTS


def code_hash() -> str:
    """Return a hash of ``pipeline/`` and the script that trains, 8 hexadecimal digits."""
    files = sorted([SCRIPTS / "model_train.py", *(SCRIPTS / "pipeline").rglob("*.py")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
