"""Rows added and removed: the text of the file, the rows of each kind of item, and what runs left."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pipeline_fixtures import ROOT, adding_project, call_main, own_modules, resolve

from deepcustom.base.errors import InputError, ParamsError, UnknownNameError
from deepcustom.base.params import read_params
from deepcustom.base.rows import LAYOUTS, row, rows
from deepcustom.data.datasets import DatasetSpec, SplitFacts, save_spec
from deepcustom.library.starting import LOSS
from deepcustom.pipeline import workspace
from deepcustom.pipeline.change import added
from deepcustom.pipeline.change.draft import Draft
from deepcustom.pipeline.change.forecast import in_words
from deepcustom.pipeline.change.plan import Change, adding, removing
from deepcustom.pipeline.change.text import with_row, without_row
from deepcustom.pipeline.check import check
from deepcustom.pipeline.outputs import READ_WHOLE, outputs, whole_folders
from deepcustom.pipeline.profile import laid_over
from deepcustom.pipeline.template import TEMPLATE
from deepcustom.pipeline.workspace import Workspace

MARGIN = {
    "loss": "examples.margin_loss:MarginLoss",
    "given": {"options": {"kappa": 0.0, "margin_weight": 1.0, "mse_weight": 1.0}},
}

TEXTS = {
    "comments and blank lines": (
        "# Head.\nseed: 1\n\n# Banks.\nrows:\n  # The first.\n  a-x:  # beside\n    k: 1  # one\n"
        "    # within a-x\n  # The second.\n  b-y:\n    k: 2\n    # still b-y\n\n"
        "# Sets.\nmore:\n  c: {k: 3}\n"
    ),
    "rows on one line": "rows:\n  a: {k: 1, deep: {l: 2}}\n  b: {k: 2}\nmore: {}\n",
    "an empty section": "seed: 1\nrows: {}\nmore:\n  c: {k: 3}\n",
    "an empty section with a comment": "rows: {}  # none yet\nmore: {c: {k: 3}}\n",
    "an empty section at the end": "more: {c: {k: 3}}\nrows: {}",
    "no end of the last line": "more: {}\nrows:\n  a: {k: 1}",
    "a comment at the end": "rows:\n  a: {k: 1}\n# The end.\n",
    "a section on one line": "rows: {a: {k: 1}, b: {k: 2}}\nmore: {}\n",
    "lines of another system": "rows:\r\n  a:\r\n    k: 1\r\n# Next.\r\nmore: {}\r\n",
    "deeper steps": "rows:\n    a:\n        k: 1\n        l:\n        - 1\n        - 2\nmore: {}\n",
    "long text": "rows:\n  a:\n    k: |\n      # no comment\n      text\n\nmore: {}\n",
    "text in quotes": "rows:\n  'a': {k: \"x: # y\"}\n\n\nmore: {}\n",
    "an anchor in the row before": "rows:\n  a: &same\n    k: 1\n  b: *same\nmore: {}\n",
    "other letters": "rows:\n  a: {k: grün}  # größer\nmore: {}\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_row_comes_and_goes_and_every_other_byte_stays(text: str) -> None:
    row = {"k": 1e-06, "name": "x:y", "deep": {"one": 1, "none": None}, "label": "true"}
    more = with_row(text, "rows", "new", row)
    tree = yaml.safe_load(text)
    tree["rows"] = {**tree["rows"], "new": row}
    assert yaml.safe_load(more) == tree
    assert list(yaml.safe_load(more)) == list(yaml.safe_load(text))
    kept = [line for line in text.splitlines() if "rows:" not in line]
    assert [line for line in more.splitlines() if line in kept] == kept, "no line is changed"
    assert without_row(more, "rows", "new") == text


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_row_follows_the_one_that_it_is_like(text: str) -> None:
    names = list(yaml.safe_load(text)["rows"])
    for like in names:
        more = with_row(text, "rows", "new", {"k": 1}, like=like)
        assert without_row(more, "rows", "new") == text
        if "{a" not in text:
            assert list(yaml.safe_load(more)["rows"]).index("new") == names.index(like) + 1


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_row_can_be_taken_out(text: str) -> None:
    tree = yaml.safe_load(text)
    for name in tree["rows"]:
        if "&same" in text and name == "a":
            with pytest.raises(ParamsError, match="edit it by hand"):
                without_row(text, "rows", name)
            continue
        rest = yaml.safe_load(without_row(text, "rows", name))
        assert rest["rows"] == {key: v for key, v in tree["rows"].items() if key != name}
        assert {key: v for key, v in rest.items() if key != "rows"} == {
            key: v for key, v in tree.items() if key != "rows"
        }


def test_a_comment_that_is_indented_deeper_goes_with_its_row_and_others_stay() -> None:
    text = TEXTS["comments and blank lines"]
    rest = without_row(text, "rows", "a-x")
    assert "within a-x" not in rest
    assert "# The first." in rest
    assert "# The second." in rest


# Whole items, in a copy of this project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Workspace]:
    with own_modules():
        yield adding_project(tmp_path)


def settings_of(ws: Workspace) -> dict[str, bytes]:
    files = [ws.params, *sorted((ws.root / "profiles").iterdir())]
    return {file.name: file.read_bytes() for file in files}


ADDED: dict[str, tuple[Callable[[Draft], None], tuple[str, ...], list[str]]] = {
    "a bank with a loss of one's own": (
        lambda d: added.add_bank(d, "mnist", "margin", MARGIN["loss"], None, MARGIN["given"]),
        ("bank", "mnist", "margin"),
        ["train_dgn.mnist-margin", "generate.mnist-margin-test"],
    ),
    "a bank with a loss of the study": (
        lambda d: added.add_bank(d, "cifar10", "lrp2", "lrp", None, {"training": {"epochs": 1}}),
        ("bank", "cifar10", "lrp2"),
        ["train_dgn.cifar10-lrp2", "generate.cifar10-lrp2-test"],
    ),
    "an attack": (
        lambda d: added.add_attack(d, "mnist", "pgd5", "pgd", None, {"max_iter": 5}),
        ("attack", "mnist", "pgd5"),
        ["attack.mnist-pgd5-test"],
    ),
    "an online network": (
        lambda d: added.add_network(d, "cifar10", "online2", "online", None, {"max_iter": 1}),
        ("network", "cifar10", "online2"),
        ["train_online.cifar10-online2"],
    ),
    "a network of type madry": (
        lambda d: added.add_network(d, "mnist", "madry2", "madry", None, {}),
        ("network", "mnist", "madry2"),
        ["adversarial_train.mnist-madry2"],
    ),
    "a network on a set that is not there yet": (
        lambda d: added.add_network(d, "mnist", "pgd-study", "goodfellow", None, {}),
        ("network", "mnist", "pgd-study"),
        ["attack.mnist-pgd-study-train", "adversarial_train.mnist-pgd-study"],
    ),
    "a subject": (
        lambda d: added.add_subject(d, "small", "mnist", {"threat": {"eps": 0.2}}),
        ("subject", "small"),
        [],
    ),
    "a subject with little": (
        lambda d: added.add_subject(d, "small", "mnist", {}, only=["nce-ball", "madry"]),
        ("subject", "small"),
        [
            "subjects.small",
            "train_target.small",
            "relevance.small",
            "suspiciousness.small",
            "train_dgn.small-nce-ball",
            "generate.small-nce-ball-train",
            "generate.small-nce-ball-test",
            "adversarial_train.small-nce-ball",
            "adversarial_train.small-madry",
            "evaluate.small",
            "report.small",
            "gallery.small",
        ],
    ),
}


@pytest.mark.parametrize("what", ADDED)
def test_an_item_comes_and_goes_and_the_settings_are_what_they_were(
    project: Workspace, what: str
) -> None:
    draw, item, names = ADDED[what]
    before, there = settings_of(project), set(project.root.rglob("*"))
    change = adding(project, draw)
    assert settings_of(project) == before, "drawn up, and nothing changed"
    assert not names or [row.partition(",")[0] for row in change.rows] == names
    change.make()
    tree = read_params(project.params)
    assert tree == change.tree
    rows_added = [row.partition(",")[0] for row in change.rows]
    for name in rows_added:
        section, _, key = name.partition(".")
        assert key in tree[section]
    gone = removing(project, *item)
    assert sorted(gone.rows) == sorted(rows_added)
    gone.make()
    assert settings_of(project) == before
    kept = {project.root / folder for s in ("mnist", "cifar10") for folder in whole_folders(s)}
    left = {path for path in project.root.rglob("*") if path.is_file()} - there
    assert {path.parent for path in left} <= kept, "folders of subjects that are still there"


def test_what_a_new_bank_says(project: Workspace) -> None:
    tree = adding(project, ADDED["a bank with a loss of one's own"][0]).tree
    assert tree["train_dgn"]["mnist-margin"] == {
        "subject": "mnist",
        "dataset": "mnist",
        "bank": "margin",
        "recipe": "mnist-bank",
        "loss": MARGIN["loss"],
        "options": {"kappa": 0.0, "margin_weight": 1.0, "mse_weight": 1.0},
        "code": "examples/margin_loss.py",
        "reads": "models/target/mnist.safetensors",
    }
    assert tree["generate"]["mnist-margin-test"] == {
        "subject": "mnist",
        "dataset": "mnist",
        "bank": "margin",
        "split": "test",
        "recipe": "dgn-images",
    }


def test_a_new_row_takes_over_what_its_sibling_says_itself(project: Workspace) -> None:
    tree = adding(project, ADDED["an online network"][0]).tree
    old, new = (tree["train_online"][f"cifar10-{name}"] for name in ("online", "online2"))
    assert new == {**old, "network": "online2", "max_iter": 1}


def test_steps_follow_the_radius_of_a_new_subject(project: Workspace) -> None:
    tree = adding(project, ADDED["a subject"][0]).tree
    assert tree["subjects"]["small"] == {
        **tree["subjects"]["mnist"],
        "threat": {"norm": "linf", "eps": 0.2},
    }
    assert row(tree, "attack", "small", "pgd", "test").settings["eps_step"] == pytest.approx(0.02)
    assert tree["train_online"]["small-online"]["eps_step"] == pytest.approx(0.1)
    assert tree["evaluate"]["small"]["whitebox"]["pgd"]["eps_step"] == pytest.approx(0.02)
    assert tree["train_dgn"]["small-lrp"]["reads"] == "data/analysis/small/relevance.safetensors"
    count = {s: sum(k.startswith("small") for k in tree[s]) for s in LAYOUTS if s != "prepare"}
    assert count == {s: sum(k.startswith("mnist") for k in tree[s]) for s in count}


def test_steps_follow_the_radius_of_another_subject(project: Workspace) -> None:
    """A subject without such a row borrows one; lines say so."""
    removing(project, "network", "mnist", "online").make()
    change = adding(project, lambda d: added.add_network(d, "mnist", "online", "online", None, {}))
    step = change.tree["train_online"]["mnist-online"]["eps_step"]
    assert step == pytest.approx(0.0313 * 0.3 / 0.0313)
    assert change.rows == ["train_online.mnist-online, like train_online.cifar10-online"]


@pytest.mark.parametrize(("classes", "told"), [(3, False), (20, False), (21, True), (100, True)])
def test_with_many_classes_a_bank_is_told_the_label(
    project: Workspace, classes: int, told: bool
) -> None:
    """In a subject like one of few classes, and in a bank without another beside it."""
    facts = SplitFacts(1, "0" * 64, "1" * 64)
    names = tuple(f"class {label}" for label in range(classes))
    spec = DatasetSpec("own", "Own", (1, 28, 28), names, {"train": facts, "test": facts})
    place = project.root / workspace.dataset("own")
    place.parent.mkdir(parents=True)
    save_spec(spec, place)
    tree = read_params(project.params)
    tree["prepare"] = {**tree["prepare"], "own": tree["prepare"]["mnist"]}
    draft = Draft(project.root, tree)
    added.add_subject(draft, "like", "mnist", {"dataset": "own"}, only=["nce", "madry"])
    expected = ("conditional", "perturbation") if told else ("per_class", "image")
    one = row(draft.tree, "train_dgn", "like", "nce")
    assert (one.settings["generator"], one.settings["output"]) == expected
    added.add_bank(draft, "like", "nce2", "nce", None, {})  # as its sibling
    two = row(draft.tree, "train_dgn", "like", "nce2")
    assert two.settings == one.settings
    draft.tree["train_dgn"] = {}
    for given in ({}, {"generator": "per_class"}):
        added.add_bank(draft, "like", f"b{len(given)}", "nce", "mnist-bank", given)
        alone = row(draft.tree, "train_dgn", "like", f"b{len(given)}").settings
        assert alone["generator"] == ("per_class" if given else expected[0])
        assert alone["output"] == expected[1]


def test_steps_follow_a_radius_that_is_a_fraction(project: Workspace) -> None:
    """In the new subject, in the one that it is like, and in its steps."""
    text = project.params.read_text()
    for number, same in (("eps: 0.3}", "eps: 3/10}"), ("eps_step: 0.15", "eps_step: 3/20")):
        assert text.count(number) == 1
        text = text.replace(number, same)
    project.params.write_text(text)
    given = {"threat": {"eps": "2/10"}}
    adding(project, lambda d: added.add_subject(d, "small", "mnist", given)).make()
    tree = read_params(project.params)
    assert tree["subjects"]["small"]["threat"]["eps"] == "2/10"
    assert tree["train_online"]["small-online"]["eps_step"] == pytest.approx(0.1)
    assert row(tree, "attack", "small", "pgd", "test").settings["eps_step"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("words", "eps"),
    [
        (("--eps", "8/255"), "8/255"),
        (("--set", "threat.eps=8/255"), "8/255"),
        (("--eps", "0.2"), 0.2),
        (("--eps", "2e-1"), 0.2),
    ],
)
def test_a_radius_on_the_command_line_may_be_a_fraction(
    project: Workspace, words: tuple[str, ...], eps: Any
) -> None:
    assert call_main(project.root, "add", "subject", "near", "--like", "mnist", *words) == 0
    assert read_params(project.params)["subjects"]["near"]["threat"]["eps"] == eps


@pytest.mark.parametrize("eps", ["8/0", "much", "8/255/2", "-1/255", "300/255"])
def test_a_radius_that_is_none_is_one_line(
    project: Workspace, capsys: pytest.CaptureFixture[str], eps: str
) -> None:
    before = settings_of(project)
    assert call_main(project.root, "add", "subject", "near", "--like", "mnist", "--eps", eps) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "subjects.near.threat.eps: should be" in line
    assert settings_of(project) == before


def test_a_bank_without_a_loss_gets_the_one_that_the_help_names(
    project: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call_main(project.root, "add", "bank", "mine", "--subject", "mnist") == 0
    assert read_params(project.params)["train_dgn"]["mnist-mine"]["loss"] == LOSS
    capsys.readouterr()
    assert call_main(project.root, "add", "bank", "--help") == 0
    assert f"by default {LOSS}" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_numbers_as_people_write_them(project: Workspace) -> None:
    text = project.params.read_text().replace("eps_step: 0.15", "eps_step: 15e-2")
    project.params.write_text(text)
    before = settings_of(project)
    adding(project, ADDED["a subject"][0]).make()
    tree = read_params(project.params)
    assert tree["train_online"]["small-online"]["eps_step"] == pytest.approx(0.1)
    removing(project, "subject", "small").make()
    assert settings_of(project) == before


@pytest.mark.parametrize(
    "profile",
    [
        "",
        "# nothing yet\n",
        "train_dgn:\n  mnist-nce: null\n  mnist-lrp: null\n",
        "train_dgn: {mnist-nce: null}\n",
        "subjects: {cifar10: null}\n",
        "- a list\n",
        "train_dgn: [1]\n",
        "a: b: c\n",
    ],
)
def test_whatever_a_profile_holds(project: Workspace, profile: str) -> None:
    (project.root / "profiles/mine.yaml").write_text(profile)
    before = settings_of(project)
    draw = lambda d: added.add_bank(d, "mnist", "b", "nce", None, {})  # noqa: E731
    if profile in ("- a list\n", "a: b: c\n"):
        with pytest.raises(ParamsError, match=r"^profiles/mine\.yaml"):
            adding(project, draw)
    else:
        adding(project, draw).make()
        removing(project, "bank", "mnist", "b").make()
    assert settings_of(project) == before


def test_a_profile_without_a_subject_has_none_of_its_rows(project: Workspace) -> None:
    over = {"subjects": {"cifar10": None}, "report": {"mnist": None}}
    tree = laid_over(read_params(project.params), over)
    check(project.root, tree)
    assert list(tree["subjects"]) == ["mnist"]
    assert tree["report"] == {}
    stages = [stage for stage in LAYOUTS if stage not in ("prepare", "page")]
    left = {one.subject for stage in stages for one in rows(tree, stage)}
    assert left == {"mnist"}


def test_what_was_stopped_can_be_added_again(project: Workspace) -> None:
    before = settings_of(project)
    draw = ADDED["an online network"][0]
    adding(project, draw).make()
    project.params.write_bytes(before["params.yaml"])  # stopped before this one
    adding(project, draw).make()
    smoke = (project.root / "profiles/smoke.yaml").read_text()
    assert smoke.count("cifar10-online2") == 1
    removing(project, "network", "cifar10", "online2").make()
    assert settings_of(project) == before


def test_a_profiles_own_row_of_that_name_is_not_covered(project: Workspace) -> None:
    smoke = project.root / "profiles/smoke.yaml"
    text = smoke.read_text().replace(
        "train_online:\n", "train_online:\n  cifar10-online2: {noise: 0.1}\n"
    )
    smoke.write_text(text)
    before = settings_of(project)
    with pytest.raises(InputError, match=r"profiles/smoke\.yaml has train_online\.cifar10-online2"):
        adding(project, ADDED["an online network"][0])
    assert settings_of(project) == before


def test_the_last_subject_stays(project: Workspace) -> None:
    removing(project, "subject", "cifar10").make()
    with pytest.raises(InputError, match="mnist is the last subject"):
        removing(project, "subject", "mnist")


def test_a_profile_says_of_the_new_row_what_it_says_of_its_twin(project: Workspace) -> None:
    adding(project, ADDED["an online network"][0]).make()
    smoke = read_params(project.root / "profiles/smoke.yaml")["train_online"]
    assert smoke["cifar10-online2"] == smoke["cifar10-online"]


REFUSED: dict[str, tuple[Callable[[Draft], None], type[Exception], str]] = {
    "a subject that is not there": (
        lambda d: added.add_bank(d, "mnits", "b", "nce", None, {}),
        UnknownNameError,
        "unknown subject 'mnits'.*mnist, cifar10",
    ),
    "a loss that is not there": (
        lambda d: added.add_bank(d, "mnist", "b", "ncee", None, {}),
        UnknownNameError,
        "unknown loss 'ncee'.*lrp",
    ),
    "an option that lacks": (
        lambda d: added.add_bank(d, "mnist", "b", MARGIN["loss"], None, {}),
        ParamsError,
        "train_dgn.mnist-b.options: kappa, margin_weight, mse_weight are missing",
    ),
    "a key that is not known": (
        lambda d: added.add_bank(d, "mnist", "b", "nce", None, {"lss": 1}),
        ParamsError,
        "train_dgn.mnist-b.lss is not a known key",
    ),
    "a name that is taken": (
        lambda d: added.add_bank(d, "mnist", "nce", "nce", None, {}),
        InputError,
        "has train_dgn.mnist-nce already",
    ),
    "a name that is no file's": (
        lambda d: added.add_bank(d, "mnist", "../b", "nce", None, {}),
        ParamsError,
        "names files",
    ),
    "a recipe that is not there": (
        lambda d: added.add_bank(d, "mnist", "b", "nce", "fast", {}),
        ParamsError,
        "recipes.fast is missing",
    ),
    "a method that is not there": (
        lambda d: added.add_attack(d, "mnist", "b", "bim", None, {}),
        InputError,
        "--method 'bim'.*fgsm, pgd",
    ),
    "a way that is not there": (
        lambda d: added.add_network(d, "mnist", "b", "trades", None, {}),
        UnknownNameError,
        "way of hardening 'trades'.*goodfellow",
    ),
    "a set that nothing makes": (
        lambda d: added.add_network(d, "mnist", "b", "goodfellow", None, {}),
        InputError,
        "no bank or attack b; there are: lrp",
    ),
    "a subject on images that are not there": (
        lambda d: added.add_subject(d, "s", "mnist", {"dataset": "svhn"}),
        UnknownNameError,
        "unknown data set 'svhn'",
    ),
    "a subject with something unknown": (
        lambda d: added.add_subject(d, "s", "mnist", {}, only=["nce-bal"]),
        UnknownNameError,
        "unknown bank, attack or network of mnist 'nce-bal'",
    ),
    "a subject without what its evaluation needs": (
        lambda d: added.add_subject(d, "s", "mnist", {}, only=["lrp"]),
        ParamsError,
        "evaluate.s.adaptive.bank: 'nce-ball' is not there",
    ),
}


REFUSED |= {
    "a recipe of another method": (
        lambda d: added.add_attack(d, "mnist", "a", "fgsm", "mnist-pgd", {}),
        InputError,
        "recipe mnist-pgd has method 'pgd', and 'fgsm' was asked for",
    ),
    "a recipe of another way": (
        lambda d: added.add_network(d, "mnist", "a", "madry", "art-fgsm", {}),
        InputError,
        "recipe art-fgsm has type 'art', and 'madry' was asked for",
    ),
    "a name that is a number": (
        lambda d: added.add_bank(d, "mnist", "08", "nce", None, {}),
        InputError,
        "'08' cannot be a name",
    ),
    "a name that is no text": (
        lambda d: added.add_attack(d, "mnist", "null", "pgd", None, {}),
        InputError,
        "'null' cannot be a name",
    ),
    "a key that is no setting": (
        lambda d: added.add_bank(d, "mnist", "b", "nce", None, {"code": "src/x.py"}),
        InputError,
        "--set code",
    ),
    "a subject with no threat": (
        lambda d: added.add_subject(d, "s", "mnist", {"threat": None}),
        ParamsError,
        "subjects.s.threat must be a mapping",
    ),
    "a subject with a radius of 0": (
        lambda d: added.add_subject(d, "s", "mnist", {"threat": {"eps": 0}}),
        ParamsError,
        "subjects.s.threat.eps",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_added_is_one_line_and_nothing_changes(
    project: Workspace, what: str
) -> None:
    draw, error, message = REFUSED[what]
    before = settings_of(project)
    with pytest.raises(error, match=message) as found:
        adding(project, draw).make()
    assert "\n" not in str(found.value)
    assert settings_of(project) == before


def test_what_the_rest_needs_cannot_be_removed(project: Workspace) -> None:
    before = settings_of(project)
    with pytest.raises(
        ParamsError, match=r"evaluate\.mnist\.adaptive\.bank: 'nce-ball' is not there"
    ):
        removing(project, "bank", "mnist", "nce-ball")
    with pytest.raises(UnknownNameError, match=r"unknown bank of mnist 'margin'.*lrp, nce"):
        removing(project, "bank", "mnist", "margin")
    with pytest.raises(UnknownNameError, match="unknown subject 'svhn'"):
        removing(project, "subject", "svhn")
    assert settings_of(project) == before


def test_a_bank_goes_with_its_sets_and_the_network_that_learned_from_them(
    project: Workspace,
) -> None:
    assert sorted(removing(project, "bank", "mnist", "lrp").rows) == [
        "adversarial_train.mnist-lrp",
        "generate.mnist-lrp-test",
        "generate.mnist-lrp-train",
        "relevance.mnist",
        "train_dgn.mnist-lrp",
    ]
    assert sorted(removing(project, "network", "mnist", "lrp").rows) == [
        "adversarial_train.mnist-lrp",
        "generate.mnist-lrp-train",
    ]
    assert removing(project, "network", "mnist", "madry").rows == ["adversarial_train.mnist-madry"]


def test_an_analysis_comes_with_the_first_loss_that_needs_it_and_goes_with_the_last(
    project: Workspace,
) -> None:
    """Its settings all stand in its row; where the images are prepared, it counts their values."""
    removing(project, "bank", "mnist", "lrp").make()
    facts = SplitFacts(1, "0" * 64, "1" * 64)
    spec = DatasetSpec("mnist", "M", (3, 28, 28), ("0", "1"), {"train": facts, "test": facts})
    options = {"options": {"custom_loss_constant": 0.5}}

    def bank(name: str) -> Change:
        return adding(project, lambda d: added.add_bank(d, "mnist", name, "lrp", None, options))

    usual = {"dataset": "mnist", "k": 20, "epsilon": 1e-6, "method": "lrp"}
    assert bank("a").tree["relevance"]["mnist"] == usual
    place = project.root / workspace.dataset("mnist")
    place.parent.mkdir(parents=True)
    save_spec(spec, place)
    first = bank("a")
    assert first.rows == ["relevance.mnist", "train_dgn.mnist-a", "generate.mnist-a-test"]
    assert first.tree["relevance"]["mnist"] == {**usual, "k": 61}
    first.make()
    second = bank("b")
    assert "relevance.mnist" not in second.rows
    second.make()
    given = {"loss": "lrp", **options}
    adding(
        project, lambda d: added.add_network(d, "mnist", "online-lrp", "online", None, given)
    ).make()
    for kind, name in (("bank", "a"), ("bank", "b")):
        change = removing(project, kind, "mnist", name)
        assert "relevance.mnist" not in change.rows
        change.make()
    assert "relevance.mnist" in removing(project, "network", "mnist", "online-lrp").rows


def test_an_analysis_is_like_that_of_another_subject_with_the_same_images(
    project: Workspace,
) -> None:
    adding(project, ADDED["a subject"][0]).make()
    for bank in ("lrp", "suspiciousness"):
        removing(project, "bank", "mnist", bank).make()
    given = {"options": {"custom_loss_constant": 0.5}}
    change = adding(project, lambda d: added.add_bank(d, "mnist", "a", "lrp", None, given))
    assert change.rows[0] == "relevance.mnist, like relevance.small"


# What runs left


def leave(ws: Workspace) -> dict[str, Any]:
    """Files as a run of the online network of MNIST leaves them, with an entry of ``dvc.lock``."""
    outs = ["models/robust/mnist/online.safetensors", "models/dgn/mnist/online.safetensors"]
    for path in [*outs, "models/dgn/mnist/nce.safetensors"]:
        (ws.root / path).parent.mkdir(parents=True, exist_ok=True)
        (ws.root / path).write_bytes(b"weights")
    for folder in ("models/robust/mnist", "models/dgn/mnist"):
        (ws.root / folder / ".gitignore").write_text("/nce.safetensors\n/online.safetensors\n")
    unfinished = ws.checkpoint("train_online", "mnist-online")
    unfinished.mkdir(parents=True)
    metrics = "reports/metrics/mnist/train_online/online.json"
    (ws.root / metrics).parent.mkdir(parents=True)
    (ws.root / metrics).write_text("{}")
    record = ws.root / "reports/runs/mnist/train_online/online/curve.png"
    record.parent.mkdir(parents=True)
    record.write_bytes(b"")
    made = [{"path": p, "hash": "md5", "md5": "0" * 32, "size": 7} for p in [*outs, metrics]]
    lock = {
        "schema": "2.0",
        "stages": {
            "train_dgn@mnist-nce": {"cmd": "x", "outs": []},
            "train_online@mnist-online": {"cmd": "y", "outs": made},
            "report@mnist": {"cmd": "z", "params": {"params.yaml": {"epsilon": 1e-06}}},
        },
    }
    (ws.root / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
    return lock


def test_what_a_run_left_goes_too(project: Workspace) -> None:
    lock = leave(project)
    change = removing(project, "network", "mnist", "online")
    said = list(change.removed())
    assert "models/robust/mnist/online.safetensors" in said
    assert "dvc.lock: train_online@mnist-online" in said
    assert (project.root / "models/robust/mnist/online.safetensors").exists(), "so far only said"
    change.make()
    del lock["stages"]["train_online@mnist-online"]
    assert (project.root / "dvc.lock").read_text() == yaml.safe_dump(lock, sort_keys=False)
    assert (project.root / "models/dgn/mnist/nce.safetensors").exists()
    assert (project.root / "models/dgn/mnist/.gitignore").read_text() == "/nce.safetensors\n"
    left = [p.relative_to(project.root).as_posix() for p in project.root.rglob("*online*")]
    assert not [path for path in left if not path.startswith(("src", "reports/metrics"))]
    # DVC wants the folders that it hashes as a whole, if empty
    assert (project.root / "reports/metrics/mnist/train_online/.gitignore").read_text() == ""


def test_a_removal_that_was_stopped_can_be_repeated(
    project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(project)
    before = settings_of(project)
    change = removing(project, "network", "mnist", "online")
    monkeypatch.setattr("deepcustom.pipeline.change.plan.replace_file", stop)
    with pytest.raises(KeyboardInterrupt):
        change.make()
    assert settings_of(project) == before, "the rows go last"
    monkeypatch.undo()
    removing(project, "network", "mnist", "online").make()
    assert "mnist-online" not in read_params(project.params)["train_online"]


def test_only_what_a_row_makes_is_ever_removed(project: Workspace) -> None:
    """Whatever a lock or a record that came from elsewhere names."""
    lock = leave(project)
    named = ["src", "models", "../other", "/etc/passwd", "params.yaml", "reports/runs", ""]
    lock["stages"]["train_online@mnist-online"]["outs"] += [{"path": path} for path in named]
    (project.root / "dvc.lock").write_text(yaml.safe_dump(lock))
    said = list(removing(project, "network", "mnist", "online").removed())
    assert [line for line in said if line.startswith("dvc.lock: ")]
    assert all("online" in line for line in said)


def test_a_link_to_nothing_goes_too(project: Workspace) -> None:
    path = project.root / "models/robust/mnist/madry.safetensors"
    path.parent.mkdir(parents=True)
    path.symlink_to(project.root / "nowhere")
    removing(project, "network", "mnist", "madry").make()
    assert not path.is_symlink()


def test_params_keep_their_mode_and_a_link_stays_one(project: Workspace) -> None:
    real = project.root / "settings.yaml"
    project.params.rename(real)
    real.chmod(0o600)
    project.params.symlink_to(real)
    adding(project, ADDED["an attack"][0]).make()
    assert project.params.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert "mnist-pgd5-test" in read_params(real)["attack"]


def stop(*_: object) -> None:
    raise KeyboardInterrupt


def test_workspaces_of_profiles_are_cleared_as_well(project: Workspace) -> None:
    below = Workspace(project.root / "workspaces/smoke")
    below.root.mkdir(parents=True)
    (below.root / "dvc.yaml").write_text("stages: {}\n")
    below.params.write_text(yaml.safe_dump(read_params(project.params), sort_keys=False))
    leave(below)
    change = removing(project, "network", "mnist", "online")
    assert "workspaces/smoke/models/robust/mnist/online.safetensors" in list(change.removed())
    change.make()
    assert "mnist-online" not in read_params(below.params)["train_online"]
    assert not (below.root / "models/robust/mnist/online.safetensors").exists()


def held_lock(ws: Workspace) -> contextlib.AbstractContextManager[object]:
    from dvc.repo import Repo

    return Repo(str(ws.root)).lock  # type: ignore[no-any-return]


@contextlib.contextmanager
def running_stage(ws: Workspace) -> Iterator[None]:
    """A stage under ``dvc repro``, which lets go of DVC's lock meanwhile."""
    waits = "touch begun; while [ ! -e end ]; do sleep 0.1; done; touch data/slow"
    stage = {"cmd": waits, "outs": ["data/slow"]}
    (ws.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"slow": stage}}))
    run = subprocess.Popen([sys.executable, "-m", "dvc", "repro"], cwd=ws.root)
    try:
        while not (ws.root / "begun").exists():
            assert run.poll() is None
            time.sleep(0.1)
        yield
    finally:
        (ws.root / "end").touch()
        run.wait()


@pytest.mark.parametrize("work", [held_lock, running_stage])
def test_nothing_changes_while_dvc_is_at_work(project: Workspace, work: Any) -> None:
    leave(project)
    resolve(project.root)
    before = settings_of(project)
    change = removing(project, "network", "mnist", "online")
    more = adding(project, ADDED["an attack"][0])
    with work(project):
        for one in (change, more):
            with pytest.raises(InputError, match="DVC is at work"):
                one.make()
    assert (project.root / "models/robust/mnist/online.safetensors").exists()
    assert settings_of(project) == before
    change.make()
    assert not (project.root / "models/robust/mnist/online.safetensors").exists()


def test_what_a_row_makes_is_what_dvc_says_of_it(tmp_path: Path) -> None:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    found = resolve(tmp_path).instances
    tree = read_params(tmp_path / "params.yaml")
    for stage in LAYOUTS:
        for one in rows(tree, stage) if stage != "prepare" else ():
            assert set(outputs(one)) == found[f"{stage}@{one.name}"].paths


def test_folders_that_are_read_whole_are_those_of_the_template() -> None:
    stages = yaml.safe_load(TEMPLATE.read_text())["stages"]
    made = {
        out if isinstance(out, str) else next(iter(out))
        for stage in stages.values()
        for kind in ("outs", "metrics", "plots")
        for out in stage["do"].get(kind, [])
    }
    whole = set()
    for one in stages.values():
        for dep in (dep for dep in one["do"]["deps"] if "${key}" in dep and dep not in made):
            if not Path(dep).suffix and not dep.startswith(("data/prepared", "reports/training")):
                whole.add(dep.replace("${key}", "{}"))
    assert whole == set(READ_WHOLE)


# What will run


def test_the_forecast_is_what_dvc_would_run(project: Workspace) -> None:
    """A new row is a new stage; what is made from it runs again, and reports and page show all."""
    for what in ADDED:
        if "subject" in what:
            continue
        ws = Workspace(project.root)
        before = settings_of(ws)
        change = adding(ws, ADDED[what][0])
        change.make()
        pipeline = resolve(ws.root)
        new = {row.partition(",")[0].replace(".", "@", 1) for row in change.rows}
        shows = {one.name for stage in ("report", "page") for one in pipeline.of(stage)}
        subject = ADDED[what][1][1]
        made = {f"evaluate@{subject}"}
        if any(row.startswith(("generate@", "attack@")) for row in new):
            made.add(f"gallery@{subject}")
        assert {one.stage for one in change.expected} == new | shows | made
        assert new <= set(pipeline.instances)
        removing(ws, *ADDED[what][1]).make()
        assert settings_of(ws) == before


def test_minutes_come_from_earlier_records(project: Workspace) -> None:
    shutil.copytree(ROOT / "reports/runs", project.root / "reports/runs")
    change = adding(project, ADDED["an online network"][0])
    found = {one.stage: one for one in change.expected}
    from deepcustom.tracking.record import RunRecord

    like = RunRecord.read(ROOT / "reports/runs/cifar10/train_online/online")
    assert found["train_online@cifar10-online2"].seconds == pytest.approx(like.seconds)
    whole = RunRecord.read(ROOT / "reports/runs/cifar10/evaluate")
    scored = found["evaluate@cifar10"].seconds
    assert scored is not None
    assert 0.05 * whole.seconds < scored < 0.5 * whole.seconds
    assert in_words(change.expected)[-1].startswith("about ")


def test_without_records_no_minutes_are_named(project: Workspace) -> None:
    change = adding(project, ADDED["an attack"][0])
    assert in_words(change.expected)[-1] == "how long that takes, no earlier record tells"


# The commands


def test_the_commands(project: Workspace, capsys: Any) -> None:
    before = settings_of(project)
    words = ["add", "bank", "margin", "--subject", "mnist", "--loss", str(MARGIN["loss"])]
    words += ["--set", "options={kappa: 0, margin_weight: 1e-3}", "--set", "options.mse_weight=1"]
    assert call_main(project.root, *words, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "+  mnist-margin:" in out
    assert "would add train_dgn.mnist-margin" in out
    assert settings_of(project) == before
    assert call_main(project.root, *words) == 0
    assert (
        read_params(project.params)["train_dgn"]["mnist-margin"]["options"]["margin_weight"] == 1e-3
    )
    assert call_main(project.root, *words) == 2
    assert "has train_dgn.mnist-margin already" in capsys.readouterr().err
    assert call_main(project.root, "remove", "bank", "margin", "--subject", "mnist") == 0
    assert settings_of(project) == before
    assert call_main(project.root, "remove", "bank", "margin", "--subject", "mnist") == 2
    assert call_main(project.root, *words[:-1], "mse_weight") == 2
    assert "want KEY=VALUE" in capsys.readouterr().err
    twice = ["--set", "options.kappa=0", "--set", "options.kappa=1"]
    assert call_main(project.root, *words, *twice) == 2
    assert "options.kappa is set twice" in capsys.readouterr().err


def test_registry_aliases_go(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    from deepcustom.tracking.store import drop_current

    assert drop_current(tmp_path, ["models/dgn/mnist/online.safetensors"]) == []
    assert not (tmp_path / "mlflow.db").exists(), "no store is made for it"
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    for name in ("mnist-dgn-online", "mnist-dgn-nce"):
        client.create_registered_model(name)
        version = client.create_model_version(name, source="file:///nowhere")
        client.set_registered_model_alias(name, "current", version.version)
    assert drop_current(tmp_path, ["models/dgn/mnist/online.safetensors"]) == ["mnist-dgn-online"]
    assert client.get_registered_model("mnist-dgn-online").aliases == {}
    assert client.get_registered_model("mnist-dgn-nce").aliases == {"current": 1}
