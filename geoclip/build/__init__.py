"""The seam: configuration dataclass -> object. `match`, nothing else."""

from geoclip.build.data import (
    build_augmentation,
    build_blue_marble_data,
    build_evaluation_decoder,
    build_gallery,
    build_preprocessing,
    build_stream_plan,
    transform_identity,
)
from geoclip.build.encoder import build_image_encoder, encoder_identity
from geoclip.build.model import build_model, model_from_checkpoint
from geoclip.build.training import (
    build_batches,
    build_hooks,
    build_objective,
    build_optimizer,
    build_precision,
    build_queue,
    build_recipe,
    build_state,
    build_step,
    require_negatives,
)

__all__ = [
    "build_augmentation",
    "build_batches",
    "build_blue_marble_data",
    "build_evaluation_decoder",
    "build_gallery",
    "build_hooks",
    "build_image_encoder",
    "build_model",
    "build_objective",
    "build_optimizer",
    "build_precision",
    "build_preprocessing",
    "build_queue",
    "build_recipe",
    "build_state",
    "build_step",
    "build_stream_plan",
    "encoder_identity",
    "model_from_checkpoint",
    "require_negatives",
    "transform_identity",
]
