"""The training loop: the steps of a run, and the records, validations and checkpoints between them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Never

import torch
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

ALWAYS_ACCEPTED = 9  # so many broken pictures never end a run, whatever their share
KEYS_SHOWN = 8


@dataclass(kw_only=True, slots=True)
class Hooks:
    """What the loop calls, on every rank."""

    record: Callable[[TrainState, dict[str, float]], None]
    validate: Callable[[TrainState], bool]  # False, on every rank: it was interrupted
    checkpoint: Callable[[TrainState], None]
    last_good: Callable[[], str] = lambda: "none yet"  # path of the newest checkpoint
    record_every: int = 20  # steps
    validate_every: int = 200
    checkpoint_every: int = 200


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

    `batches` are this rank's, from `state.step` on; each is copied to the device during the step before it. All
    hooks are also called after the last step. `step` is `train_step` or a `GraphedStep`.

    Returns:
        The samples that could not be read, on all ranks.

    Raises:
        Preempted: `stop` had a reason on any rank; all ranks stop at the same step, after a checkpoint.
        DataError: more than `recipe.max_bad_fraction` of the pictures are broken; on every rank at the same step.
        GeoclipError: more than `recipe.max_bad_steps` gradients in a row were not finite, or a rank is missing.
    """
    stop, heartbeat = stop or StopRequest(), Heartbeat(world)
    bar: tqdm[Never] = tqdm(
        total=recipe.last_step,
        initial=state.step,
        desc="training",
        unit="step",
        disable=not world.is_main,
        dynamic_ncols=True,
        mininterval=0.5,
    )
    loop = _Loop(state, recipe, hooks, world, step, Agreement(stop, world), heartbeat, bar)
    try:
        if not loop.train_steps(on_device(batches, world.device)):
            raise Preempted(stop.reason() or "another rank", state.step)
        return skipped_on_all_ranks(state)
    except RuntimeError as error:
        missing = "" if isinstance(error, GeoclipError) else heartbeat.missing_ranks()
        if not missing:
            raise
        raise GeoclipError(
            f"step {state.step + 1} cannot be completed: no response from {missing}. Read that rank's log in logs/; "
            "the same command resumes from the newest checkpoint (compute.timeout_minutes is how long a rank waits)"
        ) from error
    finally:
        heartbeat.end()
        bar.close()


@dataclass(slots=True)
class _Loop:
    """The steps of a run, and what is due after each."""

    state: TrainState
    recipe: Recipe
    hooks: Hooks
    world: World
    step: Step
    agreement: Agreement
    heartbeat: Heartbeat
    bar: tqdm[Never]
    # Outcomes that are still on the device, with the keys of their batches: read when a record or checkpoint is due.
    pending: list[tuple[Outcome, Sequence[str]]] = field(default_factory=list)
    started_s: float = field(default_factory=time.perf_counter)
    samples: int = 0  # since started_s

    def train_steps(self, batches: Iterator[Batch]) -> bool:
        """Train to the last step; False if training stopped earlier, after a checkpoint."""
        state, hooks = self.state, self.hooks
        validated_step = state.validated_step
        stopping = not self._validate_if_due()  # the previous start may have been interrupted during a validation
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
        self.agreement.wait()
        return not stopping

    def _train_step(self, batch: Batch) -> None:
        state = self.state
        state.skipped.add(batch.skipped)
        self.heartbeat.step = state.step + 1
        outcome = self.step(state, batch, self.recipe)
        state.sums += outcome.sums
        state.summed_steps += 1
        self.pending.append((outcome, batch.keys))
        self.samples += len(batch.keys) * self.world.size
        self.bar.update()

    def _validate_if_due(self) -> bool:
        """False if the validation was interrupted."""
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
        """Count and log the steps without a finite gradient; they are the same on every rank."""
        if not self.pending:
            return
        state, limit = self.state, self.recipe.max_bad_steps
        finite = torch.stack([outcome.sums[3] for outcome, _ in self.pending]).bool().tolist()  # waits for the device
        first, pictures = state.step - len(finite) + 1, ""
        for number, (good, (outcome, keys)) in enumerate(zip(finite, self.pending, strict=True), first):
            state.bad_in_a_row = 0 if good else state.bad_in_a_row + 1
            if not good:
                state.bad_steps += 1
                bad = [key for key, is_bad in zip(keys, outcome.bad_rows_B.tolist(), strict=True) if is_bad]
                pictures = _pictures_text([key for found in gather_objects(bad) for key in found], keys)
                log.warning("step %d: the gradient is not finite; the weights are unchanged. %s", number, pictures)
            if state.bad_in_a_row > limit:
                raise GeoclipError(
                    f"{state.bad_in_a_row} steps in a row up to step {number} had no finite gradient, more than "
                    f"optim.max_bad_steps={limit}. {pictures}. The last good checkpoint is "
                    f"{self.hooks.last_good()}; lower optim.lr, or set optim.grad_clip=1"
                )
        self.pending = []

    def _record(self) -> None:
        """Record the means since the last record, then check the share of broken pictures."""
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
        if state.broken > max(ALWAYS_ACCEPTED, recipe.max_bad_fraction * state.samples_seen):
            found = skipped_on_all_ranks(state)
            raise DataError(
                f"{state.broken} of {state.samples_seen} pictures are broken, more than "
                f"data.max_bad_fraction={recipe.max_bad_fraction:g}; most in {found.worst_shards()}: "
                f"{'; '.join(found.lines()[:3])}; rebuild these shards or raise the limit"
            )


def _pictures_text(bad: list[str], all_keys: Sequence[str]) -> str:
    """The keys whose embedding is not finite; if there are none, some keys of the batch."""
    label, keys = ("Not finite", bad) if bad else ("No single picture; in the batch", all_keys)
    more = f" and {len(keys) - KEYS_SHOWN} more" if len(keys) > KEYS_SHOWN else ""
    return f"{label}: {', '.join(list(keys)[:KEYS_SHOWN])}{more}"


def skipped_on_all_ranks(state: TrainState) -> SkipReport:
    """The samples that could not be read, on all ranks together; every rank must call this."""
    total = SkipReport()
    for report in gather_objects(state.skipped):
        total.merge(report)
    return total
