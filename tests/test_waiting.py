"""How threads wait: set where the program starts, the user's own word wins, and no byte depends on it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from deepcustom.base.waiting import DECIDED, wait_asleep

# What main() finds when the command begins, and whether torch was there before.
SHOW = """
import os, sys
from deepcustom.cli import door as cli
assert "torch" not in sys.modules
cli.terminal.call = lambda app, words: print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
cli.main()
"""

TRAIN = """
import hashlib, sys
sys.argv = ["deepcustom"]
from deepcustom.cli import door as cli

def train(app, words):
    import torch
    torch.set_num_threads(2)
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(16 * 30 * 30, 10)
    )
    x, y = torch.rand(64, 3, 32, 32), torch.arange(64) % 10
    adam = torch.optim.Adam(net.parameters())
    for _ in range(3):
        adam.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        adam.step()
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    import os
    print(os.environ["GOMP_SPINCOUNT"], digest.hexdigest())

cli.terminal.call = train
cli.main()
"""


def run(code: str, **variables: str) -> str:
    env = {key: value for key, value in os.environ.items() if key not in DECIDED}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**env, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_it_is_set_before_torch_is_there() -> None:
    assert run(SHOW) == "10000 False"


@pytest.mark.parametrize("name", DECIDED)
def test_a_users_own_variable_wins(name: str) -> None:
    environ = {name: "7"}
    wait_asleep(environ)
    assert environ == {name: "7"}


def test_a_users_own_variable_reaches_the_command() -> None:
    assert run(SHOW, GOMP_SPINCOUNT="7") == "7 False"
    assert run(SHOW, OMP_WAIT_POLICY="ACTIVE") == "None False"


def test_the_program_also_starts_as_a_module() -> None:
    command = [sys.executable, "-m", "deepcustom.cli", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert "train_target" in done.stdout


def test_bytes_do_not_depend_on_it() -> None:
    asleep, spinning = run(TRAIN), run(TRAIN, GOMP_SPINCOUNT="infinity")
    assert asleep.split()[0] == "10000"
    assert spinning.split()[0] == "infinity"
    assert asleep.split()[1] == spinning.split()[1]
