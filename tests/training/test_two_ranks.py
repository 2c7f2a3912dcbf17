"""Two ranks learn exactly what one rank learns from the double batch (gloo, two real processes)."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from geoclip.data.batch import Batch
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.backbones import ResNetBackbone
from geoclip.model.geoclip import GeoCLIP
from geoclip.model.image_encoder import ImageEncoder
from geoclip.model.location_encoder import LocationEncoder
from geoclip.model.queue import GPSQueue
from geoclip.training.losses import Objective
from geoclip.training.state import TrainState
from geoclip.training.step import Recipe, train_step

GLOBAL_BATCH = 8
STEPS = 3
NOISY = partial(Objective, batch_noise_m=150.0, queue_noise_m=1000.0)
OBJECTIVES = {
    "one_way": NOISY(),
    "symmetric": NOISY(kind="symmetric", views=2, near="soften", near_radius_km=2000, hard_negatives=2),
    "sigmoid": NOISY(kind="sigmoid", near="mask", near_radius_km=2000),
}
Learnt = tuple[list[float], list[dict[str, Tensor]], Tensor]


def start(world_size: int, objective: Objective) -> TrainState:
    torch.manual_seed(0)
    backbone = ResNetBackbone(stem_dim=8, widths=[8, 16], depths=[1, 1])
    image = ImageEncoder(backbone, feature_dim=16, hidden_dim=16, embedding_dim=8, frozen=False)
    location = LocationEncoder([1.0, 16.0], frequencies=8, hidden_dim=16, depth=1, embedding_dim=8)
    model = GeoCLIP(image, location, bias=-2.0 if objective.kind == "sigmoid" else None).train()
    return TrainState(
        model=model,
        parallel=DistributedDataParallel(model) if world_size > 1 else model,
        queue=GPSQueue(uniform_on_sphere(12, torch.Generator().manual_seed(1))),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, fused=True),
        noise=torch.Generator().manual_seed(2),
    )


def learn(rank: int, world_size: int, objective: Objective) -> Learnt:
    """Losses, gradients of every step, and the queue at the end."""
    state = start(world_size, objective)
    recipe = Recipe(
        last_step=STEPS,
        lr_at=lambda step: 0.1,
        objective=objective,
        grad_clip=None,
        logit_scale_max=100.0,
        autocast=None,
    )
    generator = torch.Generator().manual_seed(3)
    losses, gradients = [], []
    for _ in range(STEPS):
        views = (objective.views,) if objective.views > 1 else ()
        pixels = torch.randint(0, 256, (GLOBAL_BATCH, *views, 3, 32, 32), generator=generator, dtype=torch.uint8)
        gps_deg = uniform_on_sphere(GLOBAL_BATCH, generator)
        gps_deg[5] = gps_deg[1]  # one location twice, on different ranks
        share = GLOBAL_BATCH // world_size
        rows = slice(rank * share, (rank + 1) * share)
        present = torch.ones(GLOBAL_BATCH, dtype=torch.bool)
        present[:2] = False  # two broken pictures, both on the first of two ranks
        pixels[:2] = 0
        batch = Batch(images=pixels[rows], gps_deg_B2=gps_deg[rows], keys=[""] * share, present_B=present[rows])
        losses.append(train_step(state, batch, recipe).sums[0].item())
        gradients.append({name: p.grad.clone() for name, p in state.model.named_parameters() if p.grad is not None})
    return losses, gradients, state.queue.negatives()


def rank_main(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    learnt = {name: learn(rank, 2, objective) for name, objective in OBJECTIVES.items()}
    torch.save(learnt, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Learnt]]:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(rank_main, args=(port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_ranks_learn_exactly_what_one_rank_learns(two_ranks: list[dict[str, Learnt]], name: str) -> None:
    losses, gradients, queue = learn(0, 1, OBJECTIVES[name])
    found = [one[name] for one in two_ranks]
    for step in range(STEPS):
        assert sum(one[0][step] for one in found) / 2 == pytest.approx(losses[step], abs=1e-5, rel=1e-6)
        for _, of_steps, _ in found:
            assert of_steps[step].keys() == gradients[step].keys()
            for part, gradient in gradients[step].items():
                torch.testing.assert_close(of_steps[step][part], gradient, atol=1e-5, rtol=1e-5, msg=part)
    for _, _, found_queue in found:
        assert torch.equal(found_queue, queue)
    assert max(gradient.abs().max() for gradient in gradients[-1].values()) > 1e-2  # not trivially equal
