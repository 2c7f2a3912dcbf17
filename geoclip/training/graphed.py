"""The step recorded once as a CUDA graph and replayed: the host is too slow to launch its many small kernels."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from geoclip.data.batch import Batch, named_tensors, with_tensors
from geoclip.training.losses import Draws
from geoclip.training.state import TrainState
from geoclip.training.step import Outcome, Recipe, device_step, end_step, prepare_step

EAGER_STEPS = 3  # before recording: libraries choose their algorithms, the optimizer makes its moments


@dataclass(slots=True)
class GraphedStep:
    """`train_step` for one GPU, with its device part recorded. Same arguments, same results.

    A graph reads and writes fixed addresses: each batch is copied into the tensors of the recording, and the queue is
    written back to where the graph reads it. All batches must have the same shape.

    Source: https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs, whole-network capture.
    """

    _steps: int = 0
    _graph: torch.cuda.CUDAGraph | None = None
    _batch: Batch | None = None
    _draws: Draws = field(default_factory=Draws)
    _outcome: Outcome | None = None

    def __call__(self, state: TrainState, batch: Batch, recipe: Recipe) -> Outcome:
        """One optimizer step; see `train_step`."""
        draws = prepare_step(state, batch, recipe)
        if self._batch is None:
            self._batch, self._draws = with_tensors(batch, Tensor.clone), draws
            _learning_rates_on_device(state)
        else:
            _overwrite(self._batch, batch)
            _overwrite(self._draws, draws)
        if self._steps < EAGER_STEPS:
            stream = torch.cuda.Stream()  # recording needs the steps before it on a side stream
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                outcome = device_step(state, self._batch, self._draws, recipe)
            torch.cuda.current_stream().wait_stream(stream)
        else:
            if self._graph is None:
                self._graph = self._record(state, self._batch, recipe)
            self._graph.replay()
            assert self._outcome is not None
            outcome = with_tensors(self._outcome, Tensor.clone)  # the next replay overwrites the graph's own
        self._steps += 1
        end_step(state, batch)
        return outcome

    def _record(self, state: TrainState, batch: Batch, recipe: Recipe) -> torch.cuda.CUDAGraph:
        """Record a step without computing it."""
        queue, graph = state.queue, torch.cuda.CUDAGraph()
        addresses = (queue.gps_deg_S2, queue.position, queue.embedding_SD)
        with torch.cuda.graph(graph):
            self._outcome = device_step(state, batch, self._draws, recipe)
            for fixed, pushed in zip(addresses, (queue.gps_deg_S2, queue.position, queue.embedding_SD), strict=True):
                if fixed is not None and pushed is not None:
                    fixed.copy_(pushed)
        queue.gps_deg_S2, queue.position, queue.embedding_SD = addresses
        return graph


def _overwrite(fixed: Batch | Draws, values: Batch | Draws) -> None:
    """Copy every tensor to the address that the graph reads."""
    for into, value in zip(named_tensors(fixed).values(), named_tensors(values).values(), strict=True):
        into.copy_(value)


def _learning_rates_on_device(state: TrainState) -> None:
    """Make every learning rate a tensor, because a graph replays Python numbers with their recorded values."""
    for group in state.optimizer.param_groups:
        group["lr"] = torch.full((), group["lr"], device=group["params"][0].device)
        group["capturable"] = True
