"""How the page looks: colours that colour-blind readers tell apart, and one style for each thing drawn.

The hues are those of Okabe and Ito (2008, "Color universal design"), darker on light ground and lighter on
dark, so that each has a contrast of 3 or more to its ground. Dashes and shapes tell the same again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

LIGHT = {
    "ground": "#ffffff",
    "raised": "#f5f7f9",
    "ink": "#1b2430",
    "quiet": "#55606e",
    "line": "#ccd3da",
    "accent": "#005a94",
    "ok": "#00694f",
    "warn": "#805600",
    "fail": "#a83200",
}
DARK = {
    "ground": "#12171d",
    "raised": "#1c232b",
    "ink": "#e8edf2",
    "quiet": "#a7b2be",
    "line": "#3a4550",
    "accent": "#7cc4f5",
    "ok": "#5fd0ab",
    "warn": "#eebd55",
    "fail": "#ff9a73",
}
"""Name of a colour in the style sheet → its value."""

SERIES = {
    "light": ["#1b2430", "#0072b2", "#c14a00", "#00795c", "#a5407f", "#7a6400", "#2f8fc7"],
    "dark": ["#e8edf2", "#56b4e9", "#f08a4b", "#3cc79c", "#e39ac6", "#e0cd4e", "#8fa5ff"],
}
"""Colours of series in their order; the first, the ink, is the undefended network's."""
DASHES = ([6, 3], [1, 0], [8, 3, 2, 3])
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif'

KINDS = ("generator", "FGSM", "PGD", "APGD", "Square", "images of others")
"""What attacks are, for a legend; each has its shape."""


def kind(attack: str, banks: Sequence[str] = ()) -> str:
    """What an attack is, by its name in the tables; ``banks``: the names of banks of DGNs."""
    if attack.startswith("dgn") or attack in banks:
        return "generator"
    if attack.startswith("from-"):
        return "images of others"
    for begin, name in (("apgd", "APGD"), ("fgsm", "FGSM"), ("pgd", "PGD"), ("square", "Square")):
        if attack.startswith(begin):
            return name
    return "generator"


def dash_of(place: int) -> list[int]:
    """The dash of the series at a place: the undefended network's is its own, repeated colours differ."""
    if place == 0:
        return DASHES[0]
    return DASHES[1 + (place - 1) // (len(SERIES["light"]) - 1) % 2]


def colours(theme: str, count: int) -> list[str]:
    """As many colours as there are series: the ink first, then the others in turn."""
    ink, *others = SERIES[theme]
    return [ink, *(others[place % len(others)] for place in range(max(count - 1, 0)))][:count]


def css_variables() -> str:
    """The colours as custom properties: by the reader's preference, and by the switch."""
    light, dark = (";".join(f"--{k}:{v}" for k, v in of.items()) for of in (LIGHT, DARK))
    return (
        f":root{{color-scheme:light;{light}}}"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}"
        f"@media print{{:root:root:root{{color-scheme:light;{light}}}}}"
    )


def chart_config(theme: str, series: int) -> dict[str, Any]:
    """Vega-Lite's config of a theme, ``light`` or ``dark``, for charts of so many series."""
    of = LIGHT if theme == "light" else DARK
    text = {
        "labelColor": of["quiet"],
        "titleColor": of["ink"],
        "labelFontSize": 12,
        "titleFontSize": 12,
    }
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": of["line"]},
        "axis": {**text, "gridColor": of["line"], "gridOpacity": 0.6, "domainColor": of["quiet"],
                 "tickColor": of["quiet"], "titleFontWeight": 600},
        "legend": {**text, "symbolSize": 90, "symbolStrokeWidth": 2, "labelLimit": 220},
        "header": {**text, "titleFontWeight": 600},
        "title": {"color": of["ink"], "fontSize": 13, "anchor": "start"},
        "range": {"category": colours(theme, max(series, 1)),
                  "heatmap": [of["raised"], of["fail"]]},
        "line": {"strokeWidth": 2},
        "point": {"filled": False, "size": 50, "strokeWidth": 2},
        "rect": {"stroke": of["ground"]},
        "mark": {"color": of["accent"]},
    }  # fmt: skip
