"""``deepcustom init``: what it lays down, what it asks, and what it refuses without leaving anything."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pipeline_fixtures import ROOT, call_main, environment, files, own_modules, resolve

from deepcustom.base.errors import InputError, OutputError
from deepcustom.base.params import read_params
from deepcustom.base.rows import LAYOUTS, networks, rows
from deepcustom.library.starting import radius
from deepcustom.pipeline.check import check
from deepcustom.pipeline.code_lock import LOCK, check_lock
from deepcustom.pipeline.profile import workspace
from deepcustom.pipeline.start import project as laying
from deepcustom.pipeline.start.estimate import Pace, seconds
from deepcustom.pipeline.start.images import Images, built_in, look
from deepcustom.pipeline.start.starter import (
    NETWORKS,
    TEMPLATE,
    Answers,
    params_text,
    split_sizes,
)
from deepcustom.pipeline.template import render
from deepcustom.pipeline.workspace import OWN_CODE, OWN_IMAGES, Workspace

ARRAYS = Images("arrays", 1000, 300, 10, 1, (8, 8))
MNIST = ["--dataset", "mnist"]


@pytest.fixture(autouse=True)
def _as_one_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Git knows the user, no terminal is there, and the project is told from the checkout."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "t")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "t@example.org")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    path = list(sys.path)
    with own_modules("own"):
        yield
    sys.path[:] = path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project on MNIST."""
    folder = tmp_path_factory.mktemp("init") / "mine"
    names = {
        f"GIT_{who}_{what}": "t@example.org"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    with environment(**names):
        assert call_main(folder.parent, "init", "mine", *MNIST) == 0
    return folder


@pytest.fixture
def digits_npz(tmp_path: Path) -> Path:
    """200 images (N, 8, 8) of ten classes, 150 of them in train."""
    x = np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8)
    y = np.arange(200, dtype=np.int64) % 10
    file = tmp_path / "Small digits.npz"
    np.savez(file, x_train=x[:150], y_train=y[:150], x_test=x[150:], y_test=y[150:])
    return file


def git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=folder, check=True, capture_output=True, text=True
    ).stdout


# What is laid down


def test_a_project_is_complete(project: Path) -> None:
    there = {path.name for path in project.iterdir()}
    wanted = {
        "params.yaml",
        "dvc.yaml",
        LOCK,
        ".gitignore",
        ".gitattributes",
        ".dvcignore",
        "README.md",
        ".git",
        ".dvc",
    }
    assert wanted <= there
    assert all((project / name).is_dir() for name in (*OWN_CODE, OWN_IMAGES))
    assert (project / "dvc.yaml").read_text() == render(project)
    assert "src/" not in (project / "dvc.yaml").read_text()
    for stage in LAYOUTS:
        check_lock(project, stage)
    assert git(project, "status", "--porcelain") == ""
    assert len(git(project, "log", "--oneline").splitlines()) == 1
    assert not [name for name in files(project.parent) if ".partial" in name]


def test_a_clone_has_the_same_bytes_whatever_git_does_to_line_ends(
    project: Path, tmp_path: Path
) -> None:
    git(tmp_path, "-c", "core.autocrlf=true", "clone", "--quiet", str(project), "clone")
    for name in git(project, "ls-files").splitlines():
        assert (tmp_path / "clone" / name).read_bytes() == (project / name).read_bytes(), name


def test_its_settings_pass_every_check(project: Path) -> None:
    tree = read_params(project / "params.yaml")
    check(project, tree)
    assert list(tree["subjects"]) == ["mnist"]
    assert networks(tree, "mnist") == ["target", "margin", "madry", "online"]
    assert "$" not in (project / "params.yaml").read_text()
    for stage in ("train_dgn", "generate", "attack", "evaluate", "report"):
        assert list(rows(tree, stage))


def test_dvc_resolves_it_and_every_stage_has_what_it_reads(project: Path, tmp_path: Path) -> None:
    for name in ("dvc.yaml", "params.yaml", LOCK):
        shutil.copy(project / name, tmp_path)
    pipeline = resolve(tmp_path)
    tree = read_params(tmp_path / "params.yaml")
    assert {one.name for one in pipeline.instances.values()} == {
        f"{stage}@{one.name}" for stage in LAYOUTS for one in rows(tree, stage)
    }
    for one in pipeline.instances.values():
        assert f"stages.{one.stage}" in one.params
        for path in one.deps:
            made = pipeline.makers(path) or path == LOCK or path.startswith(f"{OWN_IMAGES}/")
            assert made or (project / path).is_dir(), (one.name, path)


def test_a_change_of_another_stages_code_trains_nothing_anew(project: Path, tmp_path: Path) -> None:
    """The rows do not depend on the lock as a whole, but on their stage's line of it."""
    for name in ("dvc.yaml", "params.yaml", LOCK):
        shutil.copy(project / name, tmp_path)
    for one in resolve(tmp_path).instances.values():
        assert (LOCK in one.deps) == (one.stage == "prepare"), one.name


def test_the_readme_names_the_subject(project: Path) -> None:
    text = (project / "README.md").read_text()
    assert text.startswith("# mnist\n")
    assert "$" not in text


def test_it_says_what_it_found_and_how_long_the_first_run_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_main(tmp_path, "init", "mine", *MNIST, "--name", "Hand written") == 0
    said = capsys.readouterr().out
    assert (
        "hand-written: 10 classes, images 1 x 28 x 28; 55,000 train, 5,000 val, 10,000 test" in said
    )
    assert re.search(r"the first run will take roughly [\d.]+ (minutes|hours): an estimate", said)
    assert "next: cd mine && dvc repro && deepcustom results" in said
    assert list(read_params(tmp_path / "mine/params.yaml")["subjects"]) == ["hand-written"]


def test_json_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call_main(tmp_path, "init", "mine", *MNIST, "--json", "--quiet") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["folder"], told["subject"], told["classes"]) == ("mine", "mnist", 10)
    assert told["images"] == {"train": 55_000, "val": 5_000, "test": 10_000}
    assert told["first_run_seconds"] > 0


def test_an_empty_folder_stays_the_folder_that_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    before = folder.stat().st_ino
    assert call_main(folder, "init", ".", *MNIST) == 0
    assert folder.stat().st_ino == before
    assert git(folder, "status", "--porcelain") == ""


def test_without_an_identity_git_waits_for_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    assert call_main(tmp_path, "init", "mine", *MNIST) == 0
    said = capsys.readouterr().out
    assert re.search("^git committed nothing: git commit failed: .*ident", said, re.MULTILINE)
    assert "A  params.yaml" in git(tmp_path / "mine", "status", "--porcelain")


def test_in_a_repository_the_project_becomes_a_part_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("/ignored/\n.*.partial*\n")
    assert call_main(tmp_path, "init", "mine", *MNIST) == 0
    assert "a part of the git repository around it: `git add mine`" in capsys.readouterr().out
    assert not (tmp_path / "mine/.git").exists()
    assert git(tmp_path, "status", "--porcelain") == "?? .gitignore\n?? mine/\n"
    words = [sys.executable, "-m", "dvc", "root"]
    assert subprocess.check_output(words, cwd=tmp_path / "mine", text=True) == ".\n"
    assert call_main(tmp_path, "init", "ignored/own", *MNIST) == 0
    assert git(tmp_path / "ignored/own", "status", "--porcelain") == ""


# What is asked, and what is refused

REFUSED = {
    "no images": ([], "--images or --dataset is missing: "),
    "two sources": ([*MNIST, "--images", "x"], "--images and --dataset: name one of them"),
    "no such images": (
        ["--images", "nowhere"],
        "--images nowhere: there is no such file or folder",
    ),
    "no such data set": (
        ["--dataset", "svhn"],
        "unknown data set 'svhn': choose from cifar10, mnist",
    ),
    "no such network": (
        [*MNIST, "--network", "large"],
        "--network 'large': want small, resnet, resnet18",
    ),
    "a network of another shape": (
        [*MNIST, "--network", "cifar10"],
        "--network cifar10 is made for --dataset cifar10: choose small, resnet or resnet18",
    ),
    "a network that is not there yet": (
        [*MNIST, "--network", "own.nets.mine:Mine"],
        "own.nets.mine is no module of deepcustom: name the file of your class, FILE.py:Mine",
    ),
    "a class of another package": (
        [*MNIST, "--network", "torch.nn:Linear"],
        "torch.nn is no module of deepcustom: name the file of your class, FILE.py:Linear",
    ),
    "no such file of a network": (
        [*MNIST, "--network", "mine.py:Mine"],
        "mine.py is no file, or its name is no name of a module",
    ),
    "eps of 8": ([*MNIST, "--eps", "8"], "--eps '8': want a number above 0, at most 1"),
    "no such norm": ([*MNIST, "--norm", "l3"], "--norm 'l3': choose from linf, l2"),
    "a length of 0": ([*MNIST, "--norm", "l2", "--eps", "0"], "--eps '0': want a number above 0"),
    "eps that is no number": ([*MNIST, "--eps", "8/0"], "--eps '8/0': want a number above 0"),
    "no name": ([*MNIST, "--name", "7"], "--name '7': want a name that begins with a letter"),
}


@pytest.mark.parametrize(("words", "message"), REFUSED.values(), ids=REFUSED)
def test_a_mistake_is_one_line_and_leaves_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_main(tmp_path, "init", "mine", *words) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert message in line
    assert not said.out, "nothing is said to be done"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine/params.yaml", "mine has a params.yaml already"),
        ("mine/notes.txt", "mine is not empty"),
        ("mine", "mine is a file"),
    ],
)
def test_a_folder_that_holds_something_is_left_alone(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("seed: 7\n")
    before = files(tmp_path)
    assert call_main(tmp_path, "init", "mine", *MNIST) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{message}: name a new or empty folder" in line.replace(" already:", " already:")
    assert files(tmp_path) == before


def test_a_terminal_is_asked_for_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def prompt(what: str) -> str:
        asked.append(what)
        return "mnist"

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("deepcustom.cli.init.typer.prompt", prompt)
    assert call_main(tmp_path, "init", "mine") == 0
    assert len(asked) == 1
    assert "your images" in asked[0]


@pytest.mark.parametrize("step", ["write_lock", "check", "_versioned"])
@pytest.mark.parametrize("there", [True, False])
def test_an_interrupt_leaves_nothing(
    step: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if there:
        (tmp_path / "mine").mkdir()
    before = sorted(tmp_path.rglob("*"))

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(laying, step, stop)
    with pytest.raises(KeyboardInterrupt):
        _lay(tmp_path / "mine")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_move_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if self.name == "params.yaml":
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space"):
        _lay(folder)
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_one_line_that_names_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> float:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(laying, "pace", full)
    with pytest.raises(OutputError, match=r"mine cannot be written: No space left on device$"):
        _lay(tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


def _lay(folder: Path) -> None:
    answers = Answers("mnist", "mnist", None, NETWORKS["mnist"], "0.3")
    images = built_in("mnist")
    laying.lay_down(folder, params_text(answers, images), answers, images, [])


# Images of one's own


def test_arrays_are_counted(digits_npz: Path, tmp_path: Path) -> None:
    with np.load(digits_npz) as archive:
        arrays = dict(archive)
    folder = tmp_path / "arrays"
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    expected = Images("arrays", 150, 50, 10, 1, (8, 8))
    assert look(digits_npz) == look(folder) == expected
    for name in ("x_test", "y_test"):
        (folder / f"{name}.npy").unlink()
    assert look(folder).test is None
    np.save(folder / "x_train.npy", arrays["x_train"][..., None].repeat(3, -1))
    assert look(folder).shape == (3, 8, 8)


def test_a_folder_is_counted(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (20 + i, 30)).save(tmp_path / part / name / f"{i}.png")
            (tmp_path / part / name / "notes.txt").touch()
    assert look(tmp_path) == Images("folder", 8, 4, 2, 3, (20, 20), True)
    shutil.rmtree(tmp_path / "test")
    assert (
        look(tmp_path)
        == look(tmp_path / "train")
        == Images("folder", 8, None, 2, 3, (20, 20), True)
    )


def test_parquet_is_counted(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import io

    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    Image.new("L", (9, 9)).save(buffer, "PNG")
    for part, count in (("train", 6), ("test", 3)):
        image = [{"bytes": buffer.getvalue(), "path": None}] * count
        table = pa.table({"image": image, "label": [i % 3 for i in range(count)]})
        pq.write_table(table, tmp_path / f"{part}-00000-of-00001.parquet")
    assert look(tmp_path) == Images("parquet", 6, 3, 3, 1, (9, 9))
    (tmp_path / "test").mkdir()
    table = table.rename_columns(["img", "fine_label"])
    pq.write_table(table, tmp_path / "test/0.parquet")
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    assert look(tmp_path).test == 3
    assert look(tmp_path / "test/0.parquet") == Images("parquet", 3, None, 3, 1, (9, 9))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda f: None, "want a folder with a sub-folder for each class"),
    "one class": (
        lambda f: ((f / "a").mkdir(), Image.new("L", (8, 8)).save(f / "a/0.png")),
        "want 2 or more classes, found 1",
    ),
    "an empty class": (
        lambda f: ((f / "a").mkdir(), (f / "b").mkdir(), (f / "b/x.txt").touch()),
        "images/a: this class has no image",
    ),
    "a class on one side": (
        lambda f: [
            ((f / n).mkdir(parents=True), (f / n / "0.png").touch())
            for n in ("train/a", "train/b", "test/a")
        ],
        "images/test/b is missing",
    ),
    "a folder in a class": (
        lambda f: [(f / n).mkdir(parents=True) for n in ("a/deeper", "b")],
        "images/a/deeper: a folder inside a class",
    ),
    "no image": (
        lambda f: [((f / n).mkdir(), (f / n / "0.png").write_text("no")) for n in "ab"],
        "0.png: cannot be read",
    ),
    "a pickle": (
        lambda f: [np.save(f / f"{n}.npy", np.array([{}]), allow_pickle=True) for n in "xy"],
        "x.npy: cannot be read",
    ),
    "no labels": (
        lambda f: np.save(f / "x.npy", np.zeros((3, 8, 8), np.uint8)),
        "want x_train and y_train, or x and y; found x",
    ),
    "five channels": (
        lambda f: [np.save(f / f"{n}.npy", np.zeros((9, 5, 8, 8), np.uint8)) for n in "xy"],
        "with 1 or 3 channels, found (9, 5, 8, 8)",
    ),
}


@pytest.mark.parametrize(("make", "message"), BROKEN.values(), ids=BROKEN)
def test_images_in_no_known_form_are_one_line(
    make: Callable[[Path], object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    make(images)
    words = ["--images", "images", "--network", "small", "--eps", "0.1"]
    assert call_main(tmp_path, "init", "mine", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "mine").exists()


def test_a_link_among_the_images_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/secret").symlink_to(tmp_path.parent)
    brought = [laying.Brought(tmp_path / "images", f"{OWN_IMAGES}/mine")]
    answers = Answers("mnist", "mnist", None, NETWORKS["mnist"], "0.3")
    text = params_text(answers, built_in("mnist"))
    with pytest.raises(InputError, match="secret is a link: copy the images without links first"):
        laying.lay_down(tmp_path / "mine", text, answers, built_in("mnist"), brought)
    assert not (tmp_path / "mine").exists()


def test_own_images_and_an_own_network_come_into_the_project(
    digits_npz: Path, tmp_path: Path
) -> None:
    (tmp_path / "plain.py").write_text(
        "from torch import nn\n"
        "from deepcustom.training.nets.base import Classifier\n"
        "class Plain(Classifier):\n"
        "    def __init__(self, shape, classes):\n"
        "        super().__init__()\n"
        "        self.net = nn.Linear(shape[0] * shape[1] * shape[2], classes)\n"
        "    def preactivations(self, x):\n"
        "        return {}, self.net(x.flatten(1))\n"
    )
    words = ["--images", digits_npz.name, "--network", "plain.py:Plain", "--eps", "8/255"]
    assert call_main(tmp_path, "init", "mine", *words) == 0
    tree = read_params(tmp_path / "mine/params.yaml")
    assert tree["subjects"]["small-digits"]["network"] == "own.nets.plain:Plain"
    assert tree["prepare"]["small-digits"]["path"] == f"{OWN_IMAGES}/small-digits.npz"
    copy = tmp_path / f"mine/{OWN_IMAGES}/small-digits.npz"
    assert copy.read_bytes() == digits_npz.read_bytes()
    assert git(tmp_path / "mine", "status", "--porcelain") == ""


# The first settings


def settings(images: Images, **more: object) -> dict[str, object]:
    path = None if images.source == "built_in" else f"{OWN_IMAGES}/mine"
    given = {"name": "mine", "dataset": "mine", "path": path, "eps": "8/255", **more}
    answers = Answers(network=NETWORKS["small"], **given)  # type: ignore[arg-type]
    tree: dict[str, object] = yaml.safe_load(params_text(answers, images))
    return tree


@pytest.mark.parametrize(
    ("images", "sizes"),
    [
        (ARRAYS, {"train": 900, "val": 100, "test": 300}),
        (Images("folder", 1000, None, 10, 3, (64, 64)), {"train": 720, "val": 80, "test": 200}),
        (Images("folder", 300, None, 100, 3, (16, 16)), {"train": 100, "val": 100, "test": 100}),
        (
            Images("parquet", 200_000, 9_999, 3, 3, (9, 9)),
            {"train": 195_000, "val": 5000, "test": 9_999},
        ),
    ],
)
def test_sizes_follow_the_number_of_images(images: Images, sizes: dict[str, int]) -> None:
    assert split_sizes(images) == sizes
    tree: dict[str, dict[str, dict[str, object]]] = settings(images)  # type: ignore[assignment]
    row = tree["prepare"]["mine"]
    assert (row["val_size"], row["test_share"]) == (sizes["val"], None if images.test else 0.2)
    assert tree["recipes"]["every-protocol"]["n"] == min(500, sizes["test"])


def test_too_few_images_are_refused() -> None:
    with pytest.raises(InputError, match="20 images of 10 classes are too few"):
        split_sizes(Images("folder", 20, None, 10, 3, (9, 9)))


@pytest.mark.parametrize(("classes", "targets"), [(2, 1), (3, 2), (10, 9), (100, 9)])
def test_settings_fit_the_number_of_classes(classes: int, targets: int) -> None:
    text = yaml.safe_dump(settings(Images("folder", 5000, None, classes, 3, (9, 9))))
    assert f"targets: {targets}\n" in text


def test_radii_stay_in_the_range_of_pixels() -> None:
    tree = settings(ARRAYS, eps="0.3")
    radii = tree["recipes"]["every-protocol"]["curves"]["radii"]  # type: ignore[index]
    assert radii == [0, 0.25, 0.5, 1, 1.5, 2]


def test_a_fraction_stays_one_in_the_settings() -> None:
    assert radius("8/255") == 8 / 255
    tree = settings(ARRAYS)
    assert tree["subjects"]["mine"]["threat"]["eps"] == "8/255"  # type: ignore[index]
    assert tree["recipes"]["madry"]["inner"]["eps_step"] == pytest.approx(2 / 255, 1e-6)  # type: ignore[index]


def test_epochs_are_those_that_were_asked_for() -> None:
    recipes = settings(ARRAYS, epochs=3)["recipes"]
    assert recipes["madry"]["training"]["epochs"] == 3  # type: ignore[index]


def test_every_place_of_the_template_is_filled_and_used() -> None:
    places = set(re.findall(r"\$(\w+)", TEMPLATE.read_text()))
    assert {"subject", "dataset", "network", "eps", "epochs", "prepare", "described"} <= places
    assert "$" not in yaml.safe_dump(settings(ARRAYS))


def test_the_estimate_grows_with_the_work() -> None:
    tree = settings(ARRAYS)
    sizes = split_sizes(ARRAYS)
    once = seconds(tree, sizes, Pace(1e-3, 1e-3))
    assert once < seconds(tree, sizes, Pace(1e-3, 2e-3)) < seconds(tree, sizes, Pace(2e-3, 2e-3))
    assert seconds(tree, sizes, Pace(2e-3, 2e-3)) > 1.5 * once
    assert seconds(settings(ARRAYS, epochs=100), sizes, Pace(1e-3, 1e-3)) > once
    without = {**tree, "train_online": {}, "adversarial_train": {}}
    assert seconds(without, sizes, Pace(1e-3, 1e-3)) < once


def test_the_estimate_of_a_generator_has_its_own_price_and_a_gradient_of_the_network() -> None:
    tree, sizes = settings(ARRAYS), split_sizes(ARRAYS)
    alone = {section: {} for section in LAYOUTS} | {"train_dgn": tree["train_dgn"]}
    tree = {**tree, **alone}
    epochs = tree["recipes"]["bank"]["training"]["epochs"]  # type: ignore[index]
    wanted = sizes["train"] * epochs * (3e-3 + 0.7 * 1e-3) + 8.0
    assert seconds(tree, sizes, Pace(1e-3, 3e-3)) == pytest.approx(wanted)


# Projects without the package's sources


def test_a_profile_of_such_a_project_has_lock_own_code_and_what_the_user_brought(
    project: Path, tmp_path: Path
) -> None:
    root = tmp_path / "mine"
    shutil.copytree(project, root)
    (root / "profiles").mkdir()
    weights = f"{OWN_IMAGES}/a.txt"
    quick = {
        "prepare": {"mnist": {"train_size": 1000}},
        "train_target": {"mnist": {"weights": weights, "reads": weights}},
    }
    (root / "profiles/quick.yaml").write_text(yaml.safe_dump(quick))
    (root / "own/losses/mine.py").write_text("")
    (root / f"{OWN_IMAGES}/a.txt").write_text("image")
    ws = workspace(Workspace(root), "quick")
    assert ws.root == root / "workspaces/quick"
    for name in (LOCK, "dvc.yaml", ".dvcignore", "own/losses/mine.py", f"{OWN_IMAGES}/a.txt"):
        assert (ws.root / name).read_bytes() == (root / name).read_bytes(), name
    (root / "own/losses/mine.py").unlink()
    assert not (workspace(Workspace(root), "quick").root / "own/losses/mine.py").exists()


def test_rows_are_added_and_removed_in_such_a_project(project: Path, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    shutil.copytree(project, root)
    before = (root / "params.yaml").read_text()
    added = (
        "add bank nce2 --subject mnist --loss nce --set options.mse_weight=0.5",
        "add network madry2 --subject mnist --type madry --set training.epochs=2",
        "add network fgsm --subject mnist --type goodfellow",
        "add subject near --like mnist --eps 0.1",
    )
    for words in added:
        assert call_main(root, *words.split()) == 0, words
    check(root, read_params(root / "params.yaml"))
    assert LOCK not in (root / "params.yaml").read_text().partition("train_target:")[2]
    for words in ("subject near", "network madry2 --subject mnist", "network fgsm --subject mnist"):
        assert call_main(root, "remove", *words.split()) == 0, words
    assert call_main(root, "remove", "bank", "nce2", "--subject", "mnist") == 0
    assert (root / "params.yaml").read_text() == before


def test_a_loss_of_ones_own_may_build_on_the_packages(project: Path, tmp_path: Path) -> None:
    """The lock covers all code of the package that a stage may run, so DVC sees a change of it."""
    root = tmp_path / "mine"
    shutil.copytree(project, root)
    (root / "own/losses/again.py").write_text(
        "from deepcustom.attacks.losses.nce import NceLoss\n\n\nclass Again(NceLoss):\n    pass\n"
    )
    words = "add bank again --subject mnist --loss own.losses.again:Again"
    options = "options={mse_weight: 1.0, cross_entropy_weight: 2.0}"
    assert call_main(root, *words.split(), "--set", options) == 0
    row = read_params(root / "params.yaml")["train_dgn"]["mnist-again"]
    assert row["code"] == "own/losses/again.py"


# The package


def test_the_package_has_all_files_that_are_not_python() -> None:
    import tomllib

    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    package = ROOT / "src/deepcustom"
    patterns = pyproject["tool"]["setuptools"]["package-data"]["deepcustom"]
    found = {pattern: list(package.glob(pattern)) for pattern in patterns}
    assert all(found.values())
    listed = {file.relative_to(package).as_posix() for files in found.values() for file in files}
    there = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert there == listed


def test_a_project_in_l2_has_its_norm_and_the_radius_that_is_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree: Any = settings(ARRAYS, eps="2.0", norm="l2")
    assert tree["subjects"]["mine"]["threat"] == {"norm": "l2", "eps": 2.0}
    assert tree["recipes"]["pgd"]["eps_step"] == 0.5
    # The longest change that images of 8 x 8 values allow is 8.
    assert max(tree["recipes"]["every-protocol"]["curves"]["radii"]) == 4
    with pytest.raises(
        InputError, match=r"eps is 9, and no two images of 64 values .* than 8 in L2"
    ):
        settings(ARRAYS, eps="9", norm="l2")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.org")
    assert call_main(tmp_path, "init", "p", *MNIST, "--norm", "l2") == 0
    assert "threat: {norm: l2, eps: 2}" in (tmp_path / "p/params.yaml").read_text()
