"""Rules for names, seeds, devices and numbers apply to every key of that kind."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from geoclip.config import SCHEMAS, BenchmarkConfig, ConfigError, option, typed
from geoclip.config.composed import conf_dir
from geoclip.errors import DataError
from geoclip.system.files import file_name, name_problem

REFUSED = """
train seed=-1
train seed=4294967296
train data.bluemarble.seed=-1
evaluate seed=-1
shards seed=-1
gallery seed=-1
probe seed=-1
train compute.device=banana
train compute.device='cuda:'
evaluate device=banana
predict device=meta
evaluate benchmark.name=../../../evil
train name=..
train data.name=a/b
train gallery.name=/etc
train study.name=../x
train optim.weight_decay=nan
train optim.max_steps=99999999999999999999
train +optim.foo=1
train +foo=1
evaluate +benchmark.foo=1
""".strip()


@pytest.mark.parametrize("case", REFUSED.splitlines())
def test_invalid_values_and_unknown_keys_are_refused(case: str) -> None:
    command, override = case.split()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        composed = compose(command, [override])
    with pytest.raises(ConfigError) as refused:
        typed(composed, SCHEMAS[command], lambda _: [])
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
