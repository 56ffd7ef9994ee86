"""The file of paired tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepcustom.base.errors import InputError
from deepcustom.evaluation.files import read_pairs, rows_csv
from deepcustom.evaluation.statistics import PairedTest


def test_pairs_are_read_as_they_were_written(tmp_path: Path) -> None:
    pairs = [PairedTest("target", "madry", 0, 885, 1e-100), PairedTest("a,b", "c", 3, 3, 1.0)]
    path = tmp_path / "pairs.csv"
    path.write_text(rows_csv([], [((), pair) for pair in pairs]))
    assert read_pairs(path) == pairs
    path.write_text(rows_csv([], []))
    assert read_pairs(path) == []


@pytest.mark.parametrize(
    "text",
    [
        "first,second\na,b\n",
        "first,second,only_first,only_second,p\na,b,x,0,1\n",
        "first,second,only_first\na\n",
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"pairs\.csv: cannot read paired tests"):
        read_pairs(path)
    with pytest.raises(InputError, match=r"none\.csv"):
        read_pairs(tmp_path / "none.csv")
