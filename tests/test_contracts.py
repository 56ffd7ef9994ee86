"""What has to agree between files: dvc.yaml, params, commands, stages, losses, packaging."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from pipeline_fixtures import ROOT, Instance, Pipeline, by_name, resolve, walk_through

from deepcustom import cli, stages
from deepcustom.attacks.losses import find_loss
from deepcustom.attacks.losses.base import ANALYSES
from deepcustom.base.params import online_names
from deepcustom.base.params_check import check
from deepcustom.hardening.ways import way, way_of
from deepcustom.pipeline import workspace
from deepcustom.pipeline.run import StageRun
from deepcustom.pipeline.workspace import Workspace
from deepcustom.tracking.record import RunRecord

DVC: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
PARAMS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
DATASETS = list(PARAMS["prepare"])
SHARED = {"seed", "compute", "threat"}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("dag")
    for name in ("dvc.yaml", "params.yaml"):
        (folder / name).write_text((ROOT / name).read_text())
    return resolve(folder)


def banks(pipeline: Pipeline, dataset: str) -> dict[str, Instance]:
    """Name of each bank of DGNs → the stage that trains it."""
    return {
        one.options["loss"]: one
        for one in pipeline.of("train_dgn")
        if one.options["dataset"] == dataset
    }


def loss_of(one: Instance) -> Any:
    dataset, name = one.options["dataset"], one.options["loss"]
    return find_loss(PARAMS["train_dgn"][dataset][name]["loss"])


def lacking(pipeline: Pipeline, params: dict[str, Any]) -> set[str]:
    """What a stage reads, but no stage makes or ``params`` does not hold: ``dvc repro`` would fail."""
    outs = {Path(out) for one in pipeline.instances.values() for out in one.paths}
    faults = set()
    for one in pipeline.instances.values():
        reads = {dep for dep in one.deps if dep.startswith(("data/", "models/", "reports/"))}
        if one.stage == "evaluate":  # its deps are folders; what it opens in them, params say
            dataset = one.options["dataset"]
            scored = params["evaluate"][dataset]
            reads |= {workspace.network(dataset, name) for name in scored["networks"]}
            reads |= {workspace.adversarial(dataset, "test", name) for name in scored["attacks"]}
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
    # whose settings are those of a hardened network
    assert set(PARAMS) == set(stages.NAMES) - {"train_online"} | SHARED


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
        stage, dataset, *parts = calls.pop()
        assert stage == one.stage
        item = StageRun(Workspace(ROOT), stage, dataset, *parts).item
        assert RunRecord.model_construct(stage=stage, item=item).name == one.name
    assert {one.stage for one in pipeline.instances.values()} == set(stages.NAMES)


def test_every_section_of_params_is_read_by_a_stage(pipeline: Pipeline) -> None:
    read = {key for one in pipeline.instances.values() for key in one.params}
    deep = {"train_dgn", "attack", "adversarial_train"}  # a section per item, not per data set
    sections = {"seed", "compute"}
    for name in set(PARAMS) - sections:
        for dataset, below in PARAMS[name].items():
            items = [f".{item}" for item in below] if name in deep else [""]
            sections |= {f"{name}.{dataset}{item}" for item in items}
    # which the report and the models' cards describe
    whole = {f"{name}.{dataset}" for name in deep for dataset in PARAMS[name]}
    assert read - whole == sections


# What depends on what


def test_code_in_deps_is_there(pipeline: Pipeline) -> None:
    code = {dep for one in pipeline.instances.values() for dep in one.deps}
    code = {dep for dep in code if not dep.startswith(("data/", "models/", "reports/"))}
    assert {dep for dep in code if not (ROOT / dep).is_file()} == set()
    for one in pipeline.instances.values():
        assert f"src/deepcustom/stages/{one.stage}.py" in one.deps


def test_every_dependency_on_data_is_made_by_a_stage(pipeline: Pipeline) -> None:
    assert lacking(pipeline, PARAMS) == set()


def test_a_bank_depends_on_its_loss_and_on_the_analysis_it_requires(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # where a user's own loss is imported from
    trained = pipeline.of("train_dgn")
    assert trained
    for one in trained:
        loss, dataset = loss_of(one), one.options["dataset"]
        source = Path(inspect.getsourcefile(loss) or "").resolve().relative_to(ROOT).as_posix()
        assert source in one.deps, one.name
        folder = f"data/analysis/{dataset}"
        read = {dep for dep in one.deps if dep == folder or dep.startswith(f"{folder}/")}
        wanted = {f"{folder}/{analysis}.safetensors" for analysis in loss.requires}
        if len(wanted) > 1:  # dvc.yaml has room for one path, so the folder
            wanted = {folder}
        assert read == wanted, one.name
        if not wanted:
            assert "src/deepcustom/attacks/losses/__init__.py" in one.deps


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
    assert {one.stage for one in training} == set(stages.NAMES) - {"prepare", "evaluate", "report"}
    for one in training:
        assert [dep for dep in one.deps if "test" in dep] == []
        before = pipeline.upstream(one.name)
        assert not [name for name in before if name.endswith("-test")]
        assert not [name for name in before if name.startswith(("evaluate", "report"))]


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
    """The stages that run again when the params below ``key`` change."""
    direct = {
        one.name
        for one in pipeline.instances.values()
        for read in one.params
        if f"{key}.".startswith(f"{read}.") or f"{read}.".startswith(f"{key}.")
    }
    return pipeline.downstream(direct)


def of_banks(pipeline: Pipeline, dataset: str, names: set[str]) -> set[str]:
    """All that a change of some banks' own settings may touch."""
    made = {f"train_dgn@{dataset}-{name}" for name in names}
    for one in pipeline.of("generate", "adversarial_train"):
        own = one.options.get("loss", one.options.get("network"))
        if one.options["dataset"] == dataset and own in names:
            made.add(one.name)
    return made | {f"evaluate@{dataset}", f"report@{dataset}"}


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_change_of_one_bank_touches_that_bank_alone(pipeline: Pipeline, dataset: str) -> None:
    for name in banks(pipeline, dataset):
        key = f"train_dgn.{dataset}.{name}.options"
        assert touched(pipeline, key) == of_banks(pipeline, dataset, {name})


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("analysis", ANALYSES)
def test_a_change_of_an_analysis_touches_the_banks_that_require_it(
    pipeline: Pipeline, dataset: str, analysis: str
) -> None:
    users = {n for n, one in banks(pipeline, dataset).items() if analysis in loss_of(one).requires}
    expected = of_banks(pipeline, dataset, users) | {f"{analysis}@{dataset}"}
    assert touched(pipeline, f"{analysis}.{dataset}.k") == expected


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


@pytest.mark.parametrize("dataset", DATASETS)
def test_evaluate_scores_all_networks_and_sets_there_are(pipeline: Pipeline, dataset: str) -> None:
    def made(*names: str) -> list[Instance]:
        return [one for one in pipeline.of(*names) if one.options["dataset"] == dataset]

    section = PARAMS["evaluate"][dataset]
    hardened = made("adversarial_train", "train_online")
    networks = ["target", *(one.options["network"] for one in hardened)]
    attacks = [
        one.options.get("loss") or one.options["attack"]
        for one in made("generate", "attack")
        if one.options["split"] == "test"
    ]
    assert sorted(section["networks"]) == sorted(networks)
    assert sorted(section["attacks"]) == sorted(attacks)
    (evaluate,) = made("evaluate")
    needed = pipeline.upstream(evaluate.name)
    assert {one.name for one in [*hardened, *made("train_target")]} <= needed


def test_a_network_that_reads_a_set_depends_on_that_of_its_name(pipeline: Pipeline) -> None:
    for one in pipeline.of("adversarial_train"):
        dataset, name = one.options["dataset"], one.options["network"]
        kind = PARAMS["adversarial_train"][dataset][name]["type"]
        sets = [dep for dep in one.deps if dep.startswith("data/adversarial/")]
        assert sets == ([f"data/adversarial/{dataset}/train/{name}"] if way(kind).reads_set else [])
        assert f"src/deepcustom/hardening/{kind}.py" in one.deps
        assert ("src/deepcustom/attacks/art.py" in one.deps) == (kind == "art")


def test_a_network_of_type_online_is_trained_by_its_own_stage_and_reads_its_loss(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    made = pipeline.of("train_online")
    assert {one.options["dataset"] for one in made} == set(DATASETS)
    for dataset in DATASETS:
        own = [one.options["network"] for one in made if one.options["dataset"] == dataset]
        assert own == online_names(PARAMS, dataset)
    for one in made:
        dataset, name = one.options["dataset"], one.options["network"]
        assert set(one.paths) >= {
            f"models/robust/{dataset}/{name}.safetensors",
            f"models/dgn/{dataset}/{name}.safetensors",
        }
        assert not [dep for dep in one.deps if dep.startswith(("models/", "data/adversarial/"))]
        loss = PARAMS["adversarial_train"][dataset][name].get("loss")
        if loss is None:
            assert not [dep for dep in one.deps if dep.startswith("data/analysis/")]
            assert "src/deepcustom/attacks/losses/__init__.py" in one.deps
        else:
            source = Path(inspect.getsourcefile(find_loss(loss)) or "").resolve()
            assert source.relative_to(ROOT).as_posix() in one.deps


# What docs/losses.md tells its reader to add


def extended(base: Any, more: Any) -> Any:
    """``base`` with ``more`` below what is there; nothing that is there may change."""
    if isinstance(base, dict) and isinstance(more, dict):
        both = {key: extended(base[key], more[key]) for key in base.keys() & more.keys()}
        return base | more | both
    assert isinstance(base, list)
    assert isinstance(more, list)
    assert not [one for one in more if one in base]
    return base + more


def followed(
    folder: Path, leave_out: tuple[str, ...] = ()
) -> tuple[Pipeline, dict[str, Any], set[str]]:
    """The project after the walk-through, without the lists or sections named in ``leave_out``."""
    more_params, more_lists = walk_through()
    for name in leave_out:
        del (more_lists if name in more_lists else more_params)[name]
    params = extended(PARAMS, more_params)
    lists = extended(by_name(DVC["vars"]), more_lists)
    dvc = DVC | {"vars": [{name: lines} for name, lines in lists.items()]}
    for file, tree in (("dvc.yaml", dvc), ("params.yaml", params)):
        (folder / file).write_text(yaml.safe_dump(tree, sort_keys=False))
    pipeline = resolve(folder)
    return pipeline, params, lacking(pipeline, params)


def told(one: Instance) -> tuple[Any, ...]:
    outs = [(out.def_path, out.use_cache, out.can_push, out.is_metric) for out in one.outs]
    return one.words, one.deps, one.params, outs


def test_the_walk_through_adds_its_stages_and_no_others(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after, params, faults = followed(tmp_path)
    assert faults == set()
    check(params, way_of)
    new = after.instances.keys() - pipeline.instances.keys()
    assert new == {
        "train_dgn@mnist-margin",
        "generate@mnist-margin-train",
        "generate@mnist-margin-test",
        "adversarial_train@mnist-margin",
    }
    before = {name: told(one) for name, one in pipeline.instances.items()}
    assert {n: told(one) for n, one in after.instances.items() if n not in new} == before
    assert after.upstream("evaluate@mnist") >= new
    assert not after.upstream("report@cifar10") & new
    monkeypatch.chdir(ROOT)
    loss = find_loss(params["train_dgn"]["mnist"]["margin"]["loss"])
    bank = after.instances["train_dgn@mnist-margin"]
    assert Path(inspect.getsourcefile(loss) or "") == ROOT / "examples/margin_loss.py"
    assert {"examples/margin_loss.py", "src/deepcustom/attacks/losses/__init__.py"} <= set(
        bank.deps
    )
    assert loss.requires == ()


@pytest.mark.parametrize(
    ("leave_out", "expected"),
    [
        (
            ("banks",),
            {
                "generate@mnist-margin-train: models/dgn/mnist/margin.safetensors",
                "generate@mnist-margin-test: models/dgn/mnist/margin.safetensors",
            },
        ),
        (
            ("generated_sets",),
            {
                "adversarial_train@mnist-margin: data/adversarial/mnist/train/margin",
                "evaluate@mnist: data/adversarial/mnist/test/margin",
            },
        ),
        (
            ("robust_networks",),
            {"evaluate@mnist: models/robust/mnist/margin.safetensors"},
        ),
        (("train_dgn",), {"train_dgn@mnist-margin: train_dgn.mnist.margin"}),
        (
            ("adversarial_train",),
            {"adversarial_train@mnist-margin: adversarial_train.mnist.margin"},
        ),
        (("robust_networks", "adversarial_train", "evaluate"), set()),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_a_step_of_the_walk_through_left_out_is_missed(
    tmp_path: Path, leave_out: tuple[str, ...], expected: set[str]
) -> None:
    assert followed(tmp_path, leave_out)[2] == expected


# What DVC keeps


def test_models_are_published_and_data_are_not(pipeline: Pipeline) -> None:
    for one in pipeline.instances.values():
        for out in one.outs:
            top = Path(out.def_path).parts[0]
            assert top in {"data", "models", "reports"}, out.def_path
            assert out.use_cache == (top != "reports"), out.def_path  # reports lie in git
            if top != "reports":
                assert out.can_push == (top == "models"), out.def_path


def test_the_run_cache_serves_every_stage_but_report(pipeline: Pipeline) -> None:
    """A plain out that is not cached switches DVC's run cache off for its stage."""
    without = {
        one.stage
        for one in pipeline.instances.values()
        for out in one.outs
        if not (out.use_cache or out.is_metric or out.is_plot)
    }
    assert without == {"report"}


# The package


def test_imports_run_one_way(capsys: pytest.CaptureFixture[str]) -> None:
    from importlinter import cli as linter

    code = linter.lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert code == 0, capsys.readouterr().out


def test_every_module_has_a_layer() -> None:
    layers = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    listed = [module for layer in layers for module in layer.split(" | ")]
    files = (ROOT / "src/deepcustom").glob("[!_]*")
    there = {file.stem for file in files if file.suffix == ".py" or (file / "__init__.py").exists()}
    assert sorted(listed) == sorted(f"deepcustom.{name}" for name in there)


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
