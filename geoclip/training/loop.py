"""The training loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Never

import torch
from torch import Tensor
from tqdm import tqdm

from geoclip.data.batch import Batch, SkipReport
from geoclip.data.stream import on_device
from geoclip.distributed import Heartbeat, World, gather_objects, mean_over_ranks
from geoclip.errors import DataError, GeoclipError, Preempted
from geoclip.system.console import percent_text
from geoclip.training.preemption import Agreement, StopRequest
from geoclip.training.state import TrainState
from geoclip.training.step import Outcome, Recipe, train_step

log = logging.getLogger("geoclip")

Step = Callable[[TrainState, Batch, Recipe], Outcome]

FEW = 10  # broken pictures that no share of is too large
KEYS_SHOWN = 8


@dataclass(kw_only=True, slots=True)
class Hooks:
    """What the loop calls on its way. Every rank calls them; they decide who acts."""

    record: Callable[[TrainState, dict[str, float]], None]
    validate: Callable[[TrainState], bool]  # False: it was interrupted, on every rank
    checkpoint: Callable[[TrainState], None]
    last_good: Callable[[], str] = lambda: "none yet"  # where the newest checkpoint is
    record_every: int = 20
    validate_every: int = 200
    checkpoint_every: int = 200


@dataclass(kw_only=True, slots=True)
class _PendingSteps:
    """Steps whose outcome is still on the device: nobody waits for it until a record or a checkpoint is due."""

    taken: list[Tensor] = field(default_factory=list)
    bad_rows_B: list[Tensor] = field(default_factory=list)
    keys: list[Sequence[str]] = field(default_factory=list)

    def add(self, outcome: Outcome, batch: Batch) -> None:
        self.taken.append(outcome.sums[3])
        self.bad_rows_B.append(outcome.bad_rows_B)
        self.keys.append(batch.keys)


def train(
    state: TrainState,
    batches: Iterator[Batch],
    recipe: Recipe,
    hooks: Hooks,
    world: World,
    stop: StopRequest | None = None,
    step: Step = train_step,
) -> SkipReport:
    """Train from `state.step` to `recipe.last_step`.

    Args:
        state: of the run so far; mutated.
        batches: this rank's batches from `state.step` on, on any device: each is copied to the model's while the one
            before is computed.
        recipe: the step's numbers.
        hooks: called every so many steps, and all three after the last.
        world: rank, size and device.
        stop: queried after every step whether to end here.
        step: `train_step`, or the same recorded as a CUDA graph.

    Returns:
        What no rank could read on the way.

    Raises:
        Preempted: `stop` had a reason, on any rank; after a checkpoint, on all ranks at the same step.
        DataError: more than `recipe.max_bad_fraction` of the pictures are broken; on every rank at the same step.
        GeoclipError: `recipe.max_bad_steps` gradients in a row were not finite, or a rank does not answer.
    """
    stop = stop or StopRequest()
    heartbeat = Heartbeat(world)
    loop = _Loop(
        state=state,
        recipe=recipe,
        hooks=hooks,
        world=world,
        agreement=Agreement(stop, world),
        heartbeat=heartbeat,
        bar=_progress_bar(state, recipe, world),
        step=step,
    )
    try:
        if not loop.train_steps(on_device(batches, world.device)):
            raise Preempted(stop.reason() or "another rank", state.step)
        return skipped_on_all_ranks(state)
    except RuntimeError as error:
        missing = "" if isinstance(error, GeoclipError) else heartbeat.behind()
        if not missing:
            raise
        raise GeoclipError(
            f"step {state.step + 1} cannot be ended: no answer from {missing}. Look at that rank's log in logs/; the "
            "same command resumes from the newest checkpoint (compute.timeout_minutes is how long a rank waits)"
        ) from error
    finally:
        heartbeat.end()
        loop.bar.close()


@dataclass(kw_only=True, slots=True)
class _Loop:
    """The steps of a run, and what is due after each."""

    state: TrainState
    recipe: Recipe
    hooks: Hooks
    world: World
    agreement: Agreement
    heartbeat: Heartbeat
    bar: tqdm[Never]
    step: Step
    pending: _PendingSteps = field(default_factory=_PendingSteps)
    started_s: float = field(default_factory=time.perf_counter)
    samples: int = 0  # since started_s, for the rate

    def train_steps(self, batches: Iterator[Batch]) -> bool:
        """Every step up to the last; False where it stopped before, its checkpoint written."""
        state, hooks = self.state, self.hooks
        validated_step = state.validated_step
        stopping = not self._validate_if_due()  # where the last run was interrupted while it validated
        if state.validated_step != validated_step:
            hooks.checkpoint(state)
        state.model.train()
        while state.step < self.recipe.last_step and not stopping:
            self._train_step(next(batches))
            ended = state.step == self.recipe.last_step
            if ended or state.step % hooks.record_every == 0:
                self._check_nonfinite()
                self._record()
            stopping = not self._validate_if_due() or (not ended and self.agreement.stop())
            if ended or stopping or state.step % hooks.checkpoint_every == 0:
                self._check_nonfinite()
                hooks.checkpoint(state)
        self.agreement.last_reply()
        return not stopping

    def _train_step(self, batch: Batch) -> None:
        state = self.state
        state.skipped.add(batch.skipped)
        self.heartbeat.begun(state.step + 1)
        outcome = self.step(state, batch, self.recipe)
        state.sums += outcome.sums
        state.summed_steps += 1
        self.pending.add(outcome, batch)
        self.samples += len(batch.keys) * self.world.size
        self.bar.update()

    def _validate_if_due(self) -> bool:
        """False where the validation was interrupted."""
        state = self.state
        due = state.step == self.recipe.last_step or state.step % self.hooks.validate_every == 0
        if not due or state.validated_step == state.step:
            return True
        paused_s = time.perf_counter()
        with state.weights():
            done = self.hooks.validate(state)
        state.model.train()
        self.started_s += time.perf_counter() - paused_s
        if done:
            state.validated_step = state.step
        return done

    def _check_nonfinite(self) -> None:
        """Count and name the steps that were not taken; the same ones on every rank."""
        pending, state, limit = self.pending, self.state, self.recipe.max_bad_steps
        if not pending.taken:
            return
        taken = torch.stack(pending.taken).bool().tolist()  # the one wait for the device
        first, last_keys = state.step - len(taken) + 1, ""
        rows = zip(taken, pending.bad_rows_B, pending.keys, strict=True)
        for number, (good, bad_rows_B, keys) in enumerate(rows, first):
            state.bad_in_a_row = 0 if good else state.bad_in_a_row + 1
            if not good:
                state.bad_steps += 1
                bad = [key for key, is_bad in zip(keys, bad_rows_B.tolist(), strict=True) if is_bad]
                last_keys = _listed([key for found in gather_objects(bad) for key in found], keys)
                log.warning("step %d: the gradient is not finite; the weights stay as they were. %s", number, last_keys)
            if state.bad_in_a_row > limit:
                raise GeoclipError(
                    f"{state.bad_in_a_row} steps in a row up to step {number} had no finite gradient, more than "
                    f"optim.max_bad_steps={limit}. {last_keys}. The last good checkpoint is "
                    f"{self.hooks.last_good()}; lower optim.lr, or set optim.grad_clip=1"
                )
        self.pending = _PendingSteps()

    def _record(self) -> None:
        """Bring the sums to the host once, write them down, and start anew."""
        state, recipe = self.state, self.recipe
        loss, recall, broken_per_step, taken = mean_over_ranks(state.sums / state.summed_steps).tolist()
        broken = round(broken_per_step * state.summed_steps * self.world.size)
        values = {
            "samples": state.samples_seen,
            "loss": loss / taken if taken else None,
            "in_batch_recall": recall,
            "lr": recipe.lr_at(state.step - 1),
            "logit_scale": state.model.logit_scale.exp().item(),
            "samples_per_s": self.samples / (time.perf_counter() - self.started_s),
        }
        counted = {"broken": broken, "bad_steps": state.bad_steps}
        self.hooks.record(state, values | {name: count for name, count in counted.items() if count})
        state.sums, state.summed_steps = torch.zeros_like(state.sums), 0
        state.broken += broken
        self.started_s, self.samples = time.perf_counter(), 0
        self.bar.set_postfix_str(
            f"loss {values['loss'] or float('nan'):.3f}, in-batch recall {percent_text(100 * recall)} %, "
            f"{values['samples_per_s']:,.0f} samples/s"
        )
        _refuse_bad_data(state, recipe.max_bad_fraction)


def _listed(bad: list[str], all_keys: Sequence[str]) -> str:
    """The pictures of a bad step: those whose embedding is not finite, or, if all are, some of the batch."""
    what, shown = ("Not finite", bad) if bad else ("No single picture; in the batch", all_keys)
    more = f" and {len(shown) - KEYS_SHOWN} more" if len(shown) > KEYS_SHOWN else ""
    return f"{what}: {', '.join(list(shown)[:KEYS_SHOWN])}{more}"


def _refuse_bad_data(state: TrainState, max_fraction: float) -> None:
    """The same numbers on every rank, so that all stop at the same step. A handful is never too many."""
    if state.broken >= FEW and state.broken > max_fraction * state.samples_seen:
        found = skipped_on_all_ranks(state)
        raise DataError(
            f"{state.broken} of {state.samples_seen} pictures are broken, more than "
            f"data.max_bad_fraction={max_fraction:g}; most in {found.worst_shards()}: "
            f"{'; '.join(found.lines()[:3])}; rebuild these shards or raise the limit"
        )


def skipped_on_all_ranks(state: TrainState) -> SkipReport:
    """What no rank could read so far; every rank calls this."""
    total = SkipReport()
    for report in gather_objects(state.skipped):
        total.merge(report)
    return total


def _progress_bar(state: TrainState, recipe: Recipe, world: World) -> tqdm[Never]:
    return tqdm(
        total=recipe.last_step,
        initial=state.step,
        desc="training",
        unit="step",
        disable=not world.is_main,
        dynamic_ncols=True,
        mininterval=0.5,
    )
