"""What the documents say: the numbers, the commands and the links."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml
from pipeline_fixtures import ROOT

from deepcustom.evaluation.results import PROTOCOLS, datasets_of, pivot, read_csv
from deepcustom.pipeline.provenance import file_at
from deepcustom.report.tables import markdown_table

BLOCK = re.compile(r"<!-- results:(\w+):(\w+) -->\n(.*?)<!-- /results -->", re.DOTALL)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`[^`\n]+`")
MAKE = re.compile(r"(?:^|[\s`;&$])make((?: +[A-Za-z0-9_.=-]+)+)")
LINK = re.compile(r"\]\(<?([^)>\s]+)>?(?: +\"[^\"]*\")?\)|(?:src|href)=\"([^\"]+)\"")
ELSEWHERE = ("http://", "https://", "mailto:")


def documents() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def made(text: str) -> set[str]:
    """The targets of every ``make`` in code, variables such as ``PROFILE=smoke`` left out."""
    code = "\n".join(FENCE.findall(text) + SPAN.findall(FENCE.sub("", text)))
    words = [word for match in MAKE.findall(code) for word in match.split()]
    return {word for word in words if "=" not in word and not word.startswith("-")}


def linked(text: str) -> list[str]:
    """What the text links to, outside code."""
    prose = SPAN.sub("", FENCE.sub("", text))
    return [one or other for one, other in LINK.findall(prose)]


def anchors(text: str) -> set[str]:
    """The places that GitHub gives headings."""
    titles = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_what_this_file_looks_for_it_finds() -> None:
    text = (
        "Type `make evaluate PROFILE=smoke`, or make do.\n```sh\n$ make test lint  # both\n"
        'make ui\n```\n[a](docs/a.md#b) ![p](<x.png>) <img src="y.svg"> `[no](code.md)`\n# A b: c!\n'
    )
    assert made(text) == {"evaluate", "test", "lint", "ui"}
    assert linked(text) == ["docs/a.md#b", "x.png", "y.svg"]
    assert anchors(text) == {"a-b-c"}


def test_tables_of_the_docs_are_those_of_the_results() -> None:
    blocks = BLOCK.findall((ROOT / "docs/results.md").read_text())
    made = {}
    for file in sorted((ROOT / "reports/results").glob("*.csv")):
        results = read_csv(file)
        for dataset in datasets_of(results):
            for protocol in PROTOCOLS:
                if pivot(results, dataset, protocol)[2]:
                    made[dataset, protocol] = markdown_table(results, dataset, protocol)
    there = {(d, p): table.strip() + "\n" for d, p, table in blocks}
    assert there == {key: made[key] for key in there}
    assert len(blocks) == len(there), "a table stands there twice"
    headline = {(d, p) for d in ("mnist", "cifar10") for p in ("worst", "transfer", "whitebox")}
    assert set(there) == headline


def worst_of_all(found: dict[tuple[str, str], float], network: str) -> tuple[float, ...]:
    """What decides which network is best: everything, then what the study measured."""
    return found[network, "all"], found[network, "transfer"]


@pytest.mark.parametrize("subject", ["mnist", "cifar10"])
def test_the_headline_is_that_of_the_results(subject: str) -> None:
    """Clean, the worst of transfer and the worst of all, and which network of the study's is the best."""
    text = (ROOT / "README.md").read_text()
    block = text.split(f"<!-- headline:{subject} -->\n")[1].split("<!-- /headline -->")[0]
    results = read_csv(ROOT / f"reports/results/{subject}.csv")
    found = {(r.network, r.attack): r.accuracy for r in results if r.protocol == "worst"}
    rows = {}
    for line in block.splitlines()[2:]:
        name, clean, transfer, whole, sentence = (
            cell.strip() for cell in line.strip("|").split("|")
        )
        network = re.findall(r"\(`(.+)`\)", name)[0]
        assert name.startswith(("undefended", "best of the study's", "Madry's", "ours"))
        assert sentence.endswith(".")
        rows[name.partition(" (")[0]] = network
        said = tuple(found[network, attack] for attack in ("clean", "transfer", "all"))
        assert (clean, transfer, whole) == tuple(f"{100 * value:.1f}" for value in said), network
    assert rows["undefended"] == "target"
    study = {network for network, _ in found} - {"target", "nce-ball", "madry", "online"}
    assert rows["best of the study's"] == max(study, key=lambda name: worst_of_all(found, name))
    assert (rows["Madry's"], rows["ours"]) == ("madry", "online")
    eps = yaml.safe_load((ROOT / "params.yaml").read_text())["subjects"][subject]["threat"]["eps"]
    assert f"eps {eps}" in block


def test_what_the_headline_says_in_words() -> None:
    """Of the sentences beside the figures those that name a figure; the others, see test_experiments."""
    left = {
        (subject, r.network, r.protocol, r.attack): 100 * r.accuracy
        for subject in ("mnist", "cifar10")
        for r in read_csv(ROOT / f"reports/results/{subject}.csv")
    }
    assert left["mnist", "target", "whitebox", "pgd"] == 0
    assert left["cifar10", "target", "worst", "all"] == pytest.approx(0.1), "one image of 1,000"
    fgsm, rest = (left["cifar10", "fgsm-art", "whitebox", a] for a in ("fgsm", "apgd-t"))
    assert 0.28 < (fgsm - rest) / fgsm < 1 / 3, "nearly a third"
    text = (ROOT / "docs/evaluation.md").read_text()
    (time,) = re.findall(r"^\| cifar10 \| online \| 4 \| ([\d.]+) \|", text, re.MULTILINE)
    assert f"in {time} of the time" in (ROOT / "README.md").read_text()
    (time,) = re.findall(r"^\| mnist \| online \| 4 \| ([\d.]+) \|", text, re.MULTILINE)
    assert f"and {time} of the time" in (ROOT / "README.md").read_text()
    assert "| mnist | madry | 8 |" in text
    assert "| mnist | online | 4 |" in text


def test_the_drawn_rooms_are_those_of_the_code() -> None:
    loaded = importlib.util.spec_from_file_location("rooms", ROOT / "docs/images/rooms.py")
    assert loaded
    assert loaded.loader
    rooms = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(rooms)
    block = (ROOT / "CONTRIBUTING.md").read_text().split(rooms.BEGIN)[1].split(rooms.END)[0]
    assert block == rooms.drawn(), "`make rooms` draws them anew"
    assert ("stages", "pipeline") in rooms.arrows().edges


def test_minutes_in_the_docs_are_those_of_the_records() -> None:
    """Of the committed ones: `make evaluate` writes some of them anew."""
    whole, missing, scoring = ({"mnist": 0.0, "cifar10": 0.0} for _ in range(3))
    for file in (ROOT / "reports/runs").rglob("run.json"):
        committed = file_at(ROOT, "HEAD", f"./{file.relative_to(ROOT).as_posix()}")
        run = json.loads(committed or file.read_bytes())
        subject, stage, minutes = run["dataset"], run["stage"], run["seconds"] / 60
        if stage in ("gallery", "page"):  # seconds, and the page is of no subject
            continue
        whole[subject] += minutes
        of_train = stage in ("generate", "attack") and run["item"].endswith("-train")
        if of_train or stage in ("relevance", "suspiciousness"):
            missing[subject] += minutes
        if stage == "evaluate":
            scoring[subject] += minutes
    text = " ".join((ROOT / "docs/parameters.md").read_text().split())
    said = "add up to {mnist:.0f} minutes for MNIST and {cifar10:.0f} for CIFAR-10"
    assert said.format(**whole) in text
    assert f"CIFAR-10 with one thread took {scoring['cifar10']:.0f}." in text
    said = "takes about {mnist:.0f} minutes on MNIST and {cifar10:.0f} on CIFAR-10"
    assert said.format(**missing) in text
    said = "the whole scoring takes {mnist:.0f} minutes on MNIST and {cifar10:.0f} on CIFAR-10"
    assert said.format(**scoring) in text


def test_every_file_that_contributing_sends_one_to_exists() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rows = text.split("| to change | go to |")[1].split("\n\n")[0]
    named = re.findall(r"`([\w/]+\.\w+|[\w/]+/)`", rows)
    assert len(named) > 15
    for name in named:
        places = (ROOT / "src/deepcustom" / name, ROOT / name)
        assert any(place.exists() for place in places), name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    rules = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert made(document.read_text()) - set(rules) == set()


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_no_place_is_left_to_fill(document: Path) -> None:
    assert re.findall(r"@[A-Z]+@|TODO|TBD", document.read_text()) == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    text = document.read_text()
    for link in linked(text):
        if link.startswith(ELSEWHERE):
            continue
        name, _, anchor = unquote(link).partition("#")
        goal = document.parent / name if name else document
        assert goal.exists(), link
        assert goal.resolve().is_relative_to(ROOT), link
        if anchor and goal.suffix == ".md":
            assert anchor in anchors(goal.read_text()), link


def test_a_clone_has_the_same_bytes_whatever_git_does_to_line_ends(tmp_path: Path) -> None:
    """What DVC hashes: code, settings, tables; and what lies in the store."""
    source = tmp_path / "source"
    names = ["src/code.py", "params.yaml", "reports/results/mnist.csv", "dvc-store/files/md5/ab/cd"]
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"one\ntwo\r\n")
    shutil.copy(ROOT / ".gitattributes", source)
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "core.autocrlf=true")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"]):
        subprocess.run(["git", *identity, *words], cwd=source, check=True)
    words = ["git", *identity, "clone", "-q", str(source), str(tmp_path / "clone")]
    subprocess.run(words, check=True)
    for name in names:
        assert (tmp_path / "clone" / name).read_bytes() == b"one\ntwo\r\n"


def test_the_readme_names_commands_and_links() -> None:
    """So that the tests above have something to hold."""
    text = (ROOT / "README.md").read_text()
    assert "evaluate" in made(text)
    assert [link for link in linked(text) if not link.startswith(ELSEWHERE)]


def test_every_make_target_says_what_it_does() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)
    assert phony
    described = re.findall(r"^([a-z][a-z-]*):.*## \S", text, re.MULTILINE)
    assert sorted(phony[1].split()) == sorted(described)
