"""Download from the Hugging Face Hub and upload to it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from geoclip.errors import AssetError, GeoclipError, first_line

HUB = "hf-hub:"  # prefix of a Hub id where a path is possible too, as in open_clip and timm
RELEASE = ("config.json", "model.safetensors", "*.csv")
CONNECT_S = 3.0  # for DNS and connection; huggingface_hub retries for half a minute
BACKBONE = ("config.json", "model.safetensors")


def no_connection() -> str:
    """Why the Hub cannot be reached, found within CONNECT_S; empty if it can be, or behind a proxy."""
    from huggingface_hub import constants

    is_behind_proxy = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    return "" if constants.HF_HUB_OFFLINE or is_behind_proxy else _cannot_connect(constants.ENDPOINT)


@cache
def _cannot_connect(endpoint: str) -> str:
    address = urlsplit(endpoint)
    host, port = address.hostname or "", address.port or (80 if address.scheme == "http" else 443)
    found = [f"{host} does not respond within {CONNECT_S:g} s"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=CONNECT_S).close()
            found[0] = ""
        except OSError as error:
            found[0] = f"no connection to {host}: {error.strerror or error}"

    # In a thread, because a DNS look-up has no time limit.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_S)
    return found[0]


def is_cached(repo: str, name: str) -> bool:
    """Whether a file of a Hub repository was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    try:
        return isinstance(try_to_load_from_cache(repo, name), str)
    except ValueError:  # no Hub id
        return False


def fetch(repo: str, files: Sequence[str], **download: Any) -> Path:
    """The folder of a snapshot of a Hub repository with only these files. Nothing in them is executed.

    `files` are names or patterns; `download`: revision, token, cache_dir, local_files_only of `snapshot_download`.

    Raises:
        AssetError: there is no such repository, or it cannot be reached.
    """
    from huggingface_hub import snapshot_download

    unreachable = no_connection()
    if unreachable:
        download["local_files_only"] = True
    try:
        return Path(snapshot_download(repo, allow_patterns=list(files), **download))
    except Exception as error:  # errors of the Hub, of HTTP, of the system
        at = f" at revision {download['revision']}" if download.get("revision") else ""
        raise AssetError(
            f"{repo!r}{at} is neither a local path nor reachable on the Hub ({unreachable or first_line(error)}); on a "
            f"connected machine run `hf download {repo} --local-dir FOLDER` and name that folder; for a private "
            "repository log in first: hf auth login"
        ) from error


def send(folder: Path, files: Sequence[Path], repo: str, *, private: bool, message: str) -> str:
    """Upload files to a model repository of the Hub, which is created if necessary.

    Only `files`, paths in `folder`, are uploaded. `private` is for a new repository; an existing one keeps its setting.

    Returns:
        The repository's URL.

    Raises:
        GeoclipError: no token, no right to write, or no connection to the Hub.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        if unreachable := no_connection():
            raise OSError(unreachable)
        made = api.create_repo(repo, private=private, exist_ok=True)
        names = [str(path.relative_to(folder)) for path in files]
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message, allow_patterns=names)
    except Exception as error:
        raise GeoclipError(
            f"{repo!r} was not published ({first_line(error)}); {folder} has the files: log in with a token that "
            "may write (hf auth login, or HF_TOKEN), unset HF_HUB_OFFLINE, and rerun the same command"
        ) from error
    return str(made)
