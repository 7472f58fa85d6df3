"""``run.jsonl``: what differs between equal runs, such as times, speeds and points of resuming."""

import json
import time
from pathlib import Path
from typing import Any

from pipeline.files import reported_as_user_errors, written_whole

LOG = "run.jsonl"


class RunLog:
    """Appends one JSON object a line to ``folder/run.jsonl``.

    A line that a killed run left unfinished is dropped.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG
        if self._path.exists():
            text = self._path.read_text()
            if not text.endswith("\n"):
                with written_whole(self._path) as path:
                    path.write_text(text[: text.rfind("\n") + 1])

    def write(self, event: str, **values: Any) -> None:
        """Add an event with the time in seconds since 1970."""
        with reported_as_user_errors(self._path), self._path.open("a") as file:
            file.write(json.dumps({"event": event, "time": round(time.time(), 3), **values}) + "\n")
