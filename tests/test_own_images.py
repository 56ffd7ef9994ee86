"""Images of one's own: every source, what is refused in one line, and what is only suspicious."""

from __future__ import annotations

import io
import json
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pipeline_fixtures import files, make_project, merged, own_modules, set_params, write_params

from deepcustom.base.errors import InputError, ParamsError, UserError
from deepcustom.base.params import read_params
from deepcustom.base.progress import silent
from deepcustom.base.rows import row
from deepcustom.data.arrays import Split
from deepcustom.data.datasets import DatasetSpec, load_spec
from deepcustom.data.own.array_files import find_in_arrays
from deepcustom.data.own.gather import gather
from deepcustom.data.own.pixels import Form, from_array, from_file
from deepcustom.data.own.source import Images, Item
from deepcustom.pipeline import workspace
from deepcustom.pipeline.check import check
from deepcustom.pipeline.check_files import check_files
from deepcustom.pipeline.code import is_code
from deepcustom.pipeline.code_lock import LOCK
from deepcustom.pipeline.template import own_code, render
from deepcustom.pipeline.workspace import Workspace
from deepcustom.stages import prepare
from deepcustom.tracking.record import RunRecord

NAME, PLACE = "shapes", "data/shapes"
CLASSES = ("apple", "bean", "corn")
N = {"train": 10, "test": 4}  # of each class
ROW = {
    "source": "folder",
    "path": PLACE,
    "reads": PLACE,
    "size": None,
    "channels": None,
    "test_share": None,
    "val_size": 6,
    "train_size": None,
    "test_size": None,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project with all rows, in which no stage runs."""
    return make_project(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def ws(whole: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A project without rows, in which ``prepare`` can run."""
    monkeypatch.setattr("deepcustom.pipeline.run.send", lambda *args: "")
    for name in ("dvc.yaml", LOCK):
        shutil.copy(whole.root / name, tmp_path)
    write_params(tmp_path, {"seed": 1, "prepare": {}})
    return Workspace(tmp_path)


def drawn(side: str, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Noise, sorted by class: uint8 (N, H, W, C), and labels."""
    n = N[side] * len(CLASSES)
    rng = np.random.default_rng(len(side))
    shape = (n, 8, 10, channels)
    return rng.integers(0, 256, shape, np.uint8), np.repeat(np.arange(3), N[side])


def png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.squeeze(image)).save(content, "PNG")
    return content.getvalue()


def write_folder(ws: Workspace, halves: bool = True, channels: int = 3) -> None:
    for side in N:
        for i, (image, label) in enumerate(zip(*drawn(side, channels), strict=True)):
            part = f"{side}/" if halves else ""
            file = ws.root / PLACE / f"{part}{CLASSES[label]}" / f"{side}-{i:03}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(image))


def write_arrays(ws: Workspace) -> None:
    (ws.root / PLACE).mkdir(parents=True)
    for side in N:
        for name, array in zip("xy", drawn(side), strict=True):
            np.save(ws.root / PLACE / f"{name}_{side}.npy", array)


def write_npz(ws: Workspace) -> None:
    arrays = {f"{name}_{side}": a for side in N for name, a in zip("xy", drawn(side), strict=True)}
    (ws.root / PLACE).parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(ws.root / f"{PLACE}.npz", **arrays)


def table(images: list[Any], labels: list[Any], names: tuple[str, ...] | None = CLASSES) -> Any:
    import pyarrow

    content = [{"bytes": one, "path": None} for one in images]
    found = pyarrow.table({"image": content, "label": labels})
    if names is None:
        return found
    about = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
    return found.replace_schema_metadata({"huggingface": json.dumps(about)})


def write_parquet(ws: Workspace) -> None:
    import pyarrow.parquet

    folder = ws.root / PLACE / "data"
    folder.mkdir(parents=True)
    for side in N:
        x, y = drawn(side)
        for part, rows in enumerate(np.array_split(np.arange(len(y)), 2)):
            made = table([png(one) for one in x[rows]], y[rows].tolist())
            pyarrow.parquet.write_table(made, folder / f"{side}-{part:05}-of-00002.parquet")


FUNCTION = """
import numpy as np

def images(path):
    for side in ("train", "test"):
        x, y = np.load(path / f"x_{side}.npy"), np.load(path / f"y_{side}.npy")
        for image, label in zip(x, y):
            yield image, ("apple", "bean", "corn")[label], side
"""


def write_function(ws: Workspace, text: str = FUNCTION) -> None:
    write_arrays(ws)
    (ws.root / "own/data").mkdir(parents=True)
    (ws.root / "own/data/shapes.py").write_text(text)
    (ws.root / "dvc.yaml").write_text(render(ws.root))


CALLED = {"source": "function", "function": "own.data.shapes:images", "classes": list(CLASSES)}
ZIPPED = {"source": "arrays", "path": f"{PLACE}.npz", "reads": f"{PLACE}.npz"}
SOURCES: list[tuple[Callable[[Workspace], None], dict[str, Any]]] = [
    (write_folder, {}),
    (write_arrays, {"source": "arrays", "classes": list(CLASSES)}),
    (write_npz, {**ZIPPED, "classes": list(CLASSES)}),
    (write_parquet, {"source": "parquet"}),
    (write_function, CALLED),
]


def run(ws: Workspace, over: dict[str, Any] | None = None) -> None:
    set_params(ws.root, {"prepare": {NAME: {**ROW, **(over or {})}}})
    with own_modules("own"):
        prepare.run(ws, NAME)


def spec_of(ws: Workspace) -> DatasetSpec:
    return load_spec(ws.root / workspace.dataset(NAME))


def split_of(ws: Workspace, name: str) -> Split:
    return Split.load(ws.root / workspace.split(NAME, name), spec_of(ws))


def record_of(ws: Workspace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ws.root / workspace.data_record(NAME)).read_text())
    return found


# Every source


@pytest.mark.parametrize(("write", "over"), SOURCES, ids=lambda one: getattr(one, "__name__", ""))
def test_every_source_gives_the_same_splits(
    ws: Workspace, write: Callable[[Workspace], None], over: dict[str, Any]
) -> None:
    write(ws)
    run(ws, over)
    spec = spec_of(ws)
    assert (spec.name, spec.shape, spec.classes) == (NAME, (3, 8, 10), CLASSES)
    splits = {name: split_of(ws, name) for name in workspace.SPLITS}
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 24,
        "val": 6,
        "test": 12,
    }
    for name, split in splits.items():
        x, y = drawn("test" if name == "test" else "train")
        np.testing.assert_array_equal(split.x, x.transpose(0, 3, 1, 2)[split.index])
        np.testing.assert_array_equal(split.y, y[split.index])
        assert split.y.dtype == np.uint8
    assert sorted([*splits["train"].index, *splits["val"].index]) == list(range(30))
    assert np.bincount(splits["val"].y).tolist() == [2, 2, 2]


def test_the_facts_are_those_of_the_official_arrays(ws: Workspace) -> None:
    from hashlib import sha256

    write_folder(ws)
    run(ws)
    for side, facts in spec_of(ws).splits.items():
        x, y = drawn(side)
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
        assert facts.size == len(y)
        assert facts.x_sha256 == sha256(x.data).hexdigest()
        assert facts.y_sha256 == sha256(y.astype(np.uint8).data).hexdigest()


def test_files_are_those_that_a_split_saves_and_the_moments_are_numpys(
    ws: Workspace, tmp_path: Path
) -> None:
    write_folder(ws)
    run(ws)
    train = split_of(ws, "train")
    train.save(tmp_path / "saved")
    for name in ("x", "y", "index"):
        written = ws.root / workspace.split(NAME, "train") / f"{name}.npy"
        assert written.read_bytes() == (tmp_path / f"saved/{name}.npy").read_bytes()
    metrics = RunRecord.read(ws.root / workspace.record(NAME, "prepare")).metrics
    assert metrics["train_mean"] == pytest.approx(train.x.mean() / 255, rel=1e-12)
    assert metrics["train_std"] == pytest.approx(train.x.std() / 255, rel=1e-12)


def test_the_record_names_the_images_as_an_input_and_no_image_as_code(ws: Workspace) -> None:
    write_folder(ws)
    run(ws)
    record = RunRecord.read(ws.root / workspace.record(NAME, "prepare"))
    assert list(record.inputs) == [PLACE]
    assert set(record.outputs) == {
        *(workspace.split(NAME, name) for name in workspace.SPLITS),
        workspace.dataset(NAME),
        workspace.data_record(NAME),
        workspace.metrics(NAME, "prepare"),
    }
    assert not is_code("pictures/flowers", "prepare")
    assert is_code("own/data", "prepare")
    assert is_code("pictures/flowers", "train_dgn")


def test_a_source_without_a_test_part_is_split_by_a_recorded_draw(ws: Workspace) -> None:
    write_folder(ws, halves=False)
    run(ws, {"test_share": 0.25})
    test = split_of(ws, "test")
    assert len(test) == round(0.25 * 42)
    assert set(np.bincount(test.y)) <= {3, 4}
    seen = [split_of(ws, name).x.tobytes() for name in ("train", "val")]
    assert not [one for one in test.x if any(one.tobytes() in other for other in seen)]
    drawn_test = record_of(ws)["test_drawn"]
    assert drawn_test["share"] == 0.25
    assert drawn_test["images"] == 10
    before = test.x.tobytes()
    run(ws, {"test_share": 0.25})
    assert split_of(ws, "test").x.tobytes() == before


def test_more_than_256_classes_have_labels_of_two_bytes(ws: Workspace) -> None:
    (ws.root / PLACE).mkdir(parents=True)
    y = np.tile(np.arange(300), 3)
    x = np.arange(900 * 4).reshape(900, 2, 2).astype(np.uint16).view(np.uint8).reshape(900, 2, 4)
    for name, array in {"x_train": x, "y_train": y, "x_test": x, "y_test": y}.items():
        np.save(ws.root / PLACE / f"{name}.npy", array)
    run(ws, {"source": "arrays", "val_size": 0})
    train = split_of(ws, "train")
    assert train.y.dtype == np.uint16
    np.testing.assert_array_equal(train.y, y)
    assert spec_of(ws).classes[299] == "299"


def test_a_function_that_needs_no_file(ws: Workspace) -> None:
    text = """
import numpy as np

def images():
    for i in range(60):
        yield np.full((4, 4), i, np.uint8), i % 3
"""
    write_function(ws, text)
    over = {**CALLED, "classes": None, "path": None, "reads": "own/data", "test_share": 0.2}
    run(ws, over)
    assert len(split_of(ws, "test")) == 12
    assert spec_of(ws).shape == (1, 4, 4)


# One image


def test_an_image_of_the_wanted_form_is_left_as_it_is() -> None:
    x, _ = drawn("test")
    for given in (x[0], x[0].transpose(2, 0, 1)):
        np.testing.assert_array_equal(from_array(given, Form((8, 10), 3)), x[0].transpose(2, 0, 1))
    read = from_file(io.BytesIO(png(x[0])), Form(None, None))
    np.testing.assert_array_equal(read, x[0].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("given", "wanted"),
    [((40, 60), (20, 20)), ((60, 40), (20, 20)), ((10, 8), (20, 32)), ((9, 9), (9, 5))],
)
def test_an_image_is_resized_and_its_centre_cut_out(
    given: tuple[int, int], wanted: tuple[int, int]
) -> None:
    """In one step as in two: the whole image is resized, then its centre cut out."""
    (height, width), (high, wide) = given, wanted
    image = np.random.default_rng(0).integers(0, 256, given, np.uint8)
    scale = max(high / height, wide / width)
    whole = Image.fromarray(image).resize((round(width * scale), round(height * scale)))
    left, top = (whole.width - wide) // 2, (whole.height - high) // 2
    expected = np.asarray(whole.crop((left, top, left + wide, top + high))).astype(int)
    made = from_array(image, Form(wanted, None))
    assert made.shape == (1, *wanted)
    assert abs(made[0] - expected).max() <= 1


def test_a_smaller_image_is_an_average_of_all_pixels() -> None:
    """Without antialiasing, single pixels of a chessboard would be black or white."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    made = from_array(board, Form((8, 8), None))
    assert abs(made.astype(int) - 127).max() <= 3


def saved(image: Image.Image, kind: str = "PNG", **more: Any) -> io.BytesIO:
    content = io.BytesIO()
    image.save(content, kind, **more)
    content.seek(0)
    return content


def test_modes_are_brought_to_grey_or_colours() -> None:
    clear = saved(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))
    assert from_file(clear, Form(None, 3)).min() == 255  # transparent lies over white
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert from_file(saved(palette), Form(None, None))[:, 0, 0].tolist() == [10, 20, 30]
    grey = saved(Image.new("L", (4, 4), 7))
    assert from_file(grey, Form(None, None)).shape == (1, 4, 4)
    assert from_file(grey, Form(None, 3))[:, 0, 0].tolist() == [7, 7, 7]
    red = saved(Image.new("RGB", (4, 4), (255, 0, 0)))
    assert from_file(red, Form(None, 1))[:, 0, 0].tolist() == [76]
    inks = saved(Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "JPEG")
    assert from_file(inks, Form(None, None)).shape == (3, 4, 4)


def test_exif_turns_an_image_upright() -> None:
    image = Image.new("L", (4, 2))
    image.putpixel((0, 0), 255)
    about = Image.Exif()
    about[0x0112] = 6  # to be turned by 90 degrees, clockwise
    made = from_file(saved(image, "PNG", exif=about), Form(None, None))
    assert made.shape == (1, 4, 2)
    assert made[0, 0].tolist() == [0, 255]


# What is refused, in one line


def spoiled(*path: str, content: bytes | None) -> Callable[[Workspace], None]:
    """The folder of images with one file replaced or, for None, a class removed."""

    def spoil(ws: Workspace) -> None:
        write_folder(ws)
        file = ws.root.joinpath(PLACE, *path)
        if content is None:
            shutil.rmtree(file)
        else:
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)

    return spoil


def emptied(ws: Workspace) -> None:
    write_folder(ws)
    for file in (ws.root / PLACE / "train/bean").iterdir():
        file.unlink()
    (ws.root / PLACE / "train/bean/notes.txt").write_text("none yet")


def array(name: str, value: np.ndarray) -> Callable[[Workspace], None]:
    def spoil(ws: Workspace) -> None:
        write_arrays(ws)
        np.save(ws.root / PLACE / f"{name}.npy", value, allow_pickle=True)

    return spoil


def cut_off(ws: Workspace) -> None:
    write_arrays(ws)
    file = ws.root / PLACE / "x_train.npy"
    file.write_bytes(file.read_bytes()[:-5])


def one_class(ws: Workspace) -> None:
    for side in N:
        (ws.root / PLACE / side / "apple").mkdir(parents=True)
        (ws.root / PLACE / side / "apple/a.png").write_bytes(png(drawn(side)[0][0]))


def rare(ws: Workspace) -> None:
    """A class with a single image to train on."""
    write_folder(ws)
    for file in sorted((ws.root / PLACE / "train/corn").iterdir())[1:]:
        file.unlink()


def uneven(ws: Workspace) -> None:
    """Classes of 2, 2 and 96 images to train on."""
    write_arrays(ws)
    rng = np.random.default_rng(0)
    for side, counts in {"train": (2, 2, 96), "test": (1, 1, 1)}.items():
        y = np.repeat(np.arange(3), counts)
        np.save(ws.root / PLACE / f"y_{side}.npy", y)
        np.save(ws.root / PLACE / f"x_{side}.npy", rng.integers(0, 256, (len(y), 4, 4), np.uint8))


def columns(**values: Any) -> Callable[[Workspace], None]:
    def spoil(ws: Workspace) -> None:
        import pyarrow
        import pyarrow.parquet

        (ws.root / PLACE).mkdir(parents=True)
        made = pyarrow.table(values)
        pyarrow.parquet.write_table(made, ws.root / PLACE / "train.parquet")

    return spoil


def no_parquet(ws: Workspace) -> None:
    (ws.root / PLACE).mkdir(parents=True)
    (ws.root / PLACE / "train.parquet").write_bytes(b"no table")


def halved(ws: Workspace) -> None:
    write_folder(ws, halves=False)


def yielding(line: str) -> Callable[[Workspace], None]:
    def spoil(ws: Workspace) -> None:
        text = f"import numpy as np\ndef images(path):\n    {line}\n"
        write_function(ws, text)

    return spoil


def gif() -> bytes:
    frames = [Image.new("L", (10, 8), shade) for shade in (0, 255)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:]).getvalue()


DEEP = saved(Image.fromarray(np.full((8, 10), 5000, np.uint16))).getvalue()
X, Y = drawn("train")
WHOLE = png(X[0])
ARRAYS, PARQUET = {"source": "arrays"}, {"source": "parquet"}
IMAGE = f"{PLACE}/train/apple/train-000.png"

BROKEN: dict[str, tuple[Callable[[Workspace], None], dict[str, Any], str]] = {
    "unreadable": (
        spoiled("train/apple/train-000.png", content=b"not an image"),
        {},
        f"{IMAGE}: no readable image; formats: PNG, JPEG, ",
    ),
    "cut off": (spoiled("train/apple/train-000.png", content=WHOLE[:-60]), {}, f"{IMAGE}: "),
    "animated": (
        spoiled("train/apple/train-000.gif", content=gif()),
        {},
        f"{IMAGE[:-3]}gif: an animated image of 2 frames",
    ),
    "16 bits": (
        spoiled("test/corn/deep.png", content=DEEP),
        {},
        f"{PLACE}/test/corn/deep.png: more than 8 bits a channel",
    ),
    "other size": (
        spoiled("train/bean/wide.png", content=png(np.zeros((8, 11, 3), np.uint8))),
        {},
        f"{PLACE}/train/bean/wide.png: 8 x 11 pixels and 3 channel(s), the images before have "
        "8 x 10 pixels and 3 channel(s): set size",
    ),
    "other channels": (
        spoiled("train/bean/grey.png", content=png(np.zeros((8, 10), np.uint8))),
        {},
        "1 channel(s), the images before have 8 x 10 pixels and 3 channel(s): set channels",
    ),
    "too large": (
        spoiled("train/apple/train-000.png", content=png(np.zeros((8, 300), np.uint8))),
        {},
        f"{IMAGE}: 8 x 300 pixels, at most 256 x 256 are read: set size",
    ),
    "empty class": (emptied, {}, f"{PLACE}/train/bean: this class has no image; suffixes: .png"),
    "class on one side": (
        spoiled("test", "bean", content=None),
        {},
        f"{PLACE}/test/bean is missing: {PLACE} has this class on one side only",
    ),
    "one class": (one_class, {}, f"{PLACE}: 1 class(es), expected 2 to 1000"),
    "image in no class": (
        spoiled("train/a.png", content=WHOLE),
        {},
        f"{PLACE}/train/a.png lies in no class: put it into a sub-folder of {PLACE}/train",
    ),
    "third folder": (
        spoiled("val/a.png", content=WHOLE),
        {},
        f"{PLACE}/val: beside train and test there may be no other folder",
    ),
    "few images": (
        rare,
        {},
        "params.yaml: prepare.shapes.val_size: class corn has one image, too few for a draw",
    ),
    "val too large": (
        write_folder,
        {"val_size": 29},
        "params.yaml: prepare.shapes.val_size is 29, of 30 images: allowed is 0, or 3 ",
    ),
    "no test part": (
        halved,
        {},
        "prepare.shapes.test_share must be a share between 0 and 1: the source has no part of its own",
    ),
    "a test part": (
        write_folder,
        {"test_share": 0.5},
        "prepare.shapes.test_share must be null: the source has a part of its own for test; found 0.5",
    ),
    "small share": (
        halved,
        {"test_share": 0.01},
        "prepare.shapes.test_share of 0.01 is 0, of 42 images: allowed is 3 (one per class) to 39",
    ),
    "few of a class": (
        uneven,
        {**ARRAYS, "classes": list(CLASSES), "val_size": 4},
        "prepare.shapes.val_size: 4 of 100 images would have none of class apple, which has 2",
    ),
    "no images": (lambda ws: None, {}, f"{PLACE} is missing"),
    "array of floats": (
        array("x_train", X.astype(np.float32)),
        ARRAYS,
        f"{PLACE}/x_train.npy: float32 of shape (30, 8, 10, 3), expected uint8 of shape (N, H, W)",
    ),
    "array of objects": (
        array("y_train", np.array([{}] * 30)),
        ARRAYS,
        f"{PLACE}/y_train.npy: an array of Python objects, expected numbers; pickles are not read",
    ),
    "short labels": (
        array("y_train", Y[:-1]),
        ARRAYS,
        f"{PLACE}/y_train.npy: int64 of shape (29,), expected integers of shape (30,)",
    ),
    "negative label": (
        array("y_train", Y - 1),
        ARRAYS,
        f"{PLACE}/x_train.npy[0]: its label is -1, expected 0 to 999",
    ),
    "class without images": (
        array("y_test", np.zeros(12, int)),
        ARRAYS,
        f"{PLACE}: class 1 has no image in test",
    ),
    "array cut off": (cut_off, ARRAYS, f"{PLACE}/x_train.npy: cut off"),
    "no parquet": (no_parquet, PARQUET, f"{PLACE}/train.parquet: no readable parquet file ("),
    "no labels": (
        columns(image=[WHOLE]),
        PARQUET,
        f"{PLACE}/train.parquet: no column of labels (label or labels or fine_label); it has: image",
    ),
    "image elsewhere": (
        columns(image=[{"bytes": None, "path": "a.png"}], label=[0]),
        PARQUET,
        "train.parquet: column image is struct<bytes: null",
    ),
    "no label": (
        columns(image=[WHOLE], label=[None]),
        PARQUET,
        "train.parquet: column label is null, expected integers",
    ),
    "function fails": (
        yielding("raise RuntimeError('no disk')"),
        CALLED,
        "function own.data.shapes:images: RuntimeError: no disk",
    ),
    "function yields no pair": (
        yielding("yield np.zeros((8, 10), np.uint8)"),
        CALLED,
        "own.data.shapes:images, image 1: a function yields (image, label) or ",
    ),
    "function yields an unknown class": (
        yielding("yield np.zeros((8, 10), np.uint8), 'pear'"),
        CALLED,
        "image 1: 'pear' is no class; allowed: apple, bean, corn",
    ),
}


@pytest.mark.parametrize(("write", "over", "message"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    ws: Workspace, write: Callable[[Workspace], None], over: dict[str, Any], message: str
) -> None:
    write(ws)
    set_params(ws.root, {"prepare": {NAME: {**ROW, **over}}})
    before = files(ws.root)
    with pytest.raises(UserError) as caught:
        run(ws, over)
    after = files(ws.root)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert {name for name in after if "__pycache__" not in name} == set(before)


# What is only suspicious


def test_what_is_suspicious_is_counted_named_and_printed(
    ws: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(ws)
    folder = ws.root / PLACE
    again = (folder / "train/apple/train-000.png").read_bytes()
    (folder / "test/apple/again.png").write_bytes(again)
    (folder / "train/bean/other.png").write_bytes(again)
    for i in range(200):
        image = np.full((8, 10, 3), i, np.uint8)
        (folder / f"train/corn/many-{i:03}.png").write_bytes(png(image))
    (folder / "train/notes.txt").write_text("who drew them")
    run(ws, {"val_size": 60})
    record = record_of(ws)
    assert record["ignored_files"] == {"count": 1, "examples": [f"{PLACE}/train/notes.txt"]}
    assert record["images_by_class"]["corn"] == {"train": 210, "test": 4}
    first = f"{PLACE}/train/apple/train-000.png (apple)"
    assert record["warnings"] == {
        "same_image_both_sides": {
            "count": 1,
            "examples": [f"{first} and {PLACE}/test/apple/again.png (apple)"],
        },
        "same_image_two_labels": {
            "count": 3,
            "examples": [f"{first} and {PLACE}/train/bean/other.png (bean)"],
        },
        "unequal_classes": {"count": 21.0, "examples": ["apple: 10", "corn: 210"]},
    }
    metrics = RunRecord.read(ws.root / workspace.record(NAME, "prepare")).metrics
    assert metrics["warnings/same_image_both_sides"] == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert lines[0].startswith("warning: shapes: 1 test images are in train too: data/shapes/train")
    assert len(lines) == 3


def test_nothing_suspicious_is_recorded_as_such(
    ws: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(ws)
    run(ws)
    assert [one["count"] for one in record_of(ws)["warnings"].values()] == [0, 0, 0]
    assert "warning" not in capsys.readouterr().out


# Many images


def many(n: int) -> Images:
    def items() -> Any:
        for i in range(n):
            image = np.full((16, 16, 3), i % 251, np.uint8)
            yield Item(
                f"image {i}", "all", i % 2, lambda form, image=image: from_array(image, form)
            )

    return Images("many", items, None, n, False)


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    def peak(n: int) -> int:
        tracemalloc.start()
        try:
            gather(many(n), Form(None, None), tmp_path / str(n), silent)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)
    few, more = peak(500), peak(5000)
    assert more - few < 4500 * 100  # an image has 768 bytes


# The row


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"source": "zip"}, "prepare.shapes.source must be one of built_in, folder, arrays, "),
        ({"size": 300}, "prepare.shapes.size: should be null, or 1 to 256, or [height, width]"),
        ({"size": True}, "prepare.shapes.size: should be null, or 1 to 256"),
        ({"channels": 4}, "prepare.shapes.channels: should be 1 or 3 (found 4)"),
        ({"test_share": 1}, "prepare.shapes.test_share: should be less than 1"),
        ({"classes": ["a"]}, "prepare.shapes.classes is not a known key; allowed: val_size, "),
        ({**CALLED, "function": "os:system"}, "prepare.shapes.function: String should match"),
        ({**ARRAYS, "classes": ["a", "a"]}, "prepare.shapes.classes: should name each class once"),
        ({"path": "../x", "reads": "../x"}, "prepare.shapes.path must lie in the project"),
        ({"path": "/x", "reads": "/x"}, "prepare.shapes.path must lie in the project"),
        ({"path": "data/raw/x", "reads": "data/raw/x"}, "path must lie beside these"),
        ({"path": "data", "reads": "data"}, "prepare.shapes.path must lie beside these"),
        ({"reads": "data/x"}, "prepare.shapes.reads must be data/shapes, the path of its images"),
        ({**CALLED, "path": None}, "prepare.shapes.reads must be own/data, since it names no path"),
    ],
)
def test_a_row_that_is_wrong_is_refused_in_one_line(
    whole: Workspace, over: dict[str, Any], message: str
) -> None:
    tree = merged(read_params(whole.params), {"prepare": {NAME: {**ROW, **over}}})
    with pytest.raises(ParamsError) as caught:
        check(whole.root, tree)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_good_row_passes(whole: Workspace) -> None:
    tree = merged(read_params(whole.params), {"prepare": {NAME: ROW}})
    check_files(whole.root, {**tree, "prepare": {NAME: ROW}})
    assert row(tree, "prepare", NAME).files == [PLACE]


# The user's own code


def test_own_code_is_a_dependency_where_the_project_has_it(tmp_path: Path) -> None:
    assert "own/" not in render(tmp_path)
    (tmp_path / "own/data").mkdir(parents=True)
    (tmp_path / "own/nets").mkdir()
    assert own_code(tmp_path, "prepare") == ["own/data"]
    assert own_code(tmp_path, "train_target") == ["own/nets"]
    text = render(tmp_path)
    assert text.count("      - own/data\n") == 1
    assert text.count("      - own/nets\n") == 11
    assert "OWN" not in text


def test_own_code_that_dvc_yaml_does_not_list_is_refused(ws: Workspace) -> None:
    write_function(ws)
    (ws.root / "dvc.yaml").write_text(render(ws.root).replace("      - own/data\n", ""))
    with pytest.raises(
        UserError, match=r"dvc\.yaml does not list the code that prepare runs, own/data"
    ):
        run(ws, CALLED)


def test_what_stands_twice_is_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.zeros((2, 8, 8), np.uint8))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", content.getvalue())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", content.getvalue())
    with pytest.raises(InputError, match=r"^a.npz: x.npy is in it twice$"):
        find_in_arrays(tmp_path, "a.npz", None)

    def items() -> Iterator[Item]:
        pixels = np.zeros((1, 8, 8), np.uint8)
        return (Item(str(n), "all", n, lambda _: pixels) for n in range(3))

    images = Images("a.parquet", items, ("bee", "ant", "bee"), 3, False)
    with pytest.raises(InputError, match=r"^a.parquet: two classes are called bee$"):
        gather(images, Form(None, None), tmp_path, silent)
