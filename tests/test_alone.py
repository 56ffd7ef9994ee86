"""``deepcustom evaluate --network --images``: a network and test images are enough."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pipeline_fixtures import call_main
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from deepcustom.base.errors import InputError, OutputError
from deepcustom.base.hashes import dvc_md5
from deepcustom.base.rows import overlay
from deepcustom.data.to_score import read_test_images
from deepcustom.evaluation.files import read_checks, read_points
from deepcustom.evaluation.results import read_csv
from deepcustom.evaluation.victim import Counted
from deepcustom.library.starting import Start

MODULE = """
from torch import nn

class Mine(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.scores = nn.Linear(64, num_classes)
    def forward(self, x):
        return self.scores(x.flatten(1))
"""
CHEAP = {
    "every-protocol": {
        "whitebox": {"pgd": {"max_iter": 4, "num_random_init": 1}},
        "autoattack": {"max_iter": 4, "targets": 2, "queries": 20},
        "curves": {"n": 10, "radii": [0, 1, 4], "steps": [1, 3]},
    }
}
WORDS = ["evaluate", "--network", "mine.safetensors", "--architecture", "alone_nets:Mine"]


@pytest.fixture(scope="module")
def digits8() -> tuple[np.ndarray, np.ndarray]:
    """1,797 real digits uint8 (N, 8, 8), and their labels."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    return (raw.images * 15).astype(np.uint8), raw.target


@pytest.fixture
def here(
    tmp_path: Path, digits8: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with weights, their class, and test images; the current one, and no project."""
    x, y = digits8
    images, labels = torch.from_numpy(x).float().div(255), torch.from_numpy(y)
    torch.manual_seed(0)
    linear = nn.Linear(64, 10)
    optimiser = torch.optim.Adam(linear.parameters(), lr=3e-2)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(linear(images.flatten(1)), labels).backward()
        optimiser.step()
    weights = {f"scores.{name}": value for name, value in linear.state_dict().items()}
    save_file(weights, tmp_path / "mine.safetensors")
    (tmp_path / "alone_nets.py").write_text(MODULE)
    np.savez(tmp_path / "digits.npz", x_test=x[:200], y_test=y[:200])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "alone_nets", raising=False)
    real = Start.recipes
    monkeypatch.setattr(Start, "recipes", lambda self: overlay(real(self), CHEAP))
    return tmp_path


def pictures(folder: Path, x: np.ndarray, y: np.ndarray) -> Path:
    from PIL import Image

    for row, (pixels, label) in enumerate(zip(x, y, strict=True)):
        place = folder / f"digit-{label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{row:04}.png")
    return folder


def test_a_network_and_images_are_enough(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_main(here, *WORDS, "--images", "digits.npz", "--eps", "8/255", "--n", "40") == 0
    out = capsys.readouterr().out
    table = read_csv(here / "scores/mine/results.csv")
    assert {(row.dataset, row.network) for row in table} == {("digits", "mine")}
    assert {row.network_md5 for row in table} == {dvc_md5(here / "mine.safetensors")}
    assert {row.protocol for row in table} == {"transfer", "whitebox", "blackbox", "worst"}
    assert {row.n for row in table if row.protocol != "transfer"} == {40}
    found = {(row.protocol, row.attack): row.accuracy for row in table}
    assert 0 < found["worst", "all"] < found["worst", "clean"]
    assert found["transfer", "clean"] > 0.8
    assert f"mine: {100 * found['transfer', 'clean']:.2f} % of 200 clean images are right" in out
    assert "digits: worst case (headline), accuracy in %" in out
    (line,) = re.findall(r"^left out: .*$", out, re.MULTILINE)
    assert re.findall(r"(\w+) \(", line) == ["transfer", "blackbox", "adaptive"]
    assert out.endswith("saved in scores/mine\n")
    assert len(read_checks(here / "scores/mine/checks.json")) >= 14
    assert {name for name, _ in read_points(here / "scores/mine/curves.csv")} == {"mine"}
    assert sorted(path.name for path in (here / "scores/mine").iterdir()) == [
        *("attacks", "checks.json", "curves.csv", "results.csv", "threat.json")
    ]


def test_an_interrupted_run_goes_on_where_it_stopped(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*WORDS, "--images", "digits.npz", "--eps", "0.1", "--n", "40", "--out"]
    shown: list[int] = []
    real = Counted.forward
    limit = 30

    def counting(self: Counted, x: Tensor) -> Tensor:
        shown.append(len(x))
        if len(shown) > limit:
            raise KeyboardInterrupt
        return real(self, x)

    monkeypatch.setattr(Counted, "forward", counting)
    assert call_main(here, *words, "out") == 130
    assert capsys.readouterr().err.endswith("interrupted; the same command goes on\n")
    assert not (here / "out/results.csv").exists()
    limit = 10**9
    assert call_main(here, *words, "out") == 0
    assert re.search(r"mine: \d+ of \d+ parts were already done", capsys.readouterr().err)
    shown.clear()
    assert call_main(here, *words, "out") == 0
    assert shown == []
    assert call_main(here, *words, "whole") == 0
    for name in ("results.csv", "checks.json", "curves.csv"):
        assert (here / "out" / name).read_bytes() == (here / "whole" / name).read_bytes()
    # Other code of the network: nothing is taken over.
    (here / "alone_nets.py").write_text(MODULE.replace("x.flatten(1)", "0.9 * x.flatten(1)"))
    sys.modules.pop("alone_nets")
    shown.clear()
    assert call_main(here, *words, "out") == 0
    assert shown


def test_the_test_part_counts_where_there_is_one(
    here: Path, digits8: tuple[np.ndarray, np.ndarray]
) -> None:
    x, y = digits8
    pictures(here / "all", x[:60], y[:60])
    pictures(here / "both/train", x[60:160], y[60:160])
    pictures(here / "both/test", x[:60], y[:60])
    pictures(here / "lone/test", x[:60], y[:60])
    np.savez(here / "whole.npz", x=x[:60], y=y[:60])
    np.savez(here / "both.npz", x_train=x[60:], y_train=y[60:], x_test=x[:60], y_test=y[:60])
    wanted: list[tuple[int, bytes]] = sorted(
        (int(label), pixels.tobytes()) for label, pixels in zip(y[:60], x[:60], strict=True)
    )
    for number, name in enumerate(("all", "both", "lone", "whole.npz", "both.npz")):
        place = here / f"place-{number}"
        place.mkdir()
        found = read_test_images(Path(name), None, place)
        pairs = zip(found.y, found.x, strict=True)
        assert sorted((int(label), pixels.tobytes()) for label, pixels in pairs) == wanted, name
        names = tuple(f"digit-{label}" for label in range(10))
        assert found.classes == (None if name.endswith(".npz") else names)


def test_parquet_of_the_test_part_alone(here: Path, digits8: tuple[np.ndarray, np.ndarray]) -> None:
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    rows: list[dict[str, Any]] = []
    for pixels, label in zip(*(part[:30] for part in digits8), strict=True):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        rows.append({"image": {"bytes": content.getvalue(), "path": None}, "label": int(label)})
    (here / "hub").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), here / "hub/test-0.parquet")
    (here / "place").mkdir()
    found = read_test_images(Path("hub"), (16, 16), here / "place")
    assert found.x.shape == (30, 1, 16, 16)
    assert found.y.tolist() == digits8[1][:30].tolist()


def test_images_of_a_folder_are_scored_with_their_names_and_normalised(
    here: Path, digits8: tuple[np.ndarray, np.ndarray]
) -> None:
    x, y = digits8
    pictures(here / "some", x[:60], y[:60])
    words = [*WORDS, "--images", "some", "--eps", "0.05", "--n", "20"]
    assert call_main(here, *words, "--mean", "0.0", "--std", "0.5", "--out", "out") == 0
    net = nn.Linear(64, 10)
    from safetensors.torch import load_file

    state = load_file(here / "mine.safetensors")
    net.load_state_dict({name.removeprefix("scores."): value for name, value in state.items()})
    images = torch.from_numpy(x[:60]).float().div(255)
    right = net(images.flatten(1) / 0.5).argmax(1) == torch.from_numpy(y[:60])
    (clean,) = (row for row in read_csv(here / "out/results.csv") if row.protocol == "transfer")
    assert clean.accuracy == pytest.approx(float(right.double().mean()), abs=1e-6)


def test_an_exported_program_brings_its_own_class(here: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    shapes = ({0: torch.export.Dim("images")},)
    program = torch.export.export(net, (torch.rand(2, 1, 8, 8),), dynamic_shapes=shapes)
    torch.export.save(program, here / "mine.pt2")
    words = ["evaluate", "--network", "mine.pt2", "--images", "digits.npz", "--eps", "0.1"]
    assert call_main(here, *words, "--n", "20") == 0
    table = read_csv(here / "scores/mine/results.csv")
    assert {row.network_md5 for row in table} == {dvc_md5(here / "mine.pt2")}


def test_results_of_other_networks_images_and_radii_stay(here: Path) -> None:
    shutil.copytree(here, here / "copy", ignore=shutil.ignore_patterns("copy"))
    cheap = [*WORDS, "--n", "20", "--images", "digits.npz", "--eps"]
    assert call_main(here, *cheap, "0.1") == 0
    first = (here / "scores/mine/results.csv").read_bytes()
    assert call_main(here, *cheap, "0.2") == 0
    assert (here / "scores/mine/results.csv").read_bytes() == first
    assert (here / "scores/mine-2/results.csv").exists()
    (here / "other").mkdir()
    weights = load_file(here / "mine.safetensors")
    save_file({k: 2 * v for k, v in weights.items()}, here / "other/mine.safetensors")
    other = ["evaluate", "--network", "other/mine.safetensors", *cheap[3:]]
    assert call_main(here, *other, "0.1") == 0
    assert (here / "scores/mine/results.csv").read_bytes() == first
    assert (here / "scores/mine-3/results.csv").exists()
    assert call_main(here, *cheap, "0.1") == 0
    assert sorted(one.name for one in (here / "scores").iterdir()) == ["mine", "mine-2", "mine-3"]
    assert call_main(here, *cheap, "0.1", "--norm", "l2") == 0
    kept = json.loads((here / "scores/mine-4/threat.json").read_text())
    assert kept == {"norm": "l2", "eps": 0.1}
    (here / "scores/mine/threat.json").unlink()  # as before there was a choice
    assert call_main(here, *cheap, "0.1") == 0
    assert not (here / "scores/mine-5").exists()


@pytest.mark.parametrize("out", ["a_file", "a_file/below", "gone/below", "/proc/scores"])
def test_a_folder_that_cannot_be_written_is_refused_before_any_attack(
    here: Path, out: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "a_file").write_text("keep")
    (here / "gone").symlink_to(here / "unmounted")
    monkeypatch.setattr("deepcustom.library.alone.read_test_images", None)
    words = [*WORDS, "--images", "digits.npz", "--eps", "0.1", "--out", out]
    assert call_main(here, *words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --out {out}: ")
    assert said.count("\n") == 1
    assert (here / "a_file").read_text() == "keep"


def test_tables_are_shown_although_they_cannot_be_written(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(scores: object, threat: object, folder: Path) -> None:
        raise OutputError(f"{folder}/results.csv cannot be written: No space left on device")

    monkeypatch.setattr("deepcustom.library.alone.write", full)
    words = [*WORDS, "--images", "digits.npz", "--eps", "0.1", "--n", "20"]
    assert call_main(here, *words) == 1
    shown = capsys.readouterr()
    assert "digits: worst case (headline), accuracy in %" in shown.out
    assert shown.err.endswith("results.csv cannot be written: No space left on device\n")


def test_images_behind_a_link_keep_their_form_and_name(
    here: Path, digits8: tuple[np.ndarray, np.ndarray]
) -> None:
    (here / "blobs").mkdir()
    (here / "digits.npz").rename(here / "blobs/5eb63bbb")
    (here / "digits.npz").symlink_to(here / "blobs/5eb63bbb")  # as caches keep files
    words = [*WORDS, "--images", "digits.npz", "--eps", "0.1", "--n", "20"]
    assert call_main(here, *words) == 0
    assert {row.dataset for row in read_csv(here / "scores/mine/results.csv")} == {"digits"}


IMAGES = ("--images", "digits.npz")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate"], "--subject is missing; or --images, for a network without a project"),
        ([*WORDS], "--subject is missing; or --images, for a network without a project"),
        ([*WORDS, *IMAGES], "--eps is missing: --images goes with --network and --eps"),
        (["evaluate", *IMAGES, "--eps", "0.1"], "--network is missing: --images goes with"),
        ([*WORDS, *IMAGES, "--subject", "mnist"], "--images takes the place of a project"),
        (
            [*WORDS, "--subject", "mnist", "--eps", "0.1"],
            "--eps, --norm and --size go with --images",
        ),
        (["evaluate", "--subject", "mnist", "--out", "x"], "--out goes with --network or --n"),
        (["evaluate", "--subject", "mnist", "--mean", "0.1"], "--with-siblings go with --network"),
        (
            [*WORDS, *IMAGES, "--eps", "0.1", "--with-siblings"],
            "--images takes the place of a project: leave --with-siblings out",
        ),
        (
            [*WORDS, *IMAGES, "--eps", "0.1", "--subject", "mnist"],
            "--images takes the place of a project: leave --subject out",
        ),
        (
            ["evaluate", "--network", "...safetensors", *WORDS[3:], *IMAGES, "--eps", "0.1"],
            "--network ...safetensors: its name names no folder: want another, or --out",
        ),
        ([*WORDS, *IMAGES, "--eps", "2"], "--eps '2': want a number above 0, at most 1"),
        ([*WORDS, *IMAGES, "--eps", "a"], "--eps 'a': want a number above 0, at most 1"),
        ([*WORDS, "--images", "gone", "--eps", "0.1"], "--images gone: there is no such file"),
        ([*WORDS, "--images", "alone_nets.py", "--eps", "0.1"], "--images alone_nets.py: want a"),
        (["evaluate", "--network", "gone.pt2", *IMAGES, "--eps", "0.1"], "gone.pt2 is missing"),
        ([*WORDS[:3], *IMAGES, "--eps", "0.1"], "--architecture is missing: package.module:Class"),
        ([*WORDS[:3], "--images", "gone", "--eps", "0.1"], "--architecture is missing: package"),
        ([*WORDS[:4], "no:No", *IMAGES, "--eps", "0.1"], "importing 'no' failed"),
        ([*WORDS, *IMAGES, "--eps", "0.1", "--std", "1"], "want 1 numbers each, std above 0"),
        (
            [*WORDS, *IMAGES, "--eps", "0.1", "--size", "9"],
            "images of shape (1, 9, 9): RuntimeError",
        ),
        ([*WORDS, "--images", "five", "--eps", "0.1"], "five has 5 classes, and mine.safetensors"),
    ],
)
def test_what_cannot_be_scored_is_one_line(
    here: Path,
    digits8: tuple[np.ndarray, np.ndarray],
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    x, y = digits8
    pictures(here / "five", x[y < 5][:40], y[y < 5][:40])
    # A class that is not told how many labels there are.
    (here / "alone_nets.py").write_text(MODULE.replace("num_classes", "labels"))
    assert call_main(here, *words) == 2
    (line,) = (one for one in capsys.readouterr().err.splitlines() if one.startswith("error: "))
    assert message in line
    assert not (here / "scores").exists()


def test_a_network_that_refuses_images_says_why_though_a_class_has_none(
    here: Path, digits8: tuple[np.ndarray, np.ndarray], capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    rows: list[dict[str, Any]] = []
    for pixels in digits8[0][:30]:
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        rows.append({"image": {"bytes": content.getvalue(), "path": None}, "label": len(rows) % 4})
    names = {"label": {"names": [f"digit-{label}" for label in range(10)]}}
    about = {"huggingface": json.dumps({"info": {"features": names}})}
    table = pyarrow.Table.from_pylist(rows).replace_schema_metadata(about)
    pyarrow.parquet.write_table(table, here / "some.parquet")
    words = [*WORDS, "--images", "some.parquet", "--size", "9", "--eps", "0.1"]
    assert call_main(here, *words) == 2
    assert "refuses 2 images of shape (1, 9, 9): RuntimeError" in capsys.readouterr().err


def test_a_source_that_is_a_project_still_needs_its_train_part(here: Path) -> None:
    """Only test images without a project may come alone."""
    from deepcustom.data.own.array_files import find_in_arrays

    with pytest.raises(
        InputError, match="arrays must be x_train, y_train, x_test, y_test, or x, y"
    ):
        find_in_arrays(here, "digits.npz", None)
