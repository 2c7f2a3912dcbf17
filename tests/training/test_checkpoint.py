"""A checkpoint is complete or absent: if it is cut, flipped, forged or on a full disk, the one before is used."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from geoclip.errors import CheckpointError
from geoclip.training.checkpoint import (
    FORMAT,
    CheckpointWriter,
    newest_good,
    pack,
    read_checkpoint,
    step_file,
    step_files,
    write_checkpoint,
)

TREE: dict[str, Any] = {
    "format": FORMAT,
    "model": {"a.weight": torch.arange(600.0).reshape(20, 30), "scale": torch.tensor(2.5)},
    "optimizer": {"state": {"0": {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]},
    "half": torch.ones(3, dtype=torch.bfloat16),
    "empty": torch.zeros(0, 2),
    "config": {"name": "x", "sigmas": [1.0, 16.0], "none": None, "yes": True},
}


def write(path: Path, **changes: Any) -> Path:
    write_checkpoint(path, pack(TREE | changes))
    return path


def test_a_checkpoint_is_read_back_bit_identically(tmp_path: Path) -> None:
    found = read_checkpoint(write(tmp_path / "x.safetensors"))
    assert torch.equal(found["model"]["a.weight"], TREE["model"]["a.weight"])
    assert torch.equal(found["model"]["scale"], torch.tensor(2.5)) and found["half"].dtype is torch.bfloat16
    assert found["empty"].shape == (0, 2)
    assert found["config"] == TREE["config"] and found["optimizer"]["param_groups"][0]["lr"] == 0.1


def test_training_may_change_tensors_before_they_are_written(tmp_path: Path) -> None:
    weight = torch.ones(4)
    packed = pack(TREE | {"weight": weight})
    weight.zero_()
    write_checkpoint(tmp_path / "x.safetensors", packed)
    assert torch.equal(read_checkpoint(tmp_path / "x.safetensors")["weight"], torch.ones(4))


@pytest.mark.parametrize("tenth", range(10))
def test_a_cut_checkpoint_is_never_loaded_and_the_one_before_it_is(tmp_path: Path, tenth: int) -> None:
    write(step_file(tmp_path, 10), step=10)
    newer = write(step_file(tmp_path, 20), step=20)
    contents = newer.read_bytes()
    newer.write_bytes(contents[: len(contents) * tenth // 10])
    found = newest_good(tmp_path)
    assert found is not None and found[0] == step_file(tmp_path, 10) and found[1]["step"] == 10
    assert newer.with_name(f"{newer.name}.damaged").exists()


def test_a_flipped_bit_is_never_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(step_file(tmp_path, 10))
    contents = write(tmp_path / "complete").read_bytes()
    rng, harmless = random.Random(0), 0
    for position in [*range(300), *rng.sample(range(len(contents)), 300)]:
        flipped = bytearray(contents)
        flipped[position] ^= 1 << rng.randrange(8)
        newer = step_file(tmp_path, 20)
        newer.write_bytes(flipped)
        found = newest_good(tmp_path)
        assert found is not None
        if found[0] == newer:  # white space of the header
            harmless += 1
            assert torch.equal(found[1]["model"]["a.weight"], TREE["model"]["a.weight"])
    assert harmless < 5 and str(step_file(tmp_path, 20)) in caplog.text


class Explosive:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    torch.save({"format": FORMAT, "model": Explosive(tmp_path / "executed")}, tmp_path / "evil.safetensors")
    with pytest.raises(CheckpointError, match=r"evil\.safetensors"):
        read_checkpoint(tmp_path / "evil.safetensors")
    assert not (tmp_path / "executed").exists()


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.safetensors"):
        read_checkpoint(tmp_path / "gone.safetensors")
    write(tmp_path / "old.safetensors", format=FORMAT - 1)
    with pytest.raises(CheckpointError, match=rf"old\.safetensors .* {FORMAT}"):
        read_checkpoint(tmp_path / "old.safetensors")
    with pytest.raises(TypeError, match="config/path is a PosixPath"):
        pack({"config": {"path": tmp_path}})


def test_the_newest_few_are_kept_and_the_best(tmp_path: Path) -> None:
    (tmp_path / ".step-00000001.safetensors.77.partial").write_bytes(b"of a process that was killed")
    with CheckpointWriter(tmp_path, keep=2) as writer:
        for step in (5, 10, 15):
            writer.save(step, TREE | {"step": step})
            writer.save_best(TREE | {"step": step})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best.safetensors", "step-00000010.safetensors", "step-00000015.safetensors"]
    assert read_checkpoint(tmp_path / "best.safetensors")["step"] == 15


FULL = """
import resource, sys
from pathlib import Path
import torch
from geoclip.errors import CheckpointError
from geoclip.training.checkpoint import FORMAT, pack
from geoclip.training.checkpoint import CheckpointWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with CheckpointWriter(Path(sys.argv[1]), keep=2) as writer:
        writer.save(20, {"format": FORMAT, "weight": torch.ones(1_000_000)})
except CheckpointError as error:
    print(error)
"""


def test_a_full_disk_leaves_the_earlier_checkpoint_intact(tmp_path: Path) -> None:
    """A limit on the size of files replaces the full disk, because every user may set it."""
    write(step_file(tmp_path, 10), step=10)
    limited = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert "step-00000020.safetensors" in limited.stdout and "4.0 MB" in limited.stdout
    found = newest_good(tmp_path)
    assert found is not None and found[1]["step"] == 10
    assert list(tmp_path.iterdir()) == step_files(tmp_path)
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_full_tmpfs_does_the_same(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk here")
    try:
        write(step_file(disk, 10), step=10)
        with pytest.raises(CheckpointError, match="No space left"), CheckpointWriter(disk, keep=2) as writer:
            writer.save(20, TREE | {"large": torch.ones(1_000_000)})
        found = newest_good(disk)
        assert found is not None and found[1]["step"] == 10 and list(disk.iterdir()) == [found[0]]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
