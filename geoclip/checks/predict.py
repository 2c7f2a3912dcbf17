"""Why a prediction cannot start."""

from __future__ import annotations

import os
from pathlib import Path

from geoclip.checks.evaluate import model_source_problems
from geoclip.checks.gallery import box_problems, country_problems, one_or_many
from geoclip.config import PredictConfig


def predict_problems(config: PredictConfig) -> list[str]:
    """Every reason why this prediction cannot start."""
    problems = model_source_problems(config)
    texts = one_or_many(config.text)
    if not config.image and not texts:
        problems.append("image=FILE_OR_FOLDER or text='…' must be given")
    if config.image and not os.path.exists(config.image):
        problems.append(f"image={config.image} is neither a file nor a folder")
    elif (
        config.image
        and config.output
        and _lies_among_pictures(Path(config.output).resolve(), Path(config.image).resolve())
    ):
        problems.append(
            f"output={config.output} lies among the pictures: maps would be taken for them and their .json files "
            "overwritten; name another folder"
        )
    if any(not text.strip() for text in texts):
        problems.append("text='' says nothing; give a text, or text='[one, another]'")
    problems += [*box_problems(config.box), *country_problems(config.country)]
    for key, least in (("top_k", 1), ("batch_size", 1), ("maps", 0), ("smooth_km", 0)):
        if getattr(config, key) < least:
            problems.append(f"{key}={getattr(config, key)} must be {least} or more")
    for key in ("refine_m", "abstain_km"):
        value = getattr(config, key)
        if value is not None and not value > 0:
            problems.append(f"{key}={value} must be positive, or null")
    return problems


def _lies_among_pictures(output: Path, image: Path) -> bool:
    return output.is_relative_to(image) if image.is_dir() else output == image.parent
