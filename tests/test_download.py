"""--download against a server on this machine that can break, lie and refuse."""

import hashlib
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT, zip_folder

import build_dataset
from config import setup_config
from pipeline.dataset.download import TRIES, download
from pipeline.errors import UserError
from pipeline.io.files import file_lock


def reset(connection: socket.socket) -> None:
    """Close as a peer that crashed does, not with an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Server(ThreadingHTTPServer):
    """Serves ``contents`` at every path, and notes what was asked for."""

    contents = b""
    break_after: int | None = None
    """Close the connection after so many bytes of an answer."""
    answer = b""
    """Sent in place of any other, where it is not empty."""
    knows_ranges = True
    resets = False
    stalls = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.go_on = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/tiny-imagenet-200.zip"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        if self.server.answer:
            self.wfile.write(self.server.answer)
            return
        if self.path.endswith(".none"):
            self.send_error(404)
            return
        start = int(asked.split("=")[1].rstrip("-")) if asked and self.server.knows_ranges else 0
        if start >= len(self.server.contents):
            self.send_error(416)
            return
        body = self.server.contents[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            total = len(self.server.contents)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        self.wfile.write(body[: self.server.break_after])
        if self.server.stalls:
            self.wfile.flush()
            self.server.go_on.wait(timeout=30)
        if self.server.resets and self.server.break_after < len(body):
            self.wfile.flush()
            time.sleep(0.2)
            reset(self.connection)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(made_data: Path, tmp_path: Path) -> Iterator[Server]:
    with Server() as made:
        made.contents = zip_folder(made_data, tmp_path / "served.zip").read_bytes()
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture(autouse=True)
def near_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that answers at once, through no proxy."""
    monkeypatch.setattr("pipeline.dataset.download.PAUSE_S", 0)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tiny-imagenet-200.zip"


def fetch(server: Server, target: Path) -> None:
    contents = server.contents
    download(server.url, target, len(contents), hashlib.md5(contents).hexdigest())


def test_script_downloads_and_builds(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(setup_config, "DOWNLOAD_URL", server.url)
    monkeypatch.setattr(setup_config, "DOWNLOAD_BYTES", len(server.contents))
    monkeypatch.setattr(setup_config, "DOWNLOAD_MD5", hashlib.md5(server.contents).hexdigest())
    build_dataset.main(["--download", "-d", str(target)])
    assert target.read_bytes() == server.contents
    assert (target.parent / "hdf5" / "train.hdf5").is_file()
    assert "48 train" in capsys.readouterr().out
    build_dataset.main(["--download", "-d", str(target.with_suffix("")), "--overwrite"])
    assert server.asked == [None]


@pytest.mark.parametrize("resets", [False, True])
def test_broken_transfer_resumes_where_it_broke(resets: bool, server: Server, target: Path) -> None:
    server.resets = resets
    server.break_after = len(server.contents) // 3 + 1
    fetch(server, target)
    assert target.read_bytes() == server.contents
    if not resets:  # a reset may take with it some of what was sent
        assert server.asked == [None, *(f"bytes={k * server.break_after}-" for k in (1, 2))]
    assert len(server.asked) > 2
    assert not list(target.parent.glob("*.part"))


def test_server_without_ranges_starts_again(server: Server, target: Path) -> None:
    server.knows_ranges = False
    server.break_after = 1000
    with pytest.raises(UserError, match="run the same command again"):
        fetch(server, target)
    assert len(server.asked) == TRIES
    assert not target.exists()
    server.break_after = None
    fetch(server, target)
    assert target.read_bytes() == server.contents


def test_wrong_contents_are_deleted(server: Server, target: Path) -> None:
    right = hashlib.md5(server.contents).hexdigest()
    server.contents = server.contents[:-1] + b"?"
    with pytest.raises(UserError, match="not the official archive"):
        download(server.url, target, len(server.contents), right)
    assert [path.name for path in target.parent.iterdir()] == [f"{target.name}.lock"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 416 Never\r\n\r\n",
        *(
            b"HTTP/1.1 302 Found\r\nLocation: " + where + b"\r\n\r\n"
            for where in (b"", b"/again", b"file:///etc/passwd", b"http://[::1", b"x://\x01",
                          b"http://" + b"a" * 99, b"http://localhost:99999/")
        ),
        b"HTTP/1.1 302 Found\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>your password, please</html>",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot found",
        b"HTTP/1.1 206 OK\r\nContent-Range: bytes 0-9/10\r\n\r\n0123456789",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n",
        b"HTTP/1.1 404 \x1b[2J\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)  # fmt: skip
def test_what_is_no_archive_is_refused(answer: bytes, server: Server, target: Path) -> None:
    server.answer = answer
    target.parent.mkdir()
    part = target.with_name(f"{target.name}.part")
    part.write_bytes(server.contents[:10])
    with pytest.raises(UserError, match="or fetch the file in another way") as refusal:
        fetch(server, target)
    assert "\n" not in str(refusal.value)
    assert len(server.asked) <= 3 * TRIES  # with redirects
    assert not target.exists()
    server.answer = b""
    fetch(server, target)
    assert target.read_bytes() == server.contents


def test_folder_is_refused_before_anything_is_fetched(server: Server, target: Path) -> None:
    target.mkdir(parents=True)
    with pytest.raises(UserError, match="move it away first"):
        fetch(server, target)
    assert server.asked == []


def test_part_longer_than_the_file_starts_again(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name(f"{target.name}.part").write_bytes(server.contents + b"more")
    fetch(server, target)
    assert target.read_bytes() == server.contents


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_download_keeps_what_came(
    number: int, status: int, server: Server, target: Path
) -> None:
    server.stalls, server.break_after = True, len(server.contents) // 2
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from pipeline.command_line import run_script\n"
        "from pipeline.dataset.download import download\n"
        "run_script(lambda _: download(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), ''))\n"
    )
    command = [sys.executable, "-c", code, server.url, target, str(len(server.contents))]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        part = target.with_name(f"{target.name}.part")
        while not (part.exists() and part.stat().st_size):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(timeout=30) == status
        assert "Traceback" not in process.stderr.read()
    server.go_on.set()
    assert not target.exists()
    server.stalls, server.break_after = False, None
    fetch(server, target)
    assert target.read_bytes() == server.contents
    assert server.asked[1].startswith("bytes=")


def test_refusal_is_not_tried_again(server: Server, target: Path) -> None:
    with pytest.raises(UserError, match="404"):
        download(server.url.replace(".zip", ".none"), target, len(server.contents), "0")
    assert len(server.asked) == 1


def test_two_downloads_of_one_file(server: Server, target: Path) -> None:
    target.parent.mkdir()
    lock = file_lock(target.with_name(f"{target.name}.lock"))
    with lock, pytest.raises(UserError, match="another process"):
        fetch(server, target)


def test_unreachable_server(target: Path) -> None:
    with Server() as closed:
        url = closed.url
    with pytest.raises(UserError, match="cannot fetch"):
        download(url, target, 10, "0")


def test_foreign_file_is_not_replaced(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"mine")
    with pytest.raises(UserError, match="move it away"):
        fetch(server, target)
    assert target.read_bytes() == b"mine"
