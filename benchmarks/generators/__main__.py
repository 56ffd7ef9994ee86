"""Try generators: ``python -m benchmarks.generators``.

Each variant of ``variants.yaml`` is trained against each classifier, and gets a file of results. A variant
that has one is not trained again. The page, the table and the figure are made from these files alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
from collections.abc import Container
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.generators import variants
from deepcustom.base.errors import DeepCustomError, InputError
from deepcustom.base.files import replace_file

ROOT = Path(__file__).resolve().parents[2]
UNFINISHED = ROOT / "build/generators/unfinished"
REFERENCE = "reference"


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generators", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help="these variants")
    parser.add_argument("--on", nargs="+", metavar="CLASSIFIER", help="these classifiers")
    parser.add_argument("--anew", action="store_true", help="also those that have results")
    parser.add_argument("--quick", action="store_true", help="200 images, into build/generators")
    parser.add_argument("--render", action="store_true", help="only the page, from the results")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository's top folder")
    parser.add_argument("--out", type=Path, help="where results and page go")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except DeepCustomError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    from benchmarks.generators import page

    root = options.root.resolve()
    out = options.out or ROOT / ("build/generators" if options.quick else "benchmarks")
    if not options.render:
        _try(options, root, out)
    for written in page.write(out):
        print(f"written: {written}")
    return 0


def _try(options: argparse.Namespace, root: Path, out: Path) -> None:
    from benchmarks.generators import trying

    places, known = variants.read()
    _known("--on", options.on, places)
    _known("--only", options.only, [REFERENCE, *known])
    benches = dict(trying.on(root, places, quick=options.quick))
    lacking = [name for name in options.on or ([] if benches else places) if name not in benches]
    if lacking:
        raise InputError(
            f"no trained network for {', '.join(lacking)}: benchmarks/README.md says how to come by it"
        )
    for on in options.on or benches:
        for name in options.only or [REFERENCE, *known]:
            file = out / "results" / "generators" / on / f"{name}.json"
            if file.exists() and not options.anew:
                continue
            if absent := _absent(known.get(name), benches):
                print(
                    f"left out: {name} on {on}, since {', '.join(absent)} is not there", flush=True
                )
                continue
            began = {"date": datetime.now(UTC).date().isoformat(), "machine": trying.surroundings()}
            if name == REFERENCE:
                found = trying.reference(benches[on])
            else:
                found = trying.tried(known[name], benches[on], benches, UNFINISHED / on / name)
            _write(file, {"variant": name, "on": on, "quick": options.quick, **began, **found})
            shutil.rmtree(UNFINISHED / on / name, ignore_errors=True)


def _absent(variant: variants.Variant | None, benches: Container[str]) -> list[str]:
    """The classifiers that a variant is trained against and that are not there."""
    against = variant.against if variant else []
    return [name for name in against if name != variants.OWN and name not in benches]


def _known(option: str, wanted: list[str] | None, known: Any) -> None:
    unknown = [name for name in wanted or [] if name not in known]
    if unknown:
        raise InputError(f"{option} {unknown[0]}: want {', '.join(known)}")


def _write(file: Path, found: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, (json.dumps(found, indent=1, ensure_ascii=False) + "\n").encode())
    print(
        f"{found['on']} {found['variant']}: val {found.get('val')}, test {found.get('test')}",
        flush=True,
    )


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs ignore the former
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
