"""Every study can run, and the tables in README.md and experiments/*/README.md match today's configurations."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hydra import compose, initialize_config_dir

from geoclip.cli.sweep import grid, swept
from geoclip.config import TrainConfig
from geoclip.config.composed import conf_dir
from geoclip.runs.run_dir import differences, fingerprint_of, to_dict
from geoclip.studies.readme import generated_blocks
from geoclip.studies.results import study_configuration

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (0, 1, 2)
STUDIES = {path.name.split("_", 1)[1]: path for path in sorted(ROOT.glob("experiments/[0-9][0-9]_*"))}


def results_of(study: str) -> dict[str, Any]:
    """The contents of a study's results.json."""
    results: dict[str, Any] = json.loads((STUDIES[study] / "results.json").read_text())
    return results


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the folders that `make study-features` writes."""
    for name in ("backbone", "bluemarble"):
        (tmp_path / "features" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def default_of(key: str) -> Any:
    """The default of a dotted key in the schema."""
    *path, last = key.split(".")
    node: Any = TrainConfig
    for part in path:
        node = get_type_hints(node)[part]
    (field,) = [one for one in fields(node) if one.name == last]
    return field.default_factory() if field.default_factory is not MISSING else field.default


def changes(recorded: dict[str, Any], today: dict[str, Any]) -> list[str]:
    """What differs from a recorded `study_configuration`, as `key: recorded -> today`.

    A key that is newer than the record differs if it is not at the schema's default, which keeps the old behaviour.
    """
    old = {**recorded["common"], "points": recorded["points"]}
    added = today["common"].keys() - old.keys()
    new = {key: value for key, value in today["common"].items() if key not in added}
    found = differences(old, {**new, "points": today["points"]})
    for key in sorted(added):
        default = getattr(default_of(key), "value", default_of(key))  # as in JSON
        if today["common"][key] != default:
            found.append(f"{key}: {default} (before this key existed) -> {today['common'][key]}")
    return found


@pytest.mark.parametrize("study", STUDIES)
def test_every_point_of_every_study_can_run_and_its_results_are_of_it(study: str, here: Path) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", [f"+experiment={study}", "seed=0"], return_hydra_config=True)
        points = grid(cfg)
    assert str(cfg.hydra.sweeper.params.seed) == "0,1,2" and cfg.hydra.mode.name == "MULTIRUN"
    config = points[0].config
    assert config.study.name == study == config.name and config.study.benchmarks
    assert bool(config.study.by) == bool(config.study.baseline)
    assert {word.split("=")[0] for point in swept(points) for word in point.split(" ") if word} <= set(config.study.by)

    configs = [to_dict(replace(point.config, seed=seed)) for point in points for seed in SEEDS]
    today = json.loads(json.dumps(study_configuration(configs)))
    found = changes(results_of(study)["configuration"], today)
    assert not found, f"{study} was run with another configuration: {found}; make study NAME={study}"


def test_the_common_part_of_the_studies_can_run(here: Path) -> None:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        points = grid(compose("train", ["+experiment=protocol"], return_hydra_config=True))
    assert [point.config.seed for point in points] == list(SEEDS)
    assert points[0].config.study.benchmarks and points[0].config.optim.max_samples
    in_conf = {path.stem for path in Path(conf_dir(), "experiment").glob("*.yaml") if "\nstudy:" in path.read_text()}
    assert in_conf - {"protocol"} == set(STUDIES), "a study is a file in conf/experiment and a folder in experiments"


@pytest.mark.parametrize("study", STUDIES)
def test_generated_blocks_match_the_results_beside_them(study: str) -> None:
    results = results_of(study)
    made_with = fingerprint_of(results["configuration"])
    assert results["configuration_hash"] == made_with
    blocks = generated_blocks((STUDIES[study] / "README.md").read_text())
    assert blocks == dict.fromkeys(("cost", "tables"), made_with), f"make study NAME={study} fills them"


def test_the_tables_in_the_readme_match_the_studies_results() -> None:
    blocks = generated_blocks((ROOT / "README.md").read_text())
    assert "embedded_default" in blocks
    assert blocks == {study: results_of(study)["configuration_hash"] for study in blocks}
