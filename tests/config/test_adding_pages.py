"""docs/add_*.md: their examples compose and can run, and the tests and files that they name exist."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from geoclip.cli.sweep import grid, swept
from geoclip.config import EvaluateConfig, TrainConfig, evaluate_problems, train_problems, typed
from geoclip.config.composed import conf_dir

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = sorted(path.stem for path in DOCS.glob("add_*.md"))
EXAMPLE = re.compile(r"`(conf/[\w/]+\.yaml)`:\n\n```yaml\n(.*?)```", re.DOTALL)
TESTS = DOCS.parent / "tests"


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of conf/ with the new files of the pages' examples."""
    folder = tmp_path_factory.mktemp("added") / "conf"
    shutil.copytree(conf_dir(), folder)
    for page in PAGES:
        for name, text in EXAMPLE.findall((DOCS / f"{page}.md").read_text()):
            path = folder.parent / name
            assert not path.exists(), f"{page}: {name} exists already; take another example"
            assert "python -m geoclip." in "".join(text.splitlines()[:2])
            path.write_text(text)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the examples read."""
    for folder in ("features/backbone", "features/bluemarble", "data/mine"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("MINE_DIR", "MINE_CSV", "MINE_SHARDS", "MP16_SHARDS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "galleries").mkdir()
    (tmp_path / "galleries" / "mine.csv").write_text("LAT,LON\n0,0\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_study_can_run(conf: Path, here: Path) -> None:
    with initialize_config_dir(str(conf), version_base="1.3"):
        points = grid(compose("train", ["+experiment=depth"], return_hydra_config=True))
    assert len(points) == 9
    study = points[0].config.study
    assert {word.split("=")[0] for point in swept(points) for word in point.split(" ")} == {*study.by, "seed"}
    assert study.baseline in {str(point.config.location.depth) for point in points}
    assert study.name == points[0].config.name == "depth" and study.benchmarks


def test_the_study_page_has_the_sections_of_a_study() -> None:
    (example,) = re.findall(r"```markdown\n(.*?)```", (DOCS / "add_a_study.md").read_text(), re.DOTALL)
    real = (DOCS.parent / "experiments" / "03_scales" / "README.md").read_text()

    def sections(text: str) -> list[str]:
        lines = [line for line in text.splitlines() if line.startswith(("## ", "<!-- "))]
        return [re.split(r" \(|; configuration| -->", line)[0] for line in lines]

    assert sections(example) == sections(real)


def composed(conf: Path, command: str, schema: type[Any], *overrides: str) -> Any:
    with initialize_config_dir(str(conf), version_base="1.3"):
        return typed(compose(command, list(overrides)), schema, lambda _: [])


def test_the_encoder_can_be_built(conf: Path, here: Path) -> None:
    config = composed(conf, "train", TrainConfig, "encoder=dinov2_l14")
    assert train_problems(config, 1) == []
    assert (config.encoder.name, config.encoder.image_px, config.encoder.frozen) == ("dinov2_l14", 224, True)


def test_the_data_set_is_read(conf: Path, here: Path) -> None:
    config = composed(conf, "train", TrainConfig, "data=mine", "gallery=csv", "gallery.path=galleries/mine.csv")
    assert train_problems(config, 1) == [] and config.data.root == "data/mine"


def test_the_benchmarks_say_what_is_missing(conf: Path, here: Path) -> None:
    (problem,) = evaluate_problems(composed(conf, "evaluate", EvaluateConfig, "benchmark=mine"))
    assert "MINE_DIR=FOLDER" in problem and "1,200" in problem and "CVPR" in problem
    shards = evaluate_problems(composed(conf, "evaluate", EvaluateConfig, "benchmark=mine_test"))
    assert not any("benchmark" in problem for problem in shards)


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_is_there(page: str) -> None:
    text = (DOCS / f"{page}.md").read_text()
    source = "".join(path.read_text() for path in TESTS.rglob("*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in source, name
    written = {name for name, _ in EXAMPLE.findall(text)}
    for name in set(re.findall(r"`((?:tests|geoclip|conf)/[\w/.]+)`", text)) - written:
        assert (DOCS.parent / name).exists(), name
    for link in re.findall(r"\]\(([\w./]+)\)", text):
        assert (DOCS / link).exists(), link
    for linking in ("README.md", "CONTRIBUTING.md"):
        assert f"docs/{page}.md" in (DOCS.parent / linking).read_text(), f"{linking} does not link {page}"
