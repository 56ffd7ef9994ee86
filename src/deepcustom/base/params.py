"""What ``params.yaml`` may say: one frozen model per stage, and the one function that reads it.

A key that no model knows is an error, and every number has a range, so that a misspelt or senseless
setting stops before any work starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from deepcustom.base.errors import ParamsError


class Params(BaseModel):
    """Base of every section: frozen, and unknown keys forbidden."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and field.annotation in (int, float, int | None, float | None):
            raise ValueError("should be a number")
        return value


P = TypeVar("P", bound=Params)


class ComputeParams(Params):
    """Where and how precisely to compute; ``auto`` picks the best that the machine has."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


class ThreatParams(Params):
    """The L-infinity ball: ``eps`` in units of the [0, 1] pixel range."""

    eps: float = Field(gt=0, le=1)


class PrepareParams(Params):
    """Sizes of the splits; ``None`` keeps every image."""

    val_size: int = Field(ge=0)
    train_size: int | None = Field(default=None, gt=0)
    test_size: int | None = Field(default=None, gt=0)


class TrainingParams(Params):
    """One run of the training loop (Adam).

    ``schedule``: ``constant``; ``staircase``, multiplied by ``decay_rate`` every ``decay_steps`` steps;
    ``one_cycle``, up to ``learning_rate`` and down again. ``momentum`` is Adam's first beta.
    """

    learning_rate: float = Field(gt=0, le=1)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    schedule: Literal["constant", "staircase", "one_cycle"] = "constant"
    decay_rate: float = Field(default=0.9, gt=0, le=1)
    decay_steps: int = Field(default=1000, ge=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _only_a_staircase_decays(self) -> TrainingParams:
        foreign = sorted({"decay_rate", "decay_steps"} & self.model_fields_set)
        if foreign and self.schedule != "staircase":
            raise ValueError(f"schedule {self.schedule} does not take {', '.join(foreign)}")
        return self


class RelevanceParams(Params):
    """``k`` most relevant pixels per class, by LRP with the epsilon rule."""

    k: int = Field(ge=1)
    epsilon: float = Field(default=1e-6, gt=0)


class SuspiciousnessParams(Params):
    """``k`` most suspicious units per class; a unit is active above ``activation_threshold``."""

    k: int = Field(ge=1)
    activation_threshold: float = Field(default=0.0, ge=0)
    formula: Literal["tarantula", "ochiai", "dstar"] = "tarantula"


class TrainDgnParams(Params):
    """One bank of DGNs.

    ``loss`` is a registered name or the user's own ``package.module:Class``; ``options`` go to it.
    ``output``: ``image``, the generator's output is the image, clipped afterwards (the study's);
    ``perturbation``, it is a perturbation scaled to the ball, and trained through the projection.
    """

    loss: str = Field(min_length=1)
    output: Literal["image", "perturbation"] = "image"
    training: TrainingParams
    options: dict[str, Any] = Field(default_factory=dict)


class GenerateParams(Params):
    """Making adversarial sets with a bank.

    ``clipping: false`` skips the ball, not [0, 1]. ``label`` picks each image's DGN: by its ``true``
    label (the study's) or by the class that the target network ``predicted``.
    """

    clipping: bool = True
    mis_classification_check: bool = False
    label: Literal["true", "predicted"] = "true"
    batch_size: int = Field(default=200, ge=1)


class AttackParams(Params):
    """FGSM or PGD from ART; ``eps_step``, ``max_iter`` and ``num_random_init`` are PGD's alone."""

    method: Literal["fgsm", "pgd"]
    eps_step: float | None = Field(default=None, gt=0, le=1)
    max_iter: int | None = Field(default=None, ge=1)
    num_random_init: int | None = Field(default=None, ge=0)
    batch_size: int = Field(default=1000, ge=1)
    mis_classification_check: bool = False

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


class AutoAttackParams(Params):
    """The parts of AutoAttack: APGD's iterations, restarts and targets, and the queries of Square."""

    max_iter: int = Field(default=100, ge=1)
    num_random_init: int = Field(default=1, ge=1)
    targets: int = Field(default=9, ge=1)
    queries: int = Field(default=5000, ge=1)
    batch_size: int = Field(default=500, ge=1)


class AdaptiveParams(Params):
    """DGNs trained further against the network under evaluation.

    ``bank``: which ones; ``training``: the budget of each; ``images_per_class``: how many training images
    each one sees, None: all of its class.
    """

    bank: str = Field(min_length=1)
    images_per_class: int | None = Field(default=None, ge=1)
    training: TrainingParams


class CurveParams(Params):
    """PGD on ``n`` images at other radii, as multiples of eps, and with other numbers of steps."""

    n: int = Field(default=200, ge=1)
    radii: tuple[float, ...] = Field(min_length=2)
    steps: tuple[int, ...] = Field(min_length=2)

    @field_validator("radii", "steps")
    @classmethod
    def _rising(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if values[0] < 0 or any(b <= a for a, b in itertools.pairwise(values)):
            raise ValueError("should rise, from 0 or more")
        return values


class EvaluateParams(Params):
    """Which networks are scored on which sets, in the order of the table, and how they are attacked.

    ``n``: how many test images are attacked; adversarial sets are scored whole. ``whitebox``: FGSM and
    PGD, the one that is named ``pgd`` also serves the checks and the curves. ``surrogate``: makes the
    images that pass from network to network, from at most one random start.
    """

    networks: tuple[str, ...] = Field(min_length=1)
    attacks: tuple[str, ...] = Field(min_length=1)
    n: int = Field(default=1000, ge=1)
    whitebox: dict[str, AttackParams]
    surrogate: AttackParams
    autoattack: AutoAttackParams = AutoAttackParams()
    adaptive: AdaptiveParams
    curves: CurveParams

    @field_validator("whitebox")
    @classmethod
    def _pgd_is_there(cls, attacks: dict[str, AttackParams]) -> dict[str, AttackParams]:
        if "pgd" not in attacks or attacks["pgd"].method != "pgd":
            raise ValueError("should have a pgd of method pgd")
        return attacks

    @field_validator("surrogate")
    @classmethod
    def _one_start(cls, attack: AttackParams) -> AttackParams:
        if (attack.num_random_init or 0) > 1:
            raise ValueError(
                "num_random_init should be 0 or 1: the images are shown to others as they are"
            )
        return attack

    @field_validator("networks", "attacks")
    @classmethod
    def _each_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each may stand there once, twice found: {', '.join(twice)}")
        return names


class ReportParams(Params):
    """The page of a data set; ``grid_columns`` images in each picture."""

    grid_columns: int = Field(default=10, ge=1, le=20)


def read_params(path: Path) -> dict[str, Any]:
    """The whole of a params file as plain dicts.

    Raises:
        ParamsError: the file is missing or is not a YAML mapping.
    """
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing: run this from the project's top folder") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path} must be a mapping of sections, found {type(tree).__name__}")
    return tree


def section(tree: Mapping[str, Any], *keys: str) -> Any:
    """The value below ``keys``.

    Raises:
        ParamsError: a key is missing; the message lists the ones that are there.
    """
    value: Any = tree
    for depth, key in enumerate(keys):
        if not isinstance(value, Mapping) or key not in value:
            where = ".".join(keys[:depth]) or "the file"
            there = ", ".join(map(str, value)) if isinstance(value, Mapping) else "no keys"
            raise ParamsError(f"params.yaml: {'.'.join(keys)} is missing; {where} has: {there}")
        value = value[key]
    return value


def online_names(tree: Mapping[str, Any], dataset: str) -> list[str]:
    """The robust networks of a data set that learn together with a generator of the same name."""
    robust = section(tree, "adversarial_train", dataset)
    pairs = robust.items() if isinstance(robust, Mapping) else ()
    return [name for name, v in pairs if isinstance(v, Mapping) and v.get("type") == "online"]


def seed(tree: Mapping[str, Any]) -> int:
    """What everything random derives from.

    Raises:
        ParamsError: it is missing, or no integer from 0 on.
    """
    if "seed" not in tree:
        raise ParamsError("params.yaml: seed is missing: it must be an integer >= 0")
    value = tree["seed"]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ParamsError(f"params.yaml: seed must be an integer >= 0, found {value!r}")
    return value


def load(path: Path, model: type[P], *keys: str) -> P:
    """The section below ``keys`` of the file at ``path``, checked.

    Raises:
        ParamsError: in one line: the key, what it holds, and what is allowed.
    """
    return validate(model, section(read_params(path), *keys), ".".join(keys))


def validate(model: type[P], values: Any, where: str) -> P:
    """``values`` as a ``model``; ``where`` is their dotted place in the file, for messages.

    Raises:
        ParamsError: in one line: the key, what it holds, and what is allowed.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_one_line(model, fault, where) for fault in error.errors()[:3])
        raise ParamsError(f"params.yaml: {faults}") from None


def _one_line(model: type[Params], fault: Any, where: str) -> str:
    key = ".".join([where, *(str(part) for part in fault["loc"])])
    if fault["type"] == "extra_forbidden":
        fields = _fields_at(model, fault["loc"][:-1])
        return f"{key} is not a known key; allowed: {', '.join(fields) or 'none'}"
    if fault["type"] == "missing":
        return f"{key} is missing"
    if fault["type"] == "model_type":
        fields = _fields_at(model, fault["loc"])
        return f"{key} must be a mapping of {', '.join(fields)}{found_value(fault['input'])}"
    message = " ".join(fault["msg"].removeprefix("Value error, ").removeprefix("Input ").split())
    found = "" if isinstance(fault["input"], dict) else f" (found {fault['input']!r})"
    return f"{key}: {message}{found}"


def found_value(value: Any) -> str:
    """How a message ends that says what should have been there."""
    return ", found nothing" if value is None else f", found {value!r}"


def _fields_at(model: type[Params], loc: tuple[Any, ...]) -> list[str]:
    """The field names of the model nested at ``loc``."""
    for part in loc:
        info = model.model_fields.get(str(part))
        if info is None:
            continue
        nested = [info.annotation, *getattr(info.annotation, "__args__", ())]
        model = next((m for m in nested if isinstance(m, type) and issubclass(m, Params)), model)
    return list(model.model_fields)
