"""Embeddings of coordinates from arrays, data frames and tables, in order; bad rows are named."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from geoclip.config import EmbedConfig, embed_problems, key_problems, typed
from geoclip.config.composed import conf_dir
from geoclip.data import tables
from geoclip.embed import embed
from geoclip.errors import DataError
from geoclip.inference.embedding_tables import embed_table
from geoclip.model.embedding import degrees_of, embed_locations
from geoclip.model.location_encoder import LocationEncoder

PAIRS = [[48.85, 2.35], [90.0, 180.0], [-16.5, -180.0], [0.0, 0.0], [-33.9, 151.2]]
TABLE = 'name,Longitude,note,Latitude\n"a, b",2.350,,48.85\nz,180,1e400,90\n'


@pytest.fixture
def encoder() -> LocationEncoder:
    torch.manual_seed(0)
    return LocationEncoder((1.0, 16.0), frequencies=8, hidden_dim=16, depth=1, embedding_dim=8).eval()


CONTAINERS: dict[str, Any] = {
    "list": PAIRS,
    "array": np.array(PAIRS),
    "float32": np.array(PAIRS, dtype=np.float32),
    "tensor": torch.tensor(PAIRS, requires_grad=True),
    "lat, lon": pd.DataFrame(PAIRS, columns=["lat", "lon"]),
    "LON, LAT and more": pd.DataFrame([[lon, "x", lat] for lat, lon in PAIRS], columns=["LON", "id", "LAT"]),
    "text, with another index": pd.DataFrame(PAIRS, columns=["latitude", "longitude"], index=[9, 8, 7, 6, 5]).map(str),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_embeddings(container: str, encoder: LocationEncoder) -> None:
    with torch.no_grad():
        expected = nn.functional.normalize(encoder(torch.tensor(PAIRS)), dim=1).numpy()
    found = embed_locations(encoder, CONTAINERS[container], batch_size=2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_embeddings_are_unit_vectors_by_default(encoder: LocationEncoder) -> None:
    np.testing.assert_allclose(np.linalg.norm(embed_locations(encoder, PAIRS), axis=1), 1, atol=1e-6)
    raw = embed_locations(encoder, PAIRS, normalise=False)
    np.testing.assert_allclose(raw, encoder(torch.tensor(PAIRS)).detach().numpy(), atol=1e-6)
    assert embed_locations(encoder, np.empty((0, 2))).shape == (0, 8)
    assert embed_locations(encoder, (48.85, 2.35)).shape == (1, 8)


BAD: list[tuple[Any, str]] = [
    ([[1.0, 2.0], [91.0, 0.0]], r"row 1: .*91\.0.*0\.0.*\(1 "),
    ([[1.0, float("nan")]], "row 0: .*1.0.*nan"),
    (torch.tensor([[0.0, 181.0], [0.0, -181.0]]), r"row 0: .*\(2 "),
    ([[1.0, 2.0, 3.0]], r"\(1, 3\)"),
    ([1.0, 2.0, 3.0], r"\(3,\)"),
    ([["north", "east"]], "coordinates"),
    (pd.DataFrame({"lat": ["1", "?"], "lon": [1, 2]}), r"row 1: lat='\?'"),
    (pd.DataFrame({"x": [1], "lon": [2]}), "x, lon"),
]


@pytest.mark.parametrize(("coordinates", "sentence"), BAD, ids=lambda value: str(value)[:30])
def test_bad_coordinates_are_named_by_row(coordinates: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        degrees_of(coordinates)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two rows, whose columns are in an unusual order, read a row at a time."""
    monkeypatch.setattr(tables, "BATCH_ROWS", 1)
    (tmp_path / "places.csv").write_text(TABLE)
    return tmp_path / "places.csv"


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv", ".parquet"])
def test_every_format_has_the_embeddings_in_the_order_of_the_rows(
    suffix: str, table: Path, encoder: LocationEncoder
) -> None:
    expected, output = embed_locations(encoder, [[48.85, 2.35], [90, 180]]), table.with_name(f"out{suffix}")
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    assert embed_table(encoder, table, output) == (2, 8)
    match suffix:
        case ".npz":
            arrays = np.load(output)
            found = arrays["embedding"]
            assert arrays["lat"].tolist() == [48.85, 90] and arrays["lon"].tolist() == [2.35, 180]
        case ".npy":
            found = np.load(output)
        case ".csv":
            beside = pd.read_csv(output, dtype=str, keep_default_na=False)
            own = pd.read_csv(table, dtype=str, keep_default_na=False)
            pd.testing.assert_frame_equal(beside[list(own)], own)
            assert list(beside)[4:] == [f"e{number}" for number in range(8)]
            found = beside.iloc[:, 4:].to_numpy(np.float32)
        case _:
            stored = pd.read_parquet(output)
            assert stored["note"].tolist() == ["", "1e400"] and stored["Longitude"].tolist() == ["2.350", "180"]
            found = np.stack(stored["embedding"].to_list())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sorted(path.name for path in table.parent.iterdir()) == sorted([output.name, table.name])


def test_a_bad_row_is_named_by_line_and_nothing_is_written(table: Path, encoder: LocationEncoder) -> None:
    table.write_text(TABLE + "y,,,5\n")
    with pytest.raises(DataError, match=r"places\.csv, line 4: Latitude='5', Longitude=''"):
        embed_table(encoder, table, table.with_name("out.npz"))
    table.write_text("lat,lon,e3\n1,2,3\n")
    with pytest.raises(DataError, match="column e3"):
        embed_table(encoder, table, table.with_name("out.csv"))
    table.write_text("lat,lon\n")
    with pytest.raises(DataError, match=r"places\.csv"):
        embed_table(encoder, table, table.with_name("out.npz"))
    assert [path.name for path in table.parent.iterdir()] == ["places.csv"]


class _Wide(nn.Module):
    """As wide as the released encoder, but fast."""

    def forward(self, gps_deg_N2: Tensor) -> Tensor:
        return gps_deg_N2[:, :1].expand(-1, 512)


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", 500)
    peaks = []
    for rows in (1_000, 8_000):
        (tmp_path / "places.csv").write_text("lat,lon\n" + "1.5,2\n" * rows)
        tracemalloc.start()
        embed_table(_Wide(), tmp_path / "places.csv", tmp_path / "out.npy", normalise=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert np.load(tmp_path / "out.npy", mmap_mode="r").shape == (rows, 512)
    assert peaks[1] < peaks[0] + 2**20


def test_the_command_embeds_by_a_run(tiny_run: Any, table: Path) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        overrides = [f"input={table}", f"checkpoint={tiny_run.folder}", "device=cpu"]
        config = typed(compose("embed", overrides), EmbedConfig, embed_problems)
    assert embed(config) == table.with_suffix(".npz")
    assert np.load(table.with_suffix(".npz"))["embedding"].shape == (2, 8)
    (problem,) = embed_problems(config)
    assert problem.startswith(f"output={table.with_suffix('.npz')}:")


PROBLEMS: list[tuple[dict[str, Any], str]] = [
    ({"input": "nowhere.csv"}, "input=nowhere.csv:"),
    ({"checkpoint": "nowhere"}, "checkpoint=nowhere:"),
    ({"output": "out.txt"}, "output=out.txt:"),
    ({"output": "places.csv"}, "output=places.csv:"),
    ({"batch_size": 0}, "batch_size=0:"),
]


@pytest.mark.parametrize(("settings", "sentence"), PROBLEMS, ids=lambda value: str(value)[:40])
def test_a_wrong_key_is_named(
    settings: dict[str, Any], sentence: str, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(table.parent)
    config = EmbedConfig(**{"input": "places.csv"} | settings)
    problems = [*key_problems(config), *embed_problems(config)]
    assert len(problems) == 1 and sentence in problems[0]
