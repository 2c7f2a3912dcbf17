"""The fork server imports this last: its modules are excluded from garbage collection.

Collection would copy their memory into every reader process, and delay the fork server's exit by seconds.
"""

from __future__ import annotations

import gc

gc.freeze()
