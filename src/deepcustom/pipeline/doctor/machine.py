"""What the machine can do."""

from __future__ import annotations

import platform
import re
import shutil
from importlib import metadata
from pathlib import Path

from deepcustom.base.cores import cores
from deepcustom.pipeline.doctor.finding import Finding
from deepcustom.pipeline.watch.memory import free_and_whole
from deepcustom.pipeline.watch.quantities import counted, size

LEAST_MEMORY = 10**9
"""Bytes; a stage takes about half of it for itself."""
LEAST_DISK = 10**9
"""Bytes that should be free whatever a project needs."""
LOWEST = (3, 11)


def python() -> Finding:
    """Which Python runs."""
    found = platform.python_version()
    version = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    if version < LOWEST:
        lowest = ".".join(map(str, LOWEST))
        return Finding(
            "python", "cannot", f"{found}, want {lowest} or later", "make PYTHON=python3.12", True
        )
    return Finding("python", "ok", found)


def packages(root: Path) -> Finding:
    """Whether the packages that this one asks for are there, in versions within its ranges."""
    from packaging.requirements import Requirement

    wrong, asked = {}, [Requirement(text) for text in metadata.requires("deepcustom") or ()]
    for one in asked:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            wrong[f"'{one.name}{one.specifier}'"] = f"{one.name} is missing"
            continue
        if not one.specifier.contains(version, prereleases=True):
            wrong[f"'{one.name}{one.specifier}'"] = f"{one.name} {version}, want {one.specifier}"
    if wrong:
        locked = (root / "requirements.lock").is_file()
        what = "--requirement requirements.lock" if locked else " ".join(wrong)
        verdict = "missing" if all("missing" in why for why in wrong.values()) else "cannot"
        says = "; ".join(wrong.values())
        return Finding("packages", verdict, says, f"python -m pip install {what}", True)  # type: ignore[arg-type]
    others = _other_than_locked(root / "requirements.lock")
    more = f"; other versions than in requirements.lock: {', '.join(others)}" if others else ""
    return Finding("packages", "ok", f"all in their ranges{more}")


def _other_than_locked(lock: Path) -> list[str]:
    """Packages that are here in another version than a lock file names for this machine."""
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for line in lock.read_text().splitlines() if lock.is_file() else ():
        try:
            pinned = Requirement(line)
            version = metadata.version(pinned.name)
        except (InvalidRequirement, metadata.PackageNotFoundError):
            continue  # an option or a comment; a package of development, or of another system
        here = pinned.marker is None or pinned.marker.evaluate({"extra": ""})
        if here and not pinned.specifier.contains(version, prereleases=True):
            found.append(f"{pinned.name} {version}")
    return found


def compute() -> list[Finding]:
    """Processor, precision and GPU, as torch sees them."""
    try:
        import torch

        from deepcustom.base.settings import ComputeParams
        from deepcustom.training.compute import Compute

        threads = torch.get_num_threads()
        kind = torch.backends.cpu.get_cpu_capability()
        chosen = Compute.of(ComputeParams(device="auto", precision="auto", threads="auto"))
    except Exception as error:  # a broken torch raises whatever it likes
        why = " ".join(str(error).split()) or type(error).__name__
        mend = "python -m pip install --force-reinstall torch"
        return [Finding("torch", "cannot", f"cannot be loaded: {why}", mend, True)]
    found = [
        Finding("cores", "ok", f"{counted(cores(), 'core')}, torch takes {threads} ({kind})"),
    ]
    precision = str(chosen.precision).removeprefix("torch.")
    if precision == "float32":
        says = "no bfloat16 in hardware (avx512_bf16, amx_bf16): networks train in float32"
        found.append(Finding("bfloat16", "cannot", says))
    else:
        found.append(Finding("bfloat16", "ok", f"networks train in {precision}"))
    gpus = [torch.cuda.get_device_name(one) for one in range(torch.cuda.device_count())]
    if gpus:
        found.append(Finding("gpu", "ok", ", ".join(gpus)))
    else:
        found.append(Finding("gpu", "missing", "none that torch can use: the processor computes"))
    return found


def memory() -> Finding:
    """How much memory is free."""
    free, whole = free_and_whole()
    says = f"{size(free)} of {size(whole)} free"
    if free < LEAST_MEMORY:
        return Finding("memory", "cannot", f"{says}: end other programs first", "", True)
    return Finding("memory", "ok", says)


def disk(folder: Path, need: int) -> Finding:
    """Whether what a project will still write has room.

    Args:
        folder: the project.
        need: bytes, by the sizes in its ``dvc.lock``; 0 if nothing is known.
    """
    free = shutil.disk_usage(folder).free
    says = f"{size(free)} free"
    if need:
        says += f", and files of {size(need)} are not here that dvc.lock names"
    if free < need + LEAST_DISK:
        return Finding("disk", "cannot", says, "dvc gc --workspace", True)
    return Finding("disk", "ok", says)
