"""What each section of ``params.yaml`` may say: one frozen model per kind of setting.

No setting that decides a number has a default here, since DVC reads only ``params.yaml`` and would miss
it. Ways of hardening and losses have their models in their own files.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticKnownError

from deepcustom.base.params import Params, Radius


class ComputeParams(Params):
    """Where and how precisely to compute; ``auto`` picks the best that the machine has.

    ``threads``: CPU threads for one operation; ``auto`` leaves the number to torch. ``devices``: how many
    GPUs, or processes on the CPU, train one network together; ``auto``: all GPUs; None: one.
    """

    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    threads: int | Literal["auto"]
    devices: int | Literal["auto"] | None = None

    @field_validator("threads", "devices", mode="before")
    @classmethod
    def _a_count_or_auto(cls, value: Any) -> Any:
        count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not count and value != "auto":
            raise ValueError("should be auto, or an integer from 1 on")
        return value


def host_and_port(address: str) -> tuple[str, int] | None:
    """The parts of a Ray cluster's address; None for ``auto``, the cluster that runs on this machine.

    Raises:
        ValueError: it is neither ``auto`` nor HOST:PORT.
    """
    if address == "auto":
        return None
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("should be auto, or HOST:PORT as ray start prints it")
    return host, int(port)


class EngineParams(Params):
    """Who does independent pieces of work. It decides no number, so no stage depends on it.

    ``kind``: ``local``, this process; or ``ray``, a cluster. ``address`` of the cluster; None: that of the
    variable RAY_ADDRESS, else one that is started on this machine. ``patience``: seconds without a sign of
    life, which a running task gives every two, after which it is given to another process.
    """

    kind: Literal["local", "ray"]
    address: str | None = None
    patience: float = Field(default=60, ge=10)

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, address: str | None) -> str | None:
        if address is not None:
            host_and_port(address)
        return address


class ThreatParams(Params):
    """The ball around an image: its norm, and its radius ``eps`` in units of the [0, 1] pixel range.

    In L-infinity ``eps`` is the largest change of a pixel, so at most 1; in L2 the Euclidean length of the
    change of an image.
    """

    norm: Literal["linf", "l2"]
    eps: Radius

    @field_validator("eps")
    @classmethod
    def _of_pixels(cls, eps: float, info: ValidationInfo) -> float:
        if info.data.get("norm") == "linf" and eps > 1:
            raise PydanticKnownError("less_than_equal", {"le": 1})
        return eps


class ArchitectureParams(Params):
    """What a network is made from; the class name alone stands for it where there is nothing else to say.

    ``name``: ``package.module:Class``; ``options``: arguments of the class. The class also gets ``shape``
    (C, H, W) and ``classes`` of the data set, if it has parameters of these names.
    """

    name: str = Field(min_length=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _a_name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _as_it_is_written(self, handler: SerializerFunctionWrapHandler) -> Any:
        """Without what is absent, and as the name if that is all."""
        whole = {key: value for key, value in handler(self).items() if value or value == 0}
        return whole["name"] if set(whole) == {"name"} else whole


class NetworkParams(ArchitectureParams):
    """The network under attack.

    ``name`` may also be the path of an exported program (``.pt2``). ``mean`` and ``std`` of each channel:
    images in [0, 1] are normalised by them in front of the network. ``layers``: names of the modules whose
    outputs count as pre-activations; without them the network tells, or they are found.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layers: tuple[str, ...] = ()

    @field_validator("mean")
    @classmethod
    def _of_images(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 <= value <= 1 for value in values):
            raise ValueError("should lie in the range [0, 1] of the images")
        return values

    @model_validator(mode="after")
    def _a_pair(self) -> NetworkParams:
        if len(self.mean) != len(self.std) or any(value <= 0 for value in self.std):
            raise ValueError("mean and std should have one number for each channel, std above 0")
        return self


class SubjectParams(Params):
    """What is attacked: a data set, a network and a threat model.

    ``generator`` and ``conditional`` are architectures of DGNs: of one DGN per class, and of one that is
    told the label.
    """

    dataset: str = Field(min_length=1)
    network: NetworkParams
    generator: ArchitectureParams
    conditional: ArchitectureParams
    threat: ThreatParams


class PrepareParams(Params):
    """Sizes of the splits; a ``train_size`` or ``test_size`` of None keeps every image."""

    val_size: int = Field(ge=0)
    train_size: int | None = Field(gt=0)
    test_size: int | None = Field(gt=0)


class AugmentParams(Params):
    """What happens to training images: ``flip``: half of them are mirrored; ``crop``: shifts in pixels."""

    flip: bool
    crop: int = Field(ge=0)


class TrainingParams(Params):
    """One run of the training loop (Adam).

    ``schedule`` of the learning rate: ``constant``; ``staircase``, multiplied by ``decay_rate`` every
    ``decay_steps`` steps; ``one_cycle``, up to ``learning_rate`` and down again. ``momentum`` is Adam's
    first beta. ``augment``: None leaves images as they are. ``accumulate``: a batch goes through the network
    in so many parts, and the step is taken with the sum of their gradients; None: as a whole.
    """

    learning_rate: float = Field(gt=0, le=1)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    schedule: Literal["constant", "staircase", "one_cycle"]
    decay_rate: float | None = Field(default=None, gt=0, le=1)
    decay_steps: int | None = Field(default=None, ge=1)
    momentum: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    augment: AugmentParams | None = None
    accumulate: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _a_staircase_alone_decays(self) -> TrainingParams:
        decay = {"decay_rate": self.decay_rate, "decay_steps": self.decay_steps}
        staircase = self.schedule == "staircase"
        wrong = [key for key, value in decay.items() if (value is None) == staircase]
        if wrong:
            need = "needs" if staircase else "does not take"
            raise ValueError(f"schedule {self.schedule} {need} {', '.join(wrong)}")
        return self


class TargetParams(TrainingParams):
    """The network under attack: trained here, or brought along.

    ``weights``: a safetensors file that it starts from; None: fresh weights. ``epochs`` of 0: it stays as it
    is brought.
    """

    epochs: int = Field(ge=0)
    weights: str | None = None


class RelevanceParams(Params):
    """``k`` most relevant pixels per class.

    ``method``: ``lrp``, with the epsilon rule; or another of Captum's: ``input_x_gradient`` or
    ``integrated_gradients``, which do not use ``epsilon``.
    """

    k: int = Field(ge=1)
    epsilon: float = Field(gt=0)
    method: Literal["lrp", "input_x_gradient", "integrated_gradients"]


class SuspiciousnessParams(Params):
    """``k`` most suspicious units per class; a unit is active above ``activation_threshold``."""

    k: int = Field(ge=1)
    activation_threshold: float = Field(ge=0)
    formula: Literal["tarantula", "ochiai", "dstar"]


class TrainDgnParams(Params):
    """One bank of DGNs.

    ``loss`` is a registered name or the user's own ``package.module:Class``, built with ``options``.
    ``generator``: ``per_class``, one DGN for each class; or ``conditional``, a single one that is told the
    label.
    ``output`` says what a generator puts out: ``image``, the image, clipped afterwards, as in the study;
    or ``perturbation``, a perturbation, scaled to the ball and trained through the projection.
    """

    loss: str = Field(min_length=1)
    generator: Literal["per_class", "conditional"]
    output: Literal["image", "perturbation"]
    training: TrainingParams
    options: dict[str, Any]

    @model_validator(mode="after")
    def _a_conditional_one_perturbs(self) -> TrainDgnParams:
        if self.generator == "conditional" and self.output == "image":
            raise ValueError(
                "output should be perturbation, since generator is conditional, found image"
            )
        return self


class GenerateParams(Params):
    """Making adversarial sets with DGNs.

    ``clipping: false`` skips the projection to the ball, but not to [0, 1]. ``label`` says what picks each
    image's DGN: its ``true`` label, as in the study, or the class that the target network ``predicted``.
    """

    clipping: bool
    mis_classification_check: bool
    label: Literal["true", "predicted"]
    batch_size: int = Field(ge=1)


class AttackParams(Params):
    """FGSM or PGD from ART; ``eps_step``, ``max_iter`` and ``num_random_init`` are for PGD only."""

    method: Literal["fgsm", "pgd"]
    eps_step: Radius | None = None
    max_iter: int | None = Field(default=None, ge=1)
    num_random_init: int | None = Field(default=None, ge=0)
    batch_size: int = Field(ge=1)

    def describe(self) -> str:
        """The settings in words."""
        if self.method == "fgsm":
            return "FGSM: one step of eps"
        starts = (
            "no random start"
            if not self.num_random_init
            else f"{self.num_random_init} random start(s)"
        )
        return f"PGD: {self.max_iter} steps of {self.eps_step:g}, {starts}"

    @model_validator(mode="after")
    def _pgd_has_its_own_settings(self) -> AttackParams:
        own = {
            "eps_step": self.eps_step,
            "max_iter": self.max_iter,
            "num_random_init": self.num_random_init,
        }
        wrong = [key for key, value in own.items() if (value is None) == (self.method == "pgd")]
        if wrong:
            need = "needs" if self.method == "pgd" else "does not take"
            raise ValueError(f"{self.method} {need} {', '.join(wrong)}")
        return self


class AttackSetParams(AttackParams):
    """Making an adversarial set with ART.

    ``mis_classification_check`` keeps only images whose predicted class the attack changed.
    """

    mis_classification_check: bool


DLR_CLASSES = 4
"""The fewest classes for which APGD has its targeted difference of logits ratio."""


class AutoAttackParams(Params):
    """The parts of AutoAttack: APGD's iterations, restarts and targets, and the queries of Square.

    ``version``: run AutoAttack itself as well, as its authors publish it; None: do not. Its settings are
    those of the version, whatever the other keys say, but for ``batch_size``.
    """

    max_iter: int = Field(ge=1)
    num_random_init: int = Field(ge=1)
    targets: int = Field(ge=1)
    queries: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    version: Literal["standard", "plus", "rand"] | None = None


class AdaptiveParams(Params):
    """DGNs trained further against the network under evaluation.

    ``bank``: which DGNs; ``training``: the budget of each DGN; ``images_per_class``: how many training
    images each DGN sees, or None for all of its class.
    """

    bank: str = Field(min_length=1)
    images_per_class: int | None = Field(ge=1)
    training: TrainingParams


class CurveParams(Params):
    """PGD on ``n`` images at other ``radii``, in multiples of eps, and with other numbers of ``steps``."""

    n: int = Field(ge=1)
    radii: tuple[float, ...] = Field(min_length=2)
    steps: tuple[int, ...] = Field(min_length=2)

    @field_validator("radii", "steps")
    @classmethod
    def _rising(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if values[0] < 0 or any(b <= a for a, b in itertools.pairwise(values)):
            raise ValueError("should rise, from 0 or more")
        return values


TAKEN = {"clean", "all", "apgd-ce", "apgd-t"}
"""Names that the tables give themselves beside those of attacks by FGSM and PGD."""


class EvaluateParams(Params):
    """How the networks of a subject are attacked.

    ``n``: how many test images are attacked; adversarial sets are scored whole. ``whitebox``: named attacks
    by FGSM and PGD; the checks and the curves use the one named ``pgd`` too. ``surrogate``: the attack on
    each network whose images are shown to the other networks; it has at most one random start.
    """

    n: int = Field(ge=1)
    whitebox: dict[str, AttackParams]
    surrogate: AttackParams
    autoattack: AutoAttackParams
    adaptive: AdaptiveParams
    curves: CurveParams

    @field_validator("whitebox")
    @classmethod
    def _pgd_is_there(cls, attacks: dict[str, AttackParams]) -> dict[str, AttackParams]:
        if "pgd" not in attacks or attacks["pgd"].method != "pgd":
            raise ValueError("should have a pgd of method pgd")
        if taken := sorted({*attacks} & TAKEN):
            raise ValueError(f"should not name an attack {taken[0]}: the tables use that name")
        return attacks

    @field_validator("surrogate")
    @classmethod
    def _one_start(cls, attack: AttackParams) -> AttackParams:
        if (attack.num_random_init or 0) > 1:
            raise ValueError(
                "num_random_init should be 0 or 1: other networks are shown the images unchanged"
            )
        return attack


class GalleryParams(Params):
    """Images for the page.

    ``per_class``: on how many the network fell, and as many on which it withstood, of each class and set;
    ``classes``: the most classes; ``size``: the longest side in pixels, to which larger images are reduced.
    """

    per_class: int = Field(ge=1, le=20)
    classes: int = Field(ge=1, le=100)
    size: int = Field(ge=8, le=256)


class PageParams(Params):
    """The page of the project; ``classes``: the most whose pixels and units are drawn."""

    title: str = Field(min_length=1, max_length=200)
    classes: int = Field(ge=1, le=100)


class ReportParams(Params):
    """The page of a subject; ``grid_columns``: columns of images in each picture."""

    grid_columns: int = Field(ge=1, le=20)
