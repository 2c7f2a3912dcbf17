"""Which checkpoint a run resumes from, and whether its configuration allows it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoclip.config import TrainConfig
from geoclip.distributed import gather_objects
from geoclip.errors import CheckpointError
from geoclip.pretrained.resolver import resolve_run
from geoclip.run_dir import config_for_hash, differences, to_dict
from geoclip.training.checkpoint import Tree, newest_good, read_checkpoint, step_files
from geoclip.training.state import TrainState, restore_state

if TYPE_CHECKING:
    from geoclip.training.hooks import RunContext

log = logging.getLogger("geoclip")


def resume(config: TrainConfig, context: RunContext, state: TrainState) -> None:
    """Bring `state` to where the run stood: its own newest good checkpoint, or the one that `resume` names.

    Args:
        config: of the run that resumes.
        context: its folder, files and ranks. All ranks call this; rank 0 chooses.
        state: at step 0; mutated.

    Raises:
        CheckpointError: of another configuration or architecture; or there are checkpoints though resume=never.
    """
    world, files = context.world, context.files
    folder, found = context.folder / "checkpoints", None
    if config.resume == "never":
        if step_files(folder):
            raise CheckpointError(
                f"{context.folder} has checkpoints, and resume=never; give the run another name=…, or move that "
                "folder away"
            )
        return
    if world.is_main:
        found = newest_good(folder)
        if found is None:
            found = named_checkpoint(config, files)
    path = gather_objects(None if found is None else found[0])[0]
    if path is None:
        return
    saved = read_checkpoint(path) if found is None else found[1]
    _refuse_another_config(saved, path, config, files)
    restore_state(state, saved, path, rank=world.rank, world_size=world.size)
    if path.parent != folder:
        log.info("starts from %s", path)


def named_checkpoint(config: TrainConfig, files: dict[str, Any]) -> tuple[Path, Tree] | None:
    """The checkpoint that `resume` names, and what is in it; None: it names none.

    Raises:
        CheckpointError: it is missing, corrupt or of another configuration.
    """
    if config.resume in ("auto", "never"):
        return None
    path = resolve_run(config.resume, config.runs_dir, best=False).files[0]
    saved = read_checkpoint(path)
    _refuse_another_config(saved, path, config, files)
    return path, saved


def _refuse_another_config(saved: Tree, path: Path, config: TrainConfig, files: dict[str, Any]) -> None:
    changed = differences(
        config_for_hash(saved["config"], saved.get("files", {})), config_for_hash(to_dict(config), files)
    )
    if not changed:
        return
    listed = "\n".join(f"  {line}" for line in changed)
    if not config.force_resume:
        raise CheckpointError(
            f"{path} is of another configuration (there -> here):\n{listed}\n"
            "Set force_resume=true to resume all the same"
        )
    log.warning("resumes under another configuration (there -> here):\n%s", listed)
