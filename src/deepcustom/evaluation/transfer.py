"""Scoring networks on images made against another network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from deepcustom.evaluation.results import Result
from deepcustom.training.prediction import gets_right, predict
from deepcustom.training.rows import Images


@dataclass(frozen=True)
class Network:
    """A network to score.

    Attributes:
        name: what tables call it.
        md5: md5 of its file.
        net: the network itself.
        source: hash of everything besides the file and this package that decides its output.
    """

    name: str
    md5: str
    net: nn.Module
    source: str = ""


@dataclass(frozen=True)
class TestSet:
    """Images to score on.

    Attributes:
        attack: name of the attack that made them.
        md5: md5 of their files.
        x: images (N, C, H, W); they may be unread.
        y: labels (N,).
        inside: whether all of them lie in the ball; if not, the attack breaks the threat model.
    """

    __test__ = False  # tells pytest that this is not a test case, in spite of its name

    attack: str
    md5: str
    x: Images
    y: Tensor
    inside: bool = True


def transfer(dataset: str, network: Network, images: TestSet) -> tuple[Result, Tensor]:
    """Score one network on images that are clean or were made against the target network.

    Returns:
        The result, and (N,) bool, on the CPU: which images it gets right.
    """
    stands = gets_right(predict(network.net, images.x), images.y)
    result = Result.of(
        dataset=dataset,
        network=network.name,
        protocol="transfer",
        attack=images.attack,
        correct=int(stands.sum()),
        n=len(stands),
        network_md5=network.md5,
        set_md5=images.md5,
        queries=len(stands),
    )
    return result, stands.cpu()
