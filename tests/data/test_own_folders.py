"""``segmentation_folder`` and ``denoising_folder``: a person's own files."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from data_support import CODE, names, random_image, write_coloured, write_denoising_folder, write_pair
from data_support import write_segmentation_folder as write_split_folders
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.core.registry import option_names
from indexnet.data import IGNORE, create_data, get_data, list_data
from indexnet.data.io.class_lists import read_classes
from indexnet.data.io.images import image_names, write_png
from indexnet.run.config import compose, freeze

RNG = np.random.default_rng(0)


def segmentation(root, **options):
    return create_data("segmentation_folder", root=str(root), size=12, **options)


CLASS_FILES = {
    "label_colors.txt": "".join(f"{r} {g} {b}\t\t{name}\r\n" for name, (r, g, b) in CODE.items()),
    "class_dict.csv": "name,r,g,b\n" + "".join(f"{name},{r},{g},{b}\n" for name, (r, g, b) in CODE.items()),
    "labelmap.txt": "# label:color_rgb:parts:actions\n"
    + "".join(f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in CODE.items()),
    "classes.csv": "\ufeffr;g;b;class\n" + "".join(f"{r};{g};{b};{name}\n" for name, (r, g, b) in CODE.items()),
}


@pytest.mark.parametrize("file", CLASS_FILES)
def test_maps_of_colours_are_their_classes(tmp_path, file):
    (tmp_path / file).write_text(CLASS_FILES[file], encoding="utf-8", newline="")
    assert read_classes(tmp_path / file) == list(CODE.items())
    wanted = {}
    for k in range(12):
        wanted[f"{k}"] = write_coloured(tmp_path / f"images/{k}.JPG", tmp_path / f"labels/{k}_L.png", k)
    data = segmentation(tmp_path, label_ending="_L", void="Void", validation=True)
    assert data.classes == ("Sky", "Lane markings", "Road")
    splits = data.train(), data.validation(), data.test()
    assert sorted(name for split in splits for name in names(split)) == sorted(wanted)
    for split in splits[1:]:
        for index in range(len(split)):
            sample = split.sample(index, RNG)
            numbers = wanted[sample["name"]]
            assert np.array_equal(sample["label"].numpy(), np.where(numbers == 0, IGNORE, numbers - 1))
    all_count = segmentation(tmp_path, label_ending="_L")
    assert len(all_count.classes) == 4
    assert all_count.validation() is None
    assert all_count.test().fingerprint() != data.test().fingerprint()
    config = freeze(
        compose(["task=segmentation", "data=segmentation_folder", f"data.root={tmp_path}", "data.void=[Void]"])
    )
    assert config["task"]["classes"] == ["Sky", "Lane markings", "Road"]
    assert config["network"]["classes"] == 3


def test_maps_of_numbers_with_void_classes_and_numbers(tmp_path):
    _, numbers = write_pair(tmp_path / "images/a.png", tmp_path / "labels/a.png", (1, 2, 3, 9, 255))
    write_pair(tmp_path / "images/b.png", tmp_path / "labels/b.png", (1, 2))
    for listed in ("test", "train"):
        (tmp_path / f"{listed}.txt").write_text("a\n" if listed == "test" else "images\\b.png labels\\b.png\n")
    data = segmentation(tmp_path, classes=["sky", "dirt", "road"], void=["dirt", 9], first=1)
    assert data.classes == ("sky", "road")
    label = data.test().sample(0, RNG)["label"].numpy()
    assert np.array_equal(label, np.select([numbers == 1, numbers == 3], [0, 1], IGNORE))
    assert names(data.train()) == ["b"]
    assert data.validation() is None
    with pytest.raises(
        UserError, match=r"labels/a\.png holds the labels 2, 3, 9; .* has 0\.\.1, and 255 for unlabelled"
    ):
        segmentation(tmp_path, classes=["sky", "road"]).test().verify(0)
    (tmp_path / "test.txt").write_text("c\n")
    with pytest.raises(UserError, match=r"test\.txt, line 1: .*images holds no image of the name 'c'"):
        data.test()


def listed(root, line, **options):
    (root / "train.txt").write_text(f"{line}\n")
    return [
        tuple(map(str, (p.relative_to(root) for p in pair))) for pair in segmentation(root, **options).train().pairs
    ]


def test_a_listed_image_in_a_folder_has_its_label_map_there(tmp_path):
    write_pair(tmp_path / "images/sub/a.jpg", tmp_path / "labels/sub/a_L.png", (0, 1))
    write_pair(tmp_path / "whole/b.png", tmp_path / "labels/a_L.png", (0, 1))
    options = {"classes": ["sky", "road"], "label_ending": "_L"}
    for line in ("sub/a.jpg", "sub/a", "/data/images/sub/a.jpg", "images/sub/a.jpg"):
        assert listed(tmp_path, line, **options) == [("images/sub/a.jpg", "labels/sub/a_L.png")]
    assert listed(tmp_path, "whole/b.png labels/a_L.png", **options) == [("whole/b.png", "labels/a_L.png")]
    (tmp_path / "labels/sub/a_L.png").unlink()
    with pytest.raises(UserError, match=r"labels/sub/a_L\.png is missing"):
        listed(tmp_path, "sub/a.jpg", **options)
    (tmp_path / "images" / "sub" / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match="share a name"):
        listed(tmp_path, "sub/a", **options)


def test_one_gap_of_a_line_parts_image_and_label_map(tmp_path):
    write_pair(tmp_path / "x 1.jpg", tmp_path / "x 1_L.png", (0, 1))
    write_pair(tmp_path / "depth.png", tmp_path / "1_L.png", (0, 1))
    classes = {"classes": ["sky", "road"]}
    assert listed(tmp_path, "x 1.jpg x 1_L.png", **classes) == [("x 1.jpg", "x 1_L.png")]
    assert listed(tmp_path, "x 1.jpg depth.png x 1_L.png", **classes) == [("x 1.jpg", "x 1_L.png")]
    (tmp_path / "x 1_L.png").unlink()
    with pytest.raises(UserError):
        listed(tmp_path, "x 1.jpg x 1_L.png", **classes)


@pytest.mark.parametrize("text", ["2 car\n1 road\n0 sky\n", "id;name\n0;sky\n1;road\n2;car\n", "name\nsky\nroad\ncar\n",
                                  "Label\n0: sky\n1: road\n2: car\n"])  # fmt: skip
def test_headings_and_numbers_of_lists_of_classes(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    assert read_classes(tmp_path / "classes.txt") == [("sky", None), ("road", None), ("car", None)]


def test_numbers_of_classes_that_do_not_fit(tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("1 sky\n2 road\n")
    write_pair(tmp_path / "images/a.png", tmp_path / "labels/a.png", (1, 2))
    write_pair(tmp_path / "images/b.png", tmp_path / "labels/b.png", (1, 2))
    with pytest.raises(UserError, match=r"classes\.txt numbers its classes '1, 2'; they must be numbered from 0"):
        segmentation(tmp_path).train()
    assert segmentation(tmp_path, first=1).classes == ("sky", "road")
    assert main(["data", "check", "segmentation_folder", f"root={tmp_path}", "first=1"]) == 0
    assert "classes in the label maps: 1 sky, 2 road." in " ".join(capsys.readouterr().out.split())
    (tmp_path / "classes.txt").write_text("64 0 0 1 sky\n0 0 64 2 wheeler\n")
    assert read_classes(tmp_path / "classes.txt") == [("sky", (64, 0, 0)), ("wheeler", (0, 0, 64))]


def test_void_by_number_is_no_class(tmp_path):
    _, numbers = write_pair(tmp_path / "images/test/a.png", tmp_path / "labels/test/a.png", (0, 1, 2))
    data = segmentation(tmp_path, classes=["sky", "dirt", "road"], void=1)
    assert data.classes == ("sky", "road")
    label = data.test().sample(0, RNG)["label"].numpy()
    assert np.array_equal(label, np.select([numbers == 0, numbers == 2], [0, 1], IGNORE))


def test_roots_that_no_folder_can_have(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in [info.name for info in list_data() if "root" in option_names(get_data(info.name))]:
        for root in ("a\0b", "x/" * 3000, "loop"):
            with pytest.raises(UserError, match=r"data\.root="):
                create_data(name, root=str(tmp_path / root))


def test_a_link_to_itself_is_no_image(tmp_path):
    write_png(tmp_path / "a.png", random_image(0))
    (tmp_path / "b.png").symlink_to("b.png")
    (tmp_path / "c.png").symlink_to("a.png")
    assert image_names(tmp_path) == ["a.png", "c.png"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_folder_or_list(tmp_path, split):
    other = {"train": "test", "test": "train"}[split]
    write_pair(tmp_path / f"images/{other}/a.png", tmp_path / f"labels/{other}/a.png", (0,))
    with pytest.raises(UserError, match=rf"images/{split} does not exist.*folder of images so, or list .*{split}\.txt"):
        getattr(segmentation(tmp_path, classes=["sky"]), split)()


def test_names_that_no_file_can_have(tmp_path):
    from indexnet.data.io.file_lists import find_images
    from indexnet.data.matting.cutouts import read_background
    from indexnet.inference.image_files import find_items

    name = "x" * 300
    for ask, words in (
        (lambda: segmentation(tmp_path, classes=name).classes, "cannot be read|does not exist|too long"),
        (lambda: segmentation(tmp_path / name, classes=["sky"]).train(), "File name too long"),
        (lambda: find_images([tmp_path / name], "backgrounds"), "does not exist"),
        (lambda: read_background(name), "neither a file nor a colour"),
        (lambda: find_items(tmp_path / name, None, "denoising", False), "File name too long"),
        (lambda: create_data("matting_folder", root=str(tmp_path / name)).train(), "File name too long"),
    ):
        with pytest.raises(UserError, match=words):
            ask()


def test_splits_as_folders_in_both_orders(tmp_path):
    write_split_folders(tmp_path)
    data = segmentation(tmp_path)
    assert [len(split) for split in (data.train(), data.validation(), data.test())] == [3, 2, 2]
    other = tmp_path / "other"
    for split in ("train", "test"):
        for part in ("images", "labels"):
            (other / split).mkdir(parents=True, exist_ok=True)
            (tmp_path / part / split).rename(other / split / part)
    again = segmentation(other, classes=str(tmp_path / "classes.txt"))
    assert (
        again.train().fingerprint()
        == segmentation(other, classes=["sky", "lane markings", "road"]).train().fingerprint()
    )
    assert again.validation() is None
    (other / "train/labels/train1.png").unlink()
    with pytest.raises(UserError, match=r"train/labels/train1\.png is missing"):
        again.train()


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"classes": {"sky": [0, 0]}}, r"data\.classes, sky: a colour is three whole numbers"),
        ({"classes": {"sky": [0, 0, 300]}}, "from 0 to 255; got 0, 0, 300"),
        ({"classes": {"sky": [1, 1, 1], "sea": [1, 1, 1]}}, r"has the colour \(1, 1, 1\) twice"),
        ({"classes": ["sky", "sky"]}, "has the class sky twice"),
        ({"classes": 3}, r"data\.classes must be a file, a list of names, or a mapping"),
        ({"classes": ["a", "b"], "void": "c"}, r"class in data\.void 'c'"),
        ({"classes": ["a", "b"], "void": ["a", "b"]}, "names all classes"),
        ({"classes": ["a", "b"], "void": [0, "b"]}, "names all classes"),
        ({"classes": ["a"] , "void": 300}, r"data\.void must be names of classes, or numbers from 0 to 255"),
        ({"classes": {"a": [1, 1, 1]}, "void": 0}, r"data\.void=0 is a number, but label maps have colours"),
        ({"classes": ["a", "b"], "first": 254}, "gives the class 'b' the number 255"),
        ({"classes": "none.txt"}, r"none\.txt does not exist; it lists classes"),
        ({"classes": "mixed.txt"}, "has colours, but none for the class 'road'"),
        ({"classes": "empty.txt"}, r"empty\.txt is empty"),
        ({"classes": ["a"], "labels": ""}, r"data\.labels must be text"),
        ({"classes": {"a": [1, 1, 1]}}, r"holds the colours \(0, 0, 0\), .*; data=segmentation_folder has 1 colours"),
    ],
)  # fmt: skip
def test_what_cannot_be(tmp_path, options, fragment):
    write_coloured(tmp_path / "images/test/a.png", tmp_path / "labels/test/a.png")
    (tmp_path / "mixed.txt").write_text("1 2 3 sky\nroad\n")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=fragment):
        segmentation(tmp_path, **options).test().verify(0)


# --- denoising_folder -----------------------------------------------------------------------------------------------


def denoising(root, **options):
    return create_data("denoising_folder", **{"root": str(root), "size": 12, "stride": 4} | options)


def test_each_test_set_has_its_name_and_colours_stay(tmp_path):
    write_denoising_folder(tmp_path)
    write_png(tmp_path / "test/.hidden/x.png", random_image(0))
    data = denoising(tmp_path, channels=3)
    assert list(data.tests()) == ["Set14", "Set5"]
    assert [len(split) for split in data.tests().values()] == [2, 2]
    assert len(data.validation()) == 2
    sample = data.tests()["Set5"].sample(1, RNG)
    expected = np.asarray(Image.open(tmp_path / "test/Set5/b.png"))
    assert np.array_equal((sample["image"] * 255).round().byte().permute(1, 2, 0), expected)
    assert list(denoising(tmp_path, tests=["test/Set5", "validation"]).tests()) == ["Set5", "validation"]
    assert list(denoising(tmp_path, tests="test/Set5").tests()) == ["Set5"]
    assert list(denoising(tmp_path / "test/Set5/../..", tests="train", train="test/Set5").tests()) == ["train"]
    assert data.train().sample(0, RNG)["image"].shape == (3, 12, 12)
    prints = {denoising(tmp_path, channels=c).train().fingerprint() for c in (1, 3)}
    assert len(prints) == 2
    write_png(tmp_path / "test/loose.png", random_image(1))
    with pytest.raises(UserError, match=r"test holds both images \(loose\.png\) and folders of images \(Set14\)"):
        data.tests()
    (tmp_path / "test/loose.png").rename(tmp_path / "loose.png")
    write_png(tmp_path / "test/Deep/x2/a.png", random_image(1))
    with pytest.raises(UserError, match=r"test/Deep holds images in folders of its own only, .*\[test/Deep/x2\]"):
        data.tests()
    (tmp_path / "test/Deep").rename(tmp_path / "Deep")
    (tmp_path / "loose.png").rename(tmp_path / "test/loose.png")
    for folder in ("Set5", "Set14", ".hidden"):
        (tmp_path / "test" / folder).rename(tmp_path / folder)
    assert list(data.tests()) == [""]
    assert data.test().name(0) == "loose"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bits_stay(tmp_path, channels, ending):
    g = np.random.default_rng(0)
    gray, colour = g.integers(0, 65536, (24, 20), dtype=np.uint16), g.integers(0, 65536, (24, 20, 3), dtype=np.uint16)
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / f"{folder}/gray{ending}"), gray)
        cv2.imwrite(str(tmp_path / f"{folder}/tinted{ending}"), colour[..., ::-1])
    data = denoising(tmp_path, channels=channels, scales=[1.0, 0.5], size=10, cache=True)
    test, train = data.test(), data.train()
    found = [test.sample(index, RNG)["image"].double().numpy() * 65535 for index in range(2)]
    luma = np.round(colour.astype(np.float64) @ [0.299, 0.587, 0.114])
    wanted = [gray[None], luma[None]] if channels == 1 else [np.stack([gray] * 3), colour.transpose(2, 0, 1)]
    assert np.abs(found[0] - wanted[0]).max() < 0.01
    assert np.abs(found[1] - wanted[1]).max() < (1.01 if channels == 1 else 0.01)
    assert train.store.load(0)[0].dtype == train.store.load(0)[1].dtype == np.uint16
    small = np.asarray(Image.fromarray(gray.astype(np.float32)).resize((10, 12), Image.Resampling.BICUBIC))
    assert np.abs(train.store.load(0)[1].reshape(12, 10, -1)[..., 0] - small.clip(0, 65535)).max() <= 0.5
    train.prepare()
    assert train.store.estimate() == train.store.nbytes
    ways = {tuple(train.sample(0, np.random.default_rng(k))["image"].flatten()[:3].tolist()) for k in range(40)}
    assert len(ways) == 8


def test_sixteen_bits_that_are_eight_are_refused(tmp_path):
    write_png(tmp_path / "test/dark.png", np.full((12, 12), 200, np.uint16))
    with pytest.raises(UserError, match=r"dark\.png is a 16-bit file with no value above 255"):
        denoising(tmp_path).test().sample(0, RNG)
    content = (tmp_path / "test/dark.png").read_bytes()
    (tmp_path / "test/dark.png").write_bytes(content[:60])
    with pytest.raises(UserError, match=r"dark\.png cannot be read"):
        denoising(tmp_path).test().sample(0, RNG)


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"channels": 2}, r"data\.channels must be one of 1, 3"),
        ({"tests": []}, r"data\.tests must be folders"),
        ({"tests": ["a/Set5", "b/Set5"]}, "of different names"),
        ({"tests": 5}, r"data\.tests"),
        ({"train": ""}, r"data\.train must be a folder"),
    ],
)
def test_options_that_cannot_be(options, fragment):
    with pytest.raises(UserError, match=fragment):
        denoising("/nowhere", **options)


def test_both_are_listed(capsys):
    assert main(["list", "data", "--names"]) == 0
    assert {"denoising_folder", "segmentation_folder"} <= set(capsys.readouterr().out.split())


@pytest.mark.long
def test_both_train_and_each_test_set_is_reported_by_name(tmp_path):
    import json

    write_denoising_folder(tmp_path / "d", size=(64, 64))
    for k in range(6):
        write_coloured(tmp_path / f"s/images/{k}.png", tmp_path / f"s/labels/{k}.png", k, (64, 64))
    (tmp_path / "s/classes.txt").write_text(CLASS_FILES["class_dict.csv"])
    common = ["training.steps=2", "training.batch_size=2", "training.size=32", "schedule=constant", "logger=none"]
    common += [f"paths.runs={tmp_path / 'runs'}", "trainer.accelerator=cpu", "trainer.devices=1"]
    words = ["task=denoising", "network=dncnn", "network.depth=3", "data=denoising_folder", "data.channels=3"]
    assert main(["train", *words, *common, f"data.root={tmp_path / 'd'}"]) == 0
    words = ["task=segmentation", "encoder.name=vgg11_bn", "data=segmentation_folder", "data.void=[Void]"]
    assert main(["train", *words, *common, f"data.root={tmp_path / 's'}"]) == 0
    found = [set(json.loads(path.read_text())["metrics"]) for path in tmp_path.glob("runs/**/record.json")]
    assert {"Set5/psnr", "Set5/ssim", "Set14/psnr", "Set14/ssim"} in found
    assert {"miou", "pixel_accuracy"} in found
