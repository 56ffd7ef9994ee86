"""The table of ways of hardening: each has a row here too, settings without defaults, and its messages."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from deepcustom import hardening
from deepcustom.base.errors import ParamsError, UnknownNameError
from deepcustom.base.params import validate
from deepcustom.hardening import base
from deepcustom.hardening.base import OLD, Way
from deepcustom.hardening.ways import WAYS, way, way_of
from deepcustom.pipeline.code import PREFIX, closure, closure_of

TRAINING = {
    "learning_rate": 1e-3,
    "epochs": 2,
    "batch_size": 10,
    "schedule": "constant",
    "momentum": 0.9,
    "weight_decay": 0.0,
}
ATTACK = {"method": "pgd", "eps_step": 0.01, "max_iter": 3, "num_random_init": 1, "batch_size": 9}

# Way → a network's section without type and training; the stage that trains it; whether it reads a set.
CASES: dict[str, tuple[dict[str, Any], str, bool]] = {
    "goodfellow": ({"clean_weight": 0.5}, "adversarial_train", True),
    "art": ({"ratio": 0.5, "attack": ATTACK}, "adversarial_train", False),
    "madry": (
        {"inner": {"eps_step": 0.1, "max_iter": 1, "growth": 0.5}},
        "adversarial_train",
        False,
    ),
    "online": (
        {
            "generator": "conditional",
            "learning_rate": 1e-3,
            "updates": 1,
            "begin": 0.0,
            "end": 1.0,
            "noise": 0.0,
            "reuse": True,
            "eps_step": 0.1,
            "max_iter": 1,
            "growth": 0.0,
            "clean_weight": 0.0,
            "loss": None,
            "options": {},
        },
        "train_online",
        False,
    ),
}
SHARED = {"base", "ways", "inner"}  # files of the room that are no way


def section(name: str, **changes: Any) -> dict[str, Any]:
    return {"type": name, "training": TRAINING, **CASES[name][0], **changes}


def refused(name: str, message: str, **changes: Any) -> None:
    """The message is one line and holds ``message``."""
    with pytest.raises(ParamsError) as caught:
        validate(way(name).Settings, section(name, **changes), "here")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_way_has_a_row_and_every_file_of_the_room_is_in_the_table() -> None:
    assert set(CASES) == set(WAYS)
    room = Path(hardening.__file__).parent
    files = {file.stem for file in room.glob("*.py")} - {"__init__"} - SHARED
    modules = {place.partition(":")[0].rpartition(".")[2] for place in WAYS.values()}
    assert files == modules
    for name in SHARED:
        shared = importlib.import_module(f"deepcustom.hardening.{name}")
        own = [one for _, one in inspect.getmembers(shared, inspect.isclass)]
        assert [one for one in own if issubclass(one, Way) and one is not Way] == []


@pytest.mark.parametrize("name", CASES)
def test_a_way_is_found_and_says_what_it_needs(name: str) -> None:
    found = way(name)
    assert issubclass(found, Way)
    assert (found.stage, found.reads_set) == CASES[name][1:]
    assert "x1" in found.title.format(name="x1")
    assert way_of(section(name), "here", found.stage) is found
    settings = validate(found.Settings, section(name), "here")
    assert settings.type == name
    assert settings.training.epochs == 2


@pytest.mark.parametrize("name", CASES)
def test_no_key_of_a_way_has_a_default(name: str) -> None:
    whole = section(name)
    assert set(way(name).Settings.model_fields) == set(whole)
    for key in whole:
        values = {k: v for k, v in whole.items() if k != key}
        with pytest.raises(ParamsError, match=f"here.{key} is missing"):
            validate(way(name).Settings, values, "here")
    for key in CASES[name][0].get("inner", {}):
        inner = {k: v for k, v in CASES[name][0]["inner"].items() if k != key}
        refused(name, f"here.inner.{key} is missing", inner=inner)


@pytest.mark.parametrize("name", CASES)
def test_a_way_refuses_the_keys_of_the_others(name: str) -> None:
    own = CASES[name][0]
    others = {k: v for other in CASES.values() for k, v in other[0].items() if k not in own}
    for key, value in others.items():
        refused(name, f"here.{key} is not a known key; allowed: type, training, ", **{key: value})


def test_way_is_unknown() -> None:
    known = "choose from goodfellow, art, madry, online"
    with pytest.raises(UnknownNameError, match=f"unknown way of hardening 'mardy': {known}"):
        way("mardy")
    for values, message in (
        ({}, f"here.type is missing: {known}"),
        ({"type": "mardy"}, f"here.type: unknown way of hardening 'mardy': {known}"),
        ({"type": ["online"]}, r"here.type: unknown way of hardening \['online'\]"),
        ({"type": None}, "here.type: unknown way of hardening None"),
    ):
        with pytest.raises(ParamsError, match=rf"^params\.yaml: {message}"):
            way_of(values, "here", "adversarial_train")


@pytest.mark.parametrize("name", CASES)
def test_a_way_names_the_stage_that_trains_so(name: str) -> None:
    stage = CASES[name][1]
    for other in {case[1] for case in CASES.values()} - {stage}:
        with pytest.raises(ParamsError, match=f"here: type {name} is trained by {stage}$"):
            way_of(section(name), "here", other)


@pytest.mark.parametrize(
    "name", [name for name, case in CASES.items() if case[1] != "train_online"]
)
def test_dvc_sees_all_code_that_a_way_runs(name: str) -> None:
    """But for its own file and one that the row names as ``reads``, its stage has all of it anyway."""
    own = WAYS[name].partition(":")[0].replace(".", "/")
    stage = {PREFIX + path for path in closure(CASES[name][1])}
    more = set(closure_of(f"src/{own}.py")) - stage - {f"src/{own}.py"}
    assert len(more) <= (0 if CASES[name][2] else 1), more


@pytest.mark.parametrize("old", OLD)
def test_an_old_name_is_taken_with_a_hint(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    base._hint.cache_clear()
    new = OLD[old]
    values = section(new, type=old)
    found = way_of(values, "here", way(new).stage)
    assert found is way(new)
    assert validate(found.Settings, values, "here").type == new
    said = capsys.readouterr()
    assert said.err == f"hint: params.yaml: type {old} is called {new} now\n"  # once
    assert said.out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"augment": {"flip": True, "crop": 0}}, "type art trains on the images as they are"),
        ({"accumulate": 2}, "type art trains on whole batches: leave accumulate out"),
    ],
)
def test_art_has_no_part_in_what_our_own_loop_does(change, message) -> None:
    refused("art", message, training={**TRAINING, **change})


def test_art_trains_at_a_constant_rate() -> None:
    scheduled = {**TRAINING, "schedule": "one_cycle"}
    refused(
        "art", "type art trains at a constant rate: schedule must be constant", training=scheduled
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator": "none"}, "here.generator: should be 'conditional' or 'per_class'"),
        ({"begin": 0.5, "end": 0.5}, "none of 2 epochs starts between begin 0.5 and end 0.5"),
        ({"begin": 0.6, "end": 0.9}, "none of 2 epochs starts between begin 0.6 and end 0.9"),
        ({"options": {"mse_weight": 1}}, "options go with a loss"),
        ({"epochs": 3}, "here.epochs is not a known key"),
        ({"updates": 0}, "here.updates: should be greater than or equal to 1"),
        ({"clean_weight": 1.0}, "here.clean_weight: should be less than 1"),
    ],
)
def test_what_type_online_refuses(change: dict[str, Any], message: str) -> None:
    refused("online", message, **change)
