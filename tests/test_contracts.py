"""What has to agree between files: dvc.yaml, params, commands, stages, losses, packaging."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from pipeline_fixtures import ROOT, Instance, Pipeline, merged, resolve, walk_through

import deepcustom
from deepcustom import cli, stages
from deepcustom.attacks.losses import find_loss
from deepcustom.attacks.losses.base import ANALYSES
from deepcustom.base import rows as layout
from deepcustom.base.errors import ParamsError
from deepcustom.base.rows import TRAINING
from deepcustom.pipeline import workspace
from deepcustom.pipeline.check import check
from deepcustom.pipeline.code import PREFIX, closure, closure_of
from deepcustom.pipeline.code_lock import LOCK, write_lock
from deepcustom.pipeline.push import PUBLISHED
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.template import CHARTS, CHARTS_HERE, TEMPLATE, render
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.record import RunRecord

DVC: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SUBJECTS = list(PARAMS["subjects"])
SHARED = {"seed", "compute", "subjects", "recipes"}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("dag")
    for name in ("dvc.yaml", "params.yaml"):
        (folder / name).write_text((ROOT / name).read_text())
    return resolve(folder)


def banks(pipeline: Pipeline, subject: str) -> dict[str, Instance]:
    """Name of each bank of DGNs → the stage that trains it."""
    return {
        one.options["bank"]: one
        for one in pipeline.of("train_dgn")
        if one.options["subject"] == subject
    }


def loss_of(one: Instance) -> Any:
    return find_loss(PARAMS["train_dgn"][f"{one.options['subject']}-{one.options['bank']}"]["loss"])


def lacking(pipeline: Pipeline, params: dict[str, Any]) -> set[str]:
    """What a stage reads, but no stage makes or ``params`` does not hold: ``dvc repro`` would fail."""
    outs = {Path(out) for one in pipeline.instances.values() for out in one.paths}
    faults = set()
    for one in pipeline.instances.values():
        reads = {dep for dep in one.deps if dep.startswith(("data/", "models/", "reports/"))}
        if one.stage == "evaluate":  # its deps are folders; what it opens in them, the rows say
            subject = one.options["subject"]
            reads |= {workspace.network(subject, n) for n in layout.networks(params, subject)}
            sets = layout.adversarial_sets(params, subject)
            reads |= {workspace.adversarial(subject, "test", name) for name in sets}
        for path in reads:
            if not pipeline.makers(path) and outs.isdisjoint(Path(path).parents):
                faults.add(f"{one.name}: {path}")
        for key in one.params:
            below: Any = params
            for word in key.split("."):
                below = below.get(word) if isinstance(below, dict) else None
            if below is None:
                faults.add(f"{one.name}: {key}")
    return faults


# One word, five places


def test_a_stage_has_one_name_everywhere() -> None:
    commands = [c.name for c in cli.app.registered_commands if c.rich_help_panel == cli.STAGES]
    in_folder = {file.stem for file in (ROOT / "src/deepcustom/stages").glob("[!_]*.py")}
    assert list(DVC["stages"]) == list(stages.NAMES)
    assert commands == list(stages.NAMES)
    assert in_folder == set(stages.NAMES)
    assert list(layout.LAYOUTS) == list(stages.NAMES)
    assert set(PARAMS) == set(stages.NAMES) | SHARED


def test_every_dvc_command_calls_its_stage_under_the_name_of_its_run(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    calls: list[tuple[str, ...]] = []
    for stage in stages.NAMES:
        module = importlib.import_module(f"deepcustom.stages.{stage}")
        monkeypatch.setattr(module, "run", lambda ws, *names, s=stage: calls.append((s, *names)))
    for one in pipeline.instances.values():
        program, command, *_ = one.words
        assert (program, command) == ("deepcustom", one.stage)
        cli.app(one.words[1:], standalone_mode=False)
        stage, *given = calls.pop()
        names = [
            name for name in given if isinstance(name, str)
        ]  # evaluate is told how to show it, too
        assert stage == one.stage
        assert StageRun(Workspace(ROOT), stage, *names).name == one.name
        item = layout.row(PARAMS, stage, *names).name
        assert RunRecord.model_construct(stage=stage, item=item).name == one.name
    assert {one.stage for one in pipeline.instances.values()} == set(stages.NAMES)


def test_one_row_is_one_run(pipeline: Pipeline) -> None:
    rows = {f"{stage}@{one.name}" for stage in stages.NAMES for one in layout.rows(PARAMS, stage)}
    assert set(pipeline.instances) == rows


def test_dvc_yaml_names_no_row() -> None:
    names = {name for section in (*stages.NAMES, "subjects", "recipes") for name in PARAMS[section]}
    words = set(re.findall(r"[\w-]+", TEMPLATE.read_text()))
    assert words & names == set()


def test_dvc_yaml_is_what_the_template_gives() -> None:
    assert (ROOT / "dvc.yaml").read_text() == render(ROOT), "`deepcustom upgrade` writes it anew"


def test_a_project_without_sources_depends_on_the_lock(tmp_path: Path) -> None:
    stages_of = yaml.safe_load(render(tmp_path))["stages"]
    for name, stage in stages_of.items():
        assert {"deepcustom.lock": [f"stages.{name}"]} in stage["do"]["params"]
        assert not [dep for dep in stage["do"]["deps"] if dep.startswith(PREFIX)]


def test_a_row_of_a_project_without_sources_names_the_lock_in_place_of_code(tmp_path: Path) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for stage in layout.LAYOUTS:
        for row in params[stage].values():
            ours = {key for key in ("code", "reads") if row.get(key, "").startswith(PREFIX)}
            row.update(dict.fromkeys(ours, LOCK))
    check(tmp_path, params)
    with pytest.raises(
        ParamsError, match=r"prepare\.mnist\.reads must be src/deepcustom/data/mnist\.py"
    ):
        check(ROOT, params)
    write_lock(tmp_path)
    (tmp_path / "dvc.yaml").write_text(render(tmp_path))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for one in resolve(tmp_path).instances.values():
        assert not [dep for dep in one.deps if dep.startswith(PREFIX)], one.name
        assert f"stages.{one.stage}" in one.params, one.name


def test_every_setting_reaches_a_stage(pipeline: Pipeline) -> None:
    """Each leaf of params.yaml lies below a key that some stage has among its params."""
    read = {key for one in pipeline.instances.values() for key in one.params}

    def leaves(tree: Any, place: str) -> set[str]:
        if isinstance(tree, dict) and tree:
            return set().union(*(leaves(v, f"{place}.{k}") for k, v in tree.items()))
        return {place}

    # The report reads whole sections, which would hide what no other stage reads.
    whole = {key for one in pipeline.of("report") for key in one.params if key in PARAMS} - SHARED
    own = read - whole - {"recipes"}
    unread = {
        leaf
        for key, below in PARAMS.items()
        for leaf in leaves(below, key)
        if not any(f"{leaf}.".startswith(f"{one}.") for one in own)
    }
    names = {f"subjects.{subject}.dataset" for subject in SUBJECTS}  # stands in the rows too
    assert unread - names == set()


def test_no_setting_has_a_default_in_the_code() -> None:
    """A default that decides a number would be hidden from DVC."""
    from deepcustom.base import settings
    from deepcustom.base.params import Params
    from deepcustom.hardening import online, ways

    models = [m for _, m in inspect.getmembers(settings, inspect.isclass)]
    models += [ways.way(name).Settings for name in ways.WAYS]
    models += [m for _, m in inspect.getmembers(online, inspect.isclass)]
    models += [loss.Options for loss in map(find_loss, ("lrp", "nce", "suspiciousness"))]
    found = {
        f"{model.__name__}.{name}"
        for model in models
        if issubclass(model, Params)
        for name, field in model.model_fields.items()
        if not field.is_required()
    }
    # What goes with one method or schedule alone, and is refused with the others.
    staircase = {"TrainingParams.decay_rate", "TrainingParams.decay_steps"}
    pgd = {
        f"{model}.{key}"
        for model in ("AttackParams", "AttackSetParams")
        for key in ("eps_step", "max_iter", "num_random_init")
    }
    # What may be absent: then nothing is done.
    absent = {
        "ComputeParams": {"devices": None},
        "EngineParams": {"address": None},
        "NetworkParams": {"options": {}, "mean": (), "std": (), "layers": ()},
        "ArchitectureParams": {"options": {}},
        "AutoAttackParams": {"version": None},
        "TrainingParams": {"augment": None, "accumulate": None},
        "TargetParams": {
            "augment": None,
            "accumulate": None,
            "weights": None,
            "decay_rate": None,
            "decay_steps": None,
        },
    }
    for model, defaults in absent.items():
        fields = getattr(settings, model).model_fields
        assert {
            key: fields[key].get_default(call_default_factory=True, validated_data={})
            for key in defaults
        } == defaults
    nothing = {f"{model}.{key}" for model, defaults in absent.items() for key in defaults}
    # What decides no number.
    waiting = {"EngineParams.patience"}
    assert found == staircase | pgd | nothing | waiting


# What depends on what


def code_of(one: Instance) -> set[str]:
    return {dep for dep in one.deps if not dep.startswith(("data/", "models/", "reports/"))}


def test_each_stage_depends_on_all_the_code_that_it_runs(pipeline: Pipeline) -> None:
    for one in pipeline.instances.values():
        row = PARAMS[one.stage][one.name.partition("@")[2]]
        named = {row.get("code"), row.get("reads")} - {None}
        wanted = {PREFIX + path for path in closure(one.stage)}
        own = {path for path in named if path.endswith(".py")}
        assert code_of(one) == wanted | own
        for path in own:
            assert set(closure_of(path, ROOT)) <= wanted | own, (one.name, path)
    files = set().union(*(code_of(one) for one in pipeline.instances.values()))
    assert {path for path in files if not (ROOT / path).is_file()} == set()


def test_a_module_of_one_row_touches_that_row_alone(pipeline: Pipeline) -> None:
    def with_code(path: str) -> set[str]:
        return {one.name for one in pipeline.instances.values() if path in one.deps}

    assert with_code("src/deepcustom/attacks/losses/lrp.py") == {
        f"train_dgn@{subject}-lrp" for subject in SUBJECTS
    }
    assert with_code("src/deepcustom/hardening/madry.py") == {  # a card says how it trained
        name for of in SUBJECTS for name in (f"adversarial_train@{of}-madry", f"report@{of}")
    }
    assert with_code("src/deepcustom/data/mnist.py") == {"prepare@mnist"}


def test_every_dependency_on_data_is_made_by_a_stage(pipeline: Pipeline) -> None:
    assert lacking(pipeline, PARAMS) == set()


def test_a_bank_depends_on_its_loss_and_on_the_analysis_it_requires(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # where a user's own loss is imported from
    trained = pipeline.of("train_dgn")
    assert trained
    for one in trained:
        loss, subject = loss_of(one), one.options["subject"]
        source = Path(inspect.getsourcefile(loss) or "").resolve().relative_to(ROOT).as_posix()
        assert source in one.deps, one.name
        folder = f"data/analysis/{subject}"
        read = {dep for dep in one.deps if dep == folder or dep.startswith(f"{folder}/")}
        wanted = {f"{folder}/{analysis}.safetensors" for analysis in loss.requires}
        if len(wanted) > 1:  # a row has room for one path, so the folder
            wanted = {folder}
        assert read == wanted, one.name


def test_training_never_sees_the_test_split(pipeline: Pipeline) -> None:
    training = pipeline.of(
        "train_target",
        "relevance",
        "suspiciousness",
        "train_dgn",
        "adversarial_train",
        "train_online",
    )
    training += [
        one for one in pipeline.of("generate", "attack") if one.options["split"] == "train"
    ]
    assert {one.stage for one in training} == set(stages.NAMES) - {
        "prepare",
        "evaluate",
        "report",
        "gallery",
        "page",
    }
    for one in training:
        assert [dep for dep in one.deps if "test" in dep] == []
        before = pipeline.upstream(one.name)
        assert not [name for name in before if name.endswith("-test")]
        assert not [
            name for name in before if name.startswith(("evaluate", "report", "gallery", "page"))
        ]


def test_only_evaluate_reads_the_clean_test_split_and_makers_of_test_sets(
    pipeline: Pipeline,
) -> None:
    readers = {
        one.name
        for one in pipeline.instances.values()
        if any(dep.startswith("data/prepared/") and dep.endswith("/test") for dep in one.deps)
    }
    assert readers == {
        one.name
        for one in pipeline.instances.values()
        if one.stage == "evaluate" or one.name.endswith("-test")
    }


def touched(pipeline: Pipeline, key: str) -> set[str]:
    """The stages that run again when the params below ``key`` change; reports read every row."""
    direct = {
        one.name
        for one in pipeline.instances.values()
        for read in one.params
        if f"{key}.".startswith(f"{read}.") or f"{read}.".startswith(f"{key}.")
        if one.stage != "report"
    }
    return pipeline.downstream(direct)


def of_banks(pipeline: Pipeline, subject: str, names: set[str]) -> set[str]:
    """All that a change of some banks' own settings may touch."""
    made = {f"train_dgn@{subject}-{name}" for name in names}
    for one in pipeline.of("generate", "adversarial_train"):
        own = one.options.get("bank", one.options.get("network"))
        if one.options["subject"] == subject and own in names:
            made.add(one.name)
    shown = {f"{stage}@{subject}" for stage in ("evaluate", "report", "gallery")}
    return made | shown | {"page@index"}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_change_of_one_bank_touches_that_bank_alone(pipeline: Pipeline, subject: str) -> None:
    for name in banks(pipeline, subject):
        key = f"train_dgn.{subject}-{name}.options"
        assert touched(pipeline, key) == of_banks(pipeline, subject, {name})


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_change_of_a_recipe_touches_the_rows_that_name_it(
    pipeline: Pipeline, subject: str
) -> None:
    key = f"recipes.{subject}-bank.output"
    assert touched(pipeline, key) == of_banks(pipeline, subject, set(banks(pipeline, subject)))


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("analysis", ANALYSES)
def test_a_change_of_an_analysis_touches_the_banks_that_require_it(
    pipeline: Pipeline, subject: str, analysis: str
) -> None:
    users = {n for n, one in banks(pipeline, subject).items() if analysis in loss_of(one).requires}
    expected = of_banks(pipeline, subject, users) | {f"{analysis}@{subject}"}
    assert touched(pipeline, f"{analysis}.{subject}.k") == expected


def test_a_change_of_suspiciousness_on_mnist_in_full(pipeline: Pipeline) -> None:
    again = touched(pipeline, "suspiciousness.mnist.k")
    assert {
        "suspiciousness@mnist",
        "train_dgn@mnist-suspiciousness",
        "generate@mnist-suspiciousness-train",
        "generate@mnist-suspiciousness-test",
        "adversarial_train@mnist-suspiciousness",
        "evaluate@mnist",
        "report@mnist",
    } <= again
    others = ("lrp", "nce", "fgsm", "pgd", "relevance", "target", "prepare")
    assert not [name for name in again if any(other in name for other in others)]


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_subjects_threat_touches_what_is_made_within_it(pipeline: Pipeline, subject: str) -> None:
    again = touched(pipeline, f"subjects.{subject}.threat.eps")
    assert f"train_target@{subject}" not in again
    other = next(name for name in SUBJECTS if name != subject)
    assert not [name for name in again if f"@{other}" in name]
    assert {
        f"train_dgn@{subject}-nce",
        f"attack@{subject}-fgsm-test",
        f"evaluate@{subject}",
    } <= again


@pytest.mark.parametrize("subject", SUBJECTS)
def test_evaluate_scores_all_networks_and_sets_there_are(pipeline: Pipeline, subject: str) -> None:
    def made(*names: str) -> list[Instance]:
        return [one for one in pipeline.of(*names) if one.options["subject"] == subject]

    hardened = made("adversarial_train", "train_online")
    networks = ["target", *(one.options["network"] for one in hardened)]
    sets = [
        one.options.get("bank") or one.options["attack"]
        for one in made("generate", "attack")
        if one.options["split"] == "test"
    ]
    assert sorted(layout.networks(PARAMS, subject)) == sorted(networks)
    assert sorted(layout.adversarial_sets(PARAMS, subject)) == sorted(sets)
    (evaluate,) = made("evaluate")
    needed = pipeline.upstream(evaluate.name)
    assert {one.name for one in [*hardened, *made("train_target")]} <= needed


def test_a_network_of_type_goodfellow_depends_on_the_set_of_its_name(pipeline: Pipeline) -> None:
    for one in pipeline.of("adversarial_train"):
        subject, name = one.options["subject"], one.options["network"]
        kind = layout.row(PARAMS, "adversarial_train", subject, name).settings["type"]
        sets = [dep for dep in one.deps if dep.startswith("data/adversarial/")]
        wanted = [f"data/adversarial/{subject}/train/{name}"]
        assert sets == (wanted if kind == "goodfellow" else [])
        assert f"src/deepcustom/hardening/{kind}.py" in one.deps
        assert ("src/deepcustom/attacks/art.py" in one.deps) == (kind == "art")


def test_a_network_that_trains_with_a_generator_leaves_both(pipeline: Pipeline) -> None:
    made = pipeline.of("train_online")
    assert {one.options["subject"] for one in made} == set(SUBJECTS)
    for one in made:
        subject, name = one.options["subject"], one.options["network"]
        assert set(one.paths) >= {
            f"models/robust/{subject}/{name}.safetensors",
            f"models/dgn/{subject}/{name}.safetensors",
        }
        assert not [dep for dep in one.deps if dep.startswith(("models/", "data/adversarial/"))]


# What docs/losses.md tells its reader to add


def followed(
    folder: Path, leave_out: tuple[str, ...] = ()
) -> tuple[Pipeline, dict[str, Any], set[str]]:
    """The project after the walk-through, without the rows named in ``leave_out``."""
    more = copy.deepcopy(walk_through())
    for name in leave_out:
        stage, _, row = name.partition("@")
        del more[stage][row]
    for stage, rows in more.items():
        assert not set(rows) & set(PARAMS[stage])
    params = merged(PARAMS, more)
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    pipeline = resolve(folder)
    return pipeline, params, lacking(pipeline, params)


def told(one: Instance) -> tuple[Any, ...]:
    outs = [(out.def_path, out.use_cache, out.can_push, out.is_metric) for out in one.outs]
    return one.words, one.deps, one.params, outs


MARGIN = (
    "train_dgn@mnist-margin",
    "generate@mnist-margin-train",
    "generate@mnist-margin-test",
    "adversarial_train@mnist-margin",
)


def test_the_walk_through_adds_its_stages_and_no_others(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after, params, faults = followed(tmp_path)
    assert faults == set()
    check(ROOT, params)
    new = after.instances.keys() - pipeline.instances.keys()
    assert new == set(MARGIN)
    before = {name: told(one) for name, one in pipeline.instances.items()}
    assert {n: told(one) for n, one in after.instances.items() if n not in new} == before
    assert after.upstream("evaluate@mnist") >= new
    assert not after.upstream("report@cifar10") & new
    monkeypatch.chdir(ROOT)
    loss = find_loss(params["train_dgn"]["mnist-margin"]["loss"])
    bank = after.instances["train_dgn@mnist-margin"]
    assert Path(inspect.getsourcefile(loss) or "") == ROOT / "examples/margin_loss.py"
    assert "examples/margin_loss.py" in bank.deps
    assert loss.requires == ()


@pytest.mark.parametrize(
    ("left_out", "expected"),
    [
        (
            MARGIN[0],
            {
                "generate@mnist-margin-train: models/dgn/mnist/margin.safetensors",
                "generate@mnist-margin-test: models/dgn/mnist/margin.safetensors",
            },
        ),
        (
            MARGIN[1],
            {"adversarial_train@mnist-margin: data/adversarial/mnist/train/margin"},
        ),
        (MARGIN[2], set()),
        (MARGIN[3], set()),
    ],
)
def test_a_step_of_the_walk_through_left_out_is_missed(
    tmp_path: Path, left_out: str, expected: set[str]
) -> None:
    assert followed(tmp_path, (left_out,))[2] == expected


def of_another_subject(tree: dict[str, Any], subject: str, of: str) -> dict[str, Any]:
    """``tree`` with a subject more, whose rows are those of another, in a smaller ball."""
    given, threat = tree["subjects"][of], {"norm": "linf", "eps": 0.1}
    found = {**tree, "subjects": {**tree["subjects"], subject: {**given, "threat": threat}}}
    for stage, one in layout.LAYOUTS.items():
        if not one.dataset:
            continue
        for name, row in tree[stage].items():
            if (name == of or name.startswith(f"{of}-")) and row.get("subject", of) == of:
                new = {**row, **({"subject": subject} if "subject" in row else {})}
                if "reads" in row:  # data/analysis/<subject>, models/target/<subject>.safetensors
                    place = rf"(/analysis/|/adversarial/|/target/){of}\b"
                    new["reads"] = re.sub(place, rf"\g<1>{subject}", row["reads"])
                found[stage] = {**found[stage], name.replace(of, subject, 1): new}
    return found


def test_two_subjects_share_images_and_nothing_else(pipeline: Pipeline, tmp_path: Path) -> None:
    params = of_another_subject(PARAMS, "near", "mnist")
    check(ROOT, params)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    after = resolve(tmp_path)
    assert lacking(after, params) == set()
    assert {one.name for one in after.of("prepare")} == {"prepare@mnist", "prepare@cifar10"}
    new = after.instances.keys() - pipeline.instances.keys()
    mnist = {name for name in pipeline.instances if "@mnist" in name} - {"prepare@mnist"}
    assert new == {name.replace("@mnist", "@near") for name in mnist}
    before = {name: told(one) for name, one in pipeline.instances.items()}
    assert {n: told(one) for n, one in after.instances.items() if n not in new} == before
    for name in new:
        one = after.instances[name]
        of_mnist = {path for path in (*one.deps, *one.paths) if re.search(r"/mnist\b", path)}
        images = "data/prepared/mnist/"
        shared = (images, "src/", "reports/metrics/mnist/prepare.json")
        assert {path for path in of_mnist if not path.startswith(shared)} == set(), name


# What DVC keeps


def test_what_is_published_is_cached_and_the_rest_is_hashed_alone(pipeline: Pipeline) -> None:
    """Plain `dvc pull` fetches every cached output, and fails where one is not in the remote."""
    for one in pipeline.instances.values():
        for out in one.outs:
            published = out.def_path.startswith(("models/", "data/analysis/", "data/gallery/"))
            assert out.use_cache == published, out.def_path
            assert out.can_push, out.def_path


def test_the_run_cache_serves_every_training_and_the_evaluation(pipeline: Pipeline) -> None:
    """A plain out that is not cached switches DVC's run cache off for its stage."""
    without = {
        one.stage
        for one in pipeline.instances.values()
        for out in one.outs
        if not (out.use_cache or out.is_metric or out.is_plot)
    }
    assert without == {"prepare", "generate", "attack", "report", "page"}


def test_every_plot_names_a_chart_its_axes_and_a_title(pipeline: Pipeline) -> None:
    plots = [out for one in pipeline.instances.values() for out in one.outs if out.is_plot]
    assert len(plots) > 30
    for out in plots:
        assert {"template", "x", "y", "title"} <= out.plot.keys(), out.def_path
        chart = json.loads((CHARTS / f"{out.plot['template']}.json").read_text())
        assert chart["title"]["text"] == "<DVC_METRIC_TITLE>"
        assert (ROOT / CHARTS_HERE / f"{out.plot['template']}.json").read_bytes() == (
            CHARTS / f"{out.plot['template']}.json"
        ).read_bytes()


def test_few_columns_are_metrics(pipeline: Pipeline) -> None:
    """`dvc exp show` has a column for each number in a file of metrics that is not a list."""
    files = [out for one in pipeline.instances.values() for out in one.outs if out.is_metric]
    shown = [json.loads((ROOT / out.def_path).read_text()) for out in files]
    headlines = [one for one in shown if not isinstance(one, list)]
    assert len(headlines) == 2
    assert sum(len(one) - 1 + len(one["worst"]) for one in headlines) <= 40


# The package


def test_imports_run_one_way(capsys: pytest.CaptureFixture[str]) -> None:
    from importlinter import cli as linter

    code = linter.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert code == 0, capsys.readouterr().out


def test_only_the_stages_that_need_art_load_it() -> None:
    """It takes seconds, and every stage is a process of its own."""
    needed = ("attack", "evaluate", "report", "page")  # the last two tell what the checks mean
    others = [f"deepcustom.stages.{name}" for name in stages.NAMES if name not in needed]
    said = f"import {', '.join(others)}; import sys; sys.exit('art' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said]).returncode == 0


def test_every_module_has_a_layer() -> None:
    layers = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    listed = [module for layer in layers for module in layer.split(" | ")]
    files = (ROOT / "src/deepcustom").glob("[!_]*")
    there = {file.stem for file in files if file.suffix == ".py" or (file / "__init__.py").exists()}
    assert sorted(listed) == sorted(f"deepcustom.{name}" for name in there)


def into_rooms() -> dict[str, set[str]]:
    """Room → its modules that modules outside it import."""
    used: dict[str, set[str]] = {}
    sources = Path(deepcustom.__file__).parent
    for path in sorted(sources.rglob("*.py")):
        inside = path.relative_to(sources).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(
                "deepcustom."
            ):
                continue
            room, *below = str(node.module).removeprefix("deepcustom.").split(".")
            for name in [] if room == inside else [alias.name for alias in node.names]:
                there = sources.joinpath(room, *below, name)
                deeper = [name] if there.with_suffix(".py").is_file() or there.is_dir() else []
                used.setdefault(room, set()).add(".".join([*below, *deeper]))
    return used


def test_the_commands_enter_each_stage() -> None:
    assert into_rooms()["stages"] == set(stages.NAMES)


@pytest.mark.parametrize("room", sorted(into_rooms().keys() - {"stages"}))
def test_a_room_is_entered_by_its_face(room: str) -> None:
    face = importlib.import_module(f"deepcustom.{room}")
    assert into_rooms()[room] <= set(face.FOR_OTHERS)
    assert list(face.FOR_OTHERS) == sorted(face.FOR_OTHERS)
    for name in face.FOR_OTHERS:
        importlib.import_module(f"deepcustom.{room}.{name}")


@pytest.mark.parametrize("name", sorted(deepcustom.HOMES))
def test_what_a_notebook_needs_is_at_the_top(name: str) -> None:
    assert getattr(deepcustom, name).__module__ == deepcustom.HOMES[name]


def test_what_is_published_comes_from_these_stages() -> None:
    assert set(PUBLISHED) == {*TRAINING, *ANALYSES, "gallery"}
    assert set(PUBLISHED) <= set(stages.NAMES)


def test_make_push_is_the_command_that_looks_at_sizes() -> None:
    (rule,) = re.findall(r"^push:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "deepcustom push" in rule
    assert "dvc push" not in rule


def test_workers_are_given_whole_files() -> None:
    """What the fixtures of a file make is made once; groups of pytest-xdist did not see to that."""
    text = (ROOT / "Makefile").read_text()
    (shared,) = re.findall(r"^SHARED := (.*)$", text, re.MULTILINE)
    assert "--dist loadfile" in shared
    calls = re.findall(r"bin/pytest\b|\(BIN\)/pytest\b", text)
    assert len(calls) == len(re.findall(r"pytest \$\(SHARED\)", text)) == 4


def test_console_script_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="deepcustom")
    assert {script.name: script.value} == PYPROJECT["project"]["scripts"]
    assert script.load() is cli.main


def test_license_is_there() -> None:
    project = PYPROJECT["project"]
    (file,) = project["license-files"]
    assert (ROOT / file).read_text().startswith(f"{project['license']} License")


def test_lock_pins_all_that_pyproject_asks_for() -> None:
    locks = (ROOT / "requirements.lock", ROOT / "benchmarks/requirements.lock")
    lines = [line for lock in locks for line in lock.read_text().splitlines()]
    pins: dict[str, list[Requirement]] = {}
    for line in lines:
        if line and not line.startswith("#"):
            pin = Requirement(line)
            pins.setdefault(normal(pin.name), []).append(pin)
    project = PYPROJECT["project"]
    extras = [text for group in project["optional-dependencies"].values() for text in group]
    for text in [*project["dependencies"], *extras]:
        wanted = Requirement(text)
        for pin in pins[normal(wanted.name)]:
            (version,) = pin.specifier
            assert version.operator == "=="
            assert wanted.specifier.contains(version.version), f"{pin} is not within {wanted}"


def test_lock_names_nothing_but_packages_and_versions() -> None:
    mark = r"[a-z_]+ [<>=!]+ '[A-Za-z0-9.]+'"
    pin = re.compile(rf"[a-z0-9][a-z0-9._-]*==[0-9][a-z0-9.]*( ; {mark}( (and|or) {mark})*)?")
    first, *lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert first.startswith("#")
    assert [line for line in lines if not pin.fullmatch(line)] == []
    assert lines == sorted(lines, key=lambda line: re.split("==", line)[0])


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
