"""A key's declaration decides which values it takes, and what is said of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_type_hints

import pytest

from geoclip.config import SCHEMAS
from geoclip.config.keys import Key, key_of, section_of


def declared_keys(schema: type[Any], prefix: str) -> Iterator[tuple[str, Key]]:
    hints = get_type_hints(schema)
    for item in fields(schema):
        if section := section_of(hints[item.name]):
            yield from declared_keys(section, f"{prefix}.{item.name}")
        else:
            yield f"{prefix}.{item.name}", key_of(item)


KEYS = [one for command, schema in SCHEMAS.items() for one in declared_keys(schema, command)]
RANGED = {path: key for path, key in KEYS if key.range}


@pytest.mark.parametrize("path", [path for path, _ in KEYS])
def test_every_key_is_explained(path: str) -> None:
    key = dict(KEYS)[path]
    assert key.comment or key.unit or key.range


@pytest.mark.parametrize("path", RANGED)
def test_a_range_ends_where_it_says(path: str) -> None:
    key = RANGED[path]
    for inclusive, exclusive, outward in ((key.at_least, key.above, -1), (key.at_most, key.below, 1)):
        if inclusive is not None:
            assert not key.problem(inclusive) and key.problem(inclusive + outward * 1e-6)
        if exclusive is not None:
            assert key.problem(exclusive) and not key.problem(exclusive - outward * 1e-6)
    assert key.problem(math.nan) and key.problem(math.inf)
    assert not key.problem(None)
