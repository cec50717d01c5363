"""benchmarks/matting_folder.py: the data of the results' matting table, from the data sets that it consists of."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from matting_folder import TESTED, main, make

from indexnet.core.errors import UserError
from indexnet.data import create_data


@pytest.fixture
def data(tmp_path):
    """All foregrounds of alphamatting.com, and two photographs of either set for each split."""
    rng = np.random.default_rng(0)

    def write(name, shape):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 256, shape, dtype=np.uint8))

    for number in range(1, 22):
        write(f"alphamatting/input_training_lowres/GT{number:02}.png", (12, 16, 3))
        write(f"alphamatting/gt_training_lowres/GT{number:02}.png", (12, 16))
    for at, split in enumerate(("train", "test")):
        numbers = [2 * at, 2 * at + 1]
        for number in numbers:
            write(f"nyu_depth_v2_half/nyu_images/{number}.jpg", (12, 16, 3))
            write(f"CamVid/{split}/Seq_{number}.jpg", (12, 16, 3))
        (tmp_path / "nyu_depth_v2_half" / f"{split}.txt").write_text("".join(f"{n}\n" for n in numbers))
        lines = [f"{split}/Seq_{n}.jpg {split}annot/Seq_{n}.png\n" for n in numbers]
        (tmp_path / "CamVid" / f"{split}.txt").write_text("".join(lines))
    return tmp_path


def test_the_folder_is_divided_as_the_lists_are(data):
    assert main(["--data", str(data)]) == 0
    colours = data / "matting_colours"
    made = create_data(
        "matting_folder", root=data / "matting", foregrounds=colours, foreground="estimated", per_foreground=2
    )
    assert len(made.train()) == 2 * 16
    assert {name.split("_")[0] for name in made.test().names} == TESTED
    behind = {split: [path.name for path in made.backgrounds(split)] for split in ("train", "test")}
    assert sorted(behind["train"]) == ["camvid_Seq_0.jpg", "camvid_Seq_1.jpg", "nyu_0.jpg", "nyu_1.jpg"]
    assert sorted(behind["test"]) == ["camvid_Seq_2.jpg", "camvid_Seq_3.jpg", "nyu_2.jpg", "nyu_3.jpg"]
    assert len(list(colours.glob("*.png"))) == 21


def test_what_is_missing_or_there_already_is_a_sentence(data, capsys):
    (data / "CamVid" / "test" / "Seq_2.jpg").unlink()
    assert main(["--data", str(data)]) == 2
    assert "Seq_2.jpg: there is no such file" in capsys.readouterr().err
    assert not (data / "matting").exists()
    (data / "matting").mkdir()
    with pytest.raises(UserError, match="matting: it is there already"):
        make(data)
