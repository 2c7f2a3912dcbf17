"""What shards are built from. Sources are picklable, and open their files in the process that asks."""

from __future__ import annotations

from geoclip.data.building.table_source import TableSource
from geoclip.data.building.tar_source import TarSource

ShardSource = TableSource | TarSource
