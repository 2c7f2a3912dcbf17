"""The entry point of every command: Hydra, and one-sentence messages for errors that a user can fix."""

from __future__ import annotations

import atexit
import errno
import gc
import logging
import multiprocessing
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, Never, TypeVar, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from geoclip.cli.overrides import literal_overrides, quoted
from geoclip.config import (
    CalibrateConfig,
    ConfigError,
    EvaluateConfig,
    ModelSourceConfig,
    TrainConfig,
    config_help,
    no_such_key,
    options,
    section_of,
    type_in_words,
    type_of_key,
    type_problem,
    typed,
)
from geoclip.config.composed import conf_dir
from geoclip.errors import GeoclipError, Preempted, memory_problem
from geoclip.runs.run_dir import checkpoint_file, first_existing, origins, read_yaml, run_of
from geoclip.system.console import lost_output, printable, setup_streams

log = logging.getLogger("geoclip")

OS_FIXES = {  # by errno; an OSError with another errno is a bug and keeps its traceback
    errno.EACCES: "give this user permission, or name another file or folder",
    errno.EPERM: "give this user permission, or name another file or folder",
    errno.EROFS: "name a writable folder",
    errno.ENOSPC: "free space on that disk, or name another one",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or name another disk",
    errno.EDQUOT: "free space within your quota, or name another disk",
    errno.ENOENT: "it does not exist, or was removed during the run",
    errno.EEXIST: "a file has the name of a folder that must be created; move it or name another folder",
    errno.ENOTDIR: "a part of this path is a file, not a folder; name another one",
    errno.EISDIR: "this is a folder, not a file; name a file",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links form a circle",
    errno.EMFILE: "allow more open files (ulimit -n), or set fewer workers",
    errno.EIO: "the disk or its network failed",
    errno.ESTALE: "the network file system lost it; mount it again",
}

WRITTEN_BELOW = ("output", "root", "runs_dir")  # keys of the folders that commands write to

TORCHRUN_FIX = "start with torchrun --nproc-per-node=N -m geoclip.…, which sets them all, or unset them"

LAUNCHERS = ("joblib", "submitit_local", "submitit_slurm")  # the plugins' names, and conf/hydra/launcher/'s


SourceT = TypeVar("SourceT", bound=ModelSourceConfig)


class PointEnded(Exception):
    """A point of a sweep failed (with a message) or was stopped (with a status); the other points still run."""


def typed_beside_run(cfg: DictConfig, kind: type[SourceT], problems: Callable[[SourceT], list[str]]) -> SourceT:
    """As `typed`; paths that do not exist here are looked up in the folder where the checkpoint's run was started.

    Raises:
        ConfigError: as `typed`.
    """
    located: list[SourceT] = []

    def located_problems(config: SourceT) -> list[str]:
        located.append(_beside_run(config))
        return problems(located[-1])

    typed(cfg, kind, located_problems)
    return located[-1]


def _beside_run(config: SourceT) -> SourceT:
    try:
        run = run_of(checkpoint_file(config.checkpoint, config.runs_dir))
        folders = origins(run, read_yaml(run / "config.yaml"))
    except (GeoclipError, OSError, ValueError, AttributeError):
        return config  # a release, or a missing checkpoint, which is reported later

    def found(key: str, path: str) -> str:
        there = path if os.path.exists(path) else first_existing(path, folders)
        if there != path:
            log.warning("%s=%s is not in this folder; read from %s, where the run was started", key, path, there)
        return there

    config = replace(config, gallery=replace(config.gallery, path=found("gallery.path", config.gallery.path)))
    if isinstance(config, EvaluateConfig | CalibrateConfig):
        benchmark = config.benchmark
        root, built = (found(f"benchmark.{key}", getattr(benchmark, key)) for key in ("root", "built"))
        config = replace(config, benchmark=replace(benchmark, root=root, built=built))
    return config


def run_entry_point(
    config_name: str, schema: type[Any], main: Callable[[DictConfig], object], at_end: Callable[[], None] = lambda: None
) -> None:
    """Compose `conf/<config_name>.yaml` and the command line, and call `main` (once per sweep point).

    An invalid key, type or value ends the process with status 1 and one sentence.
    """
    setup_streams()
    # Flags first: argparse misreads flags between overrides.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    sys.argv[1:] = literal_overrides(sys.argv[1:], schema)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises instead of printing
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not slow down decoding
    atexit.register(gc.freeze)  # saves a second of garbage collection at exit
    _rename_schemas_of_launchers()
    try:
        _run_hydra(config_name, schema, main)
        if lost := lost_output():
            print(f"geoclip: {lost}", flush=True)  # if stderr is lost, stdout may still work
            raise SystemExit(f"geoclip: {lost}")
    except BrokenPipeError:  # `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        raise SystemExit(f"geoclip: {os_error_sentence(error)}") from None
    except SystemExit as ended:
        if isinstance(ended.code, str):
            ended.code = printable(ended.code)
        raise
    finally:
        at_end()


def _run_hydra(config_name: str, schema: type[Any], main: Callable[[DictConfig], object]) -> None:
    """Compose the configuration and call `main`; Hydra's errors become one-sentence messages."""
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            _print_help(config_name, schema)
        else:
            hydra.main(version_base="1.3", config_path=conf_dir(), config_name=config_name)(_with_messages(main))()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError([composition_sentence(error, schema)]) from None
    except PointEnded as ended:
        raise SystemExit(*ended.args) from None
    except SystemExit as ended:
        if ended.code:
            raise
    except KeyboardInterrupt:
        sys.exit(130)
    except RuntimeError as error:
        if not type(error).__module__.startswith("submitit."):
            raise
        raise SystemExit(f"geoclip: {error}") from None  # a job was not queued, or ended without a result


def _print_help(config_name: str, schema: type[Any]) -> None:
    """Print the command's help text, then groups and keys with the values of this command line."""
    overrides = [word for word in sys.argv[1:] if not word.startswith("-")]
    with hydra.initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = hydra.compose(config_name, overrides, return_hydra_config=True)
    with open_dict(cfg):
        own = cfg.pop("hydra")
    composed = OmegaConf.to_container(cfg, resolve=True)
    chosen = reversed(own.runtime.choices.items())  # Hydra's order is the reverse of the defaults'
    groups = {group: name for group, name in chosen if not group.startswith("hydra/")}
    if schema is TrainConfig:
        groups["+experiment"] = "…"
    print(own.help.template.rstrip(), "", config_help(cast(dict[str, Any], composed), schema, groups), sep="\n")


def os_error_sentence(error: OSError, cfg: Mapping[Any, Any] | None = None) -> str:
    """The message for an OSError, with the file and the fix.

    If the error names no file, the first output folder in `cfg` is named.

    Raises:
        OSError: `error` itself, if no user can have caused it.
    """
    fix = OS_FIXES.get(error.errno or 0)
    if fix is None:
        raise error
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    names = names or [f"{key}={cfg[key]}" for key in WRITTEN_BELOW if cfg and cfg.get(key)][:1]
    return f"{', '.join([*names, error.strerror or str(error)])}: {fix}"


def _rename_schemas_of_launchers() -> None:
    """Rename the plugins' launchers to NAME_schema, which the files in conf/hydra/launcher/ extend."""
    Plugins.instance()  # loads the plugins
    stored = ConfigStore.instance().repo["hydra"]["launcher"]
    for name in LAUNCHERS:
        if f"{name}.yaml" in stored:
            stored[f"{name}_schema.yaml"] = stored.pop(f"{name}.yaml")


def _with_messages(main: Callable[[DictConfig], object]) -> Callable[[DictConfig], Any]:
    """`main`, with one-sentence messages for errors that a user can fix."""
    launcher = os.getpid()

    def run(cfg: DictConfig) -> object:
        elsewhere = os.getpid() != launcher
        if elsewhere:
            _prepare_worker()
        try:
            return main(cfg)
        except BrokenPipeError:
            raise
        except (GeoclipError, OSError, MemoryError, RuntimeError) as error:
            problem = os_error_sentence(error, cfg) if isinstance(error, OSError) else ""
            problem = problem or (str(error) if isinstance(error, GeoclipError) else memory_problem(error))
            if not problem:
                raise
            # SystemExit would end a sweep, and a worker process does not pass it on to this one.
            raise (PointEnded if elsewhere or in_sweep() else SystemExit)(f"geoclip: {problem}") from None
        except ConfigError as error:
            raise PointEnded(str(error)) if elsewhere else error from None
        except Preempted as error:
            if not elsewhere or "SUBMITIT_EXECUTOR" in os.environ:  # the scheduler reads the status
                raise
            _stop_worker(cast("int", error.code))

    return run


_worker_status: int | None = None  # of a worker that received a stop signal: it starts no other point


def _prepare_worker() -> None:
    """Prepare a worker process of joblib or submitit; after a stop signal it starts no point.

    Raises:
        PointEnded: this process received a stop signal.
    """
    if _worker_status is not None:
        raise PointEnded(_worker_status)
    setup_streams()
    if multiprocessing.get_start_method(allow_none=True) == "loky":  # joblib's; readers of data need the default
        multiprocessing.set_start_method(None, force=True)


def _stop_worker(status: int) -> Never:
    global _worker_status
    _worker_status = status
    raise PointEnded(status) from None


def join_submitit() -> None:
    """Under submitit, which starts one process per task, set the variables that `torchrun` sets."""
    if "SUBMITIT_EXECUTOR" in os.environ and "WORLD_SIZE" not in os.environ:
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)


def world_size_from_environment() -> int:
    """The number of processes that `torchrun` started; 1 without it.

    Raises:
        ConfigError: the variables in the environment are invalid.
    """
    problems = []
    for name, least in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0), ("MASTER_PORT", 1)):
        value = os.environ.get(name)
        if value is not None and not (re.fullmatch(r"\d{1,9}", value) and int(value) >= least):
            problems.append(f"{name}={value!r} in the environment must be a whole number, {least} or more")
    if problems:
        raise ConfigError([*problems, TORCHRUN_FIX])
    size, rank = (int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", "1"), ("RANK", "0")))
    if rank >= size:
        raise ConfigError([f"RANK={rank} in the environment must be below WORLD_SIZE={size}: {TORCHRUN_FIX}"])
    return size


def require_rendezvous(size: int) -> None:
    """Check that several ranks can find each other.

    Raises:
        ConfigError: the environment lacks variables that `torchrun` sets.
    """
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if size > 1 and missing:
        raise ConfigError([f"WORLD_SIZE={size} in the environment, but not {', '.join(missing)}: {TORCHRUN_FIX}"])


def chosen_options() -> dict[str, str]:
    """The chosen option of each group; empty if Hydra did not start this process."""
    if not HydraConfig.initialized():
        return {}
    choices = HydraConfig.get().runtime.choices
    return {group: option for group, option in choices.items() if option and not group.startswith("hydra/")}


def in_sweep() -> bool:
    """Whether this is a point of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def print_config(cfg: DictConfig) -> None:
    """Print the composed configuration as YAML."""
    print(OmegaConf.to_yaml(cfg, resolve=True), end="", flush=True)


def composition_sentence(error: BaseException, schema: type[Any]) -> str:
    """Hydra's error about the command line as one line, with the valid keys."""
    if isinstance(error, OverrideParseException):
        return _grammar_sentence(error, schema)
    texts = [str(part) for part in (error, error.__cause__) if part is not None]
    if problem := type_problem("\n".join(texts), schema):
        return problem
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    sentence = " ".join(line for line in dict.fromkeys(lines) if not line.startswith(("object_type", "reference_type")))
    sentence = sentence.replace("To append to your config use", "If the key is new, write")
    if absent := re.search(r"Could not find '(\w+)/(\w+)'", sentence):
        group, name = absent.groups()
        return f"{group}={name}: must be one of {', '.join(options(group))}"
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
        return no_such_key(path.group(1), allowed)
    return sentence


def _grammar_sentence(error: OverrideParseException, schema: type[Any]) -> str:
    """The message for an argument that Hydra cannot parse, with its valid form."""
    key, equals, value = str(error.override).partition("=")
    reason = next(iter(str(error).splitlines()), "").strip()
    if not equals:
        return f"{error.override!r} is not key=value ({reason})"
    name = key.lstrip("+~")
    hint = type_of_key(name, schema)
    expected = f"; it takes {type_in_words(hint)}" if hint else ""
    written = f"{key}={quoted(value)}"
    shown = shlex.quote(written) if set('"$`!\\') & set(written) else f'"{written}"'
    return f"{error.override}: the value cannot be parsed ({reason}){expected}; to pass text, write {shown}"


def _keys_beside(full_key: str, schema: type[Any]) -> list[str]:
    """Names of the fields in the same section as `full_key`."""
    parent = full_key.rpartition(".")[0]
    section = section_of(type_of_key(parent, schema)) if parent else schema
    return [item.name for item in fields(section)] if section else []
