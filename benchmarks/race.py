"""A fair race: every contender in a process of its own, one at a time, in turn, for some rounds.

Own processes, because a contender may change its whole process: the C library's allocator, the number
of threads. In turn, because a machine's speed drifts: what one round gives one contender it gives the
others too, so ratios are taken within a round and only then summed up.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepcustom.base.errors import DeepCustomError
from deepcustom.base.progress import Advance, silent

HERE = Path(__file__).resolve().parents[1]  # where ``python -m benchmarks.worker`` is found


class RaceError(DeepCustomError):
    """A contender failed; the message names it and says why."""


@dataclass(frozen=True)
class Contender:
    """Who runs.

    Attributes:
        name: short and unique.
        title: for tables.
        build: ``module:function``, called in the contender's process, returns a
            :class:`benchmarks.worker.Work`.
        options: keyword arguments of ``build``, JSON's types.
        family: contenders that differ in batch size alone; the tables show the fastest of them.
        optional: whether the race goes on without it where a package is missing.
    """

    name: str
    title: str
    build: str
    options: dict[str, Any] = field(default_factory=dict)
    family: str = ""
    optional: bool = False

    def describe(self) -> dict[str, Any]:
        """For the file of results."""
        shown = {key: value for key, value in self.options.items() if key not in ("root", "folder")}
        return {
            "name": self.name,
            "title": self.title,
            "family": self.family or self.name,
            "options": shown,
        }


class _Process:
    """A contender's process."""

    def __init__(self, contender: Contender, errors: Any) -> None:
        self._contender, self._errors = contender, errors
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=HERE,
        )

    def tell(self, **question: Any) -> None:
        """Ask without waiting for the answer."""
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RaceError(f"{self._contender.title}: {self._last_words()}") from None

    def hear(self) -> dict[str, Any]:
        """The answer.

        Raises:
            RaceError: the process ended, or what it was asked for failed.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RaceError(f"{self._contender.title}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer and not (answer["import"] and self._contender.optional):
            raise RaceError(f"{self._contender.title}: {answer['error']}")
        return answer

    def ask(self, **question: Any) -> dict[str, Any]:
        """Ask, and wait for the answer."""
        self.tell(**question)
        return self.hear()

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process.wait()

    def _last_words(self) -> str:
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().decode(errors="replace").splitlines()]
        said = next((line for line in reversed(lines) if line), "")
        return f"its process ended with {how}" + (f": {said}" if said else "")


@contextmanager
def _started(contenders: Sequence[Contender]) -> Iterator[list[_Process]]:
    """All processes, told to build; killed in the end, however it ends."""
    with ExitStack() as stack:
        processes = []
        for contender in contenders:
            errors = stack.enter_context(tempfile.TemporaryFile())
            process = _Process(contender, errors)
            stack.callback(process.kill)
            processes.append(process)
        for process, contender in zip(processes, contenders, strict=True):
            process.tell(build=contender.build, options=contender.options)
        yield processes


def race(
    contenders: Sequence[Contender], *, rounds: int, least: float, advance: Advance = silent
) -> list[dict[str, Any]]:
    """Measure all, round by round.

    A warm-up first: one call, which is judged, and one that says how many calls take ``least`` seconds;
    so many make up a contender's turn in every round.

    Args:
        contenders: in the order of their turns.
        rounds: how many turns each has.
        least: seconds that a turn takes at least, about.
        advance: called after every turn, the warm-up's included: ``(rounds + 1) * len(contenders)``.

    Returns:
        For each its description, and: ``count`` of one call; ``calls`` in a turn; per round the
        ``seconds`` of the turn and of its ``fastest`` call; ``facts``. Or ``absent``: the reason.

    Raises:
        RaceError: a contender failed.
    """
    results = [contender.describe() for contender in contenders]
    with _started(contenders) as processes:
        running = []
        for process, result in zip(processes, results, strict=True):
            answer = process.hear()
            if "error" in answer:
                result["absent"] = answer["error"]
                advance(f"{result['title']} is absent", steps=rounds + 1)
            else:
                result.update(count=answer["count"], seconds=[], fastest=[])
                running.append((process, result))
        for process, result in running:
            process.ask(calls=1)
            result["facts"] = process.ask(judge=True)["facts"]
            (seconds,) = process.ask(calls=1)["seconds"]
            result["calls"] = max(1, math.ceil(least / max(seconds, 1e-9)))
            advance(f"warm-up: {result['title']}")
        for number in range(1, rounds + 1):
            for process, result in running:
                seconds = process.ask(calls=result["calls"])["seconds"]
                result["seconds"].append(sum(seconds))
                result["fastest"].append(min(seconds))
                advance(f"round {number} of {rounds}: {result['title']}")
    return results


def once(contender: Contender) -> dict[str, Any]:
    """One call in a fresh process, no warm-up; as :func:`race` gives it.

    Raises:
        RaceError: it failed.
    """
    with _started([contender]) as (process,):
        count = process.hear()["count"]
        seconds = process.ask(calls=1)["seconds"]
        facts = process.ask(judge=True)["facts"]
    return {
        **contender.describe(),
        "count": count,
        "calls": 1,
        "seconds": seconds,
        "fastest": seconds,
        "facts": facts,
    }
