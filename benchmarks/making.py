"""Making adversarial images: the DGNs, and FGSM and PGD by this project and by others.

Every contender starts from float32 images (N, C, H, W) and labels in memory and ends with float32 images
there. Gradient attacks have no random start, so that all of one kind should leave the same accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.inputs import DGN_BATCH, EPS, Inputs, own_compute
from benchmarks.race import Contender
from benchmarks.worker import Work

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 20
EPS_STEP = {"mnist": 0.03, "cifar10": 0.0078}
# Test images per call: of the DGNs and FGSM, and of PGD; accuracy is that of the fewer.
IMAGES = {"mnist": (4000, 4000), "cifar10": (2000, 1000)}
QUICK_IMAGES = (40, 40)

METHODS = {"fgsm": "FGSM", "pgd": f"PGD-{STEPS}"}
PLAIN_SIZES = (32, 128, 1000)
LIBRARY_SIZES = (128, 1000)
QUICK_SIZES = (128,)

Attack = Callable[["Tensor", "Tensor"], "Tensor"]


def settings(dataset: str, quick: bool) -> dict[str, Any]:
    """What the figures depend on."""
    many, few = QUICK_IMAGES if quick else IMAGES[dataset]
    return {
        "eps": EPS[dataset],
        "eps_step": EPS_STEP[dataset],
        "steps": STEPS,
        "images": {"dgn": many, "fgsm": many, "pgd": few},
        "judged": few,
    }


def contenders(root: Path, dataset: str, quick: bool) -> list[Contender]:
    """All of them, the DGNs first."""
    chosen = settings(dataset, quick)
    common = {"root": str(root), "dataset": dataset, "judged": chosen["judged"]}
    found = [
        Contender(
            "dgn",
            "DGNs, this project",
            "benchmarks.making:dgn",
            {**common, "images": chosen["images"]["dgn"]},
        )
    ]

    def add(method: str, who: str, by: str, sizes: tuple[int | None, ...], optional: bool) -> None:
        for size in sizes:
            found.append(
                Contender(
                    f"{method}-{who}" + (f"-{size}" if size else ""),
                    f"{METHODS[method]}, {by}",
                    f"benchmarks.making:{who}",
                    {
                        **common,
                        "images": chosen["images"][method],
                        "method": method,
                        **({"batch_size": size} if size else {}),
                    },
                    family=f"{method}-{who}" + ("" if who != "art" else f"-{size or 'default'}"),
                    optional=optional,
                )
            )

    for method in METHODS:
        add(method, "project", "this project", (None,), False)
        add(method, "art", "ART as it comes", (None,), False)
        if not quick:
            add(method, "art", "ART, larger batches", (1000,), False)
        sizes = QUICK_SIZES if quick else LIBRARY_SIZES
        add(method, "foolbox", "Foolbox", sizes, True)
        add(method, "torchattacks", "torchattacks", sizes, True)
        add(method, "plain", "plain PyTorch", QUICK_SIZES if quick else PLAIN_SIZES, False)
    return found


# As this project runs them


def dgn(root: str, dataset: str, images: int, judged: int) -> Work:
    """``DGNBank.generate`` as the stage ``generate`` calls it, by true labels."""
    inputs, compute = Inputs(Path(root), dataset), own_compute()
    bank, threat = inputs.bank(compute), inputs.threat

    def perturb(x: Tensor, y: Tensor, start: int) -> Tensor:
        return bank.generate(x, y, threat, compute=compute, batch_size=DGN_BATCH)

    chunk = inputs.spec.num_classes * DGN_BATCH
    facts = {"batch_size": DGN_BATCH, **compute.describe()}
    return _work(inputs, images, judged, partial(_staged, perturb, chunk), facts)


def project(root: str, dataset: str, images: int, judged: int, method: str) -> Work:
    """``run_attack`` as the stage ``attack`` calls it."""
    import torch

    from deepcustom.attacks.art import art_classifier, for_gradients, run_attack
    from deepcustom.base.settings import AttackParams

    inputs, compute = Inputs(Path(root), dataset), own_compute()
    own: dict[str, Any] = {}
    if method == "pgd":
        own = {"eps_step": EPS_STEP[dataset], "max_iter": STEPS, "num_random_init": 0}
    params = AttackParams(method=method, batch_size=1000, **own)
    spec, threat = inputs.spec, inputs.threat
    net = for_gradients(inputs.target_net(compute), compute)
    estimator = art_classifier(net, spec.shape, spec.num_classes, compute.device)

    def perturb(x: Tensor, y: Tensor, start: int) -> Tensor:
        return torch.from_numpy(run_attack(estimator, params, threat, x, y, offset=start))

    chunk = max(2000 // params.batch_size, 1) * params.batch_size
    facts = {"batch_size": params.batch_size, **compute.describe()}
    return _work(inputs, images, judged, partial(_staged, perturb, chunk), facts)


def _staged(
    perturb: Callable[[Tensor, Tensor, int], Tensor], chunk: int, x: Tensor, y: Tensor
) -> Tensor:
    """Chunk by chunk, laid out as ``deepcustom.attacks.perturb`` hands them to a stage's attack."""
    import torch

    x_adv = torch.empty_like(x)
    for start in range(0, len(x), chunk):
        rows = slice(start, start + chunk)
        part = x[rows].to(memory_format=torch.channels_last)
        x_adv[rows] = perturb(part, y[rows], start)
    return x_adv


# As others do


def art(
    root: str, dataset: str, images: int, judged: int, method: str, batch_size: int | None = None
) -> Work:
    """ART around the plain network; all its defaults but eps, eps_step and max_iter (and no bar)."""
    import torch
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    inputs = Inputs(Path(root), dataset)
    eps = EPS[dataset]
    estimator = PyTorchClassifier(
        model=inputs.plain_target_net(),
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=inputs.spec.shape,
        nb_classes=inputs.spec.num_classes,
        clip_values=(0.0, 1.0),
    )
    size = {"batch_size": batch_size} if batch_size else {}
    if method == "fgsm":
        attack = FastGradientMethod(estimator, eps=eps, **size)
    else:
        attack = ProjectedGradientDescentPyTorch(
            estimator, eps=eps, eps_step=EPS_STEP[dataset], max_iter=STEPS, verbose=False, **size
        )

    def perturb(x: Tensor, y: Tensor) -> Tensor:
        return torch.from_numpy(attack.generate(x.numpy(), y=y.numpy()))

    return _work(inputs, images, judged, perturb, {"batch_size": attack.batch_size})


def foolbox(
    root: str, dataset: str, images: int, judged: int, method: str, batch_size: int
) -> Work:
    """Foolbox around the plain network."""
    import foolbox as fb  # type: ignore[import-not-found]

    inputs = Inputs(Path(root), dataset)
    eps = EPS[dataset]
    model = fb.PyTorchModel(inputs.plain_target_net(), bounds=(0, 1))
    if method == "fgsm":
        attack = fb.attacks.LinfFastGradientAttack(random_start=False)
    else:
        step = EPS_STEP[dataset]
        attack = fb.attacks.LinfPGD(
            rel_stepsize=step / eps, abs_stepsize=step, steps=STEPS, random_start=False
        )

    def perturb(x: Tensor, y: Tensor) -> Tensor:
        clipped: Tensor = attack(model, x, y, epsilons=eps)[1]
        return clipped

    return _batched_work(inputs, images, judged, perturb, batch_size)


def torchattacks(
    root: str, dataset: str, images: int, judged: int, method: str, batch_size: int
) -> Work:
    """torchattacks around the plain network."""
    import torchattacks as ta  # type: ignore[import-not-found]

    inputs = Inputs(Path(root), dataset)
    net, eps = inputs.plain_target_net(), EPS[dataset]
    if method == "fgsm":
        attack = ta.FGSM(net, eps=eps)
    else:
        attack = ta.PGD(net, eps=eps, alpha=EPS_STEP[dataset], steps=STEPS, random_start=False)
    return _batched_work(inputs, images, judged, attack, batch_size)


def plain(root: str, dataset: str, images: int, judged: int, method: str, batch_size: int) -> Work:
    """A loop in plain PyTorch."""
    from benchmarks.plain import fgsm, pgd

    inputs = Inputs(Path(root), dataset)
    net, eps = inputs.plain_target_net(), EPS[dataset]

    def perturb(x: Tensor, y: Tensor) -> Tensor:
        if method == "fgsm":
            return fgsm(net, x, y, eps)
        return pgd(net, x, y, eps, EPS_STEP[dataset], STEPS)

    return _batched_work(inputs, images, judged, perturb, batch_size)


def _batched_work(
    inputs: Inputs, images: int, judged: int, perturb: Attack, batch_size: int
) -> Work:
    import torch

    def attack(x: Tensor, y: Tensor) -> Tensor:
        parts = zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True)
        return torch.cat([perturb(*part) for part in parts])

    return _work(inputs, images, judged, attack, {"batch_size": batch_size})


def _work(inputs: Inputs, images: int, judged: int, attack: Attack, facts: dict[str, Any]) -> Work:
    """Attack the first test images; judged by the plain network in float32, the same for all."""
    x, y = inputs.test(images)

    def judge(x_adv: Tensor) -> dict[str, Any]:
        from deepcustom.training.prediction import accuracy

        net = inputs.plain_target_net()
        return {
            **facts,
            "accuracy": accuracy(net, x_adv[:judged], y[:judged]),
            "clean_accuracy": accuracy(net, x[:judged], y[:judged]),
            "linf": float((x_adv - x).abs().max()),
        }

    return Work(lambda: attack(x, y), images, judge)
