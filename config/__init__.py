"""Every value a user may want to change, checked as it is read."""

import sys
import traceback

from pipeline.recipe import check_settings, explain_missing_setting

try:
    from config import setup_config

    check_settings(vars(setup_config))
    setup_config.__getattr__ = explain_missing_setting
except Exception as error:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if "setup_config" in frame.filename]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    where = f"config/setup_config.py, line {line}" if line else "config/setup_config.py"
    sys.stderr.write(f"error: {where}: {error}; correct it\n")
    sys.exit(2)
