"""Dry runs of `make data-*`, and fetching one file from a local server."""

from __future__ import annotations

import base64
import hashlib
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.commands import REPOSITORY


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], cwd=REPOSITORY, capture_output=True, text=True)


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
@pytest.mark.parametrize(
    "name, facts",
    [
        ("yfcc4k", ("4,536", "0.5 GB", "mediafire.com", "Creative Commons")),
        ("im2gps3k", ("2,997", "477 MB", "mediafire.com", "no licence")),
        ("mp16", ("4.72 million", "370 GB", "staticflickr.com", "Creative Commons", "GPL-3.0")),
    ],
)
def test_a_dry_run_names_source_size_licence_and_folder(tmp_path: Path, name: str, facts: tuple[str, ...]) -> None:
    done = run("make", f"data-{name}", "DRY_RUN=1", f"{name.upper()}_ROOT={tmp_path}/shards")
    assert not done.returncode, done.stderr
    assert all(word in done.stdout for word in (*facts, f"{tmp_path}/shards"))
    assert not list(tmp_path.iterdir())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server on tmp_path/www that knows no ranges; yields its address."""
    (tmp_path / "www").mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="no curl")


def fetch(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(REPOSITORY / "tools" / "fetch.sh", *arguments)


@needs_curl
def test_a_file_is_fetched_once_and_verified(tmp_path: Path, server: str) -> None:
    (tmp_path / "www" / "list.csv").write_text("a,b\n")
    right = hashlib.sha256(b"a,b\n").hexdigest()
    done = fetch(f"{server}/list.csv?raw=true", tmp_path / "here", right)
    assert done.stdout == f"{tmp_path}/here/list.csv\n", done.stderr
    assert (tmp_path / "here" / "list.csv").read_text() == "a,b\n"
    (tmp_path / "www" / "list.csv").write_text("changed on the server")
    assert fetch(f"{server}/list.csv", tmp_path / "here", right).stdout == done.stdout
    (tmp_path / "here" / "list.csv").write_text("corrupt")
    assert "expected " + right in fetch(f"{server}/list.csv", tmp_path / "here", right).stderr


@needs_curl
@pytest.mark.parametrize("resumes", [True, False])
def test_an_interrupted_download_resumes(tmp_path: Path, server: str, resumes: bool) -> None:
    content = bytes(range(256)) * 40
    (tmp_path / "www" / "x.bin").write_bytes(content)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "x.bin.part").write_bytes(content[:5000])
    # curl reads files in ranges; this server cannot, so that all of it is fetched again
    done = fetch(f"file://{tmp_path}/www/x.bin" if resumes else f"{server}/x.bin", tmp_path / "here")
    assert not done.returncode, done.stderr
    assert (tmp_path / "here" / "x.bin").read_bytes() == content
    assert not (tmp_path / "here" / "x.bin.part").exists()


@needs_curl
def test_the_file_behind_mediafires_page_is_fetched(tmp_path: Path, server: str) -> None:
    (tmp_path / "www" / "real.zip").write_bytes(b"PK and the rest")
    page = tmp_path / "www" / "mediafire.com" / "file" / "key" / "yfcc4k.zip"
    page.parent.mkdir(parents=True)
    coded = base64.b64encode(f"{server}/real.zip".encode()).decode()
    page.write_text(f'<html><a id="downloadButton" href="#" data-scrambled-url="{coded}">Download</a></html>')
    done = fetch(f"{server}/mediafire.com/file/key/yfcc4k.zip", tmp_path / "here")
    assert (tmp_path / "here" / "yfcc4k.zip").read_bytes() == b"PK and the rest", done.stderr
    page.write_text("<html>We are sorry</html>")
    gone = fetch(f"{server}/mediafire.com/file/key/yfcc4k.zip", tmp_path / "elsewhere")
    assert gone.returncode and f"save the file as {tmp_path}/elsewhere/yfcc4k.zip" in gone.stderr


def test_a_local_file_is_not_copied_and_html_is_not_a_zip(tmp_path: Path) -> None:
    (tmp_path / "local.zip").write_bytes(b"PK local")
    assert fetch(tmp_path / "local.zip", tmp_path / "here").stdout == f"{tmp_path}/local.zip\n"
    assert not (tmp_path / "here").exists()
    (tmp_path / "page.zip").write_text("<html>")
    assert "is no zip" in fetch(tmp_path / "page.zip", tmp_path / "here").stderr
    assert "neither a URL nor a file" in fetch(tmp_path / "missing.zip", tmp_path / "here").stderr
