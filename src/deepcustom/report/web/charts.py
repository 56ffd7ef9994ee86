"""Interactive charts as Vega-Lite specifications, drawn by Altair; none shows two protocols.

A chart says nothing about colours: those of the theme in use come with its config, see
:mod:`deepcustom.report.web.theme`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deepcustom.evaluation.points import Point
from deepcustom.evaluation.results import CLEAN, Result, pivot
from deepcustom.report.web.subject import Suspiciousness
from deepcustom.report.web.theme import KINDS, SHAPES, dash_of, kind

Spec = dict[str, Any]
HEIGHT = 300  # pixels
COSTS = {
    "whitebox": ("gradients", "gradients of the network, for each image of the test"),
    "blackbox": ("queries", "queries of the network, for each image of the test"),
    "adaptive": ("seconds", "seconds, with the further training of the generators"),
    "transfer": ("made", "seconds to make 1,000 images, once for all networks"),
}
"""Protocol → what an attack costs under it, and how the axis says so."""
CHOSEN = "length(chosen) == 0 || indexof(chosen, datum.network) >= 0"
"""Whether the reader wants to see a network; the page's own legend says so, which a keyboard can reach."""
MEASURES = 8
"""The most measures of one training that are drawn."""


def against(
    points: Iterable[tuple[str, Point]], curve: str, networks: Sequence[str], bounded: str
) -> Spec | None:
    """Accuracy of each network against ``eps`` or ``steps``; None where there is no such curve.

    ``bounded``: what eps bounds.
    """
    import altair as alt

    rows = [
        {
            "network": network,
            curve: getattr(point, curve),
            "accuracy": _rounded(100 * point.accuracy),
        }
        for network, point in points
        if point.curve == curve and point.accuracy == point.accuracy
    ]
    if not rows:
        return None
    title = f"eps, {bounded}" if curve == "eps" else "steps of PGD"
    scale = alt.Scale(type="linear" if curve == "eps" else "log", nice=curve == "eps")
    x = alt.X(f"{curve}:Q", title=title, scale=scale)
    if curve == "steps":
        x = x.axis(values=sorted({row["steps"] for row in rows}), format="d")
    return _series(rows, x, [row["network"] for row in rows], networks, curve)


def _series(
    rows: list[dict[str, Any]], x: Any, there: Sequence[str], networks: Sequence[str], curve: str
) -> Spec:
    import altair as alt

    domain = [name for name in networks if name in set(there)]
    domain += [name for name in dict.fromkeys(there) if name not in domain]
    base = alt.Chart().encode(
        x=x,
        y=alt.Y("accuracy:Q", title="accuracy, %", scale=alt.Scale(domain=[0, 100])),
        color=alt.Color("network:N", scale=_colours(domain, networks), legend=None),
        opacity=alt.condition(CHOSEN, alt.value(1), alt.value(0.12)),
    )
    dash = alt.StrokeDash("network:N", scale=_dashes(domain, networks), legend=None)
    shape = alt.Shape("network:N", scale=_shapes(domain, networks), legend=None)
    tip = ["network:N", f"{curve}:Q", alt.Tooltip("accuracy:Q", title="accuracy, %")]
    chart = alt.layer(
        base.mark_line().encode(strokeDash=dash),
        base.mark_point(size=50).encode(shape=shape, tooltip=tip),
        data=alt.InlineData(values=rows),
    ).add_params(_chosen())
    return _finished(chart)


def cost(
    results: Sequence[Result],
    subject: str,
    protocol: str,
    seconds: Mapping[str, float],
    made: Mapping[str, float],
    networks: Sequence[str],
    banks: Sequence[str] = (),
) -> Spec | None:
    """Accuracy that each attack of one protocol leaves, against what it costs; None where nothing is known.

    Args:
        results: all results.
        subject: whose.
        protocol: a key of :data:`COSTS`.
        seconds: ``network/protocol/attack`` → seconds that it took.
        made: attack of a stored set → seconds for 1,000 images.
        networks: in their order, which gives them their colours.
        banks: names of the banks of DGNs.
    """
    import altair as alt

    unit, title = COSTS[protocol]
    rows = [
        _cost_row(cell, unit, seconds, made, banks)
        for (_, attack), cell in pivot(results, subject, protocol)[2].items()
        if attack != CLEAN and not cell.empty
    ]
    rows = [row for row in rows if row["cost"] is not None]
    if not rows or not any(row["cost"] for row in rows):
        return None
    domain = [name for name in networks if any(row["network"] == name for row in rows)]
    kinds = [name for name in KINDS if any(row["kind"] == name for row in rows)]
    chosen = _chosen()
    shapes = alt.Scale(domain=kinds, range=[SHAPES[KINDS.index(name)] for name in kinds])
    tooltip = ["network:N", "attack:N", alt.Tooltip("accuracy:Q", title="accuracy left, %")]
    tooltip += [alt.Tooltip("cost:Q", title=unit if unit != "made" else "seconds", format=",.4~g")]
    tooltip += (
        [alt.Tooltip("seconds:Q", format=",.3~g")] if unit in ("gradients", "queries") else []
    )
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(size=70)
        .encode(
            x=alt.X("cost:Q", title=title, scale=alt.Scale(type="symlog"),
                    axis=alt.Axis(format=",", tickCount=6)),
            y=alt.Y("accuracy:Q", title="accuracy left, %", scale=alt.Scale(domain=[0, 100])),
            color=alt.Color("network:N", scale=_colours(domain, networks), legend=None),
            shape=alt.Shape("kind:N", scale=shapes,
                            legend=alt.Legend(title="attack", orient="bottom", columns=6)),
            opacity=alt.condition(CHOSEN, alt.value(1), alt.value(0.1)),
            tooltip=tooltip,
        )
        .add_params(chosen)
    )  # fmt: skip
    return _finished(chart)


def _cost_row(
    cell: Result,
    unit: str,
    seconds: Mapping[str, float],
    made: Mapping[str, float],
    banks: Sequence[str],
) -> dict[str, Any]:
    took = seconds.get(f"{cell.network}/{cell.protocol}/{cell.attack}")
    costs = {
        "gradients": cell.gradients / cell.n,
        "queries": cell.queries / cell.n,
        "seconds": took,
        "made": made.get(cell.attack),
    }
    price = costs[unit]
    return {
        "network": cell.network,
        "attack": cell.attack,
        "kind": kind(cell.attack, banks),
        "accuracy": _rounded(100 * cell.accuracy),
        "cost": None if price is None else _rounded(price),
        "seconds": None if took is None else _rounded(took),
    }


def training(history: Mapping[str, Sequence[float]]) -> dict[str, Spec]:
    """Measure of one training → its small chart by epoch; classes are lines of their own."""
    import altair as alt

    rows: list[dict[str, Any]] = []
    for key, curve in history.items():
        of, _, measure = key.rpartition("/")
        label = of.removeprefix("class_") or "all"
        rows += [
            {"m": measure.replace("_", " "), "c": label, "e": epoch, "v": _rounded(value)}
            for epoch, value in enumerate(curve, 1)
        ]
    measures = list(dict.fromkeys(row["m"] for row in rows))[:MEASURES]
    if not measures:
        return {}
    single = len({row["c"] for row in rows}) == 1
    last = max(row["e"] for row in rows)
    panels = {}
    for measure in measures:
        some = [{k: row[k] for k in "cev"} for row in rows if row["m"] == measure]
        chart = (
            alt.Chart(alt.InlineData(values=some), title=measure)
            .mark_line(point={"size": 22, "filled": True}, opacity=1 if single else 0.55)
            .encode(
                x=alt.X("e:Q", title="epoch", scale=alt.Scale(domain=[1, max(last, 2)], nice=False),
                        axis=alt.Axis(format="d", tickCount=min(last, 6), tickMinStep=1)),
                y=alt.Y("v:Q", title=None, scale=alt.Scale(zero=False)),
                detail="c:N",
                tooltip=[alt.Tooltip("c:N", title="class"), alt.Tooltip("e:Q", title="epoch"),
                         alt.Tooltip("v:Q", title=measure)],
            )
        )  # fmt: skip
        panels[measure] = _finished(chart, 130)
    return panels


def units(found: Suspiciousness, classes: Sequence[str]) -> dict[str, Spec]:
    """Layer → the most suspicious units of each class in it; stronger is more suspicious."""
    import altair as alt

    rows = [
        {
            "class": classes[label],
            "layer": layer,
            "unit": int(unit),
            "score": _rounded(float(found.scores[layer][label][unit])),
        }
        for layer, marked in found.suspicious.items()
        for label in range(min(len(marked), len(classes)))
        for unit in marked[label].nonzero()[0]
    ]
    if not rows:
        return {}
    layers = [name for name in found.suspicious if any(row["layer"] == name for row in rows)]
    shown = list(classes)
    panels = {}
    for layer in layers:
        some = [row for row in rows if row["layer"] == layer]
        size = int(found.scores[layer].shape[1])
        chart = (
            alt.Chart(alt.InlineData(values=some), title=layer)
            .mark_point(shape="square", size=28, filled=True)
            .encode(
                x=alt.X("unit:Q", title="unit", scale=alt.Scale(domain=[0, max(size - 1, 1)])),
                y=alt.Y("class:N", sort=shown, title=None,
                        scale=alt.Scale(domain=shown), axis=alt.Axis(grid=True)),
                opacity=alt.Opacity("score:Q", scale=alt.Scale(domain=[0, 1], range=[0.25, 1]),
                                    legend=None),
                tooltip=["class:N", "layer:N", "unit:Q", "score:Q"],
            )
        )  # fmt: skip
        panels[layer] = _finished(chart, 16 * max(len(shown), 4))
    return panels


def _chosen() -> Any:
    """The networks that the legend of the page has chosen; all are shown where there is none."""
    import altair as alt

    return alt.param(name="chosen", value=[])


def _colours(domain: Sequence[str], networks: Sequence[str]) -> Any:
    import altair as alt

    return alt.Scale(domain=_in_order(domain, networks), range="category")


def _dashes(domain: Sequence[str], networks: Sequence[str]) -> Any:
    import altair as alt

    order = _in_order(domain, networks)
    return alt.Scale(domain=order, range=[dash_of(place) for place in range(len(order))])


def _shapes(domain: Sequence[str], networks: Sequence[str]) -> Any:
    import altair as alt

    order = _in_order(domain, networks)
    return alt.Scale(
        domain=order, range=[SHAPES[place % len(SHAPES)] for place in range(len(order))]
    )


def _in_order(domain: Sequence[str], networks: Sequence[str]) -> list[str]:
    """All networks, so that each keeps its colour where another is missing."""
    return [*networks, *(name for name in domain if name not in networks)]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _finished(chart: Any, height: int = HEIGHT) -> Spec:
    """The specification as wide as its place, without Altair's own theme, which would win over the page's.

    Charts stand side by side in the page, and not in one specification, so that narrow screens wrap them.
    """
    import altair as alt

    chart = chart.properties(width="container", height=height)
    with alt.theme.enable("none"), alt.data_transformers.enable(consolidate_datasets=False):
        spec: Spec = chart.to_dict()
    spec.pop("config", None)
    spec.pop("$schema", None)
    return spec
