"""The queue of past coordinates, which are additional negatives for every image."""

from __future__ import annotations

import torch
from torch import Tensor


class GPSQueue:
    """The last `size` coordinates pushed, oldest overwritten first.

    It contains coordinates, which are encoded again, with gradient, at every step. Every rank pushes the same gathered
    rows, so all queues stay equal. For the ablation with stale embeddings, `embedding_SD` contains the embeddings at
    the time of the push.

    Args:
        start_deg_S2: (S, 2) latitude, longitude in degrees at the start, for example `uniform_on_sphere` or
            coordinates of the training set. S may be 0.

    Source: GeoCLIP, NeurIPS 2023, section 3.3; read before the batch is pushed, as in the released code.
    """

    def __init__(self, start_deg_S2: Tensor) -> None:
        if start_deg_S2.ndim != 2 or start_deg_S2.shape[1] != 2:
            raise ValueError(f"a queue starts from (S, 2) coordinates, got {tuple(start_deg_S2.shape)}")
        self.gps_deg_S2 = start_deg_S2.clone()
        # The oldest row; on the device, because a recorded step reads it there.
        self.position = torch.zeros((), dtype=torch.long, device=start_deg_S2.device)
        self.embedding_SD: Tensor | None = None

    def __len__(self) -> int:
        return self.gps_deg_S2.shape[0]

    def negatives(self) -> Tensor:
        """(S, 2) degrees."""
        return self.gps_deg_S2

    def push(self, gps_deg_N2: Tensor, embedding_ND: Tensor | None = None) -> None:
        """Overwrite the oldest rows by (N, 2) degrees, and their embeddings if the queue has any; the last S remain."""
        count = min(len(gps_deg_N2), len(self))
        if count == 0:
            return
        row_N = (self.position + torch.arange(count, device=self.position.device)) % len(self)
        # Copies: earlier negatives() may still be part of a graph.
        self.gps_deg_S2 = self.gps_deg_S2.index_copy(0, row_N, gps_deg_N2.detach()[-count:])
        if self.embedding_SD is not None and embedding_ND is not None:
            self.embedding_SD = self.embedding_SD.index_copy(0, row_N, embedding_ND.detach()[-count:])
        self.position = (self.position + count) % len(self)

    def to(self, device: torch.device) -> GPSQueue:
        """Move the queue's tensors to a device; returns the queue itself."""
        self.gps_deg_S2, self.position = self.gps_deg_S2.to(device), self.position.to(device)
        self.embedding_SD = None if self.embedding_SD is None else self.embedding_SD.to(device)
        return self

    def state_dict(self) -> dict[str, Tensor | int | None]:
        """For a checkpoint."""
        embedding_SD = None if self.embedding_SD is None else self.embedding_SD.cpu()
        return {"gps_deg_S2": self.gps_deg_S2.cpu(), "position": int(self.position), "embedding_SD": embedding_SD}

    def load_state_dict(self, state: dict[str, Tensor | int | None]) -> None:
        """Restore a saved queue of the same size."""
        rows, position, embedding_SD = state["gps_deg_S2"], state["position"], state["embedding_SD"]
        assert isinstance(rows, Tensor) and isinstance(position, int)
        assert embedding_SD is None or isinstance(embedding_SD, Tensor)
        if rows.shape != self.gps_deg_S2.shape:
            raise ValueError(f"the saved queue has {rows.shape[0]} coordinates, this one {len(self)}")
        self.gps_deg_S2 = rows.to(self.gps_deg_S2)
        self.position = torch.full_like(self.position, position)
        self.embedding_SD = None if embedding_SD is None else embedding_SD.to(self.gps_deg_S2.device)


def normal_on_circle(size: int, generator: torch.Generator) -> Tensor:
    """(size, 2) Gaussian noise of unit norm, used as degrees: the start of the released code (`fidelity=released`)."""
    return torch.nn.functional.normalize(torch.randn((size, 2), generator=generator), dim=1)


def draw_queue_start(locations_deg_N2: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """(size, 2) of these locations, drawn without replacement until none are left, then again."""
    if locations_deg_N2.shape[0] == 0 and size:
        raise ValueError("no locations to draw the queue from")
    draws = [
        torch.randperm(locations_deg_N2.shape[0], generator=generator)
        for _ in range(0, size, max(1, len(locations_deg_N2)))
    ]
    return locations_deg_N2[torch.cat(draws)[:size]] if draws else locations_deg_N2[:0]
