"""What the documents say: the numbers, the commands and the links."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from pipeline_fixtures import ROOT

from deepcustom.evaluation.results import PROTOCOLS, datasets_of, pivot, read_csv
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


def test_tables_of_the_readme_are_those_of_the_results() -> None:
    blocks = BLOCK.findall((ROOT / "README.md").read_text())
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
