"""A project of a user's own, from ``deepcustom init`` to the report, and on in a clone.

What a program outside of the checkout makes of other images is in ``test_wheel.py``.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from own_fixtures import Own, crop, look_at, photographs, shrink
from PIL import Image
from pipeline_fixtures import call_main, own_modules

from deepcustom.base.hashes import dvc_md5

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

LOGIT_LOSS = '''
"""Lowers the logit of the true class, and keeps the image as it is."""

from deepcustom import CustomLoss
from deepcustom.base.params import Params


class Options(Params):
    mse_weight: float


class LogitLoss(CustomLoss):
    Options = Options

    def __call__(self, x, g):
        logit = self.context.target_net(g)[:, self.context.label]
        mse = ((g - x) ** 2).flatten(1).mean(1)
        return {"logit": logit, "mse": self.options.mse_weight * mse}
'''

EVERY_LOSS = (
    "lrp --loss lrp --set options.custom_loss_constant=0.5",
    "suspiciousness --loss suspiciousness --set generator=conditional "
    "--set 'options={custom_loss_constant: 0.9, theta: 0.5, gamma: 0.01, alpha: 0.5, beta: 0.01}'",
    "logit --loss own.losses.logit:LogitLoss --set options.mse_weight=1.0",
)
"""A bank for each other loss of the package, and one for the user's own; the second is told the label."""


def two_greys(folder: Path) -> None:
    """Two classes of grey JPEGs of mixed sizes, in train and test.

    In train a few images of each lie in the other class, so that a network fails somewhere in both.
    """
    rng = np.random.default_rng(1)
    for part, count in (("train", 60), ("test", 24)):
        for name, region in zip(("china", "flower"), photographs(), strict=True):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(crop(region, int(rng.integers(24, 49)), rng)).convert("L")
                image.save(folder / part / name / f"{number}.jpg")
    for number in range(8):
        china, flower = (folder / "train" / name / f"{number}.jpg" for name in ("china", "flower"))
        china.rename(folder / "moved.jpg")
        flower.rename(china)
        (folder / "moved.jpg").rename(flower)


NAME = "two"
TWO = Own(two_greys, "small", 2, (1, 24, 24), ["--size", "24"], EVERY_LOSS, epochs=10)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder outside of any project, where git knows the user."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@example.org")
    monkeypatch.chdir(tmp_path)
    with own_modules("own"):
        yield tmp_path


def dvc(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    scripts = str(Path(sys.executable).parent)
    environ |= {"OMP_NUM_THREADS": "1", "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )


def test_a_folder_of_images_becomes_a_table(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TWO.images(home / "images")
    words = ["--images", "images", "--network", TWO.network, "--eps", "8/255", "--name", NAME]
    assert call_main(home, "init", NAME, *words, *TWO.options) == 0
    project = home / NAME
    (project / "own/losses/logit.py").write_text(LOGIT_LOSS)
    for bank in TWO.banks:
        assert call_main(project, "add", "bank", "--subject", NAME, *shlex.split(bank)) == 0, bank
    shrink(project / "params.yaml", TWO.classes, TWO.epochs)
    done = dvc(project, "repro")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]

    def run(folder: Path, program: str, *words: str) -> str:
        if program == "dvc":
            return dvc(folder, *words).stdout
        capsys.readouterr()
        assert call_main(folder, *words) == 0, words
        return capsys.readouterr().out

    look_at(project, TWO, NAME, run)
    a_clone_goes_on(project, home / "clone")


def a_clone_goes_on(project: Path, clone: Path) -> None:
    """Models and images go to a remote; a clone fetches them, and trains nothing."""
    remote = clone.with_name("remote")
    git = ("git", "-C", str(project))
    for words in (
        ("add", "--quiet", "data/own/two"),
        ("remote", "add", "--quiet", "--default", "away", str(remote)),
    ):
        assert dvc(project, *words).returncode == 0, words
    assert call_main(project, "push") == 0
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "The first run"], check=True)
    subprocess.run(["git", "clone", "--quiet", str(project), str(clone)], check=True)
    assert call_main(clone, "pull") == 0
    for folder in ("models", "data/own"):
        assert dvc_md5(clone / folder) == dvc_md5(project / folder)
    done = dvc(clone, "repro", "prepare@two")
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    left = json.loads(dvc(clone, "status", "--json").stdout)
    trained = (
        "train_target@two",
        "train_dgn@two-margin",
        "train_dgn@two-logit",
        "train_online@two-online",
    )
    assert not {*trained, "adversarial_train@two-madry"} & {*left}
