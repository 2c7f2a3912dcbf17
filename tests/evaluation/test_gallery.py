"""Galleries: reading, hashing, encoding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from geoclip.data.assets import asset_path
from geoclip.errors import DataError
from geoclip.evaluation.gallery import Gallery, encode_gallery, read_gallery
from geoclip.model.location_encoder import LocationEncoder


def written(folder: Path, text: str) -> Path:
    path = folder / "gallery.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize("header", ["LAT,LON", "latitude,longitude", "lat,lon", "Latitude,Longitude"])
def test_every_header_of_the_field_is_read(tmp_path: Path, header: str) -> None:
    gallery = read_gallery(written(tmp_path, f"{header}\n48.8584,2.2945\n-33.8568,151.2153\n"), "two")
    assert gallery.gps_deg_G2.tolist() == [[48.8584, 2.2945], [-33.8568, 151.2153]]
    assert gallery.gps_deg_G2.dtype == torch.float64


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    gallery = read_gallery(written(tmp_path, "id,LON,city,LAT\n7,2.2945,Paris,48.8584\n"), "one")
    assert gallery.gps_deg_G2.tolist() == [[48.8584, 2.2945]]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("LAT,LON\n1,2\n91,0\n", r"gallery\.csv, line 3: LAT='91'"),
        ("LAT,LON\n1,2\n3,4\n5,181\n", r"gallery\.csv, line 4: .*LON='181'"),
        ("LAT,LON\n,5\n", r"gallery\.csv, line 2: LAT='', LON='5'"),
        ("LAT,LON\nfar,away\n", r"gallery\.csv, line 2: LAT='far'"),
        ("LAT,LON\n", r"gallery\.csv has no rows"),
        ("a,b\n1,2\n", r"gallery\.csv .*has the columns a, b;.* LAT and LON"),
        ("", r"gallery\.csv has no rows"),
    ],
)
def test_a_bad_gallery_is_named_with_its_line(tmp_path: Path, text: str, pattern: str) -> None:
    with pytest.raises(DataError, match=pattern):
        read_gallery(written(tmp_path, text), "bad")


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
