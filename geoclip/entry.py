"""The edge that every entry point shares: Hydra's decorator, and its errors as sentences that say what to do."""

from __future__ import annotations

import atexit
import difflib
import gc
import multiprocessing
import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, cast, get_args, get_type_hints

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geoclip.conf_dir import conf_dir
from geoclip.config import ConfigError
from geoclip.errors import GeoclipError, Preempted

LAUNCHERS = ("joblib", "submitit_local", "submitit_slurm")  # the plugins' names, and conf/hydra/launcher/'s


class PointEnded(Exception):
    """How a point of a sweep ended that another process ran: a sentence or a status, on its way back."""


def run_entry_point(
    config_name: str,
    schema: type[Any],
    main: Callable[[DictConfig], object],
    at_end: Callable[[], None] = lambda: None,
) -> None:
    """Compose `conf/<config_name>.yaml` from the command line and call `main` with it (once per sweep point).

    A key, type or value that the schema refuses ends the process with status 1 and one sentence.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises instead of printing: the sentences are ours
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # a waiting thread must not take the core that decodes
    atexit.register(
        gc.freeze
    )  # or the interpreter's end takes a second or more to search what it drops anyway
    _rename_schemas_of_launchers()
    if {"--help", "-h"} & set(sys.argv):
        _share_schemas()
    try:
        hydra.main(version_base="1.3", config_path=conf_dir(), config_name=config_name)(_mended(main))()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([composition_sentence(error, schema)]) from None
    except PointEnded as ended:
        raise SystemExit(*ended.args) from None
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except RuntimeError as error:
        if not type(error).__module__.startswith("submitit."):
            raise
        # A job that could not be queued, or that ended without a result.
        raise SystemExit(f"geoclip: {error}") from None
    finally:
        at_end()


def _rename_schemas_of_launchers() -> None:
    """Plugins store their launchers under the names of conf/hydra/launcher/, whose files extend NAME_schema."""
    Plugins.instance()  # finds the plugins, which then store
    stored = ConfigStore.instance().repo["hydra"]["launcher"]
    for name in LAUNCHERS:
        if f"{name}.yaml" in stored:
            stored[f"{name}_schema.yaml"] = stored.pop(f"{name}.yaml")


def _share_schemas() -> None:
    """`--help` copies every schema once per group, which takes seconds. Sweeps need their copies."""
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]


def _mended(main: Callable[[DictConfig], object]) -> Callable[[DictConfig], Any]:
    """`main`, with what the user can mend as one sentence. Inside of Hydra, which would print a heading above it."""
    launching = os.getpid()

    def run(cfg: DictConfig) -> object:
        if os.getpid() != launching:
            return _run_elsewhere(main, cfg)
        try:
            return main(cfg)
        except GeoclipError as error:
            if in_sweep():  # the other points go on
                raise PointEnded(f"geoclip: {error}") from None
            raise SystemExit(f"geoclip: {error}") from None

    return run


_stopped: int | None = None  # the status of a point that was asked to stop: its process begins no other


def _run_elsewhere(main: Callable[[DictConfig], object], cfg: DictConfig) -> object:
    """`main` in a process of joblib or submitit, from which an Exception finds its way back and a SystemExit does not.

    Raises:
        PointEnded: with a sentence, or, from joblib, with the status of a point that was asked to stop.
    """
    global _stopped
    if _stopped is not None:
        raise PointEnded(_stopped)
    if multiprocessing.get_start_method(allow_none=True) == "loky":  # joblib's, not for readers of data
        multiprocessing.set_start_method(None, force=True)
    try:
        return main(cfg)
    except GeoclipError as error:
        raise PointEnded(f"geoclip: {error}") from None
    except ConfigError as error:
        raise PointEnded(str(error)) from None
    except Preempted as error:
        if "SUBMITIT_EXECUTOR" in os.environ:  # the scheduler is to read the status
            raise
        _stopped = cast(int, error.code)
        raise PointEnded(_stopped) from None


def join_submitit() -> None:
    """Under submitit, which starts one process per task, say what `torchrun` would have said."""
    if "SUBMITIT_EXECUTOR" in os.environ and "WORLD_SIZE" not in os.environ:
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)


def world_size_from_environment() -> int:
    """How many processes `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def chosen_options() -> dict[str, str]:
    """The option that was chosen of each group; empty where Hydra did not start this process."""
    if not HydraConfig.initialized():
        return {}
    choices = HydraConfig.get().runtime.choices
    return {group: option for group, option in choices.items() if option and not group.startswith("hydra/")}


def in_sweep() -> bool:
    """Whether this is a point of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def print_config(cfg: DictConfig) -> None:
    """Show what was composed, as YAML."""
    print(OmegaConf.to_yaml(cfg, resolve=True), end="", flush=True)


def composition_sentence(error: BaseException, schema: type[Any]) -> str:
    """What went wrong at composition, in one line, with the keys that would have been right."""
    texts = [str(part) for part in (error, error.__cause__) if part is not None]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    sentence = " ".join(
        line for line in dict.fromkeys(lines) if not line.startswith(("object_type", "reference_type"))
    )
    sentence = sentence.replace("To append to your config use", "If the key is new, write")
    absent = re.search(r"Could not load 'hydra/launcher/(\w+)_schema'", sentence)
    if absent:
        return (
            f"hydra/launcher={absent.group(1)} needs a plugin that is not installed: "
            "pip install -c constraints.txt -e '.[sweeps]'"
        )
    if "does not support sweep type : INTERVAL_SWEEP" in sentence:
        return "interval(low,high) is for a search, not for a grid: hydra/sweeper=optuna"
    unknown = re.search(r"Key '([^']+)' (?:is )?not in '?(?:struct|\w+)'?", sentence)
    path = re.search(r"full_key: ([\w.]+)", sentence)
    allowed = _keys_beside(path.group(1), schema) if path else []
    if unknown and path and allowed:
        near = difflib.get_close_matches(unknown.group(1), allowed, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{path.group(1)} is no key of this configuration; {hint}allowed here: {', '.join(allowed)}"
    return sentence


def _keys_beside(full_key: str, schema: type[Any]) -> list[str]:
    """Names of the fields that stand beside `full_key` in the schema."""
    node: Any = schema
    for part in full_key.split(".")[:-1]:
        hint = get_type_hints(node).get(part)
        node = next((kind for kind in (hint, *get_args(hint)) if is_dataclass(kind)), None)
        if node is None:
            return []
    return [item.name for item in fields(node)]
