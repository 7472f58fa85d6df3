"""Fetch the official archive: checked, and resumed where a transfer broke."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path

from progressbar import ProgressBar

from pipeline.errors import UserError, first_line
from pipeline.io.files import explain_write_errors, file_lock
from pipeline.progress import progress_bar

CHUNK = 2**18
TIMEOUT_S = 30
TRIES = 5
PAUSE_S = 0.5
"""Before the second try; longer before each later one."""


def download(url: str, path: Path, size: int, md5: str) -> None:
    """Download ``url`` to ``path`` and verify it; on failure ``path`` does not exist.

    A partial download is kept beside it with the suffix ``.part``: a later call resumes it if the
    server supports HTTP range requests, and starts again otherwise.

    Args:
        url: HTTP address.
        path: Where to write; a file already there with the right contents is left alone.
        size: Bytes that the file must have.
        md5: Hexadecimal digest that it must have.

    Raises:
        UserError: The server cannot be reached, the transfer keeps breaking, or what arrived is
            not the expected file.
    """
    if path.exists():
        if path.is_file() and _is_expected(path, size, md5):
            return
        raise UserError(f"{path} is there and is not the official archive; move it away first")
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path.with_name(f"{path.name}.lock")):
        _fetch(url, path, size, md5)


def _fetch(url: str, path: Path, size: int, md5: str) -> None:
    part = path.with_name(f"{path.name}.part")
    with explain_write_errors(part):
        part.touch()
    with progress_bar("download", size) as bar:
        for attempt in range(1, TRIES + 1):
            try:
                _fetch_rest(url, part, size, bar)
                break
            except (OSError, http.client.HTTPException, ValueError) as error:
                refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
                if attempt == TRIES or refused or isinstance(error, ValueError):
                    raise UserError(
                        f"cannot fetch {url}: {first_line(error)}; run the same command again to "
                        f"resume from the {part.stat().st_size:,} bytes in {part}, or fetch the "
                        "file in another way and name it with -d"
                    ) from error
                time.sleep(PAUSE_S * attempt)
    if not _is_expected(part, size, md5):
        part.unlink()
        raise UserError(
            f"what {url} sent is not the official archive (wrong size or md5) and was deleted; "
            "run the same command again, or fetch the file in another way and name it with -d"
        )
    part.replace(path)


def _fetch_rest(url: str, part: Path, size: int, bar: ProgressBar) -> None:
    have = part.stat().st_size
    if have == size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            part.write_bytes(b"")  # longer than the file there: the next try starts again
            raise OSError(f"the server has no {size:,} bytes") from error
        raise
    with response:
        have = have if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0
        _check_answer(response.headers, have, size)
        with explain_write_errors(part):
            file = part.open("ab" if have else "wb")
        with file:
            while have <= size and (chunk := response.read1(CHUNK)):
                with explain_write_errors(part):
                    file.write(chunk)
                have += len(chunk)
                bar.update(min(have, size))
    if have < size:
        raise OSError(f"the transfer broke after {have:,} of {size:,} bytes")


def _check_answer(headers: Message, start: int, size: int) -> None:
    """Check, as far as ``headers`` tell, that the archive follows from byte ``start`` on.

    Raises:
        ValueError: It is another file, as the page of a proxy that wants a password.
    """
    kind = headers.get_content_type()
    if headers["Content-Type"] and kind.startswith("text/"):
        raise ValueError(f"the server sent {kind}, not an archive, perhaps a login or proxy page")
    right = f"bytes {start}-{size - 1}/{size}" if start else f"{size}"
    given = headers["Content-Range" if start else "Content-Length"]
    if given not in (None, right):
        raise ValueError(f"it is not the official archive, or not as asked: {given}, not {right}")


def _is_expected(path: Path, size: int, md5: str) -> bool:
    if path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        return digest.hexdigest() == md5  # in FIPS mode too
