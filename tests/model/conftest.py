"""Small random models of the real architectures, written to a folder as the Hub has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hydra import compose, initialize_config_dir

from geoclip.conf_dir import conf_dir
from geoclip.config import EncoderConfig, TrainConfig, typed

TOWER: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT: dict[str, Any] = TOWER | {"vocab_size": 20, "max_position_embeddings": 8}
SQUARE: dict[str, Any] = {"image_size": 16, "patch_size": 8}


def clip(activation: str) -> Any:
    """Both towers, as people publish them; OpenCLIP's weights come with gelu, OpenAI's with quick_gelu."""
    sides: dict[str, Any] = {"vision_config": TOWER | SQUARE | {"hidden_act": activation}, "text_config": TEXT}
    return transformers.CLIPModel(transformers.CLIPConfig(**sides, projection_dim=12))


def siglip() -> Any:
    sides: dict[str, Any] = {"vision_config": TOWER | SQUARE, "text_config": TEXT}
    return transformers.SiglipModel(transformers.SiglipConfig(**sides))


def dinov2() -> Any:
    """Pretrained at another size than it is used at, as DINOv2 is: positions are interpolated."""
    size: dict[str, Any] = {"image_size": 56, "patch_size": 8, "mlp_ratio": 2}
    return transformers.Dinov2Model(transformers.Dinov2Config(**TOWER | size))


def dinov3() -> Any:
    if not hasattr(transformers, "DINOv3ViTModel"):
        pytest.skip(f"transformers {transformers.__version__} has no DINOv3; 4.56 has")
    return transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**TOWER | SQUARE, num_register_tokens=2))


MODELS: dict[str, Callable[[], Any]] = {  # by option of conf/encoder
    "clip_vit_l14": lambda: clip("quick_gelu"),
    "openclip_vit_h14": lambda: clip("gelu"),
    "siglip2_b16": siglip,
    "dinov2_b14": dinov2,
    "dinov3_b16": dinov3,
}
FEATURE_DIM = {"clip_vit_l14": 12, "openclip_vit_h14": 12, "vit_tiny": 16}  # others: the width of the tower


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small model of the architecture that an option of conf/encoder names."""
    folders: dict[str, Path] = {}

    def write(option: str) -> Path:
        if option not in folders:
            torch.manual_seed(0)
            model = MODELS[option]()
            folders[option] = tmp_path_factory.mktemp(option)
            model.save_pretrained(folders[option])
        return folders[option]

    return write


@pytest.fixture
def small(pretrained: Callable[[str], Path]) -> Callable[..., TrainConfig]:
    """A training configuration with such a backbone: `small("dinov2_b14", "encoder.tune=lora")`."""

    def configured(option: str, *overrides: str) -> TrainConfig:
        known = [
            *(f"encoder={option}", f"encoder.feature_dim={FEATURE_DIM.get(option, 16)}"),
            *("encoder.image_px=16", "encoder.hidden_dim=8", "encoder.patch_px=8"),
            *("encoder.resize_px=null", "encoder.heads=2", "encoder.blocks=2"),
            *("location.frequencies=4", "location.hidden_dim=8", "location.embedding_dim=6"),
        ]
        if option in MODELS:
            known.append(f"encoder.repo={pretrained(option)}")
        with initialize_config_dir(conf_dir(), version_base="1.3"):
            return typed(compose("train", [*known, *overrides]), TrainConfig, lambda _: [])

    return configured


@pytest.fixture
def small_encoder(small: Callable[..., TrainConfig]) -> Callable[..., EncoderConfig]:
    """The encoder of `small`."""
    return lambda option, *overrides: small(option, *overrides).encoder
