"""Projects in temporary folders: the real dvc.yaml and params on real digits, at tiny budgets."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import yaml

from deepcustom import cli
from deepcustom.base import rows
from deepcustom.base.account import account_json, measured, outputs_told
from deepcustom.base.hashes import dvc_md5
from deepcustom.data.arrays import Split
from deepcustom.data.datasets import save_spec
from deepcustom.data.sources import find_source
from deepcustom.pipeline import workspace
from deepcustom.pipeline.code_lock import write_lock
from deepcustom.pipeline.watch.state import FOLDER as RUNNING
from deepcustom.pipeline.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
DATASET = "mnist"
SIZES = {"train": 500, "val": 100, "test": 120}
TINY = {
    "epochs": 1,
    "max_iter": 2,
    "num_random_init": 1,
    "decay_steps": 5,
    "queries": 10,
    "n": 40,
}


@dataclass(frozen=True)
class Instance:
    """One resolved stage of dvc.yaml, such as ``train_dgn@mnist-lrp``."""

    name: str
    words: tuple[str, ...]
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[Any, ...]

    @property
    def stage(self) -> str:
        return self.name.partition("@")[0]

    @property
    def options(self) -> dict[str, str]:
        """The options of its command, without their dashes."""
        keys, values = self.words[2::2], self.words[3::2]
        return {key.removeprefix("--"): value for key, value in zip(keys, values, strict=True)}

    @property
    def paths(self) -> set[str]:
        """What it makes."""
        return {out.def_path for out in self.outs}


@dataclass(frozen=True)
class Pipeline:
    """The resolved dvc.yaml; ``graph`` has an edge from each name to what is made from it."""

    instances: dict[str, Instance]
    graph: networkx.DiGraph

    def downstream(self, names: set[str]) -> set[str]:
        """``names`` and all that is made from them."""
        return names.union(*(networkx.descendants(self.graph, name) for name in names))

    def upstream(self, name: str) -> set[str]:
        return set(networkx.ancestors(self.graph, name))

    def of(self, *stages: str) -> list[Instance]:
        return [one for one in self.instances.values() if one.stage in stages]

    def makers(self, path: str) -> set[str]:
        """The instances that make ``path`` or something in it."""
        return {
            one.name
            for one in self.instances.values()
            for out in one.paths
            if out == path or Path(path) in Path(out).parents
        }


def resolve(folder: Path) -> Pipeline:
    """dvc.yaml and params.yaml of ``folder`` as DVC understands them; makes ``.dvc`` there anew."""
    assert not (folder / ".git").exists(), "this would remove a real project's DVC cache"
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    with Repo.init(str(folder), no_scm=True, force=True):
        pass
    with contextlib.chdir(folder), Repo() as repo:  # addresses are relative to where one is
        graph = networkx.DiGraph(
            (b.addressing, a.addressing)
            for a, b in repo.index.graph.edges  # DVC's point at what is needed
        )
        graph.add_nodes_from(stage.addressing for stage in repo.index.graph)
        found = {}
        for stage in repo.index.stages:
            params = [d for d in stage.deps if isinstance(d, ParamsDependency)]
            found[stage.addressing] = Instance(
                stage.addressing,
                tuple(shlex.split(stage.cmd)),
                tuple(d.def_path for d in stage.deps if d not in params),
                tuple(key for d in params for key in d.params),
                tuple(stage.outs),
            )
    order = list(networkx.lexicographical_topological_sort(graph))
    return Pipeline({name: found[name] for name in order}, graph)


def shrunk(tree: Any) -> Any:
    """``tree`` with every budget that occurs in it made tiny."""
    if not isinstance(tree, dict):
        return tree
    return {
        key: min(value, TINY[key]) if key in TINY else shrunk(value) for key, value in tree.items()
    }


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the leaves of ``over``."""
    out = dict(base)
    for key, value in over.items():
        out[key] = merged(out.get(key, {}), value) if isinstance(value, Mapping) else value
    return out


def commands(text: str) -> list[list[str]]:
    """The commands ``deepcustom add`` in a text, without the program's name."""
    joined = re.sub(r"\\\n\s*", "", text)
    found = re.findall(r"^\s*deepcustom (add .*)$", joined, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


def adding_project(folder: Path) -> Workspace:
    """A copy of this project's settings and examples, to add rows to."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder)
    (folder / "examples").mkdir()
    for file in (ROOT / "examples").glob("*.py"):
        shutil.copy(file, folder / "examples")
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    (folder / "src").symlink_to(ROOT / "src")
    return Workspace(folder)


@contextlib.contextmanager
def own_modules(name: str = "examples") -> Iterator[None]:
    """Modules of this name are those of the project at hand, and forgotten afterwards."""

    def take() -> dict[str, Any]:
        return {key: sys.modules.pop(key) for key in list(sys.modules) if key.split(".")[0] == name}

    before, path = take(), list(sys.path)
    try:
        yield
    finally:
        take()
        sys.modules.update(before)
        sys.path[:] = path


@cache
def walk_through() -> dict[str, Any]:
    """The rows that the commands of "Adding one" in docs/losses.md add to params.yaml."""
    text = (ROOT / "docs/losses.md").read_text().partition("\n## Adding one\n")[2]
    before = yaml.safe_load((ROOT / "params.yaml").read_text())
    with tempfile.TemporaryDirectory() as folder, own_modules():
        ws = adding_project(Path(folder))
        for words in commands(text):
            assert call_main(ws.root, *words) == 0, words
        after = yaml.safe_load(ws.params.read_text())
    new = {
        stage: {name: row for name, row in after[stage].items() if name not in before[stage]}
        for stage in rows.LAYOUTS
    }
    return {stage: found for stage, found in new.items() if found}


def tiny_params() -> dict[str, Any]:
    """The project's own settings with tiny budgets, in a precision that every machine has."""
    tree = shrunk(yaml.safe_load((ROOT / "params.yaml").read_text()))
    target = {"epochs": 8, "batch_size": 50, "learning_rate": 3e-3}
    few = {"epochs": 12, "batch_size": 25}
    hardened = {
        stage: {
            name: {"training": few}
            for name, row in tree[stage].items()
            if row["subject"] == DATASET
        }
        for stage in ("adversarial_train", "train_online")
    }
    over = {
        "compute": {"device": "cpu", "precision": "float32"},
        "train_target": {DATASET: target},
        **hardened,
    }
    return merged(tree, over)


@cache
def digits() -> dict[str, Split]:
    """Scikit-learn's handwritten digits at MNIST's size, in three splits without overlap.

    In train a few labels of every class are wrong, so that a network fails somewhere in each.
    """
    from sklearn.datasets import load_digits

    small = load_digits()
    x = np.rint(small.images * (255 / 16)).astype(np.uint8).repeat(3, 1).repeat(3, 2)
    x = np.pad(x, ((0, 0), (2, 2), (2, 2)))[:, None]
    whole = Split.whole(x, small.target.astype(np.uint8))
    order = np.random.default_rng(0).permutation(len(whole))
    splits, start = {}, 0
    for name, size in SIZES.items():
        splits[name] = whole.take(np.sort(order[start : start + size]))
        start += size
    train = splits["train"]
    y = train.y.copy()
    for label in range(10):
        rows = np.flatnonzero(train.y == label)[:4]
        y[rows] = (label + 1 + np.arange(4)) % 10
    return splits | {"train": Split(train.x, y, train.index)}


def make_project(folder: Path, params: Mapping[str, Any] | None = None) -> Workspace:
    """A project whose splits of digits are prepared already."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "dvc.yaml", folder)
    write_params(folder, tiny_params() if params is None else params)
    write_lock(folder)
    for name, split in digits().items():
        split.save(folder / workspace.split(DATASET, name))
    save_spec(find_source(DATASET).spec, folder / workspace.dataset(DATASET))
    counts = {f"{name}_images": float(len(split)) for name, split in digits().items()}
    metrics = folder / workspace.metrics(DATASET, "prepare")
    metrics.parent.mkdir(parents=True)
    metrics.write_text(account_json(counts, {}))
    return Workspace(folder)


def told_anew(ws: Workspace, path: str) -> None:
    """Let an account give the hash of ``path`` as it is now: that of the run which made it, or a new one."""
    candidates = [ws.root / place for place in workspace.metrics_of(path)]
    there = [one for one in candidates if one.is_file()]
    (file,) = there or candidates[:1]
    outputs = outputs_told(file) | {path: dvc_md5(ws.root / path)}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(account_json(measured(file) if there else {}, outputs))


def write_params(folder: Path, tree: Mapping[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(dict(tree), sort_keys=False))


def set_params(folder: Path, over: Mapping[str, Any]) -> None:
    """Lay ``over`` on the params of the project in ``folder``."""
    write_params(folder, merged(yaml.safe_load((folder / "params.yaml").read_text()), over))


def keep_rows(folder: Path, networks: Collection[str], sets: Collection[str]) -> None:
    """Leave the subject's ``networks``, and of its test sets ``sets``; take all other rows away."""
    tree = yaml.safe_load((folder / "params.yaml").read_text())

    def stays(stage: str, row: Mapping[str, Any]) -> bool:
        if row["subject"] != DATASET:
            return False
        if stage in rows.HARDENING:
            return row["network"] in networks
        return row["split"] != "test" or row[rows.SETS[stage]] in sets

    for stage in (*rows.HARDENING, *rows.SETS):
        tree[stage] = {name: row for name, row in tree[stage].items() if stays(stage, row)}
    write_params(folder, tree)


def files(folder: Path) -> dict[str, int]:
    """Every file below ``folder``, hidden too, and when it was written; without what stages tell watchers."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.parent != folder / RUNNING
    }


@contextlib.contextmanager
def environment(**values: str | None) -> Iterator[None]:
    """Environment variables for a while; None unsets one."""
    before = {name: os.environ.get(name) for name in values}

    def put(pairs: Mapping[str, str | None]) -> None:
        for name, value in pairs.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    put(values)
    try:
        yield
    finally:
        put(before)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: on work this small, two on a busy machine are ten times slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_instance(ws: Workspace, instance: Instance) -> None:
    """Run a stage's command in this process, as ``dvc repro`` would in one of its own."""
    program, *words = instance.words
    assert program == "deepcustom"
    with contextlib.chdir(ws.root), environment(DVC_STAGE=instance.name), one_thread():
        cli.app(words, standalone_mode=False)


def call_main(folder: Path, *words: str) -> int:
    """The command line in this process; returns what it ends with."""
    argv, sys.argv = sys.argv, ["deepcustom", *words]
    try:
        with contextlib.chdir(folder), one_thread():
            cli.main()
    except SystemExit as end:
        return 0 if end.code is None else int(end.code)
    finally:
        sys.argv = argv
    return 0


def interruptible(stop):
    """An ``advance`` that ends the training in place of call ``stop``, and what it was told."""
    said = []

    def advance(note="", steps=1, *, resumed=False):
        if len(said) == stop:
            raise KeyboardInterrupt
        said.append((steps, note if resumed else ""))

    return advance, said
