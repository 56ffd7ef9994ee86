"""Networks of one's own in a project: what is wrong is one line and leaves nothing; starts of hardening."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pipeline_fixtures import call_main, files, own_modules, resolve, set_params, write_params
from safetensors.torch import load_file, save_file
from torch import nn

from deepcustom.attacks.relevance import class_relevance
from deepcustom.attacks.suspiciousness import _class_spectra
from deepcustom.base.errors import ParamsError
from deepcustom.base.params import read_params
from deepcustom.base.rows import HARDENING
from deepcustom.data.arrays import AdversarialSet, Split
from deepcustom.data.datasets import DatasetSpec, SplitFacts, load_spec, save_spec
from deepcustom.pipeline import workspace
from deepcustom.pipeline.brought import LOOKED_AT, PROPAGATED, batches
from deepcustom.pipeline.cards import _start
from deepcustom.pipeline.check import check
from deepcustom.pipeline.code_lock import write_lock
from deepcustom.pipeline.load import REMEDY
from deepcustom.pipeline.profile import brought as brought_files
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.template import render
from deepcustom.pipeline.trace.walk import trace
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.cards import Model
from deepcustom.tracking.record import RunRecord
from deepcustom.training.nets.healed import Remedy
from deepcustom.training.trial import Trial
from deepcustom.training.weights import read_metadata

NAME, SHAPE, CLASSES = "shapes", (3, 8, 8), ("apple", "bean", "corn")
SIZES = {"train": 24, "val": 6, "test": 6}
NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, width=4):
        super().__init__()
        self.conv, self.scores = nn.Conv2d(3, width, 3), nn.Linear(36 * width, classes)

    def forward(self, x):
        return self.scores(self.conv(x).relu().flatten(1))

class Scale(Net):
    def __init__(self, classes, scale):
        super().__init__(classes)

class Narrow(Net):
    def forward(self, x):
        return super().forward(x)[:, :2]

class Maps(nn.Sequential):
    def __init__(self, classes):
        super().__init__(nn.Conv2d(3, classes, 3))

class Pair(Net):
    def forward(self, x):
        logits = super().forward(x)
        return logits, -logits

class Told(Net):
    def forward(self, x):
        return {"features": x.flatten(1), "logits": super().forward(x)}

class Whole(Net):
    def forward(self, x):
        return super().forward(x).argmax(1, keepdim=True).expand(-1, 3)

class Undefined(Net):
    def forward(self, x):
        return super().forward(x) / 0

class Mixing(Net):
    def forward(self, x):
        logits = super().forward(x)
        return logits - logits.mean(0)

class Writing(Net):
    def forward(self, x):
        return super().forward(x.sub_(0.5))

class Detached(Net):
    def forward(self, x):
        return super().forward(x.detach())

class Silent(Net):
    @torch.inference_mode()
    def forward(self, x):
        return super().forward(x)

class Deaf(Net):
    def forward(self, x):
        return self.scores.bias.expand(len(x), -1)

class Two(nn.Module):
    def forward(self, x):
        return x, x

class Parted(Net):
    def __init__(self, classes):
        super().__init__(classes)
        self.two = Two()

    def forward(self, x):
        return self.scores(self.two(self.conv(x))[0].relu().flatten(1))

class Linear(nn.Sequential):
    def __init__(self, classes):
        super().__init__(nn.Flatten(), nn.Linear(192, classes))

class Fails(Net):
    def forward(self, x):
        raise RuntimeError("first line\\nsecond line")

class Frozen(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))

class Lazy(Net):
    def __init__(self, classes):
        super().__init__(classes)
        self.scores = nn.LazyLinear(classes)

class Empty(Net):
    def __init__(self, classes):
        super().__init__(classes)
        self.register_buffer("mean", torch.empty(1, device="meta"))

words = "no class"
"""
OPTIONS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "epochs": 1,
    "batch_size": 8,
    "schedule": "constant",
    "momentum": 0.9,
    "weight_decay": 0.0,
}
TRAIN = f"data/prepared/{NAME}/train"
ROWS: dict[str, Any] = {
    "seed": 1,
    "compute": {"device": "cpu", "precision": "float32", "threads": "auto"},
    "subjects": {
        NAME: {
            "dataset": NAME,
            "network": {"name": "own.nets.mine:Net"},
            "generator": "deepcustom.training.nets.anyshape:AnyGenerator",
            "conditional": "deepcustom.training.nets.anyshape:AnyConditional",
            "threat": {"norm": "linf", "eps": 0.03},
        }
    },
    "recipes": {"none": {}},
    "prepare": {
        NAME: {
            "source": "arrays",
            "path": "data/own",
            "reads": "data/own",
            **dict.fromkeys(("size", "channels", "test_share", "train_size", "test_size")),
            "val_size": 6,
        }
    },
    "train_target": {NAME: {"dataset": NAME, "reads": TRAIN, **OPTIONS}},
    "relevance": {NAME: {"dataset": NAME, "k": 4, "epsilon": 1e-6, "method": "lrp"}},
    "suspiciousness": {
        NAME: {"dataset": NAME, "k": 4, "activation_threshold": 0.0, "formula": "tarantula"}
    },
    **{
        name: {}
        for name in ("train_dgn", "generate", "attack", "evaluate", "report", "gallery", "page")
    },
    **{name: {} for name in HARDENING},
}


@pytest.fixture(scope="module")
def laid_down(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of its own, with images that are prepared and a file of networks."""
    root = tmp_path_factory.mktemp("laid")
    rng = np.random.default_rng(0)
    for name, n in SIZES.items():
        y = (np.arange(n) % len(CLASSES)).astype(np.uint8)
        split = Split.whole(rng.integers(0, 256, (n, *SHAPE), np.uint8), y)
        split.save(root / workspace.split(NAME, name))
    facts = SplitFacts(size=24, x_sha256="0" * 64, y_sha256="0" * 64)
    both = {"train": facts, "test": facts}
    spec = DatasetSpec(name=NAME, title=NAME, shape=SHAPE, classes=CLASSES, splits=both)
    save_spec(spec, root / workspace.dataset(NAME))
    (root / "own/nets").mkdir(parents=True)
    (root / "own/nets/mine.py").write_text(NETS)
    (root / "dvc.yaml").write_text(render(root))
    write_params(root, ROWS)
    write_lock(root)
    return root


@pytest.fixture
def ws(laid_down: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A copy of it, for one test."""
    monkeypatch.setattr("deepcustom.pipeline.run.send", lambda *args: "")
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    shutil.copytree(laid_down, tmp_path, dirs_exist_ok=True)
    with own_modules("own"), own_modules("nets"), own_modules("parts"):
        yield Workspace(tmp_path)


def run(ws: Workspace, stage: str = "train_target", **network: Any) -> int:
    if network:
        set_params(ws.root, {"subjects": {NAME: {"network": network}}})
    return call_main(ws.root, stage, "--subject", NAME)


def weights(name: str = "own/weights.safetensors", **tensors: torch.Tensor) -> Callable[..., None]:
    """Puts a file of weights into the project, and lets the network start from it."""

    def put(ws: Workspace) -> None:
        own = {
            "conv.weight": torch.ones(4, 3, 3, 3),
            "conv.bias": torch.zeros(4),
            "scores.weight": torch.ones(3, 144),
            "scores.bias": torch.zeros(3),
        }
        save_file({**own, **tensors}, ws.root / name)
        starts_from(name)(ws)

    return put


def starts_from(name: str, content: bytes | None = None) -> Callable[[Workspace], None]:
    def put(ws: Workspace) -> None:
        if content is not None:
            (ws.root / name).write_bytes(content)
        set_params(ws.root, {"train_target": {NAME: {"weights": name, "reads": name}}})

    return put


def pickled(name: str) -> Callable[[Workspace], None]:
    def put(ws: Workspace) -> None:
        torch.save({"scores.bias": torch.zeros(3)}, ws.root / name)
        if name.endswith(".pth"):
            starts_from(name)(ws)

    return put


def program(shape: tuple[int, int, int], name: str = "own/nets/mine.pt2") -> Callable[..., None]:
    """Exports a network for images of a shape, as what is brought."""

    def put(ws: Workspace) -> None:
        net = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 3)).eval()
        dynamic = ({0: torch.export.Dim("images")},)
        exported = torch.export.export(net, (torch.rand(2, *shape),), dynamic_shapes=dynamic)
        torch.export.save(exported, ws.root / name)
        set_params(ws.root, {"train_target": {NAME: {"epochs": 0}}})

    return put


def file(name: str, content: str) -> Callable[[Workspace], None]:
    def put(ws: Workspace) -> None:
        (ws.root / name).parent.mkdir(parents=True, exist_ok=True)
        (ws.root / name).write_text(content)

    return put


def as_it_is(ws: Workspace) -> None:
    """Nothing is wrong but the settings."""


Case = tuple[Callable[[Workspace], None], dict[str, Any], str]


def own(cls: str, **more: Any) -> dict[str, Any]:
    return {"name": f"own.nets.mine:{cls}", **more}


def brought(ws: Workspace) -> None:
    """Neither trains the network nor gives it weights."""
    set_params(ws.root, {"train_target": {NAME: {"epochs": 0}}})


def both(*spoils: Callable[[Workspace], None]) -> Callable[[Workspace], None]:
    def put(ws: Workspace) -> None:
        for spoil in spoils:
            spoil(ws)

    return put


BAD, BAD_FILE = {"name": "own.nets.bad:Net"}, "own/nets/bad.py"
MINE = {"name": "own/nets/mine.pt2"}
NETWORK = f"params.yaml: subjects.{NAME}.network"
ROW = f"params.yaml: train_target.{NAME}"
SEEN = "must be a class of deepcustom, or of a file in own/nets, since DVC sees no other"
FAILED = "making one failed: TypeError: "
GRADIENT = "the network has no gradient with respect to the images"
BROKEN: dict[str, Case] = {
    # The class
    "no such module": (
        as_it_is,
        {"name": "own.nets.yours:Net"},
        "network 'own.nets.yours:Net': importing 'own.nets.yours' failed: ModuleNotFoundError",
    ),
    "no such class": (as_it_is, own("Nest"), "own.nets.mine has no class 'Nest'; it has: Net, "),
    "no network": (as_it_is, own("words"), "words' is not a subclass of torch.nn.Module"),
    "syntax": (
        file(BAD_FILE, "class Net(:\n"),
        BAD,
        "importing 'own.nets.bad' failed: SyntaxError: invalid syntax (bad.py, line 1)",
    ),
    "import fails": (file(BAD_FILE, "import nowhere"), BAD, "No module named 'nowhere'"),
    "import exits": (file(BAD_FILE, "raise SystemExit('no GPU')"), BAD, "SystemExit: no GPU"),
    "elsewhere": (file("nets.py", NETS), {"name": "nets:Net"}, f"nets:Net {SEEN}"),
    "installed": (as_it_is, {"name": "torch.nn:Flatten"}, f"torch.nn:Flatten {SEEN}"),
    "imports from elsewhere": (
        both(file("parts.py", "W = 4"), file(BAD_FILE, f"import parts\n{NETS}")),
        BAD,
        "train_target runs parts.py, and DVC would not see a change of it: move it into own/nets",
    ),
    "argument missing": (
        as_it_is,
        own("Scale"),
        f"{FAILED}Scale.__init__() missing 1 required positional argument: 'scale'; its arguments: "
        "classes, scale",
    ),
    "unknown option": (
        as_it_is,
        own("Net", options={"depth": 3}),
        f"{FAILED}Net.__init__() got an unexpected keyword argument 'depth'; its arguments: classes, "
        "width",
    ),
    "unknown key": (
        as_it_is,
        own("Net", depth=3),
        f"{NETWORK}.depth is not a known key; allowed: name, options, mean, std, layers",
    ),
    # What it does
    "few logits": (as_it_is, own("Narrow"), "gives (2, 2), want logits of shape (2, 3)"),
    "maps": (as_it_is, own("Maps"), "gives (2, 3, 6, 6), want logits of shape (2, 3)"),
    "tuple": (
        as_it_is,
        own("Pair"),
        "gives tuple of 0 (2, 3), 1 (2, 3), and any may be the logits",
    ),
    "integers": (as_it_is, own("Whole"), "gives torch.int64, want logits, which are floating-"),
    "nan": (as_it_is, own("Undefined"), "gives logits that are not finite"),
    "mixes images": (as_it_is, own("Mixing"), "the network mixes the images of a batch"),
    "changes images": (as_it_is, own("Writing"), "the network changes the images that it is given"),
    "detached": (as_it_is, own("Detached"), GRADIENT),
    "inference mode": (as_it_is, own("Silent"), GRADIENT),
    "constant": (as_it_is, own("Deaf"), GRADIENT),
    "raises": (
        as_it_is,
        own("Fails"),
        "refuses 2 images of shape (3, 8, 8): RuntimeError: first line second line",
    ),
    "lazy": (
        as_it_is,
        own("Lazy"),
        f"{NETWORK}: own.nets.mine:Lazy: scores.weight has no shape yet: give its layer a size",
    ),
    "meta": (as_it_is, own("Empty"), "own.nets.mine:Empty: mean lies on the device meta, so it"),
    "nothing to train": (
        as_it_is,
        own("Frozen"),
        f"{ROW}.epochs must be 0: the network has no parameter that could learn",
    ),
    # Its settings
    "mean of other length": (
        as_it_is,
        own("Net", mean=[0.5], std=[0.5]),
        f"{NETWORK}.mean must have one number for each of 3 channels, found 1",
    ),
    "mean in units of 0..255": (
        as_it_is,
        own("Net", mean=[123.7] * 3, std=[58.4] * 3),
        "network.mean: should lie in the range [0, 1] of the images",
    ),
    "std of 0": (as_it_is, own("Net", mean=[0.5] * 3, std=[1, 1, 0]), "std above 0"),
    "mean alone": (as_it_is, own("Net", mean=[0.5] * 3), f"{NETWORK}: mean and std should have "),
    "no such layer": (
        as_it_is,
        own("Net", layers=["nrom"]),
        f"{NETWORK}.layers: the network has no layer 'nrom'; it has: conv, scores",
    ),
    "neither trained nor brought": (brought, {}, f"{ROW}.epochs is 0, so the network must be "),
    # Its weights
    "no weights": (starts_from("own/w.safetensors"), {}, "own/w.safetensors is missing"),
    "weights cut off": (
        starts_from("own/w.safetensors", b"no"),
        {},
        "own/w.safetensors is no safetensors file, or is corrupted",
    ),
    "weights outside": (starts_from("../w.safetensors"), {}, "leads out of the project's folder"),
    "weights of another": (
        weights(**{"head.bias": torch.zeros(3)}),
        {},
        "does not fit Net: differing tensors ['head.bias'] (0 missing, 1 unknown to the network)",
    ),
    "weights of other shape": (
        weights(**{"scores.bias": torch.zeros(4)}),
        {},
        "scores.bias has shape (4,), expected (3,)",
    ),
    "weights that are nan": (
        weights(**{"scores.bias": torch.full((3,), torch.nan)}),
        {},
        "scores.bias holds values that are not finite",
    ),
    "pickled weights": (pickled("own/w.pth"), {}, "and a pickle (.pt, .pth) is not read"),
    # An exported program
    "program of other size": (
        program((3, 9, 9)),
        MINE,
        "own/nets/mine.pt2: the network refuses 2 images of shape (3, 8, 8): ",
    ),
    "program elsewhere": (
        program((3, 8, 8), "own/mine.pt2"),
        {"name": "own/mine.pt2"},
        f"{NETWORK}: own/mine.pt2 must be a file in own/nets",
    ),
    "no program": (brought, MINE, "own/nets/mine.pt2 is missing"),
    "program cut off": (
        file("own/nets/mine.pt2", "no"),
        MINE,
        "mine.pt2 is no exported program, or is corrupted: ",
    ),
    "pickle as program": (
        pickled("own/nets/mine.pt2"),
        MINE,
        "which may be a pickle, and pickles are not read",
    ),
    "program to be trained": (
        both(program((3, 8, 8)), lambda ws: starts_from("own/w.safetensors")(ws)),
        MINE,
        f"{ROW}: an exported program is used as it is: epochs 0 and no weights",
    ),
}


@pytest.mark.parametrize(("spoil", "network", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    ws: Workspace,
    capfd: pytest.CaptureFixture[str],
    spoil: Callable[[Workspace], None],
    network: dict[str, Any],
    message: str,
) -> None:
    spoil(ws)
    refused(ws, capfd, "train_target", network, message)


def refused(
    ws: Workspace,
    capfd: pytest.CaptureFixture[str],
    stage: str,
    network: dict[str, Any],
    message: str,
) -> None:
    """The stage ends with 2, one line, and every file as it was."""
    set_params(ws.root, {"subjects": {NAME: {"network": network}}})
    one_line(ws, capfd, lambda: run(ws, stage), message)


def one_line(
    ws: Workspace, capfd: pytest.CaptureFixture[str], ends: Callable[[], int], message: str
) -> None:
    before = files(ws.root)
    capfd.readouterr()
    assert ends() == 2
    said = capfd.readouterr().err
    assert message in said
    assert re.fullmatch("error: .*\n", said)
    assert files(ws.root) == before


ANALYSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no rule": (
        "relevance",
        own("Net"),
        "LRP has no rule for this network: relu is computed outside of its layers; set relevance's "
        "method to input_x_gradient or integrated_gradients",
    ),
    "no hidden layer": ("suspiciousness", own("Linear"), "no hidden layer was found"),
    "layer of two tensors": (
        "suspiciousness",
        own("Parted", layers=["two"]),
        "layer 'two' gives tuple, want one tensor",
    ),
}


@pytest.mark.parametrize(("stage", "network", "message"), ANALYSED.values(), ids=ANALYSED)
def test_an_analysis_that_does_not_fit_is_one_line(
    ws: Workspace,
    capfd: pytest.CaptureFixture[str],
    stage: str,
    network: dict[str, Any],
    message: str,
) -> None:
    assert run(ws, "train_target", **network) == 0
    refused(ws, capfd, stage, network, message)


def test_the_network_in_the_table_is_otherwise_good(ws: Workspace) -> None:
    weights(**{})(ws)
    assert run(ws) == 0
    record = RunRecord.read(ws.root / workspace.record(NAME, "train_target"))
    assert "own/weights.safetensors" in record.inputs
    program((3, 8, 8))(ws)
    set_params(ws.root, {"train_target": {NAME: {"weights": None}}})
    assert run(ws, **MINE) == 0


@pytest.mark.parametrize("epochs", [0, 1])
def test_logits_are_found_in_a_dict(ws: Workspace, epochs: int) -> None:
    weights()(ws)
    set_params(ws.root, {"train_target": {NAME: {"epochs": epochs}}})
    assert run(ws, **own("Told")) == 0
    assert REMEDY not in read_metadata(ws.root / workspace.target(NAME))
    assert run(ws, "suspiciousness") == 0


def test_what_a_brought_program_needs_goes_with_it(
    ws: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    """A program that takes five images at a time serves later stages all the same."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    exported = torch.export.export(net, (torch.rand(5, *SHAPE),))
    torch.export.save(exported, ws.root / MINE["name"])
    brought(ws)
    assert run(ws, **MINE) == 0
    assert "it takes exactly 5 images at a time" in capfd.readouterr().err
    kept = Remedy.from_json(read_metadata(ws.root / workspace.target(NAME))[REMEDY])
    assert (kept.most, kept.exact) == (5, True)
    set_params(ws.root, {"relevance": {NAME: {"method": "input_x_gradient"}}})
    assert run(ws, "relevance") == 0


@pytest.mark.parametrize(
    ("kind", "message"), [("Silent", GRADIENT), ("Writing", "let it work on a copy")]
)
def test_a_brought_network_that_nothing_can_learn_from_is_one_line(
    ws: Workspace, capfd: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    weights(**{"scores.weight": torch.rand(3, 144)})(ws)
    set_params(ws.root, {"train_target": {NAME: {"epochs": 0}}})
    refused(ws, capfd, "train_target", own(kind), message)


def test_a_network_that_is_no_better_than_one_answer_is_said(
    ws: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    """Once: after training, or by the trial of what is brought."""
    small = torch.full((3, 144), 1e-4)
    small[0] = 0
    weights(**{"scores.weight": small, "scores.bias": torch.arange(3.0)})(ws)
    told = (
        "gets 33.3 % of 6 clean images right, and answering with the commonest class gets 33.3 %: "
    )
    set_params(ws.root, {"train_target": {NAME: {"epochs": 0}}})
    assert run(ws) == 0
    said = capfd.readouterr().err
    assert f"note: own.nets.mine:Net: it {told}was the normalisation forgotten (mean and" in said
    assert "warning" not in said
    set_params(ws.root, {"train_target": {NAME: {"epochs": 1, "learning_rate": 1e-12}}})
    assert run(ws) == 0
    said = capfd.readouterr().err
    assert (f"warning: train_target@{NAME}: the network {told}attacks on it tell nothing\n") in said
    assert "note" not in said


def test_a_brought_network_is_tried_with_as_many_images_as_later_stages_show_it(
    ws: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    shapes = ({0: torch.export.Dim("images", max=256)},)
    exported = torch.export.export(net, (torch.rand(5, *SHAPE),), dynamic_shapes=shapes)
    torch.export.save(exported, ws.root / MINE["name"])
    brought(ws)
    assert run(ws, **MINE) == 0
    assert "it takes at most 256 images at a time" in capfd.readouterr().err
    assert read_metadata(ws.root / workspace.target(NAME))[REMEDY]["most"] == 256


def test_the_sizes_are_those_of_the_rows_and_of_the_analyses() -> None:
    attack = {"subject": NAME, "dataset": NAME, "split": "test", "recipe": "none"}
    tree = {
        **ROWS,
        "recipes": {"none": {}, "r": {"training": {"batch_size": 64}}},
        "attack": {
            f"{NAME}-a-test": {**attack, "attack": "a", "recipe": "r", "batch_size": 300},
            "other-a-test": {**attack, "subject": "other", "attack": "a", "batch_size": 7},
        },
    }
    assert batches(tree, NAME) == ([8, 64, 300, PROPAGATED], [LOOKED_AT])
    assert batches({"attack": tree["attack"], "recipes": tree["recipes"]}, "other") == ([7], [])
    defaults = [
        inspect.signature(one).parameters["batch_size"].default
        for one in (class_relevance, _class_spectra)
    ]
    assert defaults == [PROPAGATED, LOOKED_AT]


def test_a_network_that_computes_on_a_gpu_alone_asks_for_one(
    ws: Workspace, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its file says of it holds on every machine."""
    weights()(ws)
    set_params(ws.root, {"train_target": {NAME: {"epochs": 0}}})
    found = Trial(nn.Identity(), Remedy(3, device="cuda:0"), (), True)
    monkeypatch.setattr("deepcustom.training.trial.tried", lambda *args, **more: found)
    message = "own.nets.mine:Net: the network computes on cuda:0 alone: set compute.device to cuda"
    refused(ws, capfd, "train_target", own("Net"), message)


# What hardened networks start from

STILL = {**OPTIONS, "learning_rate": 1e-12}
"""A budget under which weights stay what they are."""
TARGET, GIVEN = f"models/target/{NAME}.safetensors", "own/weights.safetensors"
DESCRIBED = f"data/prepared/{NAME}/dataset.json"
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "goodfellow": ("adversarial_train", {"type": "goodfellow", "clean_weight": 0.5}),
    "madry": (
        "adversarial_train",
        {"type": "madry", "inner": {"eps_step": 0.01, "max_iter": 1, "growth": 0.0}},
    ),
    "art": (
        "adversarial_train",
        {"type": "art", "ratio": 0.5, "attack": {"method": "fgsm", "batch_size": 8}},
    ),
    "online": (
        "train_online",
        {
            "type": "online",
            "generator": "conditional",
            "learning_rate": 1e-3,
            "updates": 1,
            "begin": 0.0,
            "end": 1.0,
            "noise": 0.0,
            "reuse": True,
            "eps_step": 0.01,
            "max_iter": 0,
            "growth": 0.0,
            "clean_weight": 0.0,
            "loss": None,
            "options": {},
        },
    ),
}


def add_row(ws: Workspace, way: str, start: str | None, name: str = "warm") -> str:
    """Add the row of a hardened network, and write dvc.yaml anew; returns its stage."""
    stage, settings = WAYS[way]
    about = {"subject": NAME, "dataset": NAME, "network": name, "recipe": "none"}
    reads = TRAIN if way == "online" else DESCRIBED
    row = {**about, "code": DESCRIBED, "reads": reads, **settings, "training": STILL}
    row |= {"start": start} if start else {}
    set_params(ws.root, {stage: {f"{NAME}-{name}": row}})
    (ws.root / "dvc.yaml").write_text(render(ws.root))
    return stage


def harden(ws: Workspace, stage: str) -> int:
    return call_main(ws.root, stage, "--subject", NAME, "--network", "warm")


def tensors(ws: Workspace, path: str) -> dict[str, torch.Tensor]:
    """The tensors of a file, by the names that they have in the network itself."""
    found = load_file(ws.root / path)
    return {key.removeprefix("net."): value for key, value in found.items()}


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        torch.allclose(value, other[key], atol=1e-6) for key, value in one.items()
    )


@pytest.mark.parametrize("way", WAYS)
def test_every_way_starts_from_the_weights_of_the_target_or_anew(ws: Workspace, way: str) -> None:
    assert run(ws) == 0
    train = Split.load(ws.root / TRAIN, load_spec(ws.root / DESCRIBED))
    made = AdversarialSet(train.x, (train.x / 255).astype(np.float32), train.y, train.index)
    made.save(
        ws.root / workspace.adversarial(NAME, "train", "warm")
    )  # for the one way that reads it
    stage = add_row(ws, way, TARGET)
    assert harden(ws, stage) == 0
    hardened = workspace.robust(NAME, "warm")
    assert close(tensors(ws, hardened), tensors(ws, TARGET))
    # The run says so, and a trace leads to the target's own run.
    record = RunRecord.read(ws.root / workspace.record(NAME, stage, "warm"))
    assert TARGET in record.inputs
    assert record.params[f"{stage}.{NAME}-warm"]["start"] == TARGET
    found = trace(ws, hardened, ws.root).file.run
    assert found is not None
    (above,) = (one for one in found.inputs if one.path == TARGET)
    assert above.run is not None
    assert above.run.name == f"train_target@{NAME}"
    # Anew, with and without the key, is the same.
    fresh = []
    for start in (TRAIN, None):
        write_params(ws.root, ROWS)
        add_row(ws, way, start)
        assert harden(ws, stage) == 0
        fresh.append((ws.root / hardened).read_bytes())
    assert fresh[0] == fresh[1]
    assert not close(tensors(ws, hardened), tensors(ws, TARGET))


def test_a_network_starts_from_a_file_as_training_in_parallel_leaves_it(ws: Workspace) -> None:
    weights()(ws)
    given = {name: one.clone() for name, one in load_file(ws.root / GIVEN).items()}
    save_file({f"module.{key}": value for key, value in given.items()}, ws.root / GIVEN)
    stage = add_row(ws, "madry", GIVEN)
    assert harden(ws, stage) == 0
    assert close(tensors(ws, workspace.robust(NAME, "warm")), given)


def test_a_start_is_a_dependency_of_its_row_alone(ws: Workspace) -> None:
    before = render(ws.root)
    add_row(ws, "madry", None)
    assert render(ws.root) == before
    assert "item.start" not in before
    write_params(ws.root, ROWS)
    weights()(ws)
    add_row(ws, "madry", GIVEN)
    add_row(ws, "art", TARGET, "other")
    add_row(ws, "madry", TRAIN, "cold")
    assert render(ws.root).count("      - ${item.start}\n") == 1
    pipeline = resolve(ws.root)
    deps = {
        name: set(pipeline.instances[f"adversarial_train@{NAME}-{name}"].deps) & {GIVEN, TARGET}
        for name in ("warm", "other", "cold")
    }
    assert deps == {"warm": {GIVEN}, "other": {TARGET}, "cold": set()}
    assert f"train_target@{NAME}" in pipeline.upstream(f"adversarial_train@{NAME}-other")
    assert f"train_target@{NAME}" not in pipeline.upstream(f"adversarial_train@{NAME}-cold")


def test_profiles_share_a_start_that_is_brought_and_cards_name_it(ws: Workspace) -> None:
    add_row(ws, "madry", GIVEN)
    add_row(ws, "art", TARGET, "other")
    add_row(ws, "madry", TRAIN, "cold")
    assert brought_files(read_params(ws.params)) == ["data/own", GIVEN]
    stage = StageRun(ws, "train_target", NAME)

    def started(kind: str, name: str) -> dict[str, str]:
        return _start(stage, Model(kind, name, "", "", "", 0))

    assert started("classifier", "warm") == {"start": GIVEN}
    assert started("classifier", "other") == {"start": TARGET}
    assert started("classifier", "cold") == started("classifier", "target") == {}
    assert started("generator", "warm") == {}


HARDENED: dict[str, tuple[Callable[[Workspace], None], str, str]] = {
    "missing": (as_it_is, GIVEN, "own/weights.safetensors is missing"),
    "of another": (
        weights(**{"head.bias": torch.zeros(3)}),
        GIVEN,
        "does not fit Net: differing tensors ['head.bias']",
    ),
    "pickle": (pickled("own/w.pth"), "own/w.pth", "and a pickle (.pt, .pth) is not read"),
    "outside": (as_it_is, "../w.safetensors", "leads out of the project's folder"),
    "not made": (as_it_is, TARGET, f"{TARGET} is missing: `dvc pull` fetches it where it is "),
}


@pytest.mark.parametrize(("spoil", "start", "message"), HARDENED.values(), ids=HARDENED)
def test_a_start_that_does_not_fit_is_one_line_and_leaves_nothing(
    ws: Workspace,
    capfd: pytest.CaptureFixture[str],
    spoil: Callable[[Workspace], None],
    start: str,
    message: str,
) -> None:
    spoil(ws)
    stage = add_row(ws, "madry", start)
    one_line(ws, capfd, lambda: harden(ws, stage), message)


def test_a_start_that_dvc_does_not_see_is_refused(
    ws: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (ws.root / "dvc.yaml").read_text()
    weights()(ws)
    stage = add_row(ws, "madry", GIVEN)
    (ws.root / "dvc.yaml").write_text(before)
    message = (
        f"dvc.yaml does not list {GIVEN}, which {stage}.{NAME}-warm starts from: `deepcustom upgrade` "
        "writes it anew"
    )
    one_line(ws, capfd, lambda: harden(ws, stage), message)


def test_a_network_without_parameters_is_not_hardened(
    ws: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    program((3, 8, 8))(ws)
    set_params(ws.root, {"subjects": {NAME: {"network": MINE}}})
    stage = add_row(ws, "madry", None)
    message = f"params.yaml: {stage}.{NAME}-warm cannot be trained: the network has no parameter "
    one_line(ws, capfd, lambda: harden(ws, stage), message)


ROW_OF = f"adversarial_train.{NAME}-warm.start"


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (
            None,
            f"{ROW_OF} is missing, and other rows of adversarial_train have it: it must be {TRAIN}, for "
            "fresh weights, or a file of weights",
        ),
        ("own/w.pth", f"{ROW_OF} must be {TRAIN}, for fresh weights, or another network's "),
        ("../w.safetensors", "or another network's .safetensors file in the project, such as "),
        (workspace.robust(NAME, "warm"), f"found models/robust/{NAME}/warm.safetensors"),
        (workspace.robust(NAME, "hot"), f"{ROW_OF}: no row makes models/robust/{NAME}/hot"),
        ("own/none.safetensors", f"{ROW_OF}: own/none.safetensors is missing"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused_before_any_stage(
    ws: Workspace, start: str | None, message: str
) -> None:
    add_row(ws, "art", TRAIN, "other")
    add_row(ws, "madry", start)
    with pytest.raises(ParamsError) as caught:
        check(ws.root, read_params(ws.params))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_add_network_writes_the_start(ws: Workspace, capfd: pytest.CaptureFixture[str]) -> None:
    def starts() -> dict[str, str]:
        found = read_params(ws.params)["adversarial_train"]
        return {name: row["start"] for name, row in found.items()}

    def add(name: str, *more: str) -> int:
        words = ["add", "network", name, "--subject", NAME, "--type", "madry", *more]
        return call_main(ws.root, *words)

    add_row(ws, "madry", TRAIN, "cold")
    assert add("warm", "--start", "target") == 0
    assert add("fresh") == 0
    assert add("next", "--start", workspace.robust(NAME, "warm")) == 0
    assert starts() == {
        f"{NAME}-cold": TRAIN,
        f"{NAME}-warm": TARGET,
        f"{NAME}-fresh": TRAIN,
        f"{NAME}-next": workspace.robust(NAME, "warm"),
    }
    capfd.readouterr()
    assert add("bad", "--set", f"start={TARGET}") == 2
    assert capfd.readouterr().err == "error: --set start: --start sets it\n"
    # What another network starts from stays.
    assert call_main(ws.root, "remove", "network", "warm", "--subject", NAME) == 2
    assert "no row makes" in capfd.readouterr().err
    # Another subject starts from its own target.
    words = ["add", "subject", "near", "--like", NAME, "--eps", "0.01", "--only", "warm"]
    assert call_main(ws.root, *words) == 0
    assert starts()["near-warm"] == workspace.target("near")
