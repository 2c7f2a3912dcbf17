"""Galleries: reading, hashing, encoding."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from geoclip.data.assets import asset_path
from geoclip.evaluation.gallery import Gallery, encode_gallery, read_gallery
from geoclip.model.location_encoder import LocationEncoder


def written(folder: Path, text: str) -> Path:
    path = folder / "gallery.csv"
    path.write_text(text)
    return path


def test_the_hash_is_of_the_coordinates(tmp_path: Path) -> None:
    plain = read_gallery(written(tmp_path, "LAT,LON\n1.5,2.5\n3.0,4.0\n"), "a").sha256
    dressed = read_gallery(written(tmp_path, "id,longitude,latitude\n1,2.50,1.50\n2,4,3\n"), "b").sha256
    turned = read_gallery(written(tmp_path, "LAT,LON\n3.0,4.0\n1.5,2.5\n"), "c").sha256
    moved = read_gallery(written(tmp_path, "LAT,LON\n1.5,2.500001\n3.0,4.0\n"), "d").sha256
    assert plain == dressed
    assert len({plain, turned, moved}) == 3


def test_the_released_gallery_has_100_000_rows() -> None:
    gallery = read_gallery(asset_path("gallery_100k.csv"), "released_100k")
    assert gallery.gps_deg_G2.shape == (100_000, 2)
    assert len({tuple(row) for row in gallery.gps_deg_G2.tolist()}) == 94_123


def test_locations_are_encoded_once_in_chunks_to_unit_vectors() -> None:
    torch.manual_seed(0)
    encoder = LocationEncoder([1.0, 16.0], frequencies=8, hidden_dim=16, depth=1, embedding_dim=8).eval()
    gallery = Gallery(name="g", gps_deg_G2=torch.rand(103, 2, dtype=torch.float64) * 80)
    rows: list[int] = []

    class Counted(nn.Module):
        def forward(self, gps_deg_N2: Tensor) -> Tensor:
            rows.append(len(gps_deg_N2))
            encoded: Tensor = encoder(gps_deg_N2)
            return encoded

    chunked = encode_gallery(Counted(), gallery, torch.device("cpu"), chunk=10)
    assert sum(rows) == 103 and max(rows) == 10
    torch.testing.assert_close(chunked, encode_gallery(encoder, gallery, torch.device("cpu")))
    torch.testing.assert_close(chunked.norm(dim=1), torch.ones(103))
    assert not chunked.requires_grad
