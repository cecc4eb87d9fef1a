"""The archive is downloaded on request, continued, checked and unpacked."""

import hashlib
import io
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from drift_promoter.genome import archive
from drift_promoter.genome.benchmark import NAMES

WEIGHTS = np.random.default_rng(0).bytes(4 << 20)


def packed(names=NAMES) -> bytes:
    """An archive with files of these names in folders, among others that are not to be unpacked."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:

        def add(name: str, content: bytes, **more: object) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in more.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))

        add("data/best.sei.model.pth.tar", WEIGHTS)
        add(f"data/{NAMES[1]}", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(f"data/._{NAMES[0]}", b"not this")
        for name in names:
            add(f"../../data/promoter_design/{name}", f"content of {name}".encode())
    return out.getvalue()


class Server(ThreadingHTTPServer):
    """Sends `content`; of each answer `most` bytes, and then it waits for `go_on` or hangs up."""

    daemon_threads = True
    content = b""
    most = 1 << 40
    stalls = False
    ranges = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.go_on = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.asked.append(asked)
        begin = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if server.ranges else 0
        if begin >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if server.ranges else 200)
        self.send_header("Content-Length", str(len(server.content) - begin))
        self.end_headers()
        self.wfile.write(server.content[begin : begin + server.most])
        self.wfile.flush()
        if server.stalls:
            server.go_on.wait(60)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    with Server() as running:
        running.content = packed()
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(archive, "URL", f"http://127.0.0.1:{running.server_port}/data.tar.gz")
        monkeypatch.setattr(archive, "SIZE", len(running.content))
        monkeypatch.setattr(archive, "MD5", hashlib.md5(running.content).hexdigest())
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield running
        running.go_on.set()
        running.shutdown()


def assert_complete(folder) -> None:
    assert {path.name for path in folder.iterdir()} == {*NAMES, "data.tar.gz", "data.tar.gz.lock"}
    for name in NAMES:
        assert (folder / name).read_text() == f"content of {name}"


def test_only_the_files_of_the_benchmark_are_unpacked_and_nothing_outside_the_folder(server, tmp_path):
    archive.download(tmp_path / "a" / "b")
    assert_complete(tmp_path / "a" / "b")
    assert [path.name for path in tmp_path.rglob("*") if path.is_dir()] == ["a", "b"]
    assert server.asked == ["bytes=0-"]


def test_nothing_is_downloaded_twice(server, tmp_path):
    archive.download(tmp_path)
    archive.download(tmp_path)
    (tmp_path / NAMES[2]).unlink()
    archive.download(tmp_path)
    assert_complete(tmp_path)
    assert len(server.asked) == 1


def test_a_connection_that_breaks_is_continued(server, tmp_path):
    server.most = 1_500_000
    archive.download(tmp_path)
    assert_complete(tmp_path)
    assert server.asked == ["bytes=0-", "bytes=1500000-", "bytes=3000000-"]


def test_a_server_that_sends_no_more_is_named_and_a_later_call_continues(server, tmp_path):
    whole = server.content
    server.content, server.most = whole[:2_000_000], 2_000_000
    with pytest.raises(
        ConnectionError, match=r"sends no more.*has 2,000,000 of [\d,]+ bytes, run again"
    ) as caught:
        archive.download(tmp_path)
    assert "\n" not in str(caught.value)
    server.content, server.most = whole, 1 << 40
    archive.download(tmp_path)
    assert_complete(tmp_path)
    assert server.asked[-1] == "bytes=2000000-"


def test_a_server_without_ranges_starts_again(server, tmp_path):
    (tmp_path / "data.tar.gz.part").write_bytes(b"x" * 1000)
    server.ranges = False
    archive.download(tmp_path)
    assert_complete(tmp_path)


def test_a_server_that_is_not_there(server, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "URL", "http://127.0.0.1:1/data.tar.gz")
    with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1/data\.tar\.gz sends no more \(URLError"):
        archive.download(tmp_path)


def test_a_killed_download_continues(server, tmp_path):
    server.most, server.stalls = 2_500_000, True
    script = tmp_path / "download.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom drift_promoter.genome import archive\n"
        "archive.URL, archive.SIZE = sys.argv[1], int(sys.argv[2])\n"
        "archive.download(Path(sys.argv[3]))\n"
    )
    folder = tmp_path / "data"
    command = [sys.executable, str(script), archive.URL, str(archive.SIZE), str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    part = folder / "data.tar.gz.part"
    until = time.monotonic() + 60
    while not part.exists() or not part.stat().st_size:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    have = part.stat().st_size
    assert 0 < have < archive.SIZE
    server.most, server.stalls = 1 << 40, False
    archive.download(folder)
    assert_complete(folder)
    assert server.asked == ["bytes=0-", f"bytes={have}-"]


def test_what_does_not_have_the_md5_is_removed(server, tmp_path):
    server.content = server.content[:1000] + b"?" + server.content[1001:]
    with pytest.raises(ValueError, match="does not have md5"):
        archive.download(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["data.tar.gz.lock"]


@pytest.mark.parametrize("size", [0, 10, 1000, 4_190_000])
def test_a_damaged_archive_of_ones_own_is_named(server, tmp_path, size):
    (tmp_path / "data.tar.gz").write_bytes(server.content[:size])
    with pytest.raises(ValueError, match=r"data\.tar\.gz: damaged \(.*\); remove it and run again"):
        archive.download(tmp_path)
    assert not [name for name in NAMES if (tmp_path / name).exists()]


def test_an_archive_of_something_else(server, tmp_path):
    (tmp_path / "data.tar.gz").write_bytes(packed(NAMES[1:]))
    with pytest.raises(ValueError, match=f"holds no {NAMES[0]}$"):
        archive.download(tmp_path)


def test_the_command_line(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["archive", str(tmp_path)])
    archive.main()
    assert str(tmp_path) in capsys.readouterr().out
    assert_complete(tmp_path)
    (tmp_path / NAMES[0]).unlink()
    (tmp_path / "data.tar.gz").write_bytes(b"")
    with pytest.raises(SystemExit) as caught:
        archive.main()
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {tmp_path}/data.tar.gz: damaged")
