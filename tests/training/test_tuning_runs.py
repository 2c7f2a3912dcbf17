"""The paper's set-up on a small random CLIP and tiny shards, for every way to tune a pretrained backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from geoclip.errors import GeoclipError, Preempted
from geoclip.factory.model import model_from_checkpoint
from geoclip.model.backbones import ClipBackbone
from geoclip.runs.metrics import read_rows
from geoclip.training.checkpoint import read_checkpoint
from tests.fixtures.backbones import clip
from tests.fixtures.training import train_with

STEPS = 4
TUNE = {
    "frozen": (),
    "last_blocks": ("encoder.last_blocks=1",),
    "lora": ("encoder.lora_rank=2", "encoder.checkpoint_activations=true"),
    "full": ("compute.accumulation=2", "optim.encoder_lr=1e-4"),
}


@pytest.fixture
def paper(tmp_path: Path, tiny_data: tuple[str, ...]) -> tuple[str, ...]:
    """Overrides for a short run of full_mp16."""
    torch.manual_seed(0)
    clip("quick_gelu").save_pretrained(tmp_path / "clip")
    return (
        *("+experiment=full_mp16", f"encoder.repo={tmp_path / 'clip'}", *tiny_data),
        *("encoder.image_px=16", "encoder.feature_dim=12", "encoder.hidden_dim=12", "location.hidden_dim=16"),
        *("location.frequencies=8", "location.embedding_dim=8", "data.streams=4", "optim.batch_size=8"),
        *("queue.size=16", "compute.workers=0", "logger=jsonl", "gallery=csv", "optim.lr=1e-3"),
        *(f"optim.max_steps={STEPS}", "validate_every_steps=4"),
    )


def metrics(run: Path) -> list[dict[str, Any]]:
    rows = read_rows(run / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key != "samples_per_s"} for row in rows]


def test_the_paper_trains_all_epochs_with_a_frozen_backbone(paper: tuple[str, ...]) -> None:
    run = train_with(*paper, "optim.max_steps=null", "optim.epochs=2", "validate_every_steps=1000")
    rows = metrics(run)
    assert rows[-1] == {"kind": "skipped", "step": 10, "total": 0, "reasons": {}}
    assert [row["step"] for row in rows if row["kind"] == "val"] == [10]
    model, config = model_from_checkpoint(run / "checkpoints" / "step-00000010.safetensors")
    assert (config.optim.batch_size, config.optim.epochs, config.encoder.hidden_dim) == (8, 2, 12)
    assert not any(parameter.requires_grad for parameter in model.image_encoder.backbone.parameters())  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("tune", TUNE)
def test_it_trains_resumes_bit_identically_and_is_read_back(paper: tuple[str, ...], tmp_path: Path, tune: str) -> None:
    overrides = (*paper, f"encoder.tune={tune}", *TUNE[tune])
    once = train_with(*overrides, f"runs_dir={tmp_path / 'once'}")
    with pytest.raises(Preempted):
        train_with(*overrides, f"runs_dir={tmp_path / 'parts'}", "compute.max_minutes=1e-9")
    parts = train_with(*overrides, f"runs_dir={tmp_path / 'parts'}")
    rows = metrics(once)
    assert rows == metrics(parts) and rows[-1]["step"] == STEPS

    last = f"checkpoints/step-{STEPS:08d}.safetensors"
    saved, other = (read_checkpoint(run / last) for run in (once, parts))
    assert all(torch.equal(tensor, other["model"][name]) for name, tensor in saved["model"].items())
    scales = [group["lr_scale"] for group in saved["optimizer"]["param_groups"]]
    assert scales == {"frozen": [1.0], "full": [1.0, 0.1]}.get(tune, [1.0, 1.0])

    model, _ = model_from_checkpoint(once / last)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    pretrained = ClipBackbone.from_pretrained(str(tmp_path / "clip")).eval()
    moved = not torch.allclose(model.image_encoder.backbone(pixels / 255), pretrained(pixels / 255))  # type: ignore[misc]
    assert moved is (tune != "frozen")
    in_checkpoint = [name for name in saved["model"] if name.startswith("image_encoder.backbone.")]
    parameters = len(list(pretrained.parameters()))
    match tune:
        case "frozen":
            assert not in_checkpoint
        case "full":
            assert len(in_checkpoint) >= parameters
        case "lora":
            assert in_checkpoint and all("lora_" in name for name in in_checkpoint)
        case _:
            assert tune == "last_blocks" and 0 < len(in_checkpoint) < parameters
            with pytest.raises(GeoclipError, match=r"tune=last_blocks: .* 2 blocks, .* 5 "):
                train_with(*overrides, "encoder.last_blocks=5", f"runs_dir={tmp_path / 'many'}")
