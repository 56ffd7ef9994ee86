"""The tables and what they mean, from the files of results alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import (
    Result,
    Spread,
    best_of_families,
    digits,
    fastest,
    peak,
    present,
    rate,
    times,
    work_rates,
)
from benchmarks.inputs import SUBJECTS
from benchmarks.sizes import PICTURE, drawable

if TYPE_CHECKING:
    from rich.console import Console

UNLIKE = """\
The generators are the study's bank `nce` under the study's CNN, and one like that of a new project under the
others: it is told the label, smaller, and so quicker."""
Measured = dict[str, Any]
"""One file of results: ``group``, ``dataset``, ``machine``, ``settings``, ``results``."""

TITLES = {name: subject.title for name, subject in SUBJECTS.items()}
ORDER = ("making", "training", "peaks", "memory")
POINT = 0.01  # accuracies that lie no farther apart count as the same

HEAD = """\
# Speed and memory

Made by `python -m benchmarks` from the files in `results/`; do not edit. [README.md](README.md) says how.

Every figure of a table was measured in one run: each contender in a process of its own, one at a time, in
turn, after a warm-up. A figure is the median of the rounds with the smallest and the largest in brackets;
a ratio is taken within each round first. *Plain PyTorch* is the same network and mathematics as one would
write it first: float32, NCHW, torch's defaults, a loop of a few lines
([plain.py](plain.py)). Figures of *making* are of the kernel alone: images in memory to images in memory.
Those of *training* are of a whole epoch with its set-up, images in memory. *Peaks* holds both against matrix
products, and *memory* is of whole runs, files in and files out. Threads are as many as torch takes by
itself, for all alike.
"""


@dataclass(frozen=True)
class Table:
    """Columns and rows of text; the first column is words, the others are figures."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def markdown(self) -> str:
        lines = [self.columns, ("---", *["---:"] * (len(self.columns) - 1)), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Section:
    """What one file of results says."""

    title: str
    intro: str
    tables: list[Table]
    remarks: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        parts = [f"## {self.title}", self.intro, *(table.markdown() for table in self.tables)]
        if self.remarks:
            parts.append("\n".join(f"* {remark}" for remark in self.remarks))
        return "\n\n".join(parts) + "\n"

    def show(self, console: Console) -> None:
        """On the terminal."""
        from rich.table import Table as Rich

        console.rule(self.title)
        console.print(self.intro, markup=False, highlight=False)
        for table in self.tables:
            rich = Rich()
            for number, column in enumerate(table.columns):
                rich.add_column(column, justify="right" if number else "left")
            for row in table.rows:
                rich.add_row(*row)
            console.print(rich)
        for remark in self.remarks:
            console.print(f"• {remark}", markup=False, highlight=False)


def load(folder: Path) -> list[Measured]:
    """Every file of results in ``folder``, in the order of the page."""
    found = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    names = list(TITLES)

    def place(one: Measured) -> tuple[int, int]:
        dataset = one["dataset"]
        return ORDER.index(one["group"]), names.index(dataset) if dataset in names else -1

    return sorted(found, key=place)


def markdown(measured: Iterable[Measured]) -> str:
    """The whole page; nothing where nothing was measured."""
    every = list(measured)
    sections = [section(one).markdown() for one in every]
    if drawable(every):
        words = "Adversarial images a second, for three sizes of classifier"
        sections.insert(0, f"![{words}]({PICTURE})\n\n{UNLIKE}\n")
    return "\n".join([HEAD, *sections]) if sections else ""


def section(measured: Measured) -> Section:
    """One file's part of the page."""
    writers: dict[str, Callable[[Measured], Section]] = {
        "making": _making,
        "training": _training,
        "peaks": _peaks,
        "memory": _memory,
    }
    return writers[measured["group"]](measured)


def _machine(measured: Measured) -> str:
    m = measured["machine"]
    versions = ", ".join(
        f"{package} {version}" for package, version in m["versions"].items() if version
    )
    quick = " **A quick run, of no meaning.**" if measured["settings"].get("quick") else ""
    return (
        f"Measured on {measured['date']}: {m['processor']}, {m['cores']} cores "
        f"({m['capability']}, instructions for bfloat16: {', '.join(m['bfloat16']) or 'none known'}), "
        f"{m['memory_gib']} GiB, {m['threads']} threads, load before it {m['load']}; "
        f"Python {m['python']}, {versions}.{quick}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


# Making


def _making(measured: Measured) -> Section:
    results, s = measured["results"], measured["settings"]
    dgn, best = results[0], best_of_families(results)
    rows = [
        (
            one["title"],
            str(one["facts"]["batch_size"]),
            str(rate(one)),
            str(times(dgn, one)) if one is not dgn else "1",
            _percent(one["facts"]["accuracy"]),
        )
        for one in best
    ]
    rows += [
        (one["title"], "-", f"not importable: {one['absent']}", "-", "-")
        for one in _absent_families(results)
    ]
    several = [one for one in present(results) if "batch_size" in one["options"]]
    every = [(one["title"], str(one["facts"]["batch_size"]), str(rate(one))) for one in several]
    fewer = s["images"]["pgd"] < s["judged"]
    pgd = f" (PGD: of the first {s['images']['pgd']:,})" if fewer else ""
    intro = (
        f"{_machine(measured)}\n\n"
        f"eps = {s['eps']}; PGD takes {s['steps']} steps of {s['eps_step']} from the image itself. "
        f"{_counts(s['images'])} The last column is what the target network (float32) still gets right "
        f"of the first {s['judged']:,}{pgd}: {_percent(dgn['facts']['clean_accuracy'])} % before any attack. "
        f"{_precisions(dgn['facts']['precision'])} "
        "The DGNs get the true labels, as the gradients do. Libraries and plain PyTorch are shown with "
        "their best batch size; below are all."
    )
    return Section(
        f"Making adversarial images: {TITLES[measured['dataset']]}",
        intro,
        [
            Table(
                ("attack", "batch", "images/s", "DGNs make ... times as many", "accuracy left, %"),
                rows,
            ),
            Table(("with batches of", "batch", "images/s"), every),
        ],
        remarks_on_making(results),
    )


def _precisions(own: str) -> str:
    if own == "float32":
        return "All compute in float32."
    return f"This project computes in {own}, the others in float32."


def _counts(images: dict[str, int]) -> str:
    if len(set(images.values())) == 1:
        return f"{images['pgd']:,} test images, as often as fill a round."
    others = {"FGSM": images["fgsm"], "PGD": images["pgd"]}
    fewer = ", ".join(f"{n:,} for {name}" for name, n in others.items() if n != images["dgn"])
    return f"{images['dgn']:,} test images ({fewer}), as often as fill a round."


def _absent_families(results: Sequence[Result]) -> list[Result]:
    absent = {one["family"]: one for one in results if "absent" in one}
    return list(absent.values())


def remarks_on_making(results: Sequence[Result]) -> list[str]:
    """In words: where the generators are not the fastest, and what is fastest at equal effect."""
    dgn, best = results[0], best_of_families(results)
    others = [one for one in best if one is not dgn]
    found = [*_faster(dgn, others), *_even(dgn, others), _equal_effect(dgn, others)]
    for method in ("fgsm", "pgd"):
        own, theirs = (_of(best, f"{method}-{who}") for who in ("project", "art-default"))
        if own and theirs:
            found.append(
                f"{own['title']}, makes {times(own, theirs)} times as many images as "
                f"{_with_batch(theirs)}, and leaves {_percent(own['facts']['accuracy'])} % against "
                f"{_percent(theirs['facts']['accuracy'])} %."
            )
    return found


def _of(results: Iterable[Result], family: str) -> Result | None:
    return next((one for one in results if one["family"] == family), None)


def _faster(dgn: Result, others: Sequence[Result]) -> list[str]:
    faster = [one for one in others if times(one, dgn).least > 1]
    if not faster:
        return ["No attack here is faster than the generators."]
    each = [
        f"{_with_batch(one)}, {times(one, dgn)} times and {_percent(one['facts']['accuracy'])} %"
        for one in sorted(faster, key=lambda one: -times(one, dgn).median)
    ]
    return [
        "**The generators are not the fastest here.** So many times as many images a second are made, "
        f"and so much accuracy left (by the generators {_percent(dgn['facts']['accuracy'])} %), by: "
        f"{'; '.join(each)}."
    ]


def _even(dgn: Result, others: Sequence[Result]) -> list[str]:
    ratios = [(one, times(one, dgn)) for one in others]
    return [
        f"Between the generators and {_with_batch(one)} the rounds do not agree which is faster: "
        f"{ratio} times."
        for one, ratio in ratios
        if ratio.least <= 1 <= ratio.most
    ]


def _equal_effect(dgn: Result, others: Sequence[Result]) -> str:
    bound = dgn["facts"]["accuracy"] + POINT
    rivals = [one for one in others if one["facts"]["accuracy"] <= bound]
    left = _percent(dgn["facts"]["accuracy"])
    if not rivals:
        return f"No other attack here leaves as little accuracy as the generators' {left} %."
    rival = fastest(rivals)
    return (
        f"Of the attacks that leave no more accuracy than the generators' {left} % (give or take a "
        f"point), the fastest is {_with_batch(rival)}, which leaves "
        f"{_percent(rival['facts']['accuracy'])} %: the generators make {times(dgn, rival)} times as "
        "many images."
    )


def _with_batch(one: Result) -> str:
    return f"{one['title']} (batches of {one['facts']['batch_size']})"


# Training


def _training(measured: Measured) -> Section:
    results, s = measured["results"], measured["settings"]
    pairs = list(zip(results[::2], results[1::2], strict=True))  # by this project, plainly
    rows = []
    for own, plain in pairs:
        for one in (own, plain):
            more = "1" if one is own else str(times(own, one))
            loss = f"{one['facts']['loss']:.3f}"
            rows.append((one["title"], str(rate(one)), more, loss))
    remarks = []
    for own, plain in pairs:
        ratio = times(own, plain)
        if ratio.least <= 1:
            remarks.append(
                f"**{own['title']}, is not clearly faster** than plain PyTorch: {ratio} times."
            )
    intro = (
        f"{_machine(measured)}\n\n"
        f"The DGN of one class, {s['epochs']} epoch of {int(results[0]['count']):,} images in batches of "
        f"{s['batch_size']} with Adam: building the network, its optimizer and the loss included, no "
        f"validation. This project computes in {results[0]['facts']['precision']} where that is safe; "
        "plain PyTorch in float32, the target network's weights frozen for it too. The last column shows "
        "that both learn, from different starts."
    )
    return Section(
        f"Training a DGN: {TITLES[measured['dataset']]}",
        intro,
        [Table(("loss", "images/s", "this project trains ... times as many", "mean loss"), rows)],
        remarks or ["This project is the faster in every round."],
    )


# Peaks


def _peaks(measured: Measured) -> Section:
    results = measured["results"]
    rows, bounds, peaks = [], [], {}
    for precision in ("bfloat16", "float32"):
        peaks[precision] = peak(results, precision)
        sizes = " and ".join(map(str, measured["settings"]["sizes"]))
        rows.append(
            (f"torch.matmul, {precision}, the best of squares of {sizes}", *_giga(peaks[precision]))
        )
    for one in results:
        if "flops" in one["facts"]:
            done, top = work_rates(one), peaks[_kind(one["facts"]["precision"])]
            share = Spread.of([a / b for a, b in zip(done, top, strict=True)])
            what = f"DGNs {one['title']}, {one['facts']['precision']}"
            bounds.append(
                f"{what}: with every kernel at the peak they would be {digits(1 / share.median)} times as "
                "fast, and no faster than that on this machine in this precision."
            )
            cost = f"{one['facts']['flops'] / 1e6:.1f}"
            rows.append((what, str(rate(one)), cost, _giga(done)[2], share.percent()))
    intro = (
        f"{_machine(measured)}\n\n"
        "The peak is the fastest single product of each round. What an image costs is counted by torch's "
        "FlopCounterMode on the architecture: convolutions alone, two operations for a multiplication and "
        "an addition, transposed convolutions without the zeros that some implementations put in. "
        "Training counts as three forward passes of the generator; the target network that a loss may "
        "look at is not counted, nor are optimizer, projection and copies: their time is."
    )
    columns = ("what", "images/s", "MFLOP an image", "GFLOP/s", "share of its precision's peak")
    return Section("Peaks", intro, [Table(columns, rows)], bounds)


def _kind(precision: str) -> str:
    return precision if precision in ("bfloat16", "float32") else "float32"


def _giga(flops: Sequence[float]) -> tuple[str, str, str, str]:
    return ("-", "-", str(Spread.of([value / 1e9 for value in flops])), "")


# Memory


def _memory(measured: Measured) -> Section:
    results = measured["results"]
    first, last = results[0], results[-1]
    rows = [
        (
            one["title"],
            digits(one["seconds"][0]),
            digits(rate(one).median),
            f"{one['facts']['peak_bytes'] / 2**20:,.0f}",
            f"{one['facts']['peak_bytes'] / first['facts']['peak_bytes']:.2f}",
        )
        for one in results
    ]
    growth = last["facts"]["peak_bytes"] / first["facts"]["peak_bytes"]
    more = last["count"] / first["count"]
    title = TITLES[measured["settings"]["dataset"]]
    intro = (
        f"{_machine(measured)}\n\n"
        f"A whole generation with the DGNs of {title}: images are read from files, perturbed, verified "
        "against the threat model, shown to the target network and written; the test images over and "
        "over. One run each, in a fresh process without a warm-up. The peak is the most memory that the "
        "process had at any time, Python and torch included."
    )
    return Section(
        "Memory",
        intro,
        [
            Table(
                ("images", "seconds", "images/s", "peak, MiB", "times the first"),
                rows,
            )
        ],
        [f"{digits(more)} times the images took {growth:.2f} times the memory."],
    )
