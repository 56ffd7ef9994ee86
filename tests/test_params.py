"""What ``params.yaml`` may say: every profile's sections, and how mistakes are told."""

from __future__ import annotations

import copy
import importlib
import pkgutil
import re
import shutil
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

import deepcustom
from deepcustom.base import params as p
from deepcustom.base import rows
from deepcustom.base import settings as m
from deepcustom.base.errors import ParamsError, UnknownNameError
from deepcustom.base.params import Params, validate
from deepcustom.hardening.goodfellow import GoodfellowSettings
from deepcustom.hardening.online import OnlineSettings
from deepcustom.pipeline import profile
from deepcustom.pipeline.check import MODELS, check
from deepcustom.pipeline.workspace import Workspace

PROJECT = Workspace(Path(__file__).parents[1])
PROFILES = profile.names(PROJECT)

TRAINING = {
    "learning_rate": 1e-3,
    "epochs": 2,
    "batch_size": 10,
    "schedule": "constant",
    "momentum": 0.9,
    "weight_decay": 0.0,
}
PGD = {"method": "pgd", "eps_step": 0.01, "max_iter": 3, "num_random_init": 1, "batch_size": 10}
FGSM = {"method": "fgsm", "batch_size": 10}


def refused(model: type[p.Params], values: Any, message: str, where: str = "here") -> None:
    """The message is one line and holds ``message``."""
    with pytest.raises(ParamsError) as caught:
        p.validate(model, values, where)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def default() -> dict[str, Any]:
    return profile.settings(PROJECT, "default")


# The files of this project


def test_there_are_the_three_profiles():
    assert {"default", "paper", "smoke"} <= set(PROFILES)


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_passes_the_check(name):
    check(PROJECT.root, profile.settings(PROJECT, name))


@pytest.mark.parametrize("name", PROFILES)
def test_models_change_no_setting(name):
    """They refuse or let through, so that a change of them can decide no number."""
    tree = profile.settings(PROJECT, name)
    for stage, model in MODELS.items():
        for one in rows.rows(tree, stage):
            given = p.validate(model, one.settings, one.place).model_dump(mode="json")
            lacking = {"decay_rate", "decay_steps", "eps_step", "max_iter", "num_random_init"}
            lacking |= {"augment", "accumulate", "weights", "version"}
            assert without_none(given, lacking) == without_none(one.settings, lacking), one.place
    for subject, values in tree["subjects"].items():
        assert p.validate(m.SubjectParams, values, subject).model_dump(mode="json") == values
        network = {"name": "a.b:C", "options": {"width": 2}, "mean": [0.1], "std": [0.2]}
        more = {**values, "network": network}
        assert p.validate(m.SubjectParams, more, subject).model_dump(mode="json") == more


def without_none(value: Any, keys: set[str]) -> Any:
    """``value`` without those of ``keys`` that are None."""
    if isinstance(value, dict):
        return {
            key: without_none(below, keys)
            for key, below in value.items()
            if below is not None or key not in keys
        }
    return value


def test_unknown_profile_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"unknown profile 'papre'.*default.*paper.*smoke"):
        profile.settings(PROJECT, "papre")


# The study's published settings for MNIST, by row.
STAIRCASE = {"schedule": "staircase", "decay_rate": 0.9, "decay_steps": 1000}
HARDENED = {"schedule": "constant", "momentum": 0.9, "weight_decay": 0.0}
STUDY = {
    "train_target.mnist": {"learning_rate": 1e-3, "epochs": 20, "batch_size": 128},
    "relevance.mnist": {"k": 20},
    "suspiciousness.mnist": {"k": 20, "activation_threshold": 0.0, "formula": "tarantula"},
    "train_dgn.mnist-lrp": {
        "output": "image",
        "options": {"custom_loss_constant": 0.5},
        "training": {"learning_rate": 1e-4, "epochs": 150, "batch_size": 100, **STAIRCASE},
    },
    "train_dgn.mnist-nce": {
        "output": "image",
        "options": {"mse_weight": 1.0, "cross_entropy_weight": 1.0},
        "training": {"learning_rate": 1e-4, "epochs": 100, "batch_size": 100, **STAIRCASE},
    },
    "train_dgn.mnist-suspiciousness": {
        "output": "image",
        "options": {"custom_loss_constant": 0.8, "theta": 0.5, "gamma": 0.5},
        "training": {"learning_rate": 1e-5, "epochs": 600, "batch_size": 100, **STAIRCASE},
    },
    "generate.mnist-nce-test": {
        "clipping": True,
        "label": "true",
        "mis_classification_check": False,
    },
    "attack.mnist-fgsm-test": {"method": "fgsm"},
    "attack.mnist-pgd20-study-test": {"eps_step": 0.01, "max_iter": 20, "num_random_init": 10},
    "attack.mnist-pgd-study-test": {"eps_step": 0.01, "max_iter": 20, "num_random_init": 1},
    **{
        f"adversarial_train.mnist-{name}": {
            "type": "goodfellow",
            "clean_weight": 0.5,
            "training": {"learning_rate": rate, "epochs": epochs, "batch_size": 100, **HARDENED},
        }
        for name, rate, epochs in (
            ("lrp", 1e-3, 10),
            ("nce", 1e-3, 10),
            ("suspiciousness", 1e-4, 50),
            ("fgsm", 1e-3, 20),
            ("pgd", 1e-3, 20),
        )
    },
}


def holds(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return all(key in whole and holds(whole[key], value) for key, value in part.items())
    return whole == part


@pytest.mark.parametrize("place", STUDY)
def test_paper_profile_is_the_study(place):
    stage, _, name = place.partition(".")
    tree = profile.settings(PROJECT, "paper")
    (found,) = [one for one in rows.rows(tree, stage) if one.name == name]
    # numbers as text, such as 1e-3, are numbers to the models
    model = GoodfellowSettings if stage == "adversarial_train" else MODELS[stage]
    settings = p.validate(model, found.settings, place).model_dump(mode="json")
    assert holds(settings, STUDY[place])
    assert tree["subjects"]["mnist"]["threat"] == {"norm": "linf", "eps": 0.3}


# Mistakes


def test_misspelt_key_is_named_with_the_allowed_ones():
    refused(
        m.RelevanceParams,
        {"k": 3, "epsilon": 1, "method": "lrp", "kk": 3},
        "params.yaml: relevance.mnist.kk is not a known key; allowed: k, epsilon, method",
        "relevance.mnist",
    )


def test_misspelt_key_below_lists_what_is_allowed_there():
    values = {"type": "goodfellow", "clean_weight": 0.5, "training": {**TRAINING, "epoch": 3}}
    refused(
        GoodfellowSettings,
        values,
        "here.training.epoch is not a known key; allowed: learning_rate, epochs, batch_size, "
        "schedule, decay_rate, decay_steps, momentum, weight_decay",
    )


def test_misspelt_key_in_a_named_whitebox_attack():
    values = {"whitebox": {"pgd": {**PGD, "eps_stp": 1}}}
    refused(
        m.EvaluateParams,
        values,
        "here.whitebox.pgd.eps_stp is not a known key; allowed: method, eps_step, max_iter",
    )


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (
            m.ThreatParams,
            {"norm": "l1", "eps": 0.1},
            "here.norm: should be 'linf' or 'l2' (found 'l1')",
        ),
        (m.ThreatParams, {"norm": "l2", "eps": 0}, "here.eps: should be greater than 0 (found 0)"),
        (m.ThreatParams, {"eps": 0}, "here.eps: should be greater than 0 (found 0)"),
        (
            m.ThreatParams,
            {"norm": "linf", "eps": 1.1},
            "here.eps: should be less than or equal to 1 (found 1.1)",
        ),
        (m.ThreatParams, {"eps": float("nan")}, "here.eps: should be"),
        (m.ThreatParams, {"eps": "0,3"}, "here.eps: should be a valid number"),
        (m.ThreatParams, {"eps": True}, "here.eps: should be a number (found True)"),
        *(
            (m.ThreatParams, {"eps": text}, f"a fraction such as 8/255 (found {text!r})")
            for text in ("8/0", "8/0.0", "-8/255", "8/255/2", "/255", "8e1/255", "a/b", "8/")
        ),
        (
            m.ThreatParams,
            {"norm": "linf", "eps": "300/255"},
            "here.eps: should be less than or equal to 1",
        ),
        (m.ThreatParams, {"eps": "0/255"}, "here.eps: should be greater than 0 (found 0.0)"),
        (m.AttackParams, {**PGD, "eps_step": "8/0"}, "here.eps_step: should be a number, or a"),
        (m.AttackParams, {**PGD, "eps_step": True}, "here.eps_step: should be a number (found"),
        (m.AttackParams, {**PGD, "eps_step": 0}, "here.eps_step: should be greater than 0"),
        (m.PrepareParams, {"val_size": -1}, "here.val_size: should be greater than or equal to 0"),
        (m.PrepareParams, {"val_size": 0, "train_size": 0}, "here.train_size: should be greater"),
        (m.RelevanceParams, {"k": 0}, "here.k: should be greater than or equal to 1 (found 0)"),
        (m.RelevanceParams, {"k": 2.5}, "here.k: should be a valid integer"),
        (m.RelevanceParams, {"k": 2, "epsilon": 0}, "here.epsilon: should be greater than 0"),
        (m.SuspiciousnessParams, {"k": 2, "formula": "x"}, "'tarantula', 'ochiai' or 'dstar'"),
        (m.SuspiciousnessParams, {"k": 2, "activation_threshold": -1}, "activation_threshold: sho"),
        (m.ComputeParams, {"device": "tpu"}, "here.device: should be 'auto', 'cpu' or 'cuda'"),
        (m.GenerateParams, {"label": "guess"}, "here.label: should be 'true' or 'predicted'"),
        (m.ReportParams, {"grid_columns": 21}, "here.grid_columns: should be less than or equal"),
        (
            m.EvaluateParams,
            {"whitebox": {"pgd": FGSM}},
            "here.whitebox: should have a pgd of method",
        ),
        (m.ComputeParams, {"threads": 0}, "here.threads: should be auto, or an integer from 1 on"),
        (m.ComputeParams, {"threads": True}, "here.threads: should be auto, or an integer from"),
        (m.TrainDgnParams, {"loss": "", "training": TRAINING}, "here.loss: "),
        (
            m.AdaptiveParams,
            {"bank": "nce", "training": TRAINING, "images_per_class": 0},
            "here.images_per_class: should be greater than or equal to 1",
        ),
        (
            m.EvaluateParams,
            {"surrogate": {**PGD, "num_random_init": 2}},
            "here.surrogate: num_random_init should be 0 or 1",
        ),
    ],
)
def test_out_of_range_names_key_and_range(model, values, message):
    refused(model, values, message)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/255", 8 / 255),
        ("8 / 255", 8 / 255),
        ("2.5/255", 2.5 / 255),
        ("1/1", 1.0),
        (" 1/4 ", 0.25),
    ],
)
def test_a_fraction_is_its_value(text, value):
    threat = p.validate(m.ThreatParams, {"norm": "linf", "eps": text}, "here")
    assert threat.eps == value
    assert threat.model_dump(mode="json")["eps"] == value


def models_of_settings() -> set[type[p.Params]]:
    """Every model of settings that the package has."""
    for module in pkgutil.walk_packages(deepcustom.__path__, "deepcustom."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, new = set(), {p.Params}
    while new:
        found |= new
        new = {below for model in new for below in model.__subclasses__()} - found
    return {model for model in found if model.__module__.startswith("deepcustom.")}


def test_fractions_are_understood_in_every_length():
    lengths = {
        f"{model.__name__}.{name}": TypeAdapter(Annotated[field.annotation, name, *field.metadata])
        for model in models_of_settings()
        for name, field in model.model_fields.items()
        if name in ("eps", "eps_step", "radius")
    }
    assert {
        "ThreatParams.eps",
        "AttackParams.eps_step",
        "InnerParams.eps_step",
        "OnlineSettings.eps_step",
    } <= set(lengths)
    for name, adapter in lengths.items():
        assert adapter.validate_python("8/255") == 8 / 255, name


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
        m.TrainDgnParams, {"loss": "nce", "training": {**TRAINING, key: value}}, f"training.{key}: "
    )


@pytest.mark.parametrize("key", TRAINING)
def test_training_has_no_default_budget(key):
    refused(
        m.TrainingParams,
        {name: value for name, value in TRAINING.items() if name != key},
        f"here.{key} is missing",
    )


def test_no_mapping_is_refused():
    refused(m.RelevanceParams, None, "here must be a mapping of k, epsilon, method, found nothing")
    refused(m.RelevanceParams, 3, "here must be a mapping of k, epsilon, method, found 3")
    refused(
        m.TrainDgnParams,
        {"loss": "nce", "training": None},
        "here.training must be a mapping of learning_rate, epochs, batch_size, schedule",
    )


@pytest.mark.parametrize("key", ["eps_step", "max_iter", "num_random_init"])
def test_fgsm_refuses_what_is_pgds_and_pgd_needs_it(key):
    refused(m.AttackParams, FGSM | {key: 1}, f"here: fgsm does not take {key}")
    refused(m.AttackParams, {k: v for k, v in PGD.items() if k != key}, f"here: pgd needs {key}")


def test_pgd_without_random_start_is_allowed():
    assert m.AttackParams.model_validate({**PGD, "num_random_init": 0}).num_random_init == 0


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_a_staircase_alone_decays(schedule):
    decays = {"decay_rate": 0.9, "decay_steps": 5}
    refused(
        m.TrainingParams,
        {**TRAINING, "schedule": schedule, **decays},
        f"here: schedule {schedule} does not take decay_rate, decay_steps",
    )
    refused(
        m.TrainingParams,
        {**TRAINING, "schedule": "staircase", "decay_rate": 0.9},
        "here: schedule staircase needs decay_steps",
    )
    assert m.TrainingParams.model_validate({**TRAINING, "schedule": "staircase", **decays})


def test_params_are_frozen():
    params = m.ThreatParams(norm="linf", eps=0.3)
    with pytest.raises(ValidationError, match="frozen"):
        params.eps = 0.5


# Reading


def test_load_takes_the_nested_section(tmp_path):
    file = tmp_path / "params.yaml"
    training = "{epochs: 3, batch_size: 5, learning_rate: 1e-3, schedule: one_cycle, momentum: 0.9"
    file.write_text(f"train_target: {{mnist: {training}, weight_decay: 0}}}}")
    # YAML 1.1 reads 1e-3 as text; the model still takes it for the number that it is.
    assert p.load(file, m.TrainingParams, "train_target", "mnist").learning_rate == 0.001


def test_load_names_the_whole_key(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("relevance: {mnist: {k: -4, epsilon: 1, method: lrp}}")
    with pytest.raises(ParamsError, match=r"^params\.yaml: relevance\.mnist\.k: .*\(found -4\)$"):
        p.load(file, m.RelevanceParams, "relevance", "mnist")


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


# Rows and recipes


TREE = {
    "recipes": {"bank": {"output": "image", "training": {"epochs": 3, "batch_size": 5}}},
    "train_dgn": {
        "mnist-nce": {
            "subject": "mnist",
            "dataset": "mnist",
            "bank": "nce",
            "recipe": "bank",
            "code": "a.py",
            "reads": "b",
            "loss": "nce",
            "training": {"epochs": 6},
        }
    },
}


def test_a_row_takes_over_its_recipe_and_its_own_settings_win():
    row = rows.row(TREE, "train_dgn", "mnist", "nce")
    assert row.settings == {
        "output": "image",
        "training": {"epochs": 6, "batch_size": 5},
        "loss": "nce",
    }
    assert (row.name, row.subject, row.dataset) == ("mnist-nce", "mnist", "mnist")
    assert row.about["code"] == "a.py"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "bnak"}, "params.yaml: recipes.bnak is missing; recipes has: bank"),
        ({"code": None}, "params.yaml: train_dgn.mnist-nce.code must be text, found nothing"),
        ({"subject": 3}, "params.yaml: train_dgn.mnist-nce.subject must be text, found 3"),
    ],
)
def test_a_row_that_is_not_whole_is_refused(change, message):
    tree = copy.deepcopy(TREE)
    tree["train_dgn"]["mnist-nce"] |= change
    with pytest.raises(ParamsError, match=re.escape(message)):
        rows.row(tree, "train_dgn", "mnist", "nce")


def test_a_row_that_is_no_mapping_is_refused():
    with pytest.raises(ParamsError, match=r"mnist-nce must be a mapping of subject, dataset, bank"):
        rows.row({"train_dgn": {"mnist-nce": 3}}, "train_dgn", "mnist", "nce")


def test_networks_and_sets_are_those_of_the_rows():
    tree = default()
    assert rows.networks(tree, "mnist")[:2] == ["target", "lrp"]
    assert rows.networks(tree, "mnist")[-1] == "online"
    sets = ["lrp", "nce", "nce-ball", "suspiciousness", "fgsm", "pgd", "pgd20-study", "pgd-study"]
    assert rows.adversarial_sets(tree, "mnist") == sets
    assert rows.adversarial_sets(tree, "mnist", "train") == sets[:6]


def test_a_set_of_a_generator_that_learned_with_a_network_is_not_scored():
    tree = default()
    row = {"subject": "mnist", "dataset": "mnist", "bank": "online", "split": "test"}
    tree["generate"]["mnist-online-test"] = {**row, "recipe": "dgn-images"}
    check(PROJECT.root, tree)
    assert "online" not in rows.adversarial_sets(tree, "mnist")


# What a profile may take away


def of(tree: dict[str, Any], subject: str) -> list[tuple[str, str]]:
    """Section and name of every row of a subject."""
    return [(stage, one.name) for stage in rows.LAYOUTS for one in rows.rows(tree, stage, subject)]


def project(tmp_path: Path, over: dict[str, Any]) -> Workspace:
    """A project with a profile ``less`` of these settings."""
    shutil.copy(PROJECT.params, tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/less.yaml").write_text(yaml.safe_dump(over))
    return Workspace(tmp_path)


@pytest.mark.parametrize("gone", ["mnist", "cifar10"])
def test_a_profile_takes_a_subject_away(tmp_path, gone):
    over: dict[str, Any] = {"subjects": {gone: None}}
    for stage, name in of(default(), gone):
        over.setdefault(stage, {})[name] = None
    tree = profile.settings(project(tmp_path, over), "less")
    check(PROJECT.root, tree)
    assert gone not in tree["subjects"]
    assert of(tree, gone) == []


def test_a_profile_takes_a_row_away(tmp_path):
    over = {"attack": {"mnist-pgd20-study-test": None}}
    tree = profile.settings(project(tmp_path, over), "less")
    check(PROJECT.root, tree)
    assert "pgd20-study" not in rows.adversarial_sets(tree, "mnist")


def test_a_setting_may_be_null_in_a_profile(tmp_path):
    over = {"evaluate": {"cifar10": {"adaptive": {"images_per_class": None}}}}
    tree = profile.settings(project(tmp_path, over), "less")
    check(PROJECT.root, tree)
    assert rows.row(tree, "evaluate", "cifar10").settings["adaptive"]["images_per_class"] is None


# Mistakes in the file as a whole


def changed(keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The default settings with another value at one place; ``...`` removes it."""
    tree = default()
    place = tree
    for key in keys[:-1]:
        place = place[key]
    if value is ...:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return tree


ROW = {"subject": "mnist", "dataset": "mnist", "recipe": "mnist-pgd", "split": "test"}


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("train_target", "mnist", "epohcs"), 3, r"train_target\.mnist\.epohcs is not a known key"),
        (("evaluate", "mnist", "witebox"), {}, r"evaluate\.mnist\.witebox is not a known key"),
        (("attack", "mnist-fgsm-test", "eps_step"), 0.1, "fgsm does not take eps_step"),
        (("trian_dgn",), {}, "trian_dgn is no known section; allowed: seed, compute"),
        (("compute", "precision"), "int4", r"compute\.precision: should be"),
        (("compute", "threads"), ..., r"compute\.threads is missing"),
        (("attack",), 3, r"attack must be a mapping, found 3"),
        (("report",), ..., r"report is missing; the file has: seed"),
        (
            ("subjects", "mnist"),
            ...,
            r"train_target\.mnist is for the subject 'mnist', which is not",
        ),
        (("subjects", "mnist", "dataset"), "emnist", r"prepare\.emnist is missing"),
        (
            ("subjects", "cifar10", "dataset"),
            "mnist",
            r"dataset must be mnist, the data set of cifa",
        ),
        (
            ("subjects", "mnist", "threat", "eps"),
            2,
            r"subjects\.mnist\.threat\.eps: should be less",
        ),
        (("train_target", "mnist"), ..., r"train_target\.mnist is missing"),
        (
            ("attack", "mnist-pgd-tset"),
            ROW | {"attack": "pgd"},
            r"mnist-pgd-tset should be called mnist-pgd-test, after its subject, attack, split",
        ),
        (
            ("attack", "mnist-pgd-dev"),
            ROW | {"attack": "pgd", "split": "dev"},
            r"mnist-pgd-dev\.split: 'dev' is no split; allowed: train, val, test",
        ),
        (("attack", "mnist-nce-test"), ROW | {"attack": "nce"}, "a bank is called so already"),
        (
            ("attack", "mnist-PGD-test"),
            ROW | {"attack": "PGD"},
            r"mnist-PGD-test and attack\.mnist-pgd-test would write the same file, data/adversarial/mnist/"
            "test/PGD, where a file system takes capital letters for small ones: choose another name",
        ),
        (
            ("attack", "mnist-pgd-unclipped-test"),
            ROW | {"attack": "pgd-unclipped"},
            "no adversarial set called pgd-unclipped: the tables call pgd so, if its images leave",
        ),
        (
            ("evaluate", "mnist", "whitebox", "clean"),
            {"method": "fgsm", "batch_size": 10},
            r"evaluate\.mnist\.whitebox: should not name an attack clean",
        ),
        (
            ("attack", "mnist-a/b-test"),
            ROW | {"attack": "a/b"},
            r"names files: it must begin with a",
        ),
        (("attack", 7), ROW, r"attack\.7 must be text: quote it"),
        (("subjects", "mnist.v2"), {}, r"'mnist\.v2' names files: .* only these, '-' and '_'"),
        (("relevance", "mnist"), ..., r"relevance\.mnist is missing; relevance has: cifar10"),
        (
            ("subjects", "mnist", "network"),
            "nonsense",
            r"subjects\.mnist\.network: nonsense must be a class of deepcustom, or of a file in own/nets",
        ),
        (
            ("subjects", "mnist", "network"),
            "deepcustom.training.compute:Compute",
            r"subjects\.mnist\.network must be a subclass of torch\.nn\.Module",
        ),
        (
            ("subjects", "mnist", "network"),
            "own/nets/mine.pt2",
            r"mnist-\w+: own/nets/mine\.pt2 is an exported program, which cannot be trained: take out",
        ),
        (("suspiciousness",), {}, r"suspiciousness\.\w+ is missing; suspiciousness has: no keys"),
        (
            ("subjects", "mnist", "generator"),
            "torch.nn:Identity",
            r"subjects\.mnist\.generator: torch\.nn:Identity must be a class of deepcustom, or of a",
        ),
        (
            ("generate", "mnist-lrp-test", "bank"),
            "lpr",
            r"mnist-lrp-test should be called mnist-lpr-test",
        ),
        (
            ("train_dgn", "mnist-lrp"),
            ...,
            r"mnist-lrp-train\.bank: 'lrp' is not there; allowed: nce",
        ),
        (
            ("evaluate", "mnist", "adaptive", "bank"),
            "nce-bal",
            r"evaluate\.mnist\.adaptive\.bank: 'nce-bal' is not there; allowed: lrp, nce",
        ),
        (("adversarial_train", "mnist-lrp", "type"), "gfo", r"mnist-lrp\.type: unknown"),
        (
            ("generate", "mnist-lrp-train"),
            ...,
            r"mnist-lrp: type goodfellow trains on the set of its own name, and no row",
        ),
        (("train_dgn", "mnist-lrp", "loss"), "lpr", r"mnist-lrp\.loss: unknown loss 'lpr'"),
        (
            ("train_dgn", "mnist-nce", "options", "x"),
            1,
            r"mnist-nce\.options\.x is not a known key",
        ),
    ],
)
def test_a_mistake_anywhere_shows_before_any_stage(keys, value, message):
    with pytest.raises(ParamsError, match=message) as caught:
        check(PROJECT.root, changed(keys, value))
    assert "\n" not in str(caught.value)


# What a row names so that DVC sees it


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (
            "prepare.mnist.reads",
            "src/deepcustom/data/cifar10.py",
            "must be src/deepcustom/data/mnist",
        ),
        (
            "train_dgn.mnist-lrp.code",
            "src/deepcustom/attacks/losses/nce.py",
            "must be src/deepcustom/attacks/losses/lrp.py, the file of the loss lrp; found",
        ),
        (
            "train_dgn.mnist-lrp.reads",
            "models/target/mnist.safetensors",
            "must be data/analysis/mnist/relevance.safetensors, which the loss lrp requires",
        ),
        (
            "train_dgn.mnist-nce.reads",
            "data/analysis/mnist/relevance.safetensors",
            "must be models/target/mnist.safetensors, since the loss nce requires no analysis",
        ),
        (
            "adversarial_train.mnist-lrp.reads",
            "data/adversarial/mnist/train/nce",
            "must be data/adversarial/mnist/train/lrp, the set that it trains on",
        ),
        (
            "adversarial_train.mnist-madry.code",
            "src/deepcustom/hardening/art.py",
            "must be src/deepcustom/hardening/madry.py, the file of type madry",
        ),
        (
            "adversarial_train.mnist-fgsm-art.reads",
            "data/prepared/mnist/train",
            "imports src/deepcustom/attacks/art.py, which DVC would not see",
        ),
        (
            "train_online.mnist-online.reads",
            "data/prepared/mnist/val",
            "must be data/prepared/mnist/train, since no loss reads an analysis",
        ),
    ],
)
def test_code_and_reads_are_what_the_row_runs_and_reads(place, value, message):
    with pytest.raises(ParamsError, match=re.escape(message)):
        check(PROJECT.root, changed(tuple(place.split(".")), value))


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"generator": "none"}, "here"),
        ({"begin": 0.5, "end": 0.5}, "none of 2 epochs starts between begin 0.5 and end 0.5"),
        ({"begin": 0.6, "end": 0.9}, "none of 2 epochs starts between begin 0.6 and end 0.9"),
        ({"options": {"mse_weight": 1}}, "options go with a loss"),
        ({"epochs": 3}, "here.epochs is not a known key"),
        ({"updates": 0}, "here.updates: should be greater than or equal to 1"),
        ({"clean_weight": 1.0}, "here.clean_weight: should be less than 1"),
    ],
)
def test_what_hardening_with_a_generator_refuses(change, message):
    assert p.validate(OnlineSettings, ONLINE, "here").updates == 1
    refused(OnlineSettings, ONLINE | change, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "nce"}, r"trains a network and a generator of this name, but a bank"),
        ({"loss": "nec"}, r"train_online\.mnist-mine\.loss: unknown loss 'nec'"),
        ({"loss": "nce", "options": {"x": 1}}, r"mine\.options\.x is not a known key"),
        ({"loss": "nce", "options": {"mse_weight": 0.5, "cross_entropy_weight": 1}}, None),
    ],
)
def test_names_and_losses_of_a_network_with_a_generator_are_checked(change, message):
    tree = default()
    row = {
        "subject": "mnist",
        "dataset": "mnist",
        "network": "mine",
        "recipe": "online",
        "code": "src/deepcustom/attacks/losses/nce.py",
        "reads": "data/prepared/mnist/train",
        **ONLINE,
        **change,
    }
    tree["train_online"][f"mnist-{row['network']}"] = row
    if message is None:
        check(PROJECT.root, tree)
        return
    with pytest.raises(ParamsError, match=message):
        check(PROJECT.root, tree)


def test_all_keys_that_are_missing_are_named_at_once():
    class Weights(Params):
        a: float
        b: float
        c: float
        d: float

    class Outer(Params):
        weights: Weights
        n: int

    with pytest.raises(ParamsError) as caught:
        validate(Outer, {"weights": {"b": 1.0}}, "here")
    message = "params.yaml: here.weights: a, c, d are missing; here.n is missing"
    assert str(caught.value) == message
