"""Rules that follow from a key's name or type hold wherever the key is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from geoclip.config import (
    BenchmarkConfig,
    ConfigError,
    EvaluateConfig,
    GalleryBuildConfig,
    PredictConfig,
    ProbeConfig,
    ShardsConfig,
    TrainConfig,
    option,
    typed,
)
from geoclip.config.composed import conf_dir
from geoclip.errors import DataError
from geoclip.system.files import file_name, name_problem


@pytest.mark.parametrize(
    ("command", "schema", "override"),
    [
        ("train", TrainConfig, "seed=-1"),
        ("train", TrainConfig, "seed=4294967296"),
        ("train", TrainConfig, "data.bluemarble.seed=-1"),
        ("evaluate", EvaluateConfig, "seed=-1"),
        ("shards", ShardsConfig, "seed=-1"),
        ("gallery", GalleryBuildConfig, "seed=-1"),
        ("probe", ProbeConfig, "seed=-1"),
        ("train", TrainConfig, "compute.device=banana"),
        ("train", TrainConfig, "compute.device='cuda:'"),
        ("evaluate", EvaluateConfig, "device=banana"),
        ("predict", PredictConfig, "device=meta"),
        ("evaluate", EvaluateConfig, "benchmark.name=../../../evil"),
        ("train", TrainConfig, "name=.."),
        ("train", TrainConfig, "data.name=a/b"),
        ("train", TrainConfig, "gallery.name=/etc"),
        ("train", TrainConfig, "study.name=../x"),
        ("train", TrainConfig, "optim.weight_decay=nan"),
        ("train", TrainConfig, "optim.max_steps=99999999999999999999"),
        ("train", TrainConfig, "+optim.foo=1"),
        ("train", TrainConfig, "+foo=1"),
        ("evaluate", EvaluateConfig, "+benchmark.foo=1"),
    ],
)
def test_what_no_key_of_that_name_can_be_is_refused(command: str, schema: type[Any], override: str) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        composed = compose(command, [override])
    with pytest.raises(ConfigError) as refused:
        typed(composed, schema, lambda _: [])
    assert override.lstrip("+").split("=")[0] in "\n".join(refused.value.problems)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "a\x1b[31mb", "a\nb", "*", "-rf", "x" * 200])
def test_names_of_others_stay_inside_their_folder(name: str) -> None:
    assert name_problem(name)
    with pytest.raises(DataError, match=r"results\.json"):
        file_name(name, "results.json")


@pytest.mark.parametrize("name", ["bluemarble", "test+10k+ten_crop", "Nîmes", "v1.2-b"])
def test_ordinary_names_are_names(name: str) -> None:
    assert not name_problem(name) and file_name(name, "results.json") == name


def test_an_option_is_a_file_of_its_group(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("name: evil\n")
    assert option("benchmark", str(tmp_path / "evil"), BenchmarkConfig) is None
    assert option("benchmark", "test", BenchmarkConfig) is not None
