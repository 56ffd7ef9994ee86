"""Tables, figures and the page: what they say, and that the protocols stay apart.

The sentences of the headline are held in test_headline.py, the curves in test_figures_robustness.py.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.datasets import load_digits

from deepcustom.attacks.threat import ThreatModel
from deepcustom.base.errors import InputError
from deepcustom.evaluation.by_class import ClassAccuracy
from deepcustom.evaluation.check_table import FAILED
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.results import PROTOCOLS, Result
from deepcustom.evaluation.statistics import PairedTest
from deepcustom.report.blocks import blocks
from deepcustom.report.figures import accuracy_heatmap, image_grid, loss_curves, save_figure
from deepcustom.report.figures.page import BLUE, GREY, RED
from deepcustom.report.headline import RULE
from deepcustom.report.page import Pictures, page
from deepcustom.report.printed import print_tables
from deepcustom.report.tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HARDENED = {"lrp-robust": "lrp", "suspiciousness-robust": "suspiciousness"}
DIGITS = [str(digit) for digit in range(10)]


def result(network: str, attack: str, correct: int, n: int, protocol: str, dataset: str) -> Result:
    return Result.of(
        dataset=dataset,
        network=network,
        protocol=protocol,
        attack=attack,
        correct=correct,
        n=n,
        network_md5="0" * 32,
        set_md5="f" * 32,
    )


def study(dataset: str = "mnist", own: int = 9891) -> list[Result]:
    """Three networks under both protocols; every white-box accuracy is below 1 %."""
    attacks = ["clean", "lrp", "nce", "suspiciousness", "fgsm", "pgd", "pgd-study-restarts"]
    numbers = {"clean": 9656, "lrp": own, "nce": 3077}
    networks = ["target", "lrp-robust", "suspiciousness-robust"]
    transfer = [
        result(
            network,
            attack,
            numbers.get(attack, 6733) - (9 if network == "target" else 0),
            10000,
            "transfer",
            dataset,
        )
        for network in networks
        for attack in attacks
    ]
    whitebox = [
        result(network, attack, correct, 1000, "whitebox", dataset)
        for network in networks
        for correct, attack in enumerate(["fgsm", "pgd", "pgd-restarts"], 3)
    ]
    return transfer + whitebox


def worst(dataset: str = "mnist") -> list[Result]:
    """The headline of three networks: one that falls, one that stands in part, one that falls."""
    left = {
        "lrp-robust": [956, 700, 0, 12, 3, 0],
        "madry": [980, 950, 890, 930, 940, 880],
        "target": [966, 0, 0, 0, 0, 0],
    }
    attacks = ["clean", "transfer", "whitebox", "blackbox", "adaptive", "all"]
    return [
        result(network, attack, correct, 1000, "worst", dataset)
        for network, own in left.items()
        for attack, correct in zip(attacks, own, strict=True)
    ]


def text_of(renderables: list[Any], width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    for renderable in renderables:
        console.print(renderable)
    return console.export_text()


def words(text: str) -> str:
    return " ".join(text.split())


# --- tables -------------------------------------------------------------------------------------


def test_each_rich_table_holds_one_protocol() -> None:
    transfer, whitebox = blocks(study(), "mnist", HARDENED)
    one, two = text_of([transfer], 100), text_of([whitebox], 100)
    assert "mnist: transfer protocol, accuracy in %" in one
    assert "mnist: white-box protocol, accuracy in %" in two
    assert PROTOCOLS["transfer"] in words(one)
    assert PROTOCOLS["whitebox"] in words(two)
    assert "98.9 [" in one
    assert "n = 10,000 images" in one
    assert "extends at most 0.93 points" in words(one)
    assert "0.5 [0.2, 1.2]" in two
    assert "n = 1,000 images" in words(two)
    assert "white-box" not in one
    assert "10,000" not in two


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_rich_tables_fit_and_cut_nothing(width: int) -> None:
    tables = blocks(study(), "mnist", HARDENED, width)
    text = text_of(tables, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert text.count("suspiciousness-robust") == len(tables)
    assert text.count("98.82") == 1 or "98.8 [98.6, 99.0]" in text
    assert text.count(words(PROTOCOLS["whitebox"])[:20]) == 1


def test_rich_marks_empty_and_unmeasured_and_says_that_sizes_differ() -> None:
    results = [
        result("target", "clean", 10, 10, "transfer", "mnist"),
        result("target", "lrp", 0, 0, "transfer", "mnist"),
        result("[b]odd[/b]", "clean", 5, 10, "transfer", "mnist"),
    ]
    (table,) = blocks(results, "mnist", {})
    text = text_of([table], 100)
    assert re.search(r"target +100\.0 \[72\.2, 100\.0\] +empty", text)
    assert re.search(r"\[b\]odd\[/b\] +50\.0 .* +-\s", text)
    assert "n = 0 to 10 images, so not all cells use the same images" in words(text)
    assert blocks([], "mnist", {}) == []


def test_print_tables_shows_every_data_set_and_the_findings() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    by = {"mnist": HARDENED, "cifar10": HARDENED}
    print_tables([*study(), *study("cifar10", own=9000)], by, console)
    text = words(console.export_text())
    assert text.count("protocol, accuracy in %") == 4
    assert "mnist, label leak: network lrp-robust: 98.91 % on lrp, 96.56 % on clean images" in text
    assert "cifar10, label leak" not in text
    assert "weak attack" not in text


def test_terminal_tables_show_the_headline_first() -> None:
    others = [result("target", "square", 1, 10, "blackbox", "mnist")]
    others.append(result("target", "dgn", 2, 10, "adaptive", "mnist"))
    tables = blocks([*study(), *others, *worst()], "mnist", HARDENED, 200)
    titles = [table.title.removesuffix(", accuracy in %") for table in tables]
    assert titles == [
        "mnist: worst case (headline)",
        "mnist: transfer protocol",
        "mnist: white-box protocol",
        "mnist: black-box protocol",
        "mnist: adaptive protocol",
    ]
    text = words(text_of(tables[:1], 200))
    assert "madry 98.0" in text
    assert "Each column is the worst case of one protocol" in text
    assert "own row is the exception" not in text


def test_own_row_is_named_only_where_there_is_one() -> None:
    (table,) = blocks([result("mine", "pgd", 1, 10, "transfer", "mnist")], "mnist", {})
    assert "own row" not in " ".join(table.notes)
    assert "own row" in " ".join(blocks(study(), "mnist", HARDENED)[0].notes)


def test_markdown_table() -> None:
    results = [
        result("target", "clean", 9656, 10000, "transfer", "mnist"),
        result("target", "a|b", 0, 0, "transfer", "mnist"),
        result("robust", "clean", 1, 3, "transfer", "mnist"),
        result("robust", "pgd", 0, 10, "whitebox", "mnist"),
    ]
    assert markdown_table(results, "mnist", "transfer") == (
        "| network | clean | a\\|b |\n"
        "| --- | ---: | ---: |\n"
        "| target | 96.56 | empty |\n"
        "| robust | 33.33 | - |\n"
    )
    assert "| robust | 0.00 |" in markdown_table(results, "mnist", "whitebox")


# --- page ---------------------------------------------------------------------------------------


def make_page(results: list[Result]) -> str:
    return page(
        "MNIST",
        results,
        "mnist",
        hardened_with=HARDENED,
        facts={"eps": 0.3},
        pictures=Pictures(
            heatmaps={"transfer": "transfer.png", "whitebox": "whitebox.png"},
            grids={"nce": "grids/nce.png"},
            curves={"DGN bank, nce": "curves/nce.png"},
        ),
    )


def test_page_shows_accuracy_per_class_only_where_classes_are_unequal() -> None:
    def made(*sizes: int) -> str:
        found = [ClassAccuracy("nce", f"c{i}", n, 0.5, 0.25) for i, n in enumerate(sizes)]
        facts: dict[str, str] = {}
        return page(
            "MNIST",
            study(),
            "mnist",
            hardened_with=HARDENED,
            facts=facts,
            pictures=Pictures(),
            classes=found,
        )

    assert "| c1 | 2 | 50.0 / 25.0 |" in sections(made(4, 2))["Accuracy per class"]
    assert made(4, 3) == made()


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_page_keeps_the_protocols_apart_and_states_each() -> None:
    text = make_page([*study(), *study("cifar10")])
    assert text.startswith("# MNIST: robust accuracy\n")
    parts = sections(text)
    assert list(parts) == [
        "How to read this",
        "Transfer protocol",
        "White-box protocol",
        "Transferred and direct attacks, side by side",
        "Label leak",
        "Images",
        "Training curves",
    ]
    assert markdown_table(study(), "mnist", "transfer") in parts["Transfer protocol"]
    assert "transfer.png" in parts["Transfer protocol"]
    assert "whitebox" not in parts["Transfer protocol"]
    assert markdown_table(study(), "mnist", "whitebox") in parts["White-box protocol"]
    assert "upper bound" in parts["White-box protocol"]
    assert "98.91" not in parts["White-box protocol"]
    assert (
        "* network **lrp-robust**: 98.91 % on transferred `lrp` images "
        "(the attack it was hardened with); 0.30 % when `fgsm` attacks it directly."
        in parts["Transferred and direct attacks, side by side"]
    )
    assert (
        "* network **target**: 30.68 % on transferred `nce` images (the attack hardest for it)"
        in text
    )
    assert "![nce](grids/nce.png)" in parts["Images"]
    assert "| eps | 0.3 |" in text
    assert make_page(study()) == make_page(study())


def test_page_flags_label_leak_only_where_it_is() -> None:
    leak = sections(make_page(study()))["Label leak"]
    assert "* network **lrp-robust**: 98.91 % on `lrp`, 96.56 % on clean images" in leak
    assert "intervals do not overlap" in leak
    assert "watermark" in leak
    assert "suspiciousness-robust" not in leak
    near = sections(make_page(study(own=9657)))["Label leak"]
    assert "it may be chance" in near
    none = sections(make_page(study(own=9656)))["Label leak"]
    assert "None of the networks checked (lrp-robust, suspiciousness-robust) does." in none
    assert "watermark" not in none
    unknown = sections(make_page([r for r in study() if r.network == "target"]))["Label leak"]
    assert "nothing was checked" in unknown


def test_page_says_what_was_not_measured_and_what_is_suspicious() -> None:
    transfer = [r for r in study() if r.protocol == "transfer"]
    parts = sections(make_page(transfer))
    assert "White-box protocol" not in parts
    assert "White-box" not in parts["How to read this"]
    assert "Transferred and direct attacks, side by side" not in parts
    odd = [*transfer, result("lrp-robust", "pgd", 990, 1000, "whitebox", "mnist")]
    text = sections(make_page(odd))["White-box protocol"]
    assert "**lrp-robust** keeps 99.00 % when `pgd` attacks it directly, but 67.33 %" in text
    assert "overstate" in text
    empty = page("Empty", [], "mnist", hardened_with={}, facts={}, pictures=Pictures())
    assert empty.count("Nothing was") == 1


CHECKS = [
    Check("ball", "madry", "ok", {}, "Every image lies in the ball."),
    Check("pgd-reach", "madry", "warn", {}, "From 2 starts."),
    Check("gradients", "a|b", "fail", {}, "All are zero."),
    Check("gradients", "target", "fail", {}, "Some are zero."),
    Check("new-check", "mnist", "warn", {}, "It is new."),
]


def test_page_begins_with_the_headline() -> None:
    parts = sections(make_page([*study(), *worst()]))
    assert list(parts)[:3] == ["How to read this", "Headline: worst case", "Transfer protocol"]
    headline = parts["Headline: worst case"]
    assert markdown_table(worst(), "mnist", "worst") in headline
    assert "| madry | 98.00 | 95.00 | 89.00 | 93.00 | 94.00 | 88.00 |" in headline
    assert "* network **madry**: 98.00 % on clean images" in headline
    assert RULE in headline
    assert "The one exception is the headline" in parts["How to read this"]
    assert "The one exception" not in make_page(study())
    assert "transfer.png" not in headline


def test_page_has_any_set_of_protocols() -> None:
    for protocol in PROTOCOLS:
        one = [result("target", "all", 1, 10, protocol, "mnist")]
        parts = sections(
            page("MNIST", one, "mnist", hardened_with={}, facts={}, pictures=Pictures())
        )
        assert len(parts) == 3, protocol  # how to read, the protocol, label leak
        assert PROTOCOLS[protocol] in parts["How to read this"]


def checked(checks: list[Check]) -> str:
    text = page(
        "MNIST", worst(), "mnist", hardened_with={}, facts={}, pictures=Pictures(), checks=checks
    )
    return sections(text)["Checks"]


def test_page_lists_every_check_that_is_not_ok_failures_first() -> None:
    text = checked(CHECKS)
    assert "Of 5 checks: 1 ok, 2 warn, 2 fail." in text
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows == [
        "| fail | gradients | a\\|b | All are zero. |",
        "| fail | gradients | target | Some are zero. |",
        "| warn | pgd-reach | madry | From 2 starts. |",
        "| warn | new-check | mnist | It is new. |",
    ]
    meanings = [line for line in text.splitlines() if line.startswith("* ")]
    assert meanings == [
        f"* **gradients**: {FAILED['gradients']}",
        f"* **pgd-reach**: {FAILED['pgd-reach']}",
        "* **new-check**: do not trust numbers that depend on it.",
    ]


def test_page_says_where_no_check_fails_or_none_was_made() -> None:
    text = checked(CHECKS[:1])
    assert "Of 1 checks: 1 ok, 0 warn, 0 fail. None warns, and none fails." in text
    assert "|" not in text
    assert "No check was made" in checked([])
    assert "Checks" not in sections(make_page(study()))


def test_page_compares_networks_with_the_target_and_survivors_with_each_other() -> None:
    results = [*worst(), result("other", "all", 5, 1000, "worst", "mnist")]
    pairs = [
        PairedTest("lrp-robust", "madry", 0, 880, 1e-9),  # lrp-robust keeps nothing
        PairedTest("lrp-robust", "target", 0, 0, 1.0),
        PairedTest("madry", "target", 880, 0, 1e-9),
        PairedTest("madry", "other", 1200, 3, 0.03),
    ]

    def text(results: list[Result], pairs: list[PairedTest]) -> str:
        found = page(
            "MNIST", results, "mnist", hardened_with={}, facts={}, pictures=Pictures(), pairs=pairs
        )
        return sections(found).get("Pairwise comparison", "")

    rows = [line for line in text(results, pairs).splitlines() if line.startswith("| ")][2:]
    assert rows == [
        "| lrp-robust | target | 0 | 0 | 1.000 |",
        "| madry | target | 880 | 0 | < 0.001 |",
        "| madry | other | 1,200 | 3 | 0.030 |",
    ]
    found = text(results, pairs)
    assert "differ in 1 of 3 comparisons, at a joint significance level of 5 %" in found
    assert "p below 0.017 each" in found
    assert text(results, pairs[:1]) == ""
    assert "| madry | other |" not in text(study(), pairs)
    assert text(results, []) == ""


def test_page_shows_the_curves_of_robustness() -> None:
    links = {"against eps": "e.png", "against steps": "s.png"}
    text = page(
        "MNIST", worst(), "mnist", hardened_with={}, facts={}, pictures=Pictures(robustness=links)
    )
    part = sections(text)["Accuracy against eps and steps"]
    assert "![against eps](e.png)" in part
    assert "![against steps](s.png)" in part
    assert "misled" in part


# --- figures ------------------------------------------------------------------------------------


def png(fig: Figure, path: Path) -> bytes:
    save_figure(fig, path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert b"Software" not in content
    return content


def digits(n: int = 30) -> tuple[Any, Any, Any]:
    data = load_digits()
    x = (data.images[:n] / 16).astype(np.float32)[:, None]
    noise = np.random.default_rng(0).choice([-0.3, 0.3], x.shape)
    return x, np.clip(x + noise, 0, 1).astype(np.float32), data.target[:n]


def texts(fig: Figure) -> list[str]:
    from matplotlib.text import Text

    return [t.get_text() for t in fig.findobj(Text) if isinstance(t, Text) and t.get_text()]


def test_figures_have_equal_bytes(tmp_path: Path) -> None:
    x, x_adv, y = digits()

    def draw() -> list[Figure]:
        return [
            image_grid(x, x_adv, y, class_names=DIGITS, threat=ThreatModel(0.3), title="digits"),
            loss_curves({"loss": [2.0, 1.0], "class_0/loss": [3.0, 1.5]}, "bank"),
            accuracy_heatmap(study(), "mnist", "transfer", HARDENED),
        ]

    for first, second in zip(draw(), draw(), strict=True):
        assert png(first, tmp_path / "a.png") == png(second, tmp_path / "a.png")


def test_loss_curves_panels() -> None:
    history = {
        "class_0/loss": [3.0, 2.0],
        "loss": [2.0, 1.0],
        "val_accuracy": [0.5, 0.75],
        "class_1/loss": [1.0, 0.5],
        "class_1/mse": [1.0, 0.5],
        "nothing": [],
    }
    fig = loss_curves(history, "nce")
    panels = {axes.get_title("left"): axes for axes in fig.axes if axes.axison}
    assert list(panels) == ["loss", "val accuracy", "mse"]
    assert [line.get_color() for line in panels["loss"].lines] == [GREY, GREY, BLUE]
    assert panels["val accuracy"].get_title("right") == "0.75 at epoch 2"
    assert [line.get_color() for line in panels["mse"].lines] == [GREY]
    assert list(panels["loss"].lines[2].get_xdata()) == [1, 2]


def test_loss_curves_of_one_epoch_and_of_none() -> None:
    fig = loss_curves({"loss": [1.0]}, "one")
    (line,) = fig.axes[0].lines
    assert line.get_marker() == "o"
    assert "no epoch was recorded" in texts(loss_curves({}, "none"))


def test_image_grid_shows_each_class_and_the_change_in_red() -> None:
    x, x_adv, y = (part[:10] for part in digits())
    predicted_adv = np.where(y == 7, 3, y)
    fig = image_grid(
        x,
        x_adv,
        y,
        class_names=DIGITS,
        predicted=y,
        predicted_adv=predicted_adv,
        threat=ThreatModel(0.3),
        title="digits, nce",
    )
    columns = [axes for axes in fig.axes if axes.get_title()]
    assert [axes.get_title() for axes in columns] == DIGITS
    labels = [axes.texts[0] for axes in columns]
    assert [t.get_text() for t in labels] == ["7 → 3" if d == "7" else f"{d} → {d}" for d in DIGITS]
    assert [d for d, t in zip(DIGITS, labels, strict=True) if t.get_color() == RED] == ["7"]
    assert {"clean", "adversarial", "difference"} < set(texts(fig))
    assert any("largest change in these images 0.3000" in t for t in texts(fig))
    difference = fig.axes[20].images[0]
    assert difference.get_clim() == (-0.3, 0.3)
    np.testing.assert_array_equal(difference.get_array(), (x_adv - x)[np.argmax(y == 0), 0])


def test_image_grid_in_colour_in_the_order_given() -> None:
    x = np.full((4, 3, 8, 8), 0.5, np.float32)
    x_adv = x.copy()
    x_adv[:, 0] += 0.03
    names = ["automobile", "airplane"]
    y = np.array([1, 0, 1, 1])
    fig = image_grid(
        x,
        x_adv,
        y,
        class_names=names,
        predicted=y,
        predicted_adv=1 - y,
        threat=ThreatModel(0.03),
        title="t",
    )
    assert [a.get_title() for a in fig.axes[:4]] == [names[label] for label in y]
    assert fig.axes[0].texts[0].get_text() == "airplane\n→ automobile"
    shown = fig.axes[8].images[0].get_array()
    np.testing.assert_allclose(shown[0, 0], [1.0, 0.5, 0.5], atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid_in_l2_scales_to_what_a_pixel_changes(channels: int) -> None:
    """No pixel changes by as much as eps, so on that scale nothing would be seen."""
    x = np.full((2, channels, 4, 4), 0.5, np.float32)
    x_adv = x.copy()
    x_adv[0] += 0.1
    x_adv[1, 0, 0, 0] += 0.25
    y = np.array([0, 1])
    fig = image_grid(x, x_adv, y, class_names=DIGITS, threat=ThreatModel(2, norm="l2"), title="t")
    longest = max(0.1 * (16 * channels) ** 0.5, 0.25)
    said = f"eps 2 in L2, longest change in these images {longest:.4f}, and 0.2500 of a pixel"
    assert any(said in text for text in texts(fig))
    shown = fig.axes[5].images[0]
    if channels == 1:
        assert shown.get_clim() == (-0.25, 0.25)
    else:
        assert any("runs from -0.25 (dark) to +0.25 (bright)" in text for text in texts(fig))
        np.testing.assert_allclose(shown.get_array()[0, 0], [1.0, 0.5, 0.5], atol=1e-5)


def test_image_grid_of_an_empty_set_and_of_wrong_shapes() -> None:
    x, x_adv, y = digits(0)
    empty = image_grid(x, x_adv, y, class_names=DIGITS, threat=ThreatModel(0.3), title="t")
    assert "the set is empty, so there is no image to show" in texts(empty)
    x, x_adv, y = digits(4)
    with pytest.raises(InputError, match=r"shapes \(4, 1, 8, 8\) and \(3, 1, 8, 8\)"):
        image_grid(x, x_adv[:3], y, class_names=DIGITS, threat=ThreatModel(0.3), title="t")
    with pytest.raises(InputError, match="y has 3 entries for 4 images"):
        image_grid(x, x_adv, y[:3], class_names=DIGITS, threat=ThreatModel(0.3), title="t")


def test_heatmap_holds_one_protocol_and_frames_own_attacks() -> None:
    from matplotlib.patches import Rectangle

    fig = accuracy_heatmap(study(), "mnist", "whitebox", HARDENED)
    (axes,) = fig.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["fgsm", "pgd", "pgd-restarts"]
    assert sorted({t.get_text() for t in axes.texts}) == ["0.30", "0.40", "0.50"]
    assert not axes.patches
    (axes,) = accuracy_heatmap(study(), "mnist", "transfer", HARDENED).axes
    corners = [p.get_xy() for p in axes.patches if isinstance(p, Rectangle)]
    np.testing.assert_allclose(corners, [(0.53, 0.55), (2.53, 1.55)])
    assert "no result under the transfer protocol" in texts(
        accuracy_heatmap([], "mnist", "transfer", {})
    )
    headline = accuracy_heatmap(worst(), "mnist", "worst", HARDENED)
    assert "mnist, worst case: accuracy in %" in texts(headline)


def test_heatmap_of_empty_sets(tmp_path: Path) -> None:
    fig = accuracy_heatmap([result("target", "lrp", 0, 0, "transfer", "m")], "m", "transfer", {})
    assert [t.get_text() for t in fig.axes[0].texts] == ["empty"]
    png(fig, tmp_path / "a.png")
