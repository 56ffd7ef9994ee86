"""Robust-accuracy numbers: one record each, its 95 % interval, and the CSV file that keeps them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from deepcustom.base.errors import InputError, UnknownNameError
from deepcustom.base.files import replace_file

PROTOCOLS = {
    "transfer": (
        "The images were made against the undefended target network and then shown to each "
        "network, so this says nothing about an attacker who attacks the hardened network itself."
    ),
    "whitebox": (
        "An attacker who knows the network's weights attacks it directly. Each attack gets the images that "
        "the network classifies correctly; apgd-ce and apgd-t get only those that withstood all the "
        "attacks before them."
    ),
    "blackbox": (
        "Each network is attacked by an attacker who cannot see inside it: with images made against "
        "another network, and by Square, which queries it thousands of times."
    ),
    "adaptive": (
        "The DGNs are trained further against the very network that is scored; dgn-any counts an image "
        "only where the DGNs of all classes fail."
    ),
    "autoattack": (
        "AutoAttack as its authors publish it: their attacks, settings and order. Each attack gets the "
        "images that those before it left, so the last column is the accuracy under AutoAttack."
    ),
    "worst": (
        "The headline: image by image, the worst case over all attacks of a protocol, and over all "
        "protocols, on the same images for every network."
    ),
}
"""What each protocol is, in one plain sentence."""

AUTOATTACK = "autoattack"
"""The protocol that runs only where it is asked for; its name under ``worst`` too."""

CLEAN = "clean"
"""The clean images' name in the column of attacks."""

ALL = "all"
"""The name of the worst case over everything, in the same column under ``worst``."""

CONFIDENCE = 0.95
DECIMALS = 6


@dataclass(frozen=True)
class Result:
    """The accuracy of one network on one set of images; the fields are the columns of the CSV.

    Attributes:
        dataset: name of the subject.
        network: name of the scored network.
        protocol: a key of :data:`PROTOCOLS`.
        attack: name of the attack; ``clean`` for the unchanged images.
        n: number of images, 0 or more.
        accuracy: share classified correctly, 0 to 1; nan where ``n`` is 0.
        ci_low: lower end of the 95 % Wilson score interval; nan where ``n`` is 0.
        ci_high: upper end; nan where ``n`` is 0.
        gradients: images whose gradient the attack computed, summed over its steps.
        queries: images that the attack showed to the network without computing a gradient.
        network_md5: which weights were scored.
        set_md5: which images they were scored on.
    """

    dataset: str
    network: str
    protocol: str
    attack: str
    n: int
    accuracy: float
    ci_low: float
    ci_high: float
    gradients: int
    queries: int
    network_md5: str
    set_md5: str

    @classmethod
    def of(
        cls,
        *,
        dataset: str,
        network: str,
        protocol: str,
        attack: str,
        correct: int,
        n: int,
        network_md5: str,
        set_md5: str,
        gradients: int = 0,
        queries: int = 0,
    ) -> Result:
        """The result for ``correct`` hits among ``n`` images, rounded as in the CSV.

        Raises:
            InputError: ``correct`` is not within 0 to ``n``.
            UnknownNameError: the protocol is not in :data:`PROTOCOLS`.
        """
        _check_protocol(protocol)
        if not 0 <= correct <= n:
            raise InputError(f"{network} on {attack}: {correct} correct of {n}: want 0 to {n}")
        low, high = _wilson(correct, n)
        accuracy = round(correct / n, DECIMALS) if n else math.nan
        return cls(
            dataset,
            network,
            protocol,
            attack,
            n,
            accuracy,
            low,
            high,
            gradients,
            queries,
            network_md5,
            set_md5,
        )

    @property
    def empty(self) -> bool:
        """Whether the set held no images, so that there is no accuracy."""
        return self.n == 0


COLUMNS = tuple(field.name for field in fields(Result))

Pivot = tuple[list[str], list[str], dict[tuple[str, str], Result]]


def _wilson(correct: int, n: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22, 209)."""
    if n == 0:
        return math.nan, math.nan
    # SciPy instead of statsmodels: it gives the same numbers and imports faster (0.8 s against 1.4 s).
    from scipy.stats import binomtest  # type: ignore[import-untyped,unused-ignore]

    interval = binomtest(correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return round(float(interval.low), DECIMALS), round(float(interval.high), DECIMALS)


def pivot(results: Iterable[Result], dataset: str, protocol: str) -> Pivot:
    """The results of one subject under one protocol, as a table.

    Returns:
        The networks and the attacks, each in order of first appearance, and the cells by
        (network, attack); a pair that was not measured has no cell.

    Raises:
        InputError: one cell has two results.
        UnknownNameError: the protocol is not in :data:`PROTOCOLS`.
    """
    _check_protocol(protocol)
    cells: dict[tuple[str, str], Result] = {}
    for result in results:
        if (result.dataset, result.protocol) != (dataset, protocol):
            continue
        key = (result.network, result.attack)
        if key in cells:
            raise InputError(f"two results for {_identity(result)}: want one")
        cells[key] = result
    networks = list(dict.fromkeys(network for network, _ in cells))
    attacks = list(dict.fromkeys(attack for _, attack in cells))
    return networks, attacks, cells


def datasets_of(results: Iterable[Result]) -> list[str]:
    """The subjects among ``results``, in order of first appearance."""
    return list(dict.fromkeys(result.dataset for result in results))


def unclipped(attack: str) -> str:
    """The name that tables give to an attack whose images leave the ball."""
    return f"{attack}-unclipped"


def percent(result: Result | None) -> str:
    """An accuracy as tables print it: ``98.91``, ``empty`` for an empty set, or ``-`` if not measured."""
    if result is None:
        return "-"
    return "empty" if result.empty else f"{100 * result.accuracy:.2f}"


@dataclass(frozen=True)
class LabelLeak:
    """A network that does better on the attack it was hardened with than on clean images."""

    clean: Result
    own: Result

    @property
    def clear(self) -> bool:
        """Whether the two 95 % intervals lie apart, so that chance is a poor explanation."""
        return self.own.ci_low > self.clean.ci_high


HardenedWith = Mapping[str, str]
"""Hardened network → the attack it was hardened with, by its set's name; other networks are left out."""


def own_attacks(
    results: Iterable[Result], dataset: str, hardened_with: HardenedWith
) -> list[tuple[Result, Result]]:
    """(clean, own attack) under the transfer protocol, for each network that has both."""
    networks, _, cells = pivot(results, dataset, "transfer")
    pairs = [(cells.get((n, CLEAN)), cells.get((n, hardened_with.get(n, "")))) for n in networks]
    return [(clean, own) for clean, own in pairs if clean and own and clean is not own]


def label_leaks(
    results: Iterable[Result], dataset: str, hardened_with: HardenedWith
) -> list[LabelLeak]:
    """The networks whose own-attack accuracy is above their clean accuracy (transfer protocol).

    An attack should make images harder. It makes them easier if the true label chose the perturbation
    and the network learned to read that choice off the image (Kurakin, Goodfellow and Bengio 2017,
    arXiv:1611.01236, found this with FGSM).
    """
    pairs = own_attacks(results, dataset, hardened_with)
    return [LabelLeak(clean, own) for clean, own in pairs if own.accuracy > clean.accuracy]


def weak_whitebox(results: Sequence[Result], dataset: str) -> list[tuple[Result, Result]]:
    """(white-box, transfer) pairs in which the attack that knows the network is clearly the weaker.

    That is a sign of masked gradients or of an attack that was stopped too early (Athalye,
    Carlini and Wagner 2018, arXiv:1802.00420; Carlini et al. 2019, arXiv:1902.06705).
    """
    _, _, transfer = pivot(results, dataset, "transfer")
    _, _, whitebox = pivot(results, dataset, "whitebox")
    pairs = [(result, transfer.get(key)) for key, result in whitebox.items() if key[1] != CLEAN]
    return [(own, other) for own, other in pairs if other and own.ci_low > other.ci_high]


def write_csv(results: Iterable[Result], path: Path) -> None:
    """Write ``results`` to ``path``, whole or not at all."""
    replace_file(path, csv_text(results).encode())


def csv_text(results: Iterable[Result]) -> str:
    """``results`` as CSV; equal results make equal bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(getattr(r, name)) for name in COLUMNS] for r in results)
    return text.getvalue()


def read_csv(path: Path) -> list[Result]:
    """Read what :func:`write_csv` wrote.

    Raises:
        InputError: the file is missing or malformed; the message names file and line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot read results: {error.strerror}") from error
    return parse_csv(content, str(path))


def parse_csv(content: bytes, source: str) -> list[Result]:
    """Read the bytes of a file that :func:`write_csv` wrote.

    Raises:
        InputError: they are malformed; the message names ``source`` and line.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: cannot read results: not UTF-8 text") from error
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    results: dict[tuple[str, ...], Result] = {}
    try:
        _check_header(next(rows, []))
        for row in rows:
            result = _parse(row)
            key = (result.dataset, result.network, result.protocol, result.attack)
            if key in results:
                raise ValueError(f"a second result for {_identity(result)}")
            results[key] = result
    except (ValueError, csv.Error, UnknownNameError) as error:
        raise InputError(f"{source}, line {max(rows.line_num, 1)}: {error}") from error
    return list(results.values())


def _cell(value: str | int | float) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.{DECIMALS}f}"
    return str(value)


def _check_header(row: Sequence[str]) -> None:
    if tuple(row) != COLUMNS:
        raise ValueError(f"the columns are {','.join(row) or 'missing'}: want {','.join(COLUMNS)}")


def _parse(row: Sequence[str]) -> Result:
    if len(row) != len(COLUMNS):
        raise ValueError(f"{len(row)} columns: want {len(COLUMNS)}")
    dataset, network, protocol, attack, n, *numbers, gradients, queries, network_md5, set_md5 = row
    _check_protocol(protocol)
    count = _count("n", n)
    costs = _count("gradients", gradients), _count("queries", queries)
    names = ("accuracy", "ci_low", "ci_high")
    shares = [_share(name, text, count) for name, text in zip(names, numbers, strict=True)]
    accuracy, low, high = shares
    if count and not low <= accuracy <= high:
        raise ValueError(f"accuracy {accuracy} lies outside its interval {low} to {high}")
    return Result(
        dataset, network, protocol, attack, count, accuracy, low, high, *costs, network_md5, set_md5
    )


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{name} is {text!r}: want a whole number, 0 or more")
    return int(text)


def _share(name: str, text: str, n: int) -> float:
    if n == 0:
        if text:
            raise ValueError(f"{name} is {text!r} where n is 0: want an empty cell")
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {text!r}: want a number from 0 to 1")
    return value


def _check_protocol(name: str) -> None:
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS)


def _identity(result: Result) -> str:
    return f"{result.network} on {result.attack} ({result.dataset}, {result.protocol})"
