"""What is saved comes back bit for bit; what is damaged is refused, and named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from geoclip.errors import CheckpointError
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.gps_queue import GPSQueue
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.training.state import TrainState, load_state, read_checkpoint, save_state, save_weights


def new_state(seed: int, *, embedding_dim: int = 4, frozen: bool = False) -> TrainState:
    torch.manual_seed(seed)
    backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 6))
    image = ImageEncoder(backbone, feature_dim=6, hidden_dim=5, embedding_dim=embedding_dim, frozen=frozen)
    location = LocationEncoder([1.0], frequencies=3, hidden_dim=5, depth=1, embedding_dim=embedding_dim)
    model = GeoCLIP(image, location)
    return TrainState(
        model=model,
        parallel=model,
        queue=GPSQueue(torch.rand(6, 2)),
        optimizer=torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2),
        noise=torch.Generator().manual_seed(seed),
    )


def move(state: TrainState) -> None:
    """One step of anything, so that optimizer, queue and noise have a past."""
    state.optimizer.zero_grad()
    image = state.model.encode_image(torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2))
    (image @ state.model.encode_location(torch.rand(2, 2, generator=state.noise)).T).sum().backward()
    state.optimizer.step()
    state.queue.push(torch.rand(2, 2, generator=state.noise))
    state.step += 1


def test_a_restored_state_goes_on_bit_for_bit(tmp_path: Path) -> None:
    state, restored = new_state(1), new_state(2)
    move(state)
    save_state(tmp_path / "last.pt", state, {"name": "x"})
    load_state(tmp_path / "last.pt", restored)
    for one in (state, restored):
        move(one)
    assert restored.step == 2
    assert torch.equal(restored.queue.negatives(), state.queue.negatives())
    for ours, theirs in zip(state.model.parameters(), restored.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_frozen_backbone_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    state = new_state(0, frozen=True)
    save_weights(tmp_path / "best.pt", state.model, {})
    assert not any("backbone" in name for name in read_checkpoint(tmp_path / "best.pt")["model"])


def test_damage_and_mismatch_are_named(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_state(path, new_state(0), {})
    with pytest.raises(CheckpointError, match=r"last\.pt is of another architecture"):
        load_state(path, new_state(0, embedding_dim=8))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"last\.pt cannot be read as a checkpoint"):
        load_state(path, new_state(0))
    save_weights(path, new_state(0).model, {})
    with pytest.raises(CheckpointError, match="weights to evaluate, not a state"):
        load_state(path, new_state(0))
    with pytest.raises(CheckpointError, match=r"gone\.pt is missing"):
        read_checkpoint(tmp_path / "gone.pt")


class Explosive:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    torch.save({"format": 1, "model": Explosive(tmp_path / "executed")}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, state = tmp_path / "last.pt", new_state(0)
    save_state(path, state, {})
    before = path.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_state(path, state, {})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
