"""The commands embed, export, probe, publish and study: each schema, then its rules."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from geoclip.config.choices import ExportFormat
from geoclip.config.keys import device_key, key, name_key, seed_key
from geoclip.config.train import LoggerConfig

TABLE_SUFFIXES = (".npz", ".npy", ".csv", ".parquet")
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # to write it, to translate into it, to compare
PROBE_PACKAGES = {"sklearn": "scikit-learn", "h5py": "h5py", "pvlib": "pvlib"}  # import name -> what to install
HUB_ID = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
ALLOWED = ("data", "gallery", "budget", "revision")
OF_RUNS = ("where", "by", "baseline", "benchmarks", "output")  # keys that select what `runs` prints


@dataclass(kw_only=True, slots=True)
class LocationSourceConfig:
    """A location encoder, shared by embed, export and probe."""

    checkpoint: str = key(
        "official", "official, latest (newest run), run folder, checkpoint, or a folder of geoclip.export"
    )
    runs_dir: str = key("runs", "folder that contains the run folders")


def _location_source_problems(config: LocationSourceConfig) -> list[str]:
    known = config.checkpoint in ("official", "latest") or config.checkpoint.startswith("hf-hub:")
    if known or os.path.exists(config.checkpoint):
        return []
    return [
        f"checkpoint={config.checkpoint}: is neither a run folder, a checkpoint nor an exported folder; `official` is "
        f"the released encoder, `latest` the newest run in {config.runs_dir}/, `hf-hub:OWNER/NAME` one on the Hub"
    ]


@dataclass(kw_only=True, slots=True)
class EmbedConfig(LocationSourceConfig):
    """One table of coordinates."""

    input: str = key(comment="CSV with columns for latitude and longitude, degrees")
    output: str = key("", "file to write: .npz, .npy, .csv or .parquet; empty: input with the suffix .npz")
    normalise: bool = key(True, "scale embeddings to length 1, so that dot products are cosines")
    batch_size: int = key(2048, "rows per batch", at_least=1, unit="rows")
    device: str = device_key()
    overwrite: bool = key(False, "replace an existing output")


def embed_problems(config: EmbedConfig) -> list[str]:
    """Every reason why this table cannot be embedded, each with its fix."""
    problems = _location_source_problems(config)
    output = embed_output(config)
    if not os.path.isfile(config.input):
        problems.append(f"input={config.input}: must be a CSV with columns for latitude and longitude")
    elif output.suffix.lower() not in TABLE_SUFFIXES:
        problems.append(f"output={output}: must end in one of {', '.join(TABLE_SUFFIXES)}")
    elif output.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        problems.append(f"output={output}: needs pyarrow, which is not installed: pip install pyarrow, or write a .npz")
    elif output.is_dir():
        problems.append(f"output={output}: is a folder; name a file in it")
    elif output.exists() and output.samefile(config.input):
        problems.append(f"output={output}: is the input itself; name another file")
    elif output.exists() and not config.overwrite:
        problems.append(f"output={output}: exists; overwrite=true replaces it")
    return problems


def embed_output(config: EmbedConfig) -> Path:
    """The file to write."""
    return Path(config.output) if config.output else Path(config.input).with_suffix(".npz")


@dataclass(kw_only=True, slots=True)
class ExportConfig(LocationSourceConfig):
    """One export."""

    format: ExportFormat = key(
        ExportFormat.onnx, "safetensors: weights and config.json in the authors' layout; others: graphs"
    )
    output: str = key(comment="file to write; format=safetensors: a folder")
    compare_on: str = key("", "CSV of coordinates that export and encoder are compared on; empty: 1,000 on the sphere")
    overwrite: bool = key(False, "replace an existing output")


def export_problems(config: ExportConfig) -> list[str]:
    """Every reason why this export cannot be made, each with its fix."""
    problems = _location_source_problems(config)
    absent = [name for name in ONNX_PACKAGES if find_spec(name) is None]
    if config.format is ExportFormat.onnx and absent:
        problems.append(
            f"format=onnx: needs {', '.join(absent)}, not installed: pip install -c constraints.txt -e '.[export]'"
        )
    output = Path(config.output)
    is_folder = config.format is ExportFormat.safetensors
    written = output / "config.json" if is_folder else output
    if output.is_file() if is_folder else output.is_dir():
        kinds = ("file", "folder") if is_folder else ("folder", "file")
        problems.append(f"output={output}: is a {kinds[0]}; format={config.format.value} writes a {kinds[1]}")
    elif config.format is ExportFormat.torch_export and output.suffix != ".pt2":
        problems.append(f"output={output}: must end in .pt2, by which torch.export.load knows its files")
    elif written.exists() and not config.overwrite:
        problems.append(f"output={written}: exists; overwrite=true replaces it")
    if config.compare_on and not os.path.isfile(config.compare_on):
        problems.append(f"compare_on={config.compare_on}: must be a CSV with columns for latitude and longitude")
    return problems


@dataclass(kw_only=True, slots=True)
class ProbeConfig(LocationSourceConfig):
    """One probe: linear heads on location embeddings."""

    places: int = key(20_000, "number of locations drawn on the sphere, and as many on land", at_least=500)
    seed: int = seed_key("of the locations, the split into cells, the untrained encoder and the bootstrap")
    output: str = key("", "folder to write; empty: probe/ in the run folder")
    device: str = device_key()


def probe_problems(config: ProbeConfig) -> list[str]:
    """Every reason why this probe cannot run, each with its fix."""
    problems = _location_source_problems(config)
    absent = [package for name, package in PROBE_PACKAGES.items() if find_spec(name) is None]
    if absent:
        problems.append(
            f"the probe needs {', '.join(absent)}, not installed: pip install -c constraints.txt -e '.[probe]'"
        )
    return problems


@dataclass(kw_only=True, slots=True)
class PublishConfig:
    """One release: model, gallery and card."""

    checkpoint: str = key("latest", "run folder, checkpoint, or latest (the newest run)")
    runs_dir: str = key("runs", "folder that contains the run folders")
    repo: str = key("", "repository on the Hugging Face Hub, owner/name")
    output: str = key("", "folder to write; empty: release/ in the run folder")
    push: bool = key(False, "upload to the Hub; false: only write the folder")
    private: bool = key(True, "make a new repository private")
    licence: str = key("", "licence of the weights, by the Hub's names: mit, cc-by-nc-4.0, …")
    backbone: str = key("", "Hub id of the frozen CLIP, if encoder.repo of the run is a local folder")
    force: bool = key(False, "publish also without an evaluation")


def publish_problems(config: PublishConfig) -> list[str]:
    """Every reason why this model cannot be published, each with its fix."""
    problems = []
    if config.checkpoint.startswith("hf-hub:") or config.checkpoint in ("official", ""):
        problems.append(
            f"checkpoint={config.checkpoint}: was not trained here; name a run folder, a checkpoint, or `latest`"
        )
    elif config.checkpoint != "latest" and not os.path.exists(config.checkpoint):
        problems.append(
            f"checkpoint={config.checkpoint}: is neither a run folder nor a file; `latest` is the newest run in "
            f"{config.runs_dir}/"
        )
    if config.repo and not re.fullmatch(HUB_ID, config.repo):
        problems.append(f"repo={config.repo}: must be a Hub id, owner/name")
    if config.push and not config.repo:
        problems.append("push=true: needs repo=owner/name")
    if config.push and not config.licence:
        problems.append("push=true: needs the licence of the weights, as the Hub names it: licence=mit")
    if config.backbone and not re.fullmatch(HUB_ID, config.backbone):
        problems.append(f"backbone={config.backbone}: must be a Hub id, because others have no such folder")
    if os.path.isfile(config.output):
        problems.append(f"output={config.output}: is a file; name a folder")
    return problems


@dataclass(kw_only=True, slots=True)
class SearchConfig:
    """hydra.sweeper of a search: values of `params`, drawn by Optuna's tree-structured Parzen estimator."""

    _target_: str = "hydra_plugins.geoclip_search.OptunaSearch"
    trials: int = key(24, "total number of trials, failed ones included; more resume the search", at_least=1)
    at_once: int = key(1, "trials launched together: hydra/launcher=joblib runs them in parallel", at_least=1)
    random_trials: int = key(8, "number of first trials that are drawn at random")
    seed: int = seed_key("of the trials")
    params: dict[str, str] | None = key(None, "values of each key: interval(a,b), tag(log,interval(a,b)), or choices")


@dataclass(kw_only=True, slots=True)
class StudyCommandConfig:
    """One study, or any runs of which tables are printed."""

    name: str = name_key("study, as in conf/experiment/ and experiments/NN_name; empty: list all studies", "")
    runs_dir: str = key("runs", "folder that contains the run folders")
    experiments: str = key("experiments", "folder that contains the studies")
    jobs: int = key(1, "number of evaluations in parallel", at_least=1)
    device: str = device_key()
    allow: list[str] = key([], "tolerated differences between runs: data, gallery, budget, revision")
    references: bool = key(False, "add published results of other models, with their reliability")
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    runs: Any = key(None, "run folders or patterns of them: print their tables, write no study")
    where: list[str] = key([], "only runs and evaluations with these values: [loss=one_way,eval.tta=single]")
    by: list[str] = key([], "keys, groups, or eval.FIELD in which the variants differ; empty: study.by of the runs")
    baseline: str = key("", "label of the variant that the others are compared with; empty: study.baseline of the runs")
    benchmarks: list[str] = key([], "benchmarks in the tables; empty: study.benchmarks of the runs")
    output: str = key("", "folder for results.json, .md, .tex and .csv; empty: print only")


def study_problems(config: StudyCommandConfig) -> list[str]:
    """Every reason why a study's tables cannot be made, each with its fix."""
    problems = [f"allow={kind}: must be one of {', '.join(ALLOWED)}" for kind in config.allow if kind not in ALLOWED]
    return problems + (_problems_of_runs(config) if config.runs else _problems_of_study(config))


def _problems_of_runs(config: StudyCommandConfig) -> list[str]:
    problems = []
    if config.name:
        problems.append(f"name={config.name}: cannot be given with runs={config.runs}; leave one of them out")
    problems += [f"where={one}: must be KEY=VALUE" for one in config.where if "=" not in one]
    return problems


def _problems_of_study(config: StudyCommandConfig) -> list[str]:
    problems = [
        f"{name}={getattr(config, name)}: needs runs=…, the run folders to print tables of"
        for name in OF_RUNS
        if getattr(config, name)
    ]
    if not Path(config.experiments).is_dir():
        problems.append(f"experiments={config.experiments}: is not a folder")
    elif config.name:
        found = list(Path(config.experiments).glob(f"[0-9][0-9]_{config.name}/README.md"))
        if len(found) != 1:
            problems.append(
                f"name={config.name}: {len(found)} folders {config.experiments}/NN_{config.name} with a README.md; "
                "must be one, which states what is expected (experiments/README.md)"
            )
        if not list(Path(config.runs_dir).glob(f"{config.name}-*/config.yaml")):
            problems.append(
                f"name={config.name}: no runs {config.runs_dir}/{config.name}-*; train them: python -m geoclip.train "
                f"+experiment={config.name}"
            )
    return problems
