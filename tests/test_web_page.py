"""The page for a browser: its sentences, odd projects, what it may ask for, and the images that it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from page_fixtures import save_gallery, small_project

from deepcustom.base.errors import InputError
from deepcustom.base.settings import GalleryParams
from deepcustom.evaluation.checks import Check
from deepcustom.evaluation.results import Result
from deepcustom.pipeline import page as gathering
from deepcustom.pipeline.gallery import choose, read_gallery, small
from deepcustom.pipeline.workspace import Workspace
from deepcustom.report.web import charts, pictures, theme
from deepcustom.report.web.findings import findings, gap
from deepcustom.report.web.page import page
from deepcustom.report.web.subject import Missing, Subject

N = 1000
LARGEST = 6_000_000


def worst(network: str, **shares: float) -> list[Result]:
    """Rows of the protocol ``worst``."""
    return [
        Result.of(
            dataset="a", network=network, protocol="worst", attack=attack,
            correct=round(share * N), n=N, network_md5="0" * 32, set_md5="0" * 32,
        )
        for attack, share in shares.items()
    ]  # fmt: skip


def subject(*results: list[Result], checks: list[Check] | None = None) -> Subject:
    rows = [row for some in results for row in some]
    networks = list(dict.fromkeys(["target", *(row.network for row in rows)]))
    return Subject("a", "A", "words", 0.1, "change", networks=networks, results=rows, checks=checks)


TARGET = worst("target", clean=0.9, transfer=0.0, whitebox=0.0, all=0.0)


def check(verdict: str) -> Check:
    return Check(name="ball", about="a", verdict=verdict, text="text", figures={})


def test_what_was_not_evaluated_is_said_to_be_so() -> None:
    assert findings(subject()) == ["A was not evaluated yet, so nothing is known about it."]


def test_without_hardened_networks_their_worth_is_not_known() -> None:
    found = findings(subject(TARGET))
    assert found[0] == (
        "A: the undefended network gets 90.00 % of the clean images right; none of them is left under "
        "everything that was tried."
    )
    assert found[1] == "No hardened network was scored, so what hardening is worth is not known."
    assert found[-1] == "No check of these numbers was made."


@pytest.mark.parametrize(
    ("hardened", "said"),
    [
        ({"b": 0.0}, "The hardened network keeps nothing under"),
        ({"b": 0.0, "c": 0.0}, "All 2 hardened networks keep nothing under"),
        ({"b": 0.3}, "The one hardened network, b, keeps 30.00 % (95 % interval 27.2 to 32.9)"),
        (
            {"b": 0.3, "c": 0.0},
            "Of 2 hardened networks, b keeps most under everything that was tried",
        ),
        ({"b": 0.3, "c": 0.3}, "Of 2 hardened networks, b, c keep most"),
    ],
)
def test_the_hardened_network_that_keeps_most(hardened: dict[str, float], said: str) -> None:
    rows = [worst(name, clean=0.8, all=share) for name, share in hardened.items()]
    assert findings(subject(TARGET, *rows))[1].startswith(said)


def test_a_network_without_a_clean_image_right_and_a_single_image_left() -> None:
    nothing = findings(subject(worst("target", clean=0.0, all=0.0)))
    assert nothing[0] == (
        "A: the undefended network gets no clean image right, so there is nothing to attack."
    )
    assert (
        "1 of 1,000 images is left" in findings(subject(worst("target", clean=0.9, all=0.001)))[0]
    )


def test_transfer_is_an_example_only_where_it_flatters() -> None:
    flattered = worst("b", clean=0.8, transfer=0.5, whitebox=0.1, all=0.1)
    assert gap(subject(TARGET, flattered)) == (
        "Transfer flatters b most: it keeps 50.00 % of images that were made against the undefended network, "
        "and 10.00 % when it is attacked itself."
    )
    assert gap(subject(TARGET, worst("b", clean=0.8, transfer=0.1, whitebox=0.5, all=0.1))) == ""


def test_checks_are_counted() -> None:
    assert (
        findings(subject(TARGET, checks=[check("ok")] * 3))[-1]
        == "All 3 checks of these numbers hold."
    )
    odd = findings(subject(TARGET, checks=[check("ok"), check("warn"), check("fail")]))[-1]
    assert odd.startswith("Of 3 checks of these numbers 1 fails and 1 warns")


def test_a_page_without_anything_says_what_is_missing_and_has_no_vega() -> None:
    text = page(
        "T",
        [Subject("a", "A", "words", 0.1, "change", missing=[Missing("the numbers", "dvc x")])],
        most_classes=5,
    )
    assert "<code>dvc x</code>" in text
    assert len(text) < 100_000
    assert "This project has no subject yet" in page("T", [], most_classes=5)


def test_what_a_name_says_is_text_and_no_markup() -> None:
    odd = "</script><b>x"
    text = page("<i>T", [Subject("a", odd, odd, 0.1, odd)], most_classes=5)
    assert "<i>T" not in text
    assert odd not in text


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a project like a clone of this one, where one subject was not evaluated."""
    ws = Workspace(small_project(tmp_path_factory.mktemp("page")))
    return gathering.page_text(ws, "index")


def test_the_page_asks_for_nothing_outside_and_is_small(whole: str) -> None:
    assert len(whole.encode()) < LARGEST
    markup = re.sub(r"<script.*?</script>", "", whole, flags=re.DOTALL)
    asked = re.findall(r"""(?:src|href|action)=["']([^"']*)|url\(([^)]*)\)|@import""", markup)
    assert asked
    assert {(one or other)[:5] for one, other in asked if not (one or other).startswith("#")} == {
        "data:"
    }
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', whole)
    assert policy.startswith("default-src &#39;none&#39;") or policy.startswith(
        "default-src 'none'"
    )
    assert "unsafe-eval" not in policy
    assert "http" not in policy


def test_every_number_of_a_table_can_be_traced(whole: str) -> None:
    data = json.loads(re.findall(r'id="data">(.*?)</script>', whole, re.DOTALL)[0])
    trace = data["traces"]["mnist"]
    for what in re.findall(r'data-trace="mnist/([^"]*)"', whole):
        weights, _ = trace["numbers"][what]
        run = trace["files"][trace["paths"][weights]]["run"]
        assert trace["runs"][run]["params"], what
    assert trace["maker"] == "evaluate@mnist"
    assert trace["verified"].startswith("Verified when this page was made, 2")


def test_what_is_not_there_is_named_with_its_command(whole: str) -> None:
    assert "cifar10 was not evaluated yet" in whole or "CIFAR-10 was not evaluated yet" in whole
    for command in ("dvc repro evaluate@cifar10", "dvc repro gallery@cifar10"):
        assert command in whole


def test_no_chart_mixes_protocols() -> None:
    rows = [
        Result.of(
            dataset="a", network="target", protocol=protocol, attack="pgd", correct=1, n=N,
            network_md5="0" * 32, set_md5="0" * 32, gradients=5 * N, queries=N,
        )
        for protocol in ("transfer", "whitebox", "blackbox")
    ]  # fmt: skip
    for protocol in ("transfer", "whitebox", "blackbox"):
        spec = charts.cost(rows, "a", protocol, {}, {"pgd": 2.0}, ["target"])
        assert spec is not None
        assert len(spec["data"]["values"]) == 1
    assert charts.cost(rows, "a", "adaptive", {}, {}, ["target"]) is None


@pytest.mark.parametrize("name", ["light", "dark"])
def test_colours_of_lines_and_words_stand_out_from_the_ground(name: str) -> None:
    def light(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((light(one), light(other)))
        return (high + 0.05) / (low + 0.05)

    of = theme.LIGHT if name == "light" else theme.DARK
    for colour in theme.SERIES[name]:
        assert contrast(colour, of["ground"]) >= 3, colour
    for key in ("ink", "quiet", "accent", "ok", "warn", "fail"):
        assert contrast(of[key], of["ground"]) >= 4.5, key


def test_ten_networks_have_ten_styles() -> None:
    colours = theme.colours("light", 10)
    assert len({(colour, tuple(theme.dash_of(at))) for at, colour in enumerate(colours)}) == 10


class Odd(torch.nn.Module):
    """Says the class that the mean of an image tells: 0 below a half, else 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.flatten(1).mean(1)
        return torch.stack([1 - mean, mean], 1)


def test_the_gallery_takes_what_fell_and_what_stood_of_each_class() -> None:
    from deepcustom.base.settings import ComputeParams
    from deepcustom.data.arrays import AdversarialSet
    from deepcustom.training.compute import Compute

    compute = Compute.of(ComputeParams(device="cpu", precision="float32", threads=1))
    y = np.array([0, 0, 0, 1, 1, 0], np.uint8)
    x = np.where(y == 0, 0, 255).astype(np.uint8)[:, None, None, None] * np.ones(
        (1, 1, 4, 4), np.uint8
    )
    x[5] = 255  # wrong without an attack: never shown
    changed = np.array([1, 1, 0, 1, 1, 0], np.float32)
    x_adv = changed[:, None, None, None] * np.ones((1, 1, 4, 4), np.float32)
    made = AdversarialSet(x, x_adv, y, np.arange(6, dtype=np.int64) * 3)
    params = GalleryParams(per_class=1, classes=2, size=8)
    arrays, reduced = choose({"s": made}, Odd(), compute, params)  # type: ignore[arg-type]
    assert reduced == 1
    assert arrays["clean.index"].tolist() == [0, 6, 9]  # fell, stood; of class 1 none fell
    assert arrays["set.s.predicted"].tolist() == [1, 0, 1]
    assert arrays["clean.label"].tolist() == [0, 0, 1]
    assert arrays["set.s.x"].dtype == torch.uint8


def test_large_images_are_made_small() -> None:
    whole, by = small(torch.ones(2, 3, 224, 100), 64)
    assert (tuple(whole.shape), by) == ((2, 3, 56, 25), 4)
    assert small(torch.ones(1, 1, 28, 28), 64)[1] == 1


def test_a_file_that_is_no_gallery_is_refused(tmp_path: Path) -> None:
    from deepcustom.training.weights import save_tensors

    save_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(1)}, {"sets": ["s"]})
    with pytest.raises(InputError, match=r"a\.safetensors: not a file of `deepcustom gallery`"):
        read_gallery(tmp_path / "a.safetensors")


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_sheets_hold_images_of_any_number_of_channels(tmp_path: Path, channels: int) -> None:
    save_gallery(tmp_path / "g.safetensors", channels=channels, size=9, classes=12)
    found = read_gallery(tmp_path / "g.safetensors")
    assert found is not None
    data = pictures.gallery(found, "a")
    assert data["clean"]["sheet"].startswith("data:image/png;base64,")
    assert len(data["sets"]["nce"]["of"]) == 12
