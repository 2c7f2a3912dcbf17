"""Imported last by the fork server: what it has imported is never searched for garbage, there or in a reader.

Searching it would copy its memory into every reader, and delay the fork server's end by seconds.
"""

from __future__ import annotations

import gc

gc.freeze()
