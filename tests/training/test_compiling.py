"""compute.compile=true: the same gradients under the same names, or, without a compiler, one sentence."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._inductor.config as inductor
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from geoclip.factory.training import compile_layers, compiler_problem
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.backbones import ClipBackbone
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder

CPU = torch.device("cpu")
FEATURES_BF = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
LOCATIONS_M2 = uniform_on_sphere(64, torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    yield
    torch.compiler.reset()


def tiny() -> GeoCLIP:
    torch.manual_seed(0)
    image = ImageEncoder(None, feature_dim=6, hidden_dim=8, embedding_dim=4, frozen=True)
    # The finest scale: phases of thousands of radians.
    return GeoCLIP(image, LocationEncoder([256.0], frequencies=8, hidden_dim=16, depth=1, embedding_dim=4))


def gradients(model: GeoCLIP) -> dict[str, Tensor]:
    embedded = model(FEATURES_BF, LOCATIONS_M2)
    (embedded.scale * embedded.image_BD @ embedded.location_MD.T).logsumexp(dim=1).sum().backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def compiled(module: nn.Module) -> bool:
    return any(one._compiled_call_impl is not None for one in module.modules())


def test_of_a_transformer_the_equal_blocks_are_compiled_not_the_whole() -> None:
    if problem := compiler_problem(CPU):
        pytest.skip(problem)
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = CLIPVisionConfig(**shape, num_hidden_layers=3, image_size=28, patch_size=14, projection_dim=6)
    backbone = ClipBackbone(CLIPVisionModelWithProjection(config))
    model = GeoCLIP(ImageEncoder(backbone, feature_dim=6, hidden_dim=8, embedding_dim=4), tiny().location_encoder)
    assert compile_layers(model, CPU)
    blocks = [one for one in backbone.modules() if type(one).__name__ == "CLIPEncoderLayer"]
    assert len(blocks) == 3 and all(one._compiled_call_impl is not None for one in blocks)
    assert model.image_encoder._compiled_call_impl is None and backbone._compiled_call_impl is None


@pytest.mark.slow
def test_compiled_layers_have_the_same_gradients_and_names() -> None:
    if problem := compiler_problem(CPU):
        pytest.skip(problem)
    plain, faster = tiny(), tiny()
    assert compile_layers(faster, CPU)
    assert compiled(faster.location_encoder) and compiled(faster.image_encoder)
    assert list(faster.state_dict()) == list(plain.state_dict())
    wanted, found = gradients(plain), gradients(faster)
    assert wanted.keys() == found.keys()
    for name, one in wanted.items():
        assert (found[name] - one).norm() <= 1e-5 * one.norm(), name


def test_without_a_compiler_there_is_one_warning_and_training_works(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny()
    with inductor.patch({"cpp.cxx": ("/nonexistent/c++",)}), caplog.at_level(logging.WARNING, "geoclip"):
        assert not compile_layers(model, CPU)
    (warning,) = [one.getMessage() for one in caplog.records if one.name == "geoclip"]
    assert warning.startswith("compute.compile=true") and not compiled(model)
    assert gradients(model)
