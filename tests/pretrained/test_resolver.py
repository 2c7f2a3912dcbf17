"""`checkpoint=` names a model in one of several ways, and every command understands the same ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from geoclip.errors import AssetError, CheckpointError
from geoclip.pretrained.resolver import CheckpointKind, resolve_checkpoint, resolve_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "a-12345678"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("step-00000001", "step-00000002", "best"):
        (folder / "checkpoints" / f"{name}.safetensors").write_bytes(name.encode())
    return folder


def release(folder: Path, model_type: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_run_its_file_and_latest_are_one_checkpoint(run: Path) -> None:
    best = run / "checkpoints" / "best.safetensors"
    for name in (str(run), str(best), run, "latest"):
        found = resolve_checkpoint(name, str(run.parent), hub_ids=True)
        assert (found.kind, found.files, found.results) == (CheckpointKind.run, (best,), run)
        assert found.name == run.name and found.sha256() == hashlib.sha256(b"best").hexdigest()


def test_training_resumes_from_the_newest_state_not_from_the_best_weights(run: Path) -> None:
    assert resolve_run(str(run), best=False).files[0].stem == "step-00000002"


@pytest.mark.parametrize(
    ("model_type", "kind"),
    [("geoclip-geolocation", CheckpointKind.authors), ("geoclip-ablations", CheckpointKind.published)],
)
def test_a_release_is_known_by_its_config(tmp_path: Path, model_type: str, kind: CheckpointKind) -> None:
    folder = release(tmp_path / "model", model_type)
    found = resolve_checkpoint(folder, "results")
    assert (found.kind, found.folder, found.name) == (kind, folder, "model")
    assert found.results == Path("results/model")
    with pytest.raises(CheckpointError, match="release"):
        resolve_run(str(folder))


def test_the_official_weights_are_three_files_under_one_hash() -> None:
    found = resolve_checkpoint("official", "runs")
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in found.files]
    assert found.kind is CheckpointKind.official and len(digests) == 3
    assert found.sha256() == hashlib.sha256(b"".join(digests)).hexdigest()


def test_a_lightning_checkpoint_is_named_without_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"")
    found = resolve_checkpoint(str(tmp_path / "last.ckpt"))
    assert (found.kind, found.name) == (CheckpointKind.lightning, "last")


def test_a_name_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        resolve_checkpoint(str(tmp_path / "absent"))
    with pytest.raises(AssetError):
        resolve_checkpoint("offical", hub_ids=True)
