"""Export of weights: the authors' layout, ONNX, TorchScript, torch.export; reading an export back."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from geoclip.errors import GeoclipError
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.embedding import CHUNK, embed_locations
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.location_encoder import LocationEncoder
from geoclip.pretrained.releases import (
    FORMAT_VERSION,
    LOCATION_TYPE,
    MODEL_TYPE,
    authors_name,
    location_encoder_of,
    read_release,
)
from geoclip.runs.run_dir import write_json
from geoclip.system.files import write_bytes_atomic

Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # (N, 2) degrees -> (N, D)

INPUT, OUTPUT = "gps_deg", "embedding"  # names in the ONNX graph
# The edges of projections: the poles, both sides of the antimeridian, the origin.
EDGES_DEG = ((90.0, 0.0), (-90.0, 0.0), (90.0, 180.0), (-90.0, -180.0), (0.0, 180.0), (0.0, -180.0), (0.0, 0.0))


class UnitLocationEncoder(nn.Module):
    """A location encoder with embeddings of length 1, as GeoCLIP compares them."""

    def __init__(self, location_encoder: nn.Module) -> None:
        super().__init__()
        self.location_encoder = location_encoder

    def forward(self, gps_deg: Tensor) -> Tensor:
        """(N, 2) latitude, longitude in degrees -> (N, D) unit vectors, float32."""
        return F.normalize(self.location_encoder(gps_deg).float(), dim=1)


def export_safetensors(encoder: nn.Module, folder: Path) -> None:
    """model.safetensors and config.json with the names and keys of the authors' Hub repositories.

    An encoder read from them does not normalise its embeddings; use `F.normalize`.

    Raises:
        GeoclipError: the layout cannot store this kind of encoder.
    """
    if not is_authors_kind(encoder):
        raise GeoclipError(
            f"the authors' layout stores Equal Earth encoders with separate, summed scales, not this "
            f"{type(encoder).__name__}; format=onnx, torchscript and torch_export store every kind"
        )
    assert isinstance(encoder, LocationEncoder)
    _write_release(folder, encoder.state_dict(), {"model_type": LOCATION_TYPE}, encoder.sigmas)


def is_authors_kind(encoder: nn.Module) -> bool:
    """Whether the authors' code can build this encoder, apart from its dimensions."""
    if not isinstance(encoder, LocationEncoder) or encoder.projection != "equal_earth" or encoder.concat:
        return False
    return len({id(branch.mlp) for branch in encoder.branches}) == len(encoder.branches)  # no shared MLP


def export_torch(encoder: nn.Module, path: Path) -> None:
    """A program of `torch.export` for any number of locations, read with `torch.export.load(path).module()`."""
    buffer = io.BytesIO()
    torch.export.save(_exported(encoder), buffer)
    write_bytes_atomic(path, buffer.getvalue())


def export_torchscript(encoder: nn.Module, path: Path) -> None:
    """A traced TorchScript module, read with `torch.jit.load(path)` or libtorch. Deprecated, but working, in 2.13."""
    example = torch.tensor(EDGES_DEG)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        # Tracing warns that the check of the input's shape becomes constant.
        warnings.filterwarnings("ignore", category=TracerWarning)
        with torch.no_grad():
            traced = torch.jit.trace(UnitLocationEncoder(encoder).eval(), (example,))
        buffer = io.BytesIO()
        torch.jit.save(traced, buffer)
    write_bytes_atomic(path, buffer.getvalue())


def export_onnx(encoder: nn.Module, path: Path) -> None:
    """An ONNX graph, weights included: input `gps_deg` (N, 2) float32, output `embedding` (N, D) float32.

    Raises:
        GeoclipError: onnx or onnxscript is not installed.
    """
    try:
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise GeoclipError(
            f"an ONNX export needs {error.name}, which is not installed: pip install -c constraints.txt -e '.[export]'"
        ) from None
    with _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        program = torch.onnx.export(
            _exported(encoder), (), input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False
        )
    assert program is not None
    write_bytes_atomic(path, program.model_proto.SerializeToString())


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """Silence exporters, which log every folded node and every unknown operator of torchvision."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)  # of torch about torch
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _exported(encoder: nn.Module) -> torch.export.ExportedProgram:
    count = torch.export.Dim("N")
    return torch.export.export(
        UnitLocationEncoder(encoder).eval(), (torch.tensor(EDGES_DEG),), dynamic_shapes=({0: count},)
    )


def comparison_deg(count: int = 1000) -> NDArray[np.float64]:
    """(count, 2) degrees: the edges of projections, and locations uniform on the sphere."""
    drawn = uniform_on_sphere(count - len(EDGES_DEG), torch.Generator().manual_seed(0)).numpy()
    return np.concatenate((np.array(EDGES_DEG), drawn.astype(np.float64)))


def largest_difference(encoder: nn.Module, exported: Embed, gps_deg_N2: NDArray[np.float64]) -> float:
    """The largest difference of any number in the unit embeddings of an encoder and of its exported file."""
    ours_ND = embed_locations(encoder, gps_deg_N2)
    parts = np.array_split(gps_deg_N2.astype(np.float32), -(-len(gps_deg_N2) // CHUNK))
    theirs_ND = np.concatenate([exported(part) for part in parts])
    return float(np.abs(ours_ND - theirs_ND).max())


def open_onnx(path: Path) -> Embed:
    """Read an ONNX graph with onnxruntime, on the CPU."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda gps_deg_N2: session.run([OUTPUT], {INPUT: gps_deg_N2})[0]


def open_torchscript(path: Path) -> Embed:
    """Read a TorchScript module."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        return _on_arrays(torch.jit.load(path))


def open_torch_export(path: Path) -> Embed:
    """Read a program of `torch.export`."""
    return _on_arrays(torch.export.load(path).module())


def open_safetensors(folder: Path) -> Embed:
    """Read a folder in the authors' layout, with embeddings of length 1."""
    return _on_arrays(UnitLocationEncoder(location_encoder_of(read_release([folder / "model.safetensors"]))))


def _on_arrays(module: Callable[[Tensor], Tensor]) -> Embed:
    def embed(gps_deg_N2: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            return module(torch.from_numpy(gps_deg_N2)).numpy()

    return embed


FORMATS: dict[str, tuple[Callable[[nn.Module, Path], None], Callable[[Path], Embed]]] = {
    "safetensors": (export_safetensors, open_safetensors),
    "onnx": (export_onnx, open_onnx),
    "torchscript": (export_torchscript, open_torchscript),
    "torch_export": (export_torch, open_torch_export),
}


GALLERY = "gallery.csv"
BACKBONE = "image_encoder.backbone."


def authors_misfits(model: GeoCLIP) -> list[str]:
    """Why the authors' layout cannot store this model; empty if it can.

    Not checked: the backbone, which the layout only names, and the size of layers, which only their code fixes.
    """
    misfits = []
    if not is_authors_kind(model.location_encoder):
        misfits.append("its location encoder is not Equal Earth with separate, summed scales")
    if model.logit_bias is not None:
        misfits.append("it has the bias of the sigmoid loss")
    return misfits


def write_authors_layout(folder: Path, model: GeoCLIP, *, backbone: str, revision: str | None) -> list[Path]:
    """Write config.json and model.safetensors beside the gallery's CSV.

    `folder` contains GALLERY with columns LAT, LON. Of the backbone, only its Hub id and revision (None: `main`) are
    written.

    Returns:
        The files.

    Raises:
        GeoclipError: the layout cannot store this model.
    """
    if misfits := authors_misfits(model):
        raise GeoclipError(f"the authors' layout cannot store this model: {'; '.join(misfits)}")
    assert isinstance(model.location_encoder, LocationEncoder)
    tensors = {name: one for name, one in model.state_dict().items() if not name.startswith(BACKBONE)}
    source = {"repo_id": backbone, "revision": revision}
    config = {"model_type": MODEL_TYPE, "gallery_file": GALLERY, "backbone": source}
    _write_release(folder, tensors, config, model.location_encoder.sigmas)
    return [folder / name for name in ("config.json", GALLERY, "model.safetensors")]


def _write_release(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any], sigmas: Sequence[float]) -> None:
    sigma = [int(value) if value == int(value) else value for value in sigmas]
    write_json(folder / "config.json", config | {"format_version": FORMAT_VERSION, "sigma": sigma})
    write_tensors(folder / "model.safetensors", {authors_name(name): one for name, one in tensors.items()})


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file atomically."""
    write_bytes_atomic(path, save({name: one.detach().cpu().contiguous() for name, one in tensors.items()}))
