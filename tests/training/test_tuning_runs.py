"""Every way to tune a pretrained backbone trains, goes on from its checkpoint, and can be asked afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geoclip.config import TrainConfig, train_problems, typed
from geoclip.config.composed import conf_dir
from geoclip.errors import GeoclipError, Preempted
from geoclip.factory.model import model_from_checkpoint
from geoclip.model.backbones import ClipBackbone
from geoclip.runs.metrics import read_rows
from geoclip.train import train_run
from geoclip.training.checkpoint import read_checkpoint

STEPS = 4
WAYS = {
    "frozen": (),
    "last_blocks": ("encoder.last_blocks=1",),
    "lora": ("encoder.lora_rank=2", "encoder.checkpoint_activations=true"),
    "full": ("compute.accumulation=2", "optim.encoder_lr=1e-4"),
}


@pytest.fixture
def setting(tmp_path: Path, tiny_shards: Callable[..., Any]) -> tuple[str, ...]:
    torch.manual_seed(0)
    clip = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=12,
    )
    CLIPVisionModelWithProjection(clip).save_pretrained(tmp_path / "clip")
    shards = tiny_shards([20, 20], size_px=20)
    tiny_shards([9], split="val", size_px=20)
    gallery = "\n".join(f"{lat},{lon}" for lat, lon in shards.gps_deg.values())
    (tmp_path / "gallery.csv").write_text(f"LAT,LON\n{gallery}\n")
    return (
        *("+experiment=full_mp16", f"data.root={shards.root}", f"encoder.repo={tmp_path / 'clip'}"),
        *("encoder.image_px=16", "encoder.feature_dim=12", "encoder.hidden_dim=12", "location.hidden_dim=16"),
        *("location.frequencies=8", "location.embedding_dim=8", "data.streams=4", "optim.batch_size=8"),
        *("queue.size=16", "compute.workers=0", "logger=jsonl", "gallery=csv", "optim.lr=1e-3"),
        *(f"optim.max_steps={STEPS}", f"gallery.path={tmp_path / 'gallery.csv'}", "validate_every_steps=4"),
    )


def train(setting: tuple[str, ...], *more: str) -> Path:
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        composed = compose("train", [*setting, *more])
    return train_run(typed(composed, TrainConfig, lambda found: train_problems(found, 1)))


def metrics(run: Path) -> list[dict[str, Any]]:
    rows = read_rows(run / "metrics.jsonl")
    return [{key: value for key, value in row.items() if key != "samples_per_s"} for row in rows]


@pytest.mark.parametrize("way", WAYS)
def test_it_trains_goes_on_and_answers(setting: tuple[str, ...], tmp_path: Path, way: str) -> None:
    chosen = (*setting, f"encoder.tune={way}", *WAYS[way])
    whole = train(chosen, f"runs_dir={tmp_path / 'whole'}")
    with pytest.raises(Preempted):
        train(chosen, f"runs_dir={tmp_path / 'parts'}", "compute.max_minutes=1e-9")
    parts = train(chosen, f"runs_dir={tmp_path / 'parts'}")
    rows = [metrics(run) for run in (whole, parts)]
    assert rows[0] == rows[1] and rows[0][-1]["step"] == STEPS

    last = f"checkpoints/step-{STEPS:08d}.safetensors"
    ours, theirs = (read_checkpoint(run / last) for run in (whole, parts))
    assert all(torch.equal(tensor, theirs["model"][name]) for name, tensor in ours["model"].items())
    scales = [group["lr_scale"] for group in ours["optimizer"]["param_groups"]]
    assert scales == {"frozen": [1.0], "full": [1.0, 0.1]}.get(way, [1.0, 1.0])

    model, _ = model_from_checkpoint(whole / last)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    pretrained = ClipBackbone.from_pretrained(str(tmp_path / "clip")).eval()
    moved = not torch.allclose(model.image_encoder.backbone(pixels / 255), pretrained(pixels / 255))  # type: ignore[misc]
    assert moved is (way != "frozen")
    backbone = [name for name in ours["model"] if name.startswith("image_encoder.backbone.")]
    whole_backbone = len(list(pretrained.parameters()))
    assert {"frozen": len(backbone) == 0, "full": len(backbone) >= whole_backbone}.get(
        way, 0 < len(backbone) < whole_backbone
    )
    if way == "last_blocks":
        with pytest.raises(GeoclipError, match="tune=last_blocks: ClipBackbone has 2 blocks, of which 5 cannot"):
            train(chosen, "encoder.last_blocks=5", f"runs_dir={tmp_path / 'many'}")
    if way == "lora":
        assert all("lora_" in name for name in backbone)
