"""Guarantees of the model: where the logit scale starts, and who trains it."""

from __future__ import annotations

import pytest
import torch

from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder


@pytest.mark.parametrize("learnt", [True, False])
def test_the_logit_scale_starts_at_one_over_the_temperature(learnt: bool) -> None:
    image = ImageEncoder(None, feature_dim=2, hidden_dim=2, embedding_dim=2)
    location = LocationEncoder([1.0], frequencies=2, hidden_dim=2, depth=1, embedding_dim=2)
    model = GeoCLIP(image, location, temperature=0.25, learn_temperature=learnt, bias=-3.0)
    scale, bias = model.logit_terms()
    assert scale.item() == pytest.approx(4) and bias is not None and bias.item() == -3
    assert model.logit_scale.requires_grad is learnt
    assert GeoCLIP(image, location).logit_terms()[1] is None
    norms = model.encode_location(torch.tensor([[1.0, 2.0], [-3.0, 170.0]])).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(2))
