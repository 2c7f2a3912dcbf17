"""The model: image encoder, location encoder and loss. Schemas, then rules."""

from __future__ import annotations

import os
from dataclasses import dataclass

from geoclip.config.choices import (
    Combine,
    EncoderKind,
    Fit,
    Interpolation,
    LocationKind,
    LossKind,
    Near,
    Projection,
    Sphere2VecKind,
    Tune,
)
from geoclip.config.keys import key, name_key

HALF_EQUATOR_KM = 20_015.0
LARGEST_DEGREE = 100  # beyond it float32 cannot distinguish harmonics


@dataclass(kw_only=True, slots=True)
class EncoderConfig:
    """The image encoder: a backbone of `transformers`, then the two-layer MLP of GeoCLIP."""

    name: str = name_key("name of the chosen option, for run folders, tables and files")
    kind: EncoderKind = key(comment="type of the backbone; resnet, vit: trained from scratch")
    licence: str = key("", "licence of the pretrained weights")
    repo: str = key("", "Hub id or local folder of the weights; resnet, vit: run folder or .pt file; empty: random")
    features: str = key("", "folder that geoclip.features wrote, to train on instead of pictures; empty: pictures")
    image_px: int = key(comment="side of the square input", at_least=1, unit="pixels")
    resize_px: int | None = key(
        None, "fit=crop: shorter side before cropping; null: image_px", at_least=1, unit="pixels"
    )
    fit: Fit = key(Fit.crop, "crop: resize the shorter side, then crop the centre; squash: resize both sides")
    interpolation: Interpolation = key(Interpolation.bicubic, "interpolation of resizing")
    mean: list[float] = key([0.48145466, 0.4578275, 0.40821073], "mean of red, green, blue, in [0, 1]")
    std: list[float] = key([0.26862954, 0.26130258, 0.27577711], "standard deviation of red, green, blue", above=0)
    prediction_mean: list[float] | None = key(None, "mean that geoclip.predict uses; null: mean")
    prediction_std: list[float] | None = key(None, "standard deviation that geoclip.predict uses; null: std", above=0)
    tune: Tune = key(Tune.full, "trained part of the backbone (learning rate: optim.encoder_lr)")
    last_blocks: int = key(2, "tune=last_blocks: number of trained transformer blocks, or ResNet stages", at_least=1)
    lora_rank: int = key(16, "tune=lora: rank of the updates", at_least=1)
    lora_alpha: float = key(32.0, "tune=lora: updates are multiplied by lora_alpha / lora_rank", above=0)
    checkpoint_activations: bool = key(False, "recompute activations of a trained backbone, to save memory")
    feature_dim: int = key(comment="width of the backbone's output", at_least=1)
    hidden_dim: int = key(comment="width of the MLP's hidden layer", at_least=1)
    stem_dim: int = key(16, "resnet: channels after the stem", at_least=1)
    widths: list[int] = key([16, 32, 64, 128], "resnet: channels of the stages", at_least=1)
    depths: list[int] = key([1, 1, 1, 1], "resnet: blocks of the stages", at_least=1)
    patch_px: int = key(8, "vit: side of a patch", at_least=1, unit="pixels")
    blocks: int = key(4, "vit: transformer blocks", at_least=1)
    heads: int = key(4, "vit: attention heads", at_least=1)

    @property
    def frozen(self) -> bool:
        """Whether nothing of the backbone is trained."""
        return self.tune is Tune.frozen


@dataclass(kw_only=True, slots=True)
class LocationConfig:
    """The location encoder: degrees in, embedding out."""

    name: str = name_key("name of the chosen option, for run folders, tables and files")
    kind: LocationKind = key(LocationKind.fourier, "encoding of coordinates; direct: none, an MLP on the coordinates")
    projection: Projection = key(Projection.equal_earth, "fourier, direct: map projection; sphere: unit vectors")
    sigmas: list[float] | None = key([1.0, 16.0, 256.0], "fourier: scales; null: see sigma_min", above=0)
    sigma_min: float = key(1.0, "fourier, sigmas=null: smallest of `scales` scales, evenly spaced in log2", above=0)
    sigma_max: float = key(256.0, "fourier, sigmas=null: largest scale", above=0)
    scales: int = key(3, "sphere2vec; fourier, sigmas=null: number of scales", at_least=1)
    combine: Combine = key(Combine.sum, "fourier: how the embeddings of the scales are combined")
    share_mlp: bool = key(False, "fourier: one MLP for all scales")
    learn_frequencies: bool = key(False, "fourier: train the frequencies")
    frequencies: int = key(256, "fourier: random frequencies per scale", at_least=1)
    hidden_dim: int = key(1024, "width of the MLP's hidden layers", at_least=1)
    depth: int = key(3, "number of hidden layers of the MLP", at_least=1)
    embedding_dim: int = key(512, "dimension of the embeddings of images and locations", at_least=1)
    degree: int = key(10, "spherical_harmonics: number of degrees, from 0 to degree - 1", at_least=1)
    sphere2vec: Sphere2VecKind = key(Sphere2VecKind.sphere_c_plus, "sphere2vec: variant of the encoding")
    min_radius_km: float = key(10.0, "sphere2vec: smallest radius", above=0, unit="km")
    init: str = key("", "fourier: weights of the scales: official, a run folder or a checkpoint; empty: random")
    freeze_init: bool = key(False, "do not train the scales taken from init")


@dataclass(kw_only=True, slots=True)
class LossConfig:
    """The loss."""

    name: str = name_key("name of the chosen option, for run folders, tables and files")
    kind: LossKind = key(LossKind.one_way, "one_way: image to location; symmetric: both ways; sigmoid: per pair")
    views: int = key(1, "number of augmented views of each picture in a step", at_least=1)
    mask_same_place: bool = key(True, "do not use a candidate at the picture's own coordinates as a negative")
    near: Near | None = key(
        None,
        "mask: ignore candidates within near_radius_km; soften: targets exp(-d / near_radius_km) at distance d; null: "
        "all candidates are negatives",
    )
    near_radius_km: float = key(25.0, "radius of loss.near", above=0, below=HALF_EQUATOR_KM, unit="km")
    hard_negatives: int = key(0, "additional negatives per picture, near its location", at_least=0)
    hard_radius_km: float = key(
        100.0, "hard_negatives are at one to two times this distance", above=0, below=HALF_EQUATOR_KM, unit="km"
    )
    temperature: float = key(0.07, "softmax temperature at the start", above=0)
    learn_temperature: bool = key(True, "train the temperature")
    logit_scale_max: float | None = key(100.0, "largest 1 / temperature; null: no limit")


def encoder_problems(encoder: EncoderConfig) -> list[str]:
    """Reasons why this image encoder cannot be built."""
    problems = _pixel_problems(encoder)
    if encoder.frozen and encoder.checkpoint_activations:
        problems.append("encoder.checkpoint_activations=true: is for a trained backbone, but encoder.tune=frozen")
    if encoder.features and not os.path.isdir(encoder.features):
        problems.append(
            f"encoder.features={encoder.features}: is not a folder; write it: python -m geoclip.features "
            "data=… encoder=…, or for the studies make study-features"
        )
    if encoder.name == "cached" and not encoder.features:
        problems.append(
            "encoder=cached: needs encoder.features=FOLDER, written by python -m geoclip.features; to train on "
            "pictures choose encoder=clip_vit_l14"
        )
    if encoder.features and not encoder.frozen:
        problems.append(
            f"encoder.features={encoder.features}: are of a frozen encoder, but encoder={encoder.name} is trained"
        )
    match encoder.kind:
        case EncoderKind.clip | EncoderKind.siglip | EncoderKind.dino:
            if not encoder.repo:
                problems.append(
                    f"encoder.repo='': must name a Hub id or a local folder of {encoder.kind.value} weights"
                )
        case EncoderKind.resnet:
            problems += _from_scratch_problems(encoder) + _resnet_problems(encoder)
        case EncoderKind.vit:
            problems += _from_scratch_problems(encoder) + _vit_problems(encoder)
    return problems


def _pixel_problems(encoder: EncoderConfig) -> list[str]:
    problems = [
        f"encoder.{name}={values}: must have three values: red, green, blue"
        for name in ("mean", "std", "prediction_mean", "prediction_std")
        if (values := getattr(encoder, name)) is not None and len(values) != 3
    ]
    if (encoder.prediction_mean is None) != (encoder.prediction_std is None):
        problems.append("encoder.prediction_mean and encoder.prediction_std: give both, or null for both")
    if encoder.resize_px is not None and encoder.fit is Fit.squash:
        problems.append(f"encoder.resize_px={encoder.resize_px}: must be null with encoder.fit=squash")
    elif encoder.resize_px is not None and encoder.resize_px < encoder.image_px:
        problems.append(
            f"encoder.resize_px={encoder.resize_px}: must be encoder.image_px={encoder.image_px} or more, or null"
        )
    return problems


def _from_scratch_problems(encoder: EncoderConfig) -> list[str]:
    """Of a backbone with random weights, or those of a run."""
    problems = []
    if encoder.frozen and not encoder.repo:
        problems.append(
            "encoder.tune=frozen: would freeze random weights; name the run of the backbone: encoder.repo=runs/NAME"
        )
    if encoder.repo and not os.path.exists(encoder.repo):
        problems.append(f"encoder.repo={encoder.repo}: is neither a run folder nor a .pt file")
    return problems


def _resnet_problems(encoder: EncoderConfig) -> list[str]:
    problems = []
    if len(encoder.widths) != len(encoder.depths) or not encoder.widths:
        problems.append(f"encoder.widths={encoder.widths}: must be as long as encoder.depths={encoder.depths}")
    elif encoder.feature_dim != encoder.widths[-1]:
        problems.append(
            f"encoder.feature_dim={encoder.feature_dim}: must equal the last of encoder.widths={encoder.widths}"
        )
    if encoder.tune is Tune.lora or encoder.checkpoint_activations:
        problems.append(
            f"encoder={encoder.name}: has no attention; encoder.tune=lora and encoder.checkpoint_activations=true are "
            "for transformers such as encoder=clip_vit_l14"
        )
    if encoder.tune is Tune.last_blocks and encoder.last_blocks > len(encoder.depths):
        problems.append(
            f"encoder.last_blocks={encoder.last_blocks}: must be at most {len(encoder.depths)}, the stages of "
            f"encoder.depths={encoder.depths}"
        )
    return problems


def _vit_problems(encoder: EncoderConfig) -> list[str]:
    problems = []
    if encoder.patch_px > 0 and encoder.image_px % encoder.patch_px:
        problems.append(
            f"encoder.image_px={encoder.image_px}: does not divide into patches of encoder.patch_px={encoder.patch_px}"
            f"; try encoder.image_px={max(1, encoder.image_px // encoder.patch_px) * encoder.patch_px}"
        )
    if encoder.heads > 0 and encoder.feature_dim % encoder.heads:
        problems.append(
            f"encoder.feature_dim={encoder.feature_dim}: does not divide over encoder.heads={encoder.heads}; try "
            f"encoder.feature_dim={max(1, encoder.feature_dim // encoder.heads) * encoder.heads}"
        )
    if encoder.tune is Tune.last_blocks and encoder.last_blocks > encoder.blocks:
        problems.append(f"encoder.last_blocks={encoder.last_blocks}: must be at most encoder.blocks={encoder.blocks}")
    if encoder.tune is Tune.lora and not encoder.repo:
        problems.append(
            "encoder.tune=lora: would freeze random weights; name the run of the backbone: encoder.repo=runs/NAME"
        )
    return problems


def location_problems(location: LocationConfig) -> list[str]:
    """Reasons why this location encoder cannot be built."""
    problems = []
    if location.kind is LocationKind.fourier:
        problems += _hierarchy_problems(location)
    elif location.init:
        problems.append(
            f"location.init={location.init}: is for location.kind=fourier, not location.kind={location.kind.value}"
        )
    if location.kind is LocationKind.spherical_harmonics and location.degree > LARGEST_DEGREE:
        problems.append(
            f"location.degree={location.degree}: makes {location.degree**2} harmonics, more than float32 can "
            f"distinguish; must be {LARGEST_DEGREE} or less"
        )
    return problems


def _hierarchy_problems(location: LocationConfig) -> list[str]:
    problems = []
    scales = location.scales if location.sigmas is None else len(location.sigmas)
    if location.sigmas is None and location.sigma_max < location.sigma_min:
        problems.append(
            f"location.sigma_max={location.sigma_max}: must be location.sigma_min={location.sigma_min} or more"
        )
    if location.sigmas == []:
        problems.append(
            "location.sigmas=[]: must have a scale, e.g. location.sigmas=[1,16,256]; null: location.scales of them "
            "from sigma_min to sigma_max"
        )
    if location.combine is Combine.concat and scales > 0 and location.embedding_dim % scales:
        problems.append(
            f"location.embedding_dim={location.embedding_dim}: does not divide over {scales} scales side by side "
            f"(location.combine=concat); try {location.embedding_dim // scales * scales}"
        )
    if location.init:
        problems += _init_problems(location)
    elif location.freeze_init:
        problems.append("location.freeze_init=true: needs location.init, which is empty")
    return problems


def _init_problems(location: LocationConfig) -> list[str]:
    """Why the scales cannot begin with pretrained weights."""
    problems = []
    if location.combine is Combine.concat or location.share_mlp:
        problems.append(f"location.init={location.init}: needs location.combine=sum and location.share_mlp=false")
    if location.init != "official":
        if not os.path.exists(location.init):
            problems.append(f"location.init={location.init}: must be official, a run folder or a checkpoint file")
        return problems
    released = {"frequencies": 256, "hidden_dim": 1024, "depth": 3, "embedding_dim": 512}
    problems += [
        f"location.{name}={getattr(location, name)}: must be {value} with location.init=official: take location=geoclip"
        for name, value in released.items()
        if getattr(location, name) != value
    ]
    if location.projection is not Projection.equal_earth:
        problems.append(
            f"location.projection={location.projection.value}: must be equal_earth with location.init=official"
        )
    return problems


def loss_problems(loss: LossConfig) -> list[str]:
    """Reasons why this loss cannot be computed."""
    largest, temperature = loss.logit_scale_max, loss.temperature
    if largest is None or temperature <= 0 or largest >= 1 / temperature:
        return []
    return [
        f"loss.logit_scale_max={largest}: must be 1 / loss.temperature = {1 / temperature:g} or more, or null for no "
        "limit"
    ]
