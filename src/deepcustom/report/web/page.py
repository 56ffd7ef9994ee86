"""The page itself: what was gathered, laid into the template, with style and scripts inside."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from deepcustom.evaluation.results import PROTOCOLS
from deepcustom.report.headline import RULE, sentences
from deepcustom.report.page import CURVES, PAIRS
from deepcustom.report.tables import NAMES, ORDER
from deepcustom.report.web import charts, pictures, tables, theme
from deepcustom.report.web.findings import APART, findings, gap
from deepcustom.report.web.subject import Missing, Subject
from deepcustom.report.web.tables import Table

ASSETS = Path(__file__).with_name("assets")
SNIPPET = "window.vegaEmbed = vegaEmbed;"


@dataclass(frozen=True)
class Figure:
    """Charts that stand together: where, their caption, and what each shows → its specification."""

    key: str
    caption: str
    specs: Mapping[str, Mapping[str, Any]]

    def panels(self) -> list[tuple[str, str]]:
        """The key of each chart, and what it shows."""
        return [(f"{self.key}-{place}", words) for place, words in enumerate(self.specs)]


@dataclass(frozen=True)
class Section:
    """All of one subject, ready for the template."""

    subject: Subject
    findings: Sequence[str]
    apart: str
    headline: Table | None
    sentences: Sequence[str]
    protocols: Sequence[tuple[str, str, str, Table]]
    curves: Sequence[tuple[Figure, Table]]
    gallery: Mapping[str, Any] | None
    maps: Sequence[Mapping[str, str]]
    more_classes: int
    units: Table | None
    unit_chart: Figure | None
    training: Sequence[Figure]
    costs: Sequence[tuple[str, Figure | None, Table]]
    checks: Table | None
    pairs: Table | None
    missing: Sequence[Missing]


def page(title: str, subjects: Sequence[Subject], *, most_classes: int) -> str:
    """The whole page.

    Args:
        title: the heading.
        subjects: what it shows, in this order.
        most_classes: the most classes of a subject whose pixels and units are drawn.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["joined"] = lambda text: text.replace(" %", "\u00a0%")
    sections = [_section(one, most_classes) for one in subjects]
    series = max((len(one.networks) for one in subjects), default=1)
    style = theme.css_variables() + (ASSETS / "page.css").read_text()
    scripts = [vega(), (ASSETS / "page.js").read_text()] if _drawn(sections) else [
        (ASSETS / "page.js").read_text()
    ]  # fmt: skip
    return environment.get_template("page.html.j2").render(
        title=title,
        sections=sections,
        style=style,
        scripts=scripts,
        policy=_policy(scripts),
        data=_json(_data(sections, series)),
        rule=RULE,
        curves_note=CURVES,
        pairs_note=PAIRS,
        columns=pictures.COLUMNS,
    )


@lru_cache(maxsize=1)
def vega() -> str:
    """Vega, Vega-Lite and vega-embed as one script, which needs no network."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle(SNIPPET)
    return bundle.replace("</script", "<\\/script")


def _policy(scripts: Sequence[str]) -> str:
    """A Content-Security-Policy that lets nothing in from outside, and runs these scripts alone."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _json(value: Any) -> str:
    """JSON that may stand in a script element."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)
    return text.replace("</", "<\\/").replace("<!--", "<\\!--")


def _drawn(sections: Sequence[Section]) -> bool:
    return any(_figures(one) for one in sections)


def _figures(section: Section) -> list[Figure]:
    costs = [figure for _, figure, _ in section.costs if figure]
    units = [section.unit_chart] if section.unit_chart else []
    return [*(one for one, _ in section.curves), *units, *section.training, *costs]


def _data(sections: Sequence[Section], series: int) -> dict[str, Any]:
    return {
        "charts": {
            f"{figure.key}-{place}": spec
            for section in sections
            for figure in _figures(section)
            for place, spec in enumerate(figure.specs.values())
        },
        "configs": {name: theme.chart_config(name, series) for name in ("light", "dark")},
        "galleries": {one.subject.name: _leafed(one.gallery) for one in sections if one.gallery},
        "networks": {one.subject.name: list(one.subject.networks) for one in sections},
        "traces": {one.subject.name: one.subject.trace for one in sections if one.subject.trace},
    }


def _leafed(gallery: Mapping[str, Any]) -> dict[str, Any]:
    """What the script needs of a gallery; its sheets stand in the page as images."""
    sets = {
        name: {k: v for k, v in one.items() if k != "sheet"}
        for name, one in gallery["sets"].items()
    }
    clean = {key: value for key, value in gallery["clean"].items() if key != "sheet"}
    return {**gallery, "clean": clean, "sets": sets}


def _section(subject: Subject, most_classes: int) -> Section:
    classes = list(subject.classes)[:most_classes]
    found = subject.suspiciousness
    unit_spec = charts.units(found, classes) if found else None
    protocols = [
        (name, NAMES[name], PROTOCOLS[name], table)
        for name in ORDER
        if name != "worst" and (table := tables.protocol_table(subject, name))
    ]
    return Section(
        subject=subject,
        findings=findings(subject),
        apart=f"{APART} {gap(subject)}".strip(),
        headline=tables.protocol_table(subject, "worst"),
        sentences=[text.replace("**", "") for text in sentences(subject.results, subject.name).values()],
        protocols=protocols,
        curves=_curves(subject),
        gallery=pictures.gallery(subject.gallery, subject.name) if subject.gallery else None,
        maps=pictures.relevance_maps(subject.relevance, classes) if subject.relevance else [],
        more_classes=max(len(subject.classes) - most_classes, 0),
        units=tables.units_table(subject, found, classes) if found else None,
        unit_chart=Figure(f"{subject.name}-units-chart", "Suspicious units, layer by layer: the stronger "
                          "the colour, the more suspicious.", unit_spec) if unit_spec else None,
        training=_training(subject),
        costs=_costs(subject),
        checks=tables.checks_table(subject, subject.checks) if subject.checks else None,
        pairs=tables.pairs_table(subject),
        missing=subject.missing,
    )  # fmt: skip


def _curves(subject: Subject) -> list[tuple[Figure, Table]]:
    found = []
    for curve, words in (("eps", "eps"), ("steps", "the steps of the attack")):
        spec = charts.against(subject.points, curve, subject.networks, subject.bounded)
        if spec:
            caption = f"{subject.title}: accuracy against {words}, white-box PGD"
            figure = Figure(f"{subject.name}-{curve}", caption, {caption: spec})
            found.append((figure, tables.curve_table(subject, curve, caption)))
    return found


def _training(subject: Subject) -> list[Figure]:
    found = []
    for name, history in subject.histories.items():
        specs = charts.training(history)
        if specs:
            key = f"{subject.name}-training-{name.replace(' ', '-')}"
            found.append(Figure(key, name, specs))
    return found


def _costs(subject: Subject) -> list[tuple[str, Figure | None, Table]]:
    found: list[tuple[str, Figure | None, Table]] = []
    for protocol in charts.COSTS:
        spec = charts.cost(
            subject.results,
            subject.name,
            protocol,
            subject.seconds,
            subject.made,
            subject.networks,
            subject.banks,
        )
        table = tables.cost_table(subject, protocol, subject.seconds)
        if table:
            caption = f"{subject.title}, {NAMES[protocol].lower()}: accuracy left against cost"
            figure = (
                Figure(f"{subject.name}-{protocol}-cost-chart", caption, {caption: spec})
                if spec
                else None
            )
            found.append((NAMES[protocol], figure, table))
    return found
