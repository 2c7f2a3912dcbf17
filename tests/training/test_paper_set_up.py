"""The paper's set-up end to end, with a small random CLIP in place of ViT-L/14 and two tiny shards in place of MP16."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geoclip.config import TrainConfig, train_problems, typed
from geoclip.config.composed import conf_dir
from geoclip.factory.model import model_from_checkpoint
from geoclip.runs.metrics import read_rows
from geoclip.train import train_run


def test_full_mp16_trains_from_shards_with_a_local_clip(tiny_shards: Callable[..., Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    clip = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=12,
    )
    CLIPVisionModelWithProjection(clip).save_pretrained(tmp_path / "clip")
    shards = tiny_shards([20, 20], size_px=40)
    tiny_shards([9], split="val", size_px=40)
    gallery = "\n".join(f"{lat},{lon}" for lat, lon in shards.gps_deg.values())
    (tmp_path / "gallery.csv").write_text(f"LAT,LON\n{gallery}\n")
    overrides = [
        "+experiment=full_mp16",
        f"data.root={shards.root}",
        f"encoder.repo={tmp_path / 'clip'}",
        *("encoder.image_px=32", "encoder.feature_dim=12", "encoder.hidden_dim=12"),
        *("location.hidden_dim=16", "location.frequencies=8", "location.embedding_dim=8"),
        *("data.streams=4", "optim.batch_size=8", "optim.epochs=2", "queue.size=16", "compute.workers=0"),
        *("logger=jsonl", "gallery=csv", f"gallery.path={tmp_path / 'gallery.csv'}", f"runs_dir={tmp_path / 'runs'}"),
    ]
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = typed(compose("train", overrides), TrainConfig, lambda found: train_problems(found, 1))
    run = train_run(config)
    rows = read_rows(run / "metrics.jsonl")
    assert rows[-1] == {"kind": "skipped", "step": 10, "total": 0, "reasons": {}}
    assert [row["step"] for row in rows if row["kind"] == "val"] == [10]
    model, saved = model_from_checkpoint(run / "checkpoints" / "step-00000010.safetensors")
    assert saved == config
    assert not any(parameter.requires_grad for parameter in model.image_encoder.backbone.parameters())  # type: ignore[union-attr]
