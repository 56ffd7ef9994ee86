"""What ``params.yaml`` may say: every profile's sections, and how mistakes are told."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from deepcustom.base import params as p
from deepcustom.base import params_check
from deepcustom.base.errors import ParamsError, UnknownNameError
from deepcustom.hardening.base import WaySettings
from deepcustom.hardening.goodfellow import GoodfellowSettings
from deepcustom.hardening.ways import way_of
from deepcustom.pipeline import profile
from deepcustom.pipeline.workspace import Workspace

PROJECT = Workspace(Path(__file__).parents[1])
PROFILES = profile.names(PROJECT)

# Section → model of each data set's part of it; True where that part holds several, by name.
MODELS: dict[str, tuple[type[p.Params], bool]] = {
    "threat": (p.ThreatParams, False),
    "prepare": (p.PrepareParams, False),
    "train_target": (p.TrainingParams, False),
    "relevance": (p.RelevanceParams, False),
    "suspiciousness": (p.SuspiciousnessParams, False),
    "train_dgn": (p.TrainDgnParams, True),
    "generate": (p.GenerateParams, False),
    "attack": (p.AttackParams, True),
    "adversarial_train": (WaySettings, True),  # each of a way of its own
    "evaluate": (p.EvaluateParams, False),
    "report": (p.ReportParams, False),
}

TRAINING = {"learning_rate": 1e-3, "epochs": 2, "batch_size": 10}
PGD = {"method": "pgd", "eps_step": 0.01, "max_iter": 3, "num_random_init": 1}


def refused(model: type[p.Params], values: Any, message: str, where: str = "here") -> None:
    """The message is one line and holds ``message``."""
    with pytest.raises(ParamsError) as caught:
        p.validate(model, values, where)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# The files of this project


def test_there_are_the_three_profiles():
    assert {"default", "paper", "smoke"} <= set(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_every_section_of_every_profile_is_valid(name):
    tree = profile.settings(PROJECT, name)
    assert set(tree) == {*MODELS, "seed", "compute"}
    assert type(tree["seed"]) is int
    p.validate(p.ComputeParams, tree["compute"], "compute")
    for section, (model, several) in MODELS.items():
        assert "mnist" in tree[section]
        for dataset, values in tree[section].items():
            for key, part in values.items() if several else [(None, values)]:
                where = f"{section}.{dataset}.{key}"
                chosen = way_of(part, where).Settings if model is WaySettings else model
                p.validate(chosen, part, where)


@pytest.mark.parametrize("name", PROFILES)
def test_options_of_every_loss_are_valid(name):
    from deepcustom.attacks.losses import find_loss

    for dataset, banks in profile.settings(PROJECT, name)["train_dgn"].items():
        for bank, values in banks.items():
            options = values.get("options", {})
            p.validate(find_loss(values["loss"]).Options, options, f"{dataset}.{bank}")


def test_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"unknown profile 'papre'.*default.*paper.*smoke"):
        profile.settings(PROJECT, "papre")


# The study's settings for MNIST: the study's published settings.
STAIRCASE = {"schedule": "staircase", "decay_rate": 0.9, "decay_steps": 1000}
STUDY = {
    "threat": {"eps": 0.3},
    "train_target": {"learning_rate": 1e-3, "epochs": 20, "batch_size": 128},
    "relevance": {"k": 20},
    "suspiciousness": {"k": 20, "activation_threshold": 0.0, "formula": "tarantula"},
    "train_dgn.lrp.training": {"learning_rate": 1e-4, "epochs": 150, "batch_size": 100},
    "train_dgn.nce.training": {"learning_rate": 1e-4, "epochs": 100, "batch_size": 100},
    "train_dgn.suspiciousness.training": {"learning_rate": 1e-5, "epochs": 600, "batch_size": 100},
    "train_dgn.lrp.options": {"custom_loss_constant": 0.5},
    "train_dgn.nce.options": {"mse_weight": 1.0, "cross_entropy_weight": 1.0},
    "train_dgn.suspiciousness.options": {"custom_loss_constant": 0.8, "theta": 0.5, "gamma": 0.5},
    "generate": {"clipping": True, "label": "true", "mis_classification_check": False},
    "attack.fgsm": {"method": "fgsm"},
    "attack.pgd20-study": {"eps_step": 0.01, "max_iter": 20, "num_random_init": 10},
    "attack.pgd-study": {"eps_step": 0.01, "max_iter": 20, "num_random_init": 1},
    "adversarial_train.lrp.training": {"learning_rate": 1e-3, "epochs": 10, "batch_size": 100},
    "adversarial_train.nce.training": {"learning_rate": 1e-3, "epochs": 10, "batch_size": 100},
    "adversarial_train.suspiciousness.training": {
        "learning_rate": 1e-4,
        "epochs": 50,
        "batch_size": 100,
    },
    "adversarial_train.fgsm.training": {"learning_rate": 1e-3, "epochs": 20, "batch_size": 100},
    "adversarial_train.pgd.training": {"learning_rate": 1e-3, "epochs": 20, "batch_size": 100},
    **{f"train_dgn.{loss}.training#": STAIRCASE for loss in ("lrp", "nce", "suspiciousness")},
    **{f"train_dgn.{loss}": {"output": "image"} for loss in ("lrp", "nce", "suspiciousness")},
    **{
        f"adversarial_train.{name}": {"type": "goodfellow", "clean_weight": 0.5}
        for name in ("lrp", "nce", "suspiciousness", "fgsm", "pgd")
    },
}


@pytest.mark.parametrize("place", STUDY)
def test_paper_profile_is_the_study(place):
    section, *below = place.rstrip("#").split(".")
    found = p.section(profile.settings(PROJECT, "paper"), section, "mnist", *below)
    assert {key: found.get(key) for key in STUDY[place]} == STUDY[place]


@pytest.mark.parametrize("name", ["lrp", "nce", "suspiciousness", "fgsm", "pgd"])
def test_paper_profile_hardens_at_a_constant_rate_with_plain_adam(name):
    tree = profile.settings(PROJECT, "paper")
    values = tree["adversarial_train"]["mnist"][name]
    own = p.validate(GoodfellowSettings, values, name).training
    assert (own.schedule, own.momentum, own.weight_decay) == ("constant", 0.9, 0.0)


# Mistakes


def test_misspelt_key_is_named_with_the_allowed_ones():
    refused(
        p.RelevanceParams,
        {"k": 3, "kk": 3},
        "params.yaml: relevance.mnist.kk is not a known key; allowed: k, epsilon",
        "relevance.mnist",
    )


def test_misspelt_key_below_lists_what_is_allowed_there():
    values = {"type": "goodfellow", "training": {**TRAINING, "epoch": 3}}
    refused(
        GoodfellowSettings,
        values,
        "here.training.epoch is not a known key; allowed: learning_rate, epochs, batch_size, "
        "schedule, decay_rate, decay_steps, momentum, weight_decay",
    )


def test_misspelt_key_in_a_named_whitebox_attack():
    values = {"networks": ["a"], "attacks": ["b"], "whitebox": {"pgd": {**PGD, "eps_stp": 1}}}
    refused(
        p.EvaluateParams,
        values,
        "here.whitebox.pgd.eps_stp is not a known key; allowed: method, eps_step, max_iter",
    )


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (p.ThreatParams, {"eps": 0}, "here.eps: should be greater than 0 (found 0)"),
        (p.ThreatParams, {"eps": 1.1}, "here.eps: should be less than or equal to 1 (found 1.1)"),
        (p.ThreatParams, {"eps": float("nan")}, "here.eps: should be"),
        (p.ThreatParams, {"eps": "0,3"}, "here.eps: should be a valid number"),
        (p.PrepareParams, {"val_size": -1}, "here.val_size: should be greater than or equal to 0"),
        (p.PrepareParams, {"val_size": 0, "train_size": 0}, "here.train_size: should be greater"),
        (p.RelevanceParams, {"k": 0}, "here.k: should be greater than or equal to 1 (found 0)"),
        (p.RelevanceParams, {"k": 2.5}, "here.k: should be a valid integer"),
        (p.RelevanceParams, {"k": 2, "epsilon": 0}, "here.epsilon: should be greater than 0"),
        (p.SuspiciousnessParams, {"k": 2, "formula": "x"}, "'tarantula', 'ochiai' or 'dstar'"),
        (p.SuspiciousnessParams, {"k": 2, "activation_threshold": -1}, "activation_threshold: sho"),
        (p.ComputeParams, {"device": "tpu"}, "here.device: should be 'auto', 'cpu' or 'cuda'"),
        (p.GenerateParams, {"label": "guess"}, "here.label: should be 'true' or 'predicted'"),
        (p.ReportParams, {"grid_columns": 21}, "here.grid_columns: should be less than or equal"),
        (p.EvaluateParams, {"networks": [], "attacks": ["a"], "whitebox": {}}, "here.networks: "),
        (p.TrainDgnParams, {"loss": "", "training": TRAINING}, "here.loss: "),
        (
            p.AdaptiveParams,
            {"bank": "nce", "training": TRAINING, "images_per_class": 0},
            "here.images_per_class: should be greater than or equal to 1",
        ),
        (
            p.EvaluateParams,
            {"networks": ["a"], "attacks": ["b"], "surrogate": {**PGD, "num_random_init": 2}},
            "here.surrogate: num_random_init should be 0 or 1",
        ),
    ],
)
def test_out_of_range_names_key_and_range(model, values, message):
    refused(model, values, message)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", 0),
        ("learning_rate", 2),
        ("epochs", 0),
        ("batch_size", 0),
        ("decay_rate", 0),
        ("decay_rate", 1.5),
        ("decay_steps", 0),
        ("momentum", 1),
        ("momentum", -0.1),
        ("weight_decay", -1),
        ("schedule", "cosine"),
    ],
)
def test_training_ranges(key, value):
    refused(
        p.TrainDgnParams, {"loss": "nce", "training": {**TRAINING, key: value}}, f"training.{key}: "
    )


@pytest.mark.parametrize("key", TRAINING)
def test_training_has_no_default_budget(key):
    refused(
        p.TrainingParams,
        {name: value for name, value in TRAINING.items() if name != key},
        f"here.{key} is missing",
    )


def test_no_mapping_is_refused():
    refused(p.RelevanceParams, None, "here must be a mapping of k, epsilon, found nothing")
    refused(p.RelevanceParams, 3, "here must be a mapping of k, epsilon, found 3")
    refused(
        p.TrainDgnParams,
        {"loss": "nce", "training": None},
        "here.training must be a mapping of learning_rate, epochs, batch_size, schedule",
    )


@pytest.mark.parametrize("key", ["eps_step", "max_iter", "num_random_init"])
def test_fgsm_refuses_what_is_pgds_and_pgd_needs_it(key):
    refused(p.AttackParams, {"method": "fgsm", key: 1}, f"here: fgsm does not take {key}")
    refused(p.AttackParams, {k: v for k, v in PGD.items() if k != key}, f"here: pgd needs {key}")


def test_pgd_without_random_start_is_allowed():
    assert p.AttackParams.model_validate({**PGD, "num_random_init": 0}).num_random_init == 0


def test_params_are_frozen():
    params = p.ThreatParams(eps=0.3)
    with pytest.raises(ValidationError, match="frozen"):
        params.eps = 0.5


# Reading


def test_load_takes_the_nested_section(tmp_path):
    file = tmp_path / "params.yaml"
    training = "{epochs: 3, batch_size: 5, learning_rate: 1e-3}"
    file.write_text(f"train_dgn: {{mnist: {{nce: {{loss: nce, training: {training}}}}}}}")
    params = p.load(file, p.TrainDgnParams, "train_dgn", "mnist", "nce")
    assert (params.loss, params.output, params.options) == ("nce", "image", {})
    # YAML 1.1 reads 1e-3 as text; the model still takes it for the number that it is.
    assert params.training == p.TrainingParams(epochs=3, batch_size=5, learning_rate=0.001)


def test_load_names_the_whole_key(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("relevance: {mnist: {k: -4}}")
    with pytest.raises(ParamsError, match=r"^params\.yaml: relevance\.mnist\.k: .*\(found -4\)$"):
        p.load(file, p.RelevanceParams, "relevance", "mnist")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("b",), "params.yaml: b is missing; the file has: a, c"),
        (("a", "y"), "params.yaml: a.y is missing; a has: x"),
        (("a", "x", "z"), "params.yaml: a.x.z is missing; a.x has: no keys"),
    ],
)
def test_missing_section_lists_the_ones_there(keys, message):
    with pytest.raises(ParamsError, match=f"^{re.escape(message)}$"):
        p.section({"a": {"x": 1}, "c": {}}, *keys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1, 2", "is not valid YAML"),
        (b"a: \xff\xfe", "is not valid YAML"),
        (b"- 1\n- 2\n", "must be a mapping of sections, found list"),
        (b"", "must be a mapping of sections, found NoneType"),
        (b"!!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_what_is_no_yaml_mapping_is_refused_in_one_line(tmp_path, content, message):
    file = tmp_path / "params.yaml"
    file.write_bytes(content)
    with pytest.raises(ParamsError) as caught:
        p.read_params(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(ParamsError, match=r"params\.yaml is missing: run this from the project's"):
        p.read_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("name", profile.names(PROJECT))
def test_every_profile_passes_the_check(name):
    tree = profile.settings(PROJECT, name)
    assert params_check.check(tree, way_of) == ["mnist", "cifar10"]
    profile.check_all(PROJECT, tree)


# What a user may take out, of dvc.yaml and of params.yaml


def taken_out(tmp_path: Path, datasets: list[str], params: dict[str, Any]) -> Workspace:
    """The project with other settings, and another list of data sets."""
    dvc = yaml.safe_load((PROJECT.root / "dvc.yaml").read_text())
    dvc["vars"][0]["datasets"] = datasets
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(dvc))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copytree(PROJECT.root / "profiles", tmp_path / "profiles")
    return Workspace(tmp_path)


@pytest.mark.parametrize("left", ["mnist", "cifar10"])
@pytest.mark.parametrize("everywhere", [True, False])
def test_without_a_data_set_every_profile_passes(tmp_path, left, everywhere):
    tree = profile.settings(PROJECT, "default")
    if everywhere:
        for section in MODELS:
            tree[section] = {left: tree[section][left]}
    ws = taken_out(tmp_path, [left], tree)
    for name in profile.names(ws):
        profile.check_all(ws, profile.settings(ws, name))


def test_without_a_loss_or_an_attack_the_check_passes(tmp_path):
    tree = profile.settings(PROJECT, "default")
    for dataset in ("mnist", "cifar10"):
        tree["attack"][dataset] = {}
        gone = ["nce", "nce-ball", "suspiciousness", "fgsm", "pgd", "pgd20-study", "pgd-study"]
        for name in gone:
            tree["train_dgn"][dataset].pop(name, None)
            tree["adversarial_train"][dataset].pop(name, None)
        for key in ("networks", "attacks"):
            names = tree["evaluate"][dataset][key]
            tree["evaluate"][dataset][key] = [name for name in names if name not in gone]
        tree["evaluate"][dataset]["adaptive"]["bank"] = "lrp"
    ws = taken_out(tmp_path, ["mnist", "cifar10"], tree)
    profile.check_all(ws, tree)


@pytest.mark.parametrize("text", ["{}", "vars: 3", "vars: [other.yaml, {datasets: mnist}]"])
def test_without_a_list_in_dvc_yaml_sections_are_held_against_each_other(tmp_path, text):
    tree = profile.settings(PROJECT, "default")
    ws = taken_out(tmp_path, [], tree)
    (tmp_path / "dvc.yaml").write_text(text)
    profile.check_all(ws, tree)
    del tree["threat"]["cifar10"]
    with pytest.raises(ParamsError, match=r"threat\.cifar10 is missing; threat must have: mnist"):
        profile.check_all(ws, tree)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("train_target", "mnist", "epohcs"), 3, r"train_target\.mnist\.epohcs is not a known key"),
        (("evaluate", "mnist", "witebox"), {}, r"evaluate\.mnist\.witebox is not a known key"),
        (("attack", "mnist", "fgsm", "eps_step"), 0.1, "fgsm does not take eps_step"),
        (("trian_dgn",), {}, "trian_dgn is no known section; allowed: seed, compute"),
        (("compute", "precision"), "int4", r"compute\.precision: should be"),
    ],
)
def test_a_mistake_anywhere_shows_before_any_stage(keys, value, message):
    tree = profile.settings(PROJECT, "default")
    place = tree
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    with pytest.raises(ParamsError, match=message):
        params_check.check(tree, way_of)


# A network that learns together with a generator

ONLINE = {
    "type": "online",
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
    "training": TRAINING,
}


@pytest.mark.parametrize("values", [None, [], "x"])
def test_without_hardened_networks_none_learns_with_a_generator(values):
    tree = {"adversarial_train": {"mnist": values}}
    assert p.online_names(tree, "mnist") == []
    assert p.online_names({"adversarial_train": {"mnist": {"a": ONLINE, "b": None}}}, "mnist") == [
        "a"
    ]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "nce",
            {},
            r"adversarial_train\.mnist\.nce: type online trains a generator of its own name",
        ),
        ("mine", {"loss": "nec"}, r"adversarial_train\.mnist\.mine\.loss: unknown loss 'nec'"),
        ("mine", {"loss": "nce", "options": {"x": 1}}, r"mine\.options\.x is not a known key"),
        ("mine", {"loss": "nce", "options": {"mse_weight": 0.5}}, None),
    ],
)
def test_names_and_losses_of_type_online_are_checked(name, change, message):
    tree = profile.settings(PROJECT, "default")
    tree["adversarial_train"]["mnist"][name] = ONLINE | change
    if message is None:
        profile.check_all(PROJECT, tree)
        return
    with pytest.raises(ParamsError, match=message):
        profile.check_all(PROJECT, tree)
