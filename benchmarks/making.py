"""Making adversarial images: the DGNs, and FGSM and PGD by this project and by others.

Every contender starts from float32 images (N, C, H, W) and labels in memory and ends with float32 images
there. Gradient attacks have no random start, so that all of one kind should leave the same accuracy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.inputs import DGN_BATCH, SUBJECTS, Inputs, own_compute
from benchmarks.race import Contender
from benchmarks.worker import Work

if TYPE_CHECKING:
    from torch import Tensor

STEPS = 20
EPS_STEP = {"mnist": 0.03}
CIFAR_STEP = 0.0078
# Test images per call: of the DGNs, of FGSM, and of PGD. Accuracy is that on the fewest of the first two, and
# of PGD on its own where those are fewer still.
IMAGES = {
    "mnist": (4000, 4000, 4000),
    "cifar10": (2000, 2000, 1000),
    "cifar10-resnet20": (2000, 1000, 256),
    "cifar10-resnet18": (2000, 256, 32),
}
QUICK_IMAGES = (40, 40, 40)

METHODS = {"fgsm": "FGSM", "pgd": f"PGD-{STEPS}"}
PLAIN_SIZES: tuple[int, ...] = (32, 128, 1000)
LIBRARY_SIZES: tuple[int, ...] = (128, 1000)
DEEP_SIZES: tuple[int, ...] = (
    32,
    128,
)  # a deep classifier does not gain by more, and takes its time
QUICK_SIZES: tuple[int, ...] = (128,)

OWN: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("", "", {}),
    ("-float32", ", float32", {"precision": "float32"}),
)
"""How this project's own contenders run: name, title and options of each."""
DEEP = ("cifar10-resnet20", "cifar10-resnet18")

Attack = Callable[["Tensor", "Tensor"], "Tensor"]


def settings(dataset: str, quick: bool) -> dict[str, Any]:
    """What the figures depend on."""
    dgn, fgsm, pgd = QUICK_IMAGES if quick else IMAGES[dataset]
    return {
        "eps": SUBJECTS[dataset].eps,
        "eps_step": eps_step(dataset),
        "steps": STEPS,
        "images": {"dgn": dgn, "fgsm": fgsm, "pgd": pgd},
        "judged": min(dgn, fgsm),
    }


def eps_step(dataset: str) -> float:
    """The length of PGD's steps."""
    return EPS_STEP.get(dataset, CIFAR_STEP)


def contenders(root: Path, dataset: str, quick: bool) -> list[Contender]:
    """All of them, the DGNs first."""
    chosen = settings(dataset, quick)
    common = {"root": str(root), "dataset": dataset, "judged": chosen["judged"]}
    full = reduced()  # then each of this project's runs in full precision as well
    found = [
        Contender(
            f"dgn{suffix}",
            f"DGNs, this project{words}",
            "benchmarks.making:dgn",
            {**common, "images": chosen["images"]["dgn"], **options},
        )
        for suffix, words, options in OWN[: 1 + full]
    ]
    deep = dataset in DEEP

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
        for suffix, words, options in OWN[: 1 + full]:
            name = f"{method}-project{suffix}"
            images = {"images": chosen["images"][method], "method": method}
            title = f"{METHODS[method]}, this project{words}"
            found.append(
                Contender(name, title, "benchmarks.making:project", {**common, **images, **options})
            )
        add(method, "art", "ART as it comes", (None,), False)
        if not quick:
            add(method, "art", "ART, larger batches", (128 if deep else 1000,), False)
        library, own = (DEEP_SIZES, DEEP_SIZES) if deep else (LIBRARY_SIZES, PLAIN_SIZES)
        if quick:
            library = own = QUICK_SIZES
        add(method, "foolbox", "Foolbox", library, True)
        add(method, "torchattacks", "torchattacks", library, True)
        add(method, "plain", "plain PyTorch", own, False)
    return found


def reduced() -> bool:
    """Whether this machine computes faster in another precision than float32."""
    from deepcustom.training.compute import FLOAT32

    return own_compute().precision is not FLOAT32.precision


# As this project runs them


def dgn(root: str, dataset: str, images: int, judged: int, precision: str = "auto") -> Work:
    """``DGN.generate`` as the stage ``generate`` calls it, by true labels."""
    inputs, compute = Inputs(Path(root), dataset), own_compute(precision)
    bank, threat = inputs.bank(compute), inputs.threat

    def perturb(x: Tensor, y: Tensor, start: int) -> Tensor:
        return bank.generate(x, y, threat, compute=compute, batch_size=DGN_BATCH)

    chunk = inputs.spec.num_classes * DGN_BATCH
    facts = {"batch_size": DGN_BATCH, **compute.describe()}
    return _work(inputs, images, judged, partial(_staged, perturb, chunk), facts)


def project(
    root: str, dataset: str, images: int, judged: int, method: str, precision: str = "auto"
) -> Work:
    """``run_attack`` as the stage ``attack`` calls it."""
    import torch

    from deepcustom.attacks.art import art_classifier, for_gradients, run_attack
    from deepcustom.base.settings import AttackParams

    inputs, compute = Inputs(Path(root), dataset), own_compute(precision)
    own: dict[str, Any] = {}
    if method == "pgd":
        own = {"eps_step": eps_step(dataset), "max_iter": STEPS, "num_random_init": 0}
    params = AttackParams(method=method, batch_size=128 if dataset in DEEP else 1000, **own)
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
    eps = inputs.eps
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
            estimator, eps=eps, eps_step=eps_step(dataset), max_iter=STEPS, verbose=False, **size
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
    eps = inputs.eps
    model = fb.PyTorchModel(inputs.plain_target_net(), bounds=(0, 1))
    if method == "fgsm":
        attack = fb.attacks.LinfFastGradientAttack(random_start=False)
    else:
        step = eps_step(dataset)
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
    net, eps = inputs.plain_target_net(), inputs.eps
    if method == "fgsm":
        attack = ta.FGSM(net, eps=eps)
    else:
        attack = ta.PGD(net, eps=eps, alpha=eps_step(dataset), steps=STEPS, random_start=False)
    return _batched_work(inputs, images, judged, attack, batch_size)


def plain(root: str, dataset: str, images: int, judged: int, method: str, batch_size: int) -> Work:
    """A loop in plain PyTorch."""
    from benchmarks.plain import fgsm, pgd

    inputs = Inputs(Path(root), dataset)
    net, eps = inputs.plain_target_net(), inputs.eps

    def perturb(x: Tensor, y: Tensor) -> Tensor:
        if method == "fgsm":
            return fgsm(net, x, y, eps)
        return pgd(net, x, y, eps, eps_step(dataset), STEPS)

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
