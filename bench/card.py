"""Shared by the rows of `bench.gpu`: the card's limits, timing, and a row of the table."""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch

from geoclip.training.step import matrix_products

MIN_TIMED_S = 0.3


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class GpuRow:
    """One measurement."""

    name: str
    value: float
    unit: str
    share: float | None = None  # of the limit
    limit: str = ""  # the limit of the card
    target: float | None = None  # of the share, or of the value where there is no limit
    note: str = ""


@dataclasses.dataclass(kw_only=True, slots=True)
class Card:
    """A device, its measured limits, and whether the work is small."""

    device: torch.device
    quick: bool
    limits: dict[str, float] = dataclasses.field(default_factory=dict)  # operations/s and bytes/s
    rows: list[GpuRow] = dataclasses.field(default_factory=list)  # reported so far
    memo: dict[str, Any] = dataclasses.field(default_factory=dict)  # results that one row needs of another

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device.type == "cuda"

    def report(self, row: GpuRow) -> None:
        """Keep a row, also if its part fails later."""
        self.rows.append(row)

    def synchronize(self) -> None:
        """Wait until the device has finished."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], *, calls: int | None = None, turns: int = 5) -> float:
        """Seconds of one call: the median over `turns` blocks of calls, after two for warming up."""
        if self.quick:
            calls, turns = calls or 1, 2
        for _ in range(2):
            work()
        if calls is None:
            calls = max(1, round(MIN_TIMED_S / turns / max(1e-6, self._block(work, 1))))
        return statistics.median(self._block(work, calls) for _ in range(turns))

    def _block(self, work: Callable[[], object], calls: int) -> float:
        self.synchronize()
        start_s = time.perf_counter()
        for _ in range(calls):
            work()
        self.synchronize()
        return (time.perf_counter() - start_s) / calls


def measure_limits(card: Card) -> None:
    """Matrix rates on random numbers, and the bandwidth of copies: bytes read and written."""
    size = 256 if card.quick else 8192
    kinds = (("bf16", torch.bfloat16, False), ("tf32", torch.float32, True), ("float32", torch.float32, False))
    for name, dtype, tf32 in kinds:
        a, b = (torch.randn(size, size, device=card.device, dtype=dtype) for _ in range(2))
        with matrix_products(card.device, None, tf32):
            spent_s = card.seconds(lambda a=a, b=b: a @ b)  # type: ignore[misc]
        card.limits[name] = 2 * size**3 / spent_s
        card.report(GpuRow(name=f"matrix product {size}³, {name}", value=card.limits[name] / 1e12, unit="TFLOP/s"))
    count = 2**20 if card.quick else 2**30
    source = torch.empty(count, dtype=torch.uint8, device=card.device).random_(0, 255)
    into = torch.empty_like(source)
    card.limits["copy"] = 2 * count / card.seconds(lambda: into.copy_(source))
    card.report(GpuRow(name="copy on the device", value=card.limits["copy"] / 1e9, unit="GB/s"))
    if card.cuda:
        host = torch.empty(count // 4, dtype=torch.uint8).pin_memory()
        spent_s = card.seconds(lambda: into[: count // 4].copy_(host, non_blocking=True))
        card.report(GpuRow(name="copy from pinned memory", value=count / 4 / spent_s / 1e9, unit="GB/s"))


def describe(card: Card) -> dict[str, Any]:
    """The card, its driver, clocks and power, as the driver reports them."""
    if not card.cuda:
        return {"device": "cpu", "threads": torch.get_num_threads()}
    fields = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,memory.total"
    query = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    try:
        values = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip().split(", ")
    except (OSError, subprocess.TimeoutExpired):
        values = []
    return {
        "device": torch.cuda.get_device_name(card.device),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        **dict(zip(fields.split(","), values, strict=False)),
    }
