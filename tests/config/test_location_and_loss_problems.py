"""What of a location encoder or a loss cannot run is named before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.test_configs import problems_of

PROBLEMS: list[tuple[list[str], str]] = [
    (["location.hidden_dim=0"], "location.hidden_dim=0:"),
    (["location.sigma_min=0"], "location.sigma_min=0.0:"),
    (["location.sigmas=null", "location.sigma_max=.5"], "location.sigma_max=0.5:"),
    (["location.combine=concat"], "location.embedding_dim=256:"),
    (["location.init=nowhere"], "location.init=nowhere:"),
    (["location.init=official"], "location.hidden_dim=256:"),
    (["location=finer", "location.projection=sphere"], "location.projection=sphere:"),
    (["location=finer", "location.share_mlp=true"], "location.init=official:"),
    (["location.freeze_init=true"], "location.freeze_init=true:"),
    (["location=direct", "location.init=official"], "location.init=official:"),
    (["location=spherical_harmonics", "location.degree=200"], "location.degree=200:"),
    (["loss.temperature=0"], "loss.temperature=0.0:"),
    (["loss.logit_scale_max=5"], "loss.logit_scale_max=5.0:"),
    (["loss.views=0"], "loss.views=0:"),
    (["loss.views=2"], "loss.views=2:"),
    (["loss.hard_negatives=-1"], "loss.hard_negatives=-1:"),
    (["loss.near_radius_km=0"], "loss.near_radius_km=0.0:"),
    (["optim.batch_size=1", "data.streams=1", "queue=no_queue_noise", "queue.size=0"], "optim.batch_size=1:"),
    (["optim.batch_size=1", "data.streams=1", "queue.size=0", "loss=sigmoid"], "optim.batch_size=1:"),
    (["optim.batch_size=1", "data.streams=1", "loss=symmetric"], "optim.batch_size=1:"),
    (
        ["loss.near=mask", "loss.near_radius_km=500", "loss.hard_negatives=4", "loss.hard_radius_km=100"],
        "loss.near_radius_km=500:",
    ),
    (["loss.hard_radius_km=30000"], "loss.hard_radius_km=30000.0:"),
]


@pytest.mark.parametrize(("overrides", "sentence"), PROBLEMS, ids=lambda value: str(value)[:40])
def test_what_cannot_run_is_named(overrides: list[str], sentence: str) -> None:
    assert any(problem.startswith(sentence) for problem in problems_of(*overrides))


def test_what_can_run_has_no_problem(tmp_path: Path) -> None:
    for overrides in (
        ["location=finer", "location.freeze_init=true"],
        ["location.sigmas=null", "location.scales=5"],
        ["loss=sigmoid", "loss.views=2", "data.flip=true", "loss.near=mask"],
        ["loss.learn_temperature=false", "loss.logit_scale_max=null"],
        ["fidelity=released"],
        ["optim.batch_size=1", "data.streams=1"],
        ["optim.batch_size=1", "data.streams=1", "queue.size=0", "loss.hard_negatives=2"],
    ):
        assert problems_of(*overrides) == []
