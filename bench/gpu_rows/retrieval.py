"""Ten million locations: embedded, and searched for the five best of 4,536 queries."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.card import Card, GpuRow
from geoclip.evaluation.gallery import Gallery, encode_gallery
from geoclip.evaluation.retrieval import nearest_in_gallery
from geoclip.geo.geodesy import uniform_on_sphere
from geoclip.model.location_encoder import LocationEncoder
from geoclip.training.step import matrix_products

TOP, QUERIES = 5, 4536
CHECKED = 200  # queries whose best are found again by float32 alone


def measure_location_encoder(card: Card) -> None:
    """Coordinates per second by precision and chunk, and how far the embeddings are from float32's."""
    count = 4_000 if card.quick else 10_000_000
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"frequencies": 8, "hidden_dim": 16, "embedding_dim": 16} if card.quick else {}
    encoder = LocationEncoder(**sizes).to(card.device).eval()
    gallery = Gallery(name="uniform", gps_deg_G2=uniform_on_sphere(count, torch.Generator().manual_seed(0)))
    weights = sum(one.numel() for name, one in encoder.named_parameters() if "weight" in name)
    few = Gallery(name="few", gps_deg_G2=gallery.gps_deg_G2[: count // 100])
    exact_GD = encode_gallery(encoder, few, card.device)

    def measure(precision: str, chunk: int) -> None:
        context = partial(
            matrix_products, card.device, torch.bfloat16 if precision == "bf16" else None, precision == "tf32"
        )

        def run(these: Gallery) -> Tensor:
            with context():
                return encode_gallery(encoder, these, card.device, chunk)

        apart = float((run(few) - exact_GD).norm(dim=1).max())
        these = few if precision == "float32" else gallery  # float32 takes ten times as long
        rate = len(these.gps_deg_G2) / card.seconds(lambda: run(these), calls=1, turns=2)
        share = 2 * weights * rate / card.limits[precision]
        card.report(
            GpuRow(
                name=f"location encoder, {len(these.gps_deg_G2):,} coordinates, {precision}, chunks of {chunk:,}",
                value=rate,
                unit="coordinates/s",
                share=share,
                limit=f"{precision} matrix rate",
                target=0.6,
                note=f"unit vectors at most {apart:.2g} from float32's",
            )
        )

    for chunk in (1_000,) if card.quick else (16_384, 65_536, 131_072):
        for precision in ("float32", "tf32", "bf16"):
            if precision != "float32" or chunk == 16_384:
                measure(precision, chunk)


def measure_search(card: Card) -> None:
    """The five best of every query; the same rows as by float32 alone?"""
    count, queries, width = (5_000, 50, 16) if card.quick else (10_000_000, QUERIES, 512)
    generator = torch.Generator(card.device).manual_seed(5)
    gallery_GD = torch.empty((count, width), device=card.device)
    for part in gallery_GD.split(1_000_000):  # neighbours are alike, as locations are
        start = torch.randn((1 + len(part) // 100, width), device=card.device, generator=generator)
        part.copy_(start.repeat_interleave(100, dim=0)[: len(part)])
        part.add_(torch.randn(part.shape, device=card.device, generator=generator), alpha=0.5)
        part.copy_(F.normalize(part, dim=1))
    chosen = torch.randint(0, count, (queries,), device=card.device, generator=generator)
    noise = torch.randn((queries, width), device=card.device, generator=generator)
    image_ND = F.normalize(gallery_GD[chosen] + 1.0 * F.normalize(noise, dim=1), dim=1)
    stored_GD = gallery_GD.half()
    _, exact = _exactly(image_ND[:CHECKED], gallery_GD)
    _, found = nearest_in_gallery(image_ND, stored_GD, TOP)
    same = float((found[:CHECKED] == exact).float().mean())
    first = float((found[:CHECKED, 0] == exact[:, 0]).float().mean())
    spent_s = card.seconds(lambda: nearest_in_gallery(image_ND, stored_GD, TOP), calls=1, turns=3)
    products_s = 2 * queries * count * width / card.limits["bf16"]
    bytes_s = 2 * count * width / card.limits["copy"]
    card.report(
        GpuRow(
            name=f"top {TOP} of {queries:,} queries over {count:,} locations, float16 gallery",
            value=1e3 * spent_s,
            unit="ms",
            share=max(products_s, bytes_s) / spent_s,
            limit="bf16 matrix rate" if products_s > bytes_s else "copy bandwidth",
            target=0.6,
            note=f"of {min(CHECKED, queries)} queries {100 * first:.1f} % have float32's best, {100 * same:.1f} % of "
            "all five are in its order",
        )
    )


def _exactly(image_ND: Tensor, gallery_GD: Tensor) -> tuple[Tensor, Tensor]:
    """By float32 alone, a part of the gallery at a time."""
    scores, rows = [], []
    for start in range(0, len(gallery_GD), 500_000):
        score, row = (image_ND @ gallery_GD[start : start + 500_000].T).topk(TOP, dim=1)
        scores.append(score)
        rows.append(row + start)
    best, order = torch.cat(scores, dim=1).topk(TOP, dim=1)
    return best, torch.cat(rows, dim=1).gather(1, order)
