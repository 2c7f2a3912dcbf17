"""Differences between this package and the released code (geoclip 1.3.0) on the released weights, on the CPU.

    python -m bench.parity [--queries 1000] [--places 100000] [--output bench/parity.json]

The released code is loaded from the pinned wheel under another name. Compared are the location encoder on every
location of the released gallery, the image MLP and the predictions on queries with the shape of CLIP's features, and
the complete model on pictures, with a small random CLIP. The queries range from random features, for which the model is
uncertain, to features for which it is certain, as for a photograph of a landmark.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.released import AsGiven
from geoclip import load
from geoclip.data.assets import asset_path
from geoclip.evaluation.gallery import read_gallery
from geoclip.evaluation.retrieval import nearest_in_gallery
from geoclip.model.geoclip import GeoCLIP
from geoclip.runs.run_dir import provenance, write_json
from tests.model.released import TINY_PX, tiny_released_geoclip, write_tiny_clip

QUERIES, PLACES, TOP = 1000, 100_000, 5
FEATURE_NORM = 10.0  # about that of CLIP ViT-L/14's image features
CHUNK = 2000  # locations at a time


def queries_for(model: GeoCLIP, gps_deg_G2: Tensor, count: int) -> Tensor:
    """(count, 768) features of CLIP's norm, from random ones to ones that the image MLP maps to a location."""
    generator = torch.Generator().manual_seed(0)
    random_NF = F.normalize(torch.randn(count, model.image_encoder.feature_dim, generator=generator), dim=1)
    sure_NF = random_NF.clone().requires_grad_()
    with torch.no_grad():
        goals_ND = model.encode_location(gps_deg_G2[torch.randint(len(gps_deg_G2), (count,), generator=generator)])
    optimizer = torch.optim.Adam([sure_NF], lr=0.005)
    for _ in range(40):
        optimizer.zero_grad()
        loss = -(model.encode_features(FEATURE_NORM * sure_NF) * goals_ND).sum()
        loss.backward()
        optimizer.step()
    way_N1 = torch.linspace(0, 1, count)[:, None]
    return FEATURE_NORM * F.normalize(torch.lerp(random_NF, sure_NF.detach(), way_N1), dim=1)


@torch.inference_mode()
def compare_places(
    ours: GeoCLIP, theirs: Any, gps_deg_G2: Tensor, features_NF: Tensor
) -> tuple[dict[str, float], Tensor, Tensor]:
    """Every location through both location encoders, theirs within the released `forward`.

    Returns:
        The largest difference of any number of the embeddings, and the largest number among them; (G, D) our unit
        vectors; (N, G) the released logits of the features. A location's logits do not depend on the others.
    """
    worst, largest, logits, embedded = 0.0, 0.0, [], []
    seen: list[Tensor] = []
    hook = theirs.location_encoder.register_forward_hook(lambda module, given, out: seen.append(out))
    for part in gps_deg_G2.split(CHUNK):
        logits.append(theirs(features_NF, part))
        released, mine = seen.pop(), ours.location_encoder(part)
        worst = max(worst, (mine - released).abs().max().item())
        largest = max(largest, released.abs().max().item())
        embedded.append(F.normalize(mine, dim=1))
    hook.remove()
    found = {"location_embedding_difference": worst, "largest_location_embedding": largest}
    return found, torch.cat(embedded), torch.cat(logits, dim=1)


@torch.inference_mode()
def compare_queries(
    ours: GeoCLIP, theirs: Any, features_NF: Tensor, gps_deg_G2: Tensor, gallery_GD: Tensor, logits_NG: Tensor
) -> dict[str, Any]:
    """From features to the best locations, by both.

    Equal coordinates are equally probable: ranks are equal if their coordinates are.
    """
    image_ND = ours.encode_features(features_NF)
    mlp = (ours.image_encoder.head(features_NF) - theirs.image_encoder.mlp(features_NF)).abs().max().item()
    rows_Nk = nearest_in_gallery(image_ND, gallery_GD, TOP)[1]
    worst, same, sure = 0.0, 0, []
    for first in range(0, len(features_NF), 100):
        part = slice(first, first + 100)
        probability = (ours.logit_scale.exp() * image_ND[part] @ gallery_GD.T).softmax(dim=1)
        released = logits_NG[part].softmax(dim=-1)
        worst = max(worst, (probability - released).abs().max().item())
        top = released.topk(TOP, dim=1)
        same += int((gps_deg_G2[rows_Nk[part]] == gps_deg_G2[top.indices]).all(dim=2).all(dim=1).sum())
        sure.append(top.values[:, 0])
    best = torch.cat(sure)
    return {
        "image_embedding_difference": mlp,
        "logit_scale_difference": abs(ours.logit_scale.item() - theirs.logit_scale.item()),
        "probability_difference": worst,
        "same_top_5": same,
        "best_probability_quartiles": best.quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])).tolist(),
    }


@torch.inference_mode()
def compare_pictures(ours: GeoCLIP, theirs: Any, gps_deg_N2: Tensor, count: int = 16) -> float:
    """Largest difference of the logits of random pictures through both models' own `forward`, CLIP included."""
    pixels = torch.randint(
        0, 256, (count, 3, TINY_PX, TINY_PX), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )
    mean, std = ours.image_encoder.mean_13HW, ours.image_encoder.std_13HW
    embedded = ours(pixels, gps_deg_N2)
    released = theirs((pixels.float() / 255 - mean) / std, gps_deg_N2)
    return float((embedded.scale * embedded.image_BD @ embedded.location_MD.T - released).abs().max())


def measure(queries: int = QUERIES, places: int = PLACES) -> dict[str, Any]:
    """Everything that is compared, as numbers."""
    gps_deg_G2 = read_gallery(asset_path("gallery_100k.csv"), "released_100k").gps_deg_G2[:places].float()
    with tempfile.TemporaryDirectory() as folder:
        clip = write_tiny_clip(Path(folder))
        ours = load("official", backbone=str(clip))
        theirs = tiny_released_geoclip(clip).eval()
    found = {
        "places": places,
        "queries": queries,
        "picture_logit_difference": compare_pictures(ours, theirs, gps_deg_G2[:64]),
    }
    theirs.image_encoder.CLIP = AsGiven()
    features_NF = queries_for(ours, gps_deg_G2, queries)
    of_places, gallery_GD, logits_NG = compare_places(ours, theirs, gps_deg_G2, features_NF)
    return found | of_places | compare_queries(ours, theirs, features_NF, gps_deg_G2, gallery_GD, logits_NG)


def _digits(difference: float) -> str:
    return f"{difference:.1e}" if difference else "0"


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    queries = f"{found['queries']:,} queries"
    rows = [
        (
            f"location encoder, {found['places']:,} places of the released gallery: largest difference (numbers up to "
            f"{found['largest_location_embedding']:.1f})",
            _digits(found["location_embedding_difference"]),
        ),
        (f"image MLP, {queries}: largest difference", _digits(found["image_embedding_difference"])),
        ("logit scale: difference", _digits(found["logit_scale_difference"])),
        (
            "whole model, pictures through a small CLIP: largest difference of a logit",
            _digits(found["picture_logit_difference"]),
        ),
        (
            f"softmax over the gallery, {queries}: largest difference of a probability (quartiles of the best: "
            f"{', '.join(f'{one:.2g}' for one in found['best_probability_quartiles'][1:4])})",
            _digits(found["probability_difference"]),
        ),
        ("queries with the same five best places in the same order", f"{found['same_top_5']:,}"),
    ]
    lines = ["| compared with the released code, geoclip 1.3.0 | |", "| --- | ---: |"]
    return "\n".join([*lines, *(f"| {what} | {value} |" for what, value in rows)]) + "\n"


def main() -> None:
    """Compare, print, and write JSON and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=QUERIES)
    parser.add_argument("--places", type=int, default=PLACES)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".json"))
    chosen = parser.parse_args()
    found = measure(chosen.queries, chosen.places)
    write_json(chosen.output, found | provenance())
    chosen.output.with_suffix(".md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()
