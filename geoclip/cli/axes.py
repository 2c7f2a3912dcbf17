"""The axes of a search, parsed by Hydra: choices and intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep


@dataclass(kw_only=True, slots=True, frozen=True)
class Choice:
    """One of these values, as written on a command line: `1e-3`, `[1,16]`, `small`."""

    key: str
    values: tuple[str, ...]


@dataclass(kw_only=True, slots=True, frozen=True)
class Interval:
    """A number between two others, both inclusive."""

    key: str
    low: float
    high: float
    log: bool  # uniform in the logarithm
    whole: bool  # int(interval(2,6)): integers only


Axis = Choice | Interval


def axes_of(params: Mapping[str, str] | None, arguments: Iterable[str]) -> tuple[list[Axis], list[str]]:
    """The axes of a search, and the overrides that all points share.

    Args:
        params: hydra.sweeper.params of an experiment.
        arguments: the command line, which overrides `params`.
    """
    overrides = [*(f"{key}={value}" for key, value in (params or {}).items()), *arguments]
    axes: dict[str, Axis] = {}
    fixed: dict[str, str] = {}
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.get_key_element()
        axes.pop(key, None)
        fixed.pop(key, None)
        value = override.value()
        if isinstance(value, IntervalSweep):
            low, high = value.start, value.end
            assert low is not None and high is not None
            whole = isinstance(low, int) and isinstance(high, int)
            axes[key] = Interval(key=key, low=low, high=high, log="log" in value.tags, whole=whole)
        elif override.is_sweep_override():
            axes[key] = Choice(key=key, values=tuple(override.sweep_string_iterator()))
        else:
            fixed[key] = (
                override.input_line or "" if override.is_delete() else f"{key}={override.get_value_element_as_str()}"
            )
    return list(axes.values()), list(fixed.values())


def override_of(axis: Axis, value: str | float) -> str:
    """`key=value`, with six digits of a float."""
    return f"{axis.key}={value:.6g}" if isinstance(value, float) else f"{axis.key}={value}"


def described(axis: Axis) -> str:
    """An axis in words."""
    if isinstance(axis, Choice):
        return f"{axis.key}: {', '.join(axis.values)}"
    kind = f"{', integers' if axis.whole else ''}{', uniform in the logarithm' if axis.log else ''}"
    return f"{axis.key}: {axis.low:g} to {axis.high:g}{kind}"


def ends(axis: Axis) -> tuple[str, ...]:
    """Every choice; or both ends of an interval and a fraction between them, which is invalid for an integer key."""
    if isinstance(axis, Choice):
        return tuple(override_of(axis, value) for value in axis.values)
    between = () if axis.whole else (axis.low + 0.618 * (axis.high - axis.low),)
    return tuple(override_of(axis, value) for value in (axis.low, *between, axis.high))


def problems_of(axes: Iterable[Axis]) -> list[str]:
    """Invalid intervals."""
    spans = [axis for axis in axes if isinstance(axis, Interval)]
    return [
        f"{axis.key}: {axis.low:g} to {axis.high:g} is not an interval"
        + ("; on a logarithmic axis both ends are above 0" if axis.log else "; the lower end comes first")
        for axis in spans
        if axis.low >= axis.high or (axis.log and axis.low <= 0)
    ]


def corners(axes: Iterable[Axis]) -> Iterator[list[str]]:
    """The first value of every axis; then every other end, one axis at a time."""
    all_ends = [ends(axis) for axis in axes]
    first = [values[0] for values in all_ends]
    yield first
    for number, values in enumerate(all_ends):
        for value in values[1:]:
            yield [*first[:number], value, *first[number + 1 :]]
