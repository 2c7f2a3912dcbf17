"""Keys: comments and ranges."""

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


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_key_is_explained(command: str) -> None:
    keys = dict(declared_keys(SCHEMAS[command], command))
    assert keys and not [path for path, key in keys.items() if not key.comment and not path.endswith("_target_")]


@pytest.mark.parametrize("command", SCHEMAS)
def test_values_beyond_a_range_are_refused(command: str) -> None:
    for path, key in declared_keys(SCHEMAS[command], command):
        for inclusive, exclusive, outward in ((key.at_least, key.above, -1), (key.at_most, key.below, 1)):
            if inclusive is not None:
                assert not key.problem(inclusive) and key.problem(inclusive + outward * 1e-6), path
            if exclusive is not None:
                assert key.problem(exclusive) and not key.problem(exclusive - outward * 1e-6), path
        assert key.problem(math.nan) and key.problem(math.inf) and not key.problem(None), path
