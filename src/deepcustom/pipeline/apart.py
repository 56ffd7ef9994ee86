"""Runs pieces of work in processes of their own, so that every core is busy.

A small network keeps one core busy, but hardly two: two processes of one thread each get more done than one
process of two threads.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from typing import Any, Generic, TypeVar

from deepcustom.base.errors import DeepCustomError, UserError
from deepcustom.base.params import section, validate
from deepcustom.base.progress import progress
from deepcustom.base.settings import ComputeParams

MOST = 8  # processes; each may hold a test split

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """How the cores are shared out.

    Attributes:
        processes: how many work at a time.
        threads: how many threads each has.
    """

    processes: int
    threads: int

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> Share:
        """A share for the threads that torch would use, in processes of ``compute.threads`` each."""
        import torch

        params = validate(ComputeParams, section(tree, "compute"), "compute")
        cores = torch.get_num_threads()
        if params.threads == "auto":
            processes = min(cores, MOST)
            return cls(processes, cores // processes)
        return cls(min(max(cores // params.threads, 1), MOST), params.threads)


@dataclass(frozen=True)
class Work(Generic[T]):
    """A piece of work for another process.

    Attributes:
        note: says that it is done.
        run: a function of a module, so that the other process can import it.
        given: its arguments, which travel to that process.
    """

    note: str
    run: Callable[..., T]
    given: tuple[Any, ...] = ()


class Processes:
    """A pool of processes."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def do(self, title: str, works: Iterable[Work[T]]) -> list[T]:
        """Do all of ``works``, begin them in their order, and show how many are done.

        Returns:
            What each returned, in their order.

        Raises:
            DeepCustomError: one of them raised it, or its process was ended from outside.
        """
        try:
            futures = {self._pool.submit(_do, one.run, one.given): one.note for one in works}
            with progress(title, len(futures)) as advance:
                for done in as_completed(futures):
                    done.result()
                    advance(futures[done])
        except BrokenProcessPool:
            raise DeepCustomError(
                f"{title}: a process was ended from outside, perhaps for lack of memory"
            ) from None
        return [future.result() for future in futures]


@contextmanager
def processes(share: Share, environ: Mapping[str, str]) -> Iterator[Processes]:
    """Start processes, with ``environ`` added to their environment.

    If the context ends by an error, so do the processes, and what they have half-written is removed.
    """
    pool = ProcessPoolExecutor(
        share.processes,
        get_context("spawn"),
        initializer=_begin,
        initargs=(share.threads, dict(environ)),
    )
    try:
        yield Processes(pool)
    except BaseException:
        for child in active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class _Ended(BaseException):
    """This process was asked to end."""


def _begin(threads: int, environ: Mapping[str, str]) -> None:
    """Set up a process of the pool: it prints nothing, and Ctrl-C is for the process that started it."""
    os.environ.update(environ)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    sys.stdout = sys.stderr = io.StringIO()
    import torch

    torch.set_num_threads(threads)


def _end(*_: object) -> None:
    raise _Ended


def _do(run: Callable[..., T], given: tuple[Any, ...]) -> T:
    """Run, in a process of the pool; what goes wrong becomes an error that travels between processes."""
    try:
        return run(*given)
    except DeepCustomError as error:
        kind = UserError if error.exit_code == UserError.exit_code else DeepCustomError
        raise kind(str(error)) from None
    except _Ended:  # the pool would go on to the next piece of work
        os._exit(1)
