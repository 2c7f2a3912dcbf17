"""The values of keys with a fixed set of values. Enums, because OmegaConf does not support `Literal`."""

from __future__ import annotations

from enum import Enum


class DataKind(Enum):
    bluemarble = "bluemarble"
    shards = "shards"


class EncoderKind(Enum):
    clip = "clip"  # CLIP, OpenCLIP, StreetCLIP: the projection into the joint space
    siglip = "siglip"  # SigLIP 2: its pooled output
    dino = "dino"  # DINOv2, DINOv3: the class token
    resnet = "resnet"  # from scratch
    vit = "vit"  # from scratch


class Fit(Enum):
    crop = "crop"  # shorter side to the size, then the central square
    squash = "squash"  # both sides to the size


class Interpolation(Enum):
    bicubic = "bicubic"
    bilinear = "bilinear"


class Tta(Enum):
    single = "single"
    five_crop = "five_crop"
    ten_crop = "ten_crop"


class LocationKind(Enum):
    fourier = "fourier"  # GeoCLIP's hierarchy
    spherical_harmonics = "spherical_harmonics"  # SatCLIP
    sphere2vec = "sphere2vec"
    direct = "direct"  # an MLP on the coordinates


class Projection(Enum):
    equal_earth = "equal_earth"
    equirectangular = "equirectangular"
    mercator = "mercator"
    sphere = "sphere"  # three-dimensional: no seam, no poles


class Combine(Enum):
    sum = "sum"
    concat = "concat"


class Sphere2VecKind(Enum):
    sphere_c = "sphere_c"
    sphere_c_plus = "sphere_c_plus"
    sphere_m = "sphere_m"
    sphere_m_plus = "sphere_m_plus"


class LossKind(Enum):
    one_way = "one_way"  # image to GPS
    symmetric = "symmetric"
    sigmoid = "sigmoid"


class Near(Enum):
    mask = "mask"
    soften = "soften"


class Protocol(Enum):
    sphere = "sphere"  # great circle, strictly below: OSV-5M, PLONK, PIGEON
    released = "released"  # WGS 84 geodesic, at most: GeoCLIP's released code


class Tune(Enum):
    frozen = "frozen"
    last_blocks = "last_blocks"
    lora = "lora"
    full = "full"


class AverageKind(Enum):
    ema = "ema"
    swa = "swa"


class OptimizerKind(Enum):
    adam = "adam"
    adamw = "adamw"


class ScheduleKind(Enum):
    step = "step"
    cosine = "cosine"


class QueueStart(Enum):
    sphere = "sphere"
    train = "train"
    released = "released"  # unit-norm noise read as degrees


class QueueEmbeddings(Enum):
    encoded = "encoded"  # anew at every step, with gradient, as the released code does
    detached = "detached"  # anew, without gradient
    stale = "stale"  # as they were when they were pushed


class Precision(Enum):
    auto = "auto"
    float32 = "float32"
    tf32 = "tf32"
    bfloat16 = "bfloat16"


class LoggerMode(Enum):
    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


class GalleryKind(Enum):
    own = "own"
    file = "file"
    released = "released"


class BenchmarkKind(Enum):
    shards = "shards"
    photos = "photos"


class PlacesSource(Enum):
    released_100k = "released_100k"
    csv = "csv"
    shards = "shards"


class ShardSource(Enum):
    bluemarble = "bluemarble"
    csv = "csv"
    wds = "wds"


class ExportFormat(Enum):
    safetensors = "safetensors"  # weights and config.json, in the authors' layout
    onnx = "onnx"
    torchscript = "torchscript"
    torch_export = "torch_export"
