"""The authors' code of the pinned wheel, run under another name, to be compared with."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from geoclip.data.assets import asset_path

TINY_PX = 28  # pictures of the tiny CLIP
TOWER: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def load_released(name: str) -> ModuleType:
    """A module of the authors' `model` as `released_geoclip.<name>`, without __init__ files, which need more."""
    folder = asset_path("released_code") / "model"
    for package, path in (("released_geoclip", folder), ("released_geoclip.rff", folder / "rff")):
        if package not in sys.modules:
            init = path / "__init__.py" if package.endswith("rff") else None
            spec = importlib.util.spec_from_file_location(package, init, submodule_search_locations=[str(path)])
            if spec is None or spec.loader is None:
                module = ModuleType(package)
                module.__path__ = [str(path)]
                sys.modules[package] = module
            else:
                sys.modules[package] = module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
    return importlib.import_module(f"released_geoclip.{name}")


def released_train() -> ModuleType:
    """train/train.py of the authors' package, without its __init__, which needs torchvision."""
    path = asset_path("released_code") / "train" / "train.py"
    spec = importlib.util.spec_from_file_location("released_train", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_tiny_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIP of two narrow random towers, projecting to the 768 dimensions that the released MLP takes.

    With its processor, as on the Hub; pictures of TINY_PX. Returns the folder.
    """
    torch.manual_seed(seed)
    config = CLIPConfig(
        text_config=TOWER | {"vocab_size": 50},
        vision_config=TOWER | {"image_size": TINY_PX, "patch_size": 14},
        projection_dim=768,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": TINY_PX}, crop_size=TINY_PX).save_pretrained(folder)
    # transformers 4 gives the authors' code its pictures' processor only together with a tokenizer.
    (folder / "vocab.json").write_text(json.dumps({"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    return folder


def tiny_released_geoclip(clip: Path, *, queue_size: int = 16, seed: int = 0) -> Any:
    """The authors' GeoCLIP with their weights and gallery on such a CLIP, its queue drawn by the seed.

    In training mode, as their constructor leaves it; called with normalised pixels (B, 3, TINY_PX, TINY_PX).
    """
    torch.manual_seed(seed)
    return load_released("GeoCLIP").GeoCLIP(queue_size=queue_size, clip_path=str(clip))
