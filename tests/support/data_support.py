"""Tiny data sets in the layouts of the real ones, written to disk."""

from __future__ import annotations

import gzip

import numpy as np
import torch
from PIL import Image

from indexnet.cli import main
from indexnet.data import create_data
from indexnet.data.io.images import write_png


def write_train400(root, size=(24, 20), train=3):
    g = np.random.default_rng(0)
    for folder, names in (
        ("Train400", [f"test_{i:03d}" for i in range(1, train + 1)]),
        ("BSD68", ["test001", "test002"]),
        ("Set12", ["01", "02"]),
    ):
        for k, name in enumerate(names):
            shape = size if folder == "Train400" else (size[0] + k, size[1] + 3)
            write_png(root / folder / f"{name}.png", g.integers(0, 256, shape, dtype=np.uint8))


def write_pair(image, label, numbers, size=(24, 20), seed=0):
    """Write a photograph and a label map of random ``numbers``; gives back both arrays."""
    g = np.random.default_rng(seed)
    picture = g.integers(0, 256, (*size, 3), dtype=np.uint8)
    labels = g.choice(np.array(numbers, np.uint8), size)
    write_png(image, picture)
    write_png(label, labels)
    return picture, labels


def write_camvid(root, counts=(("train", 3), ("val", 2), ("test", 2))):
    for split, count in counts:
        lines = []
        for i in range(count):
            image, label = f"{split}/{split}_{i}.png", f"{split}annot/{split}_{i}.png"
            write_pair(root / image, root / label, range(12), size=(24 + i, 20), seed=i)
            lines.append(f"{image} {label}")
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")


def write_sunrgbd(root, train=3, test=2):
    for split, count, offset in (("train", train, 5050), ("test", test, 0)):
        for i in range(1, count + 1):
            write_pair(
                root / f"SUNRGBD-{split}_images/img-{i:06d}.png",
                root / f"sunrgbd_train_test_labels/img-{i + offset:06d}.png",
                range(38),
                seed=i + offset,
            )


def write_ade20k(root):
    for split, names in (("training", ("ADE_train_1", "ADE_train_2")), ("validation", ("ADE_val_1", "ADE_val_2"))):
        for k, name in enumerate(names):
            write_pair(
                root / f"images/{split}/{name}.png", root / f"annotations/{split}/{name}.png", range(151), seed=k
            )


def write_frame(root, number, size=(24, 32), seed=0):
    """Write a frame of ``nyuv2``; gives back its colours, labels and depth levels."""
    g = np.random.default_rng((seed, number))
    levels = g.integers(18, 255, size, dtype=np.uint8)
    write_png(root / f"nyu_depths/{number}.png", levels)
    return *write_pair(
        root / f"nyu_images/{number}.png", root / f"nyu_labels40/{number}.png", [*range(39), 255], size, number
    ), levels


def write_nyuv2(root, train=(1, 3, 4), test=(0, 2), size=(24, 32)):
    for split, numbers in (("train", train), ("test", test)):
        for number in numbers:
            write_frame(root, number, size)
        (root / f"{split}.txt").write_text("".join(f"{number}\n" for number in numbers))


def write_h5(path, size=(48, 64), seed=0, **changed):
    """Write a frame of ``nyuv2_h5``; gives back its arrays."""
    import h5py

    g = np.random.default_rng(seed)
    arrays = {
        "rgb": g.integers(0, 256, (3, *size), dtype=np.uint8),
        "depth": g.uniform(0.7, 10, size).astype(np.float32),
    } | changed
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            if array is not None:
                file[key] = array
    return arrays


def write_nyuv2_h5(root, size=(48, 64)):
    for k, name in enumerate(("cafe_1/00001", "cafe_1/00006", "den_2/00001", "den_2/00011", "den_2/00016")):
        write_h5(root / f"train/{name}.h5", size, k)
    for k, name in enumerate(("00001", "00002")):
        write_h5(root / f"val/official/{name}.h5", size, 10 + k)


def random_image(seed, size=(30, 40)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def soft_alpha(seed, size=(40, 36)):
    """A matte with opaque, clear and mixed pixels: a ramp that is clipped, shifted by ``seed``."""
    ramp = np.linspace(-300, 500, size[1]) + 10 * (seed % 7)
    return np.tile(np.clip(ramp, 0, 255).astype(np.uint8), (size[0], 1))


def write_foreground(colour, alpha, seed, size=(40, 36)):
    write_png(colour, random_image(seed, size))
    write_png(alpha, soft_alpha(seed, size))


def write_backgrounds(folder, names, seed=100):
    """Write photographs of two sizes: one covers a foreground, the other is enlarged for it."""
    for k, name in enumerate(names):
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_image(seed + k, ((30, 20), (60, 70))[k % 2])).save(folder / name)


def write_alphamatting(root, names=("GT01", "GT02"), size=(24, 20)):
    g = np.random.default_rng(0)
    for name in names:
        write_png(root / f"input_training_lowres/{name}.png", g.integers(0, 256, (*size, 3), dtype=np.uint8))
        write_png(root / f"gt_training_lowres/{name}.png", g.integers(0, 256, size, dtype=np.uint8))
        for trimap in ("Trimap1", "Trimap2"):
            values = g.choice(np.array([0, 128, 255], np.uint8), size)
            write_png(root / f"trimap_training_lowres/{trimap}/{name}.png", values)


def write_alphamatting_test(root, names=("doll", "troll"), size=(24, 20)):
    g = np.random.default_rng(1)
    for name in names:
        write_png(root / f"input_lowres/{name}.png", random_image(len(name), size))
        for trimap in ("Trimap1", "Trimap2", "Trimap3"):
            write_png(root / f"trimap_lowres/{trimap}/{name}.png", g.choice(np.array([0, 128, 255], np.uint8), size))


def write_matting_folder(root, foregrounds=4, backgrounds=30):
    for k in range(foregrounds):
        write_foreground(root / f"fg/thing {k}.png", root / f"alpha/thing {k}.png", k)
    write_backgrounds(root / "bg", [f"p{k}.jpg" for k in range(backgrounds)])


def write_composition1k(root, trimaps=True):
    """As shipped: 3 foregrounds to train on, 2 to test on; made for 2 training and 3 test composites of each."""
    training, test = root / "Combined_Dataset/Training_set", root / "Combined_Dataset/Test_set"
    names = ["c.png", "a.png", "b.png"]  # not in alphabetical order, as the published lists
    for k, name in enumerate(names):
        part = training / ("Other" if k == 1 else "Adobe-licensed images")
        write_foreground(part / "fg" / name, part / "alpha" / name, k)
    (training / "training_fg_names.txt").write_text("".join(f"{name}\n" for name in names))
    photographs = [f"COCO_train2014_{k:012d}.jpg" for k in (5, 3, 1, 4, 2, 0)]
    write_backgrounds(root / "train2014", photographs)
    (training / "training_bg_names.txt").write_text("".join(f"{name}\n" for name in photographs))
    tested = ["y.png", "x.png"]
    for k, name in enumerate(tested):
        part = test / "Adobe-licensed images"
        write_foreground(part / "fg" / name, part / "alpha" / name, 10 + k)
        for i in range(3 if trimaps else 0):
            matte = soft_alpha(10 + k)
            trimap = np.where((matte > 0) & (matte < 255), 128, matte).astype(np.uint8)
            trimap[i] = 128  # tells them apart
            write_png(part / "trimaps" / f"{name[0]}_{i}.png", trimap)
    (test / "test_fg_names.txt").write_text("".join(f"{name}\n" for name in tested))
    photographs = [f"2008_{k:06d}.jpg" for k in (9, 3, 5, 1, 8, 2)]
    write_backgrounds(root / "VOCdevkit/VOC2012/JPEGImages", photographs, seed=200)
    (test / "test_bg_names.txt").write_text("".join(f"{name}\n" for name in photographs))


def write_aim500(root, count=5):
    for k in range(count):
        name = f"o_{k:08x}"
        write_foreground(root / f"original/{name}.jpg.png", root / f"mask/{name}.png", k)
        picture = root / f"original/{name}.jpg.png"
        Image.open(picture).save(root / f"original/{name}.jpg")
        picture.unlink()
        matte = soft_alpha(k)
        write_png(root / f"trimap/{name}.png", np.where((matte > 0) & (matte < 255), 128, matte).astype(np.uint8))
    write_backgrounds(root / "train2014", [f"COCO_train2014_{k:012d}.jpg" for k in range(14)])


def write_distinctions646(root):
    for split, count in (("Train", 3), ("Test", 2)):
        for k in range(count):
            write_foreground(root / split / f"FG/{split}{k}.png", root / split / f"GT/{split}{k}.png", k + len(split))
    write_backgrounds(root / "train2014", [f"COCO_train2014_{k:012d}.jpg" for k in range(6)])
    write_backgrounds(root / "VOCdevkit/VOC2012/JPEGImages", [f"2008_{k:06d}.jpg" for k in range(6)], seed=200)


def write_simd(root):
    for k, (pattern, name) in enumerate((("fur", "a"), ("fur", "b"), ("net", "a"), ("net", "c"))):
        write_foreground(root / f"{pattern}/fg/{name}.png", root / f"{pattern}/alpha/{name}.png", k, (400, 450))
    write_backgrounds(root / "train2014", [f"COCO_train2014_{k:012d}.jpg" for k in range(4)])
    write_backgrounds(root / "VOCdevkit/VOC2012/JPEGImages", [f"2008_{k:06d}.jpg" for k in range(3)], seed=200)
    lines = ["fur:b.png:2008_000002.jpg", "net:a.png:2008_000000.jpg", "net:a.png:2008_000001.jpg"]
    (root / "SIMD_composition_test_filelist.txt").write_text("\n".join(lines) + "\n")


def write_denoising_folder(root, size=(24, 20)):
    """Colour of 8 bits, and one gray photograph of 16 bits; two test sets."""
    for folder, names in (("train", "abc"), ("validation", "de"), ("test/Set5", "ab"), ("test/Set14", "ab")):
        for k, name in enumerate(names):
            write_png(root / folder / f"{name}.png", random_image(ord(name) + len(folder), (size[0] + k, size[1])))
    deep = np.random.default_rng(0).integers(0, 65536, size, dtype=np.uint16)
    write_png(root / "train/deep.png", deep)


CODE = {"Void": (0, 0, 0), "Sky": (128, 128, 128), "Lane markings": (192, 0, 64), "Road": (128, 64, 128)}


def write_coloured(image, label, seed=0, size=(24, 20)):
    """Write a photograph and a label map in the colours of ``CODE``; gives back the numbers."""
    numbers = np.random.default_rng(seed).integers(0, len(CODE), size)
    write_png(image, random_image(seed, size))
    write_png(label, np.array(list(CODE.values()), np.uint8)[numbers])
    return numbers


def write_segmentation_folder(root):
    for folder, count in (("train", 3), ("val", 2), ("test", 2)):
        for k in range(count):
            write_pair(
                root / f"images/{folder}/{folder}{k}.png", root / f"labels/{folder}/{folder}{k}.png", range(3), seed=k
            )
    (root / "classes.txt").write_text("sky\nlane markings\nroad\n")


def matte(height=60, width=48, radius=16):
    """A soft disc."""
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - height / 2, columns - width / 2)
    return np.clip((radius - distance) * 200 + 128, 0, 255).astype(np.uint8)


def write_portrait(image, alpha, height=60, width=48):
    g = np.random.default_rng(list(image.name.encode()))
    write_png(image, g.integers(0, 256, (height, width, 3), dtype=np.uint8))
    write_png(alpha, matte(height, width))


def write_portrait2k(root, train=3, test=2):
    for folder, count in (("training", train), ("testing", test)):
        for number in range(count):
            write_portrait(root / folder / f"{number:05d}.png", root / folder / f"{number:05d}_matte.png")


def write_portrait_folder(root, count=12):
    for number in range(count):
        write_portrait(root / f"images/p{number}.png", root / f"mattes/p{number}.png")


def write_p3m10k(root, count=3):
    for name in (f"{number}.png" for number in range(count)):
        write_portrait(root / "train/blurred_image" / name, root / "train/mask" / name)
        for folder, images in (("P3M-500-P", "blurred_image"), ("P3M-500-NP", "original_image")):
            place = root / "validation" / folder
            write_portrait(place / images / f"{folder}_{name}", place / f"mask/{folder}_{name}")
            write_png(place / f"trimap/{folder}_{name}", np.full((60, 48), 128, np.uint8))


def write_aisegment(root, count=30):
    g = np.random.default_rng(0)
    for number in range(count):
        write_png(root / f"clip_img/18/clip_0/18-{number}.png", g.integers(0, 256, (60, 48, 3), dtype=np.uint8))
        cut_out = np.dstack([g.integers(0, 256, (60, 48, 3), dtype=np.uint8), matte()])
        write_png(root / f"matting/18/matting_0/18-{number}.png", cut_out)
        (root / f"matting/18/matting_0/._18-{number}.png").write_bytes(b"left by macOS")


def write_ppm100(root):
    for number in range(3):
        write_portrait(root / f"image/{number}.png", root / f"matte/{number}.png")


WRITERS = {"train400": write_train400, "camvid": write_camvid, "sunrgbd": write_sunrgbd, "ade20k": write_ade20k}
WRITERS |= {"denoising_folder": write_denoising_folder, "segmentation_folder": write_segmentation_folder}
WRITERS |= {"nyuv2": write_nyuv2, "nyuv2_h5": write_nyuv2_h5}
PORTRAIT_WRITERS = {
    "portrait2k": write_portrait2k,
    "portrait_folder": write_portrait_folder,
    "aisegment": write_aisegment,
    "ppm100": write_ppm100,
    "p3m10k": write_p3m10k,
}
WRITERS |= PORTRAIT_WRITERS

# The sets of matting, and the options that fit what their writers write.
MATTING_WRITERS = {
    "alphamatting": write_alphamatting,
    "alphamatting_test": write_alphamatting_test,
    "aim500": write_aim500,
    "composition1k": write_composition1k,
    "distinctions646": write_distinctions646,
    "matting_folder": write_matting_folder,
    "simd": write_simd,
}
MATTING_OPTIONS = {
    "alphamatting": {},
    "alphamatting_test": {},
    "aim500": {"composites": True, "size": 32, "per_foreground": 2, "test_per_foreground": 3, "test_count": 2},
    "composition1k": {"size": 32, "per_foreground": 2, "test_per_foreground": 3},
    "distinctions646": {"size": 32, "per_foreground": 2, "test_per_foreground": 3},
    "matting_folder": {"size": 32, "per_foreground": 2, "test_per_foreground": 3, "validation": True},
    "simd": {"size": 32, "per_foreground": 2},
}


def make(name, root, write=True, **options):
    """Write a set of matting, unless it is there, and build it."""
    if write:
        MATTING_WRITERS[name](root)
    return create_data(name, root=str(root), **MATTING_OPTIONS[name] | options)


def levels(tensor):
    """An image tensor as uint8 (H, W[, 3])."""
    array = (tensor * 255).round().byte().numpy()
    return array.transpose(1, 2, 0) if len(array) == 3 else array[0]


def names(split):
    return [split.name(i) for i in range(len(split))]


def same(a, b):
    """Whether two samples are equal in every value."""
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a
    )


def assert_same_samples(split, other):
    """The matting samples of two test splits are the same, in whatever order."""
    assert sorted(names(split)) == sorted(names(other))
    where = {other.name(i): i for i in range(len(other))}
    for i in range(len(split)):
        a, b = (each.sample(k, np.random.default_rng(0)) for each, k in ((split, i), (other, where[split.name(i)])))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in ("image", "alpha", "trimap"))
        assert split.group(i) == other.group(where[split.name(i)])


COUNTS = ["per_foreground=2", "test_per_foreground=3"]


def prepare(root, output, *words, jobs="1"):
    return main(
        ["data", "prepare", "composition1k", f"root={root}", f"output={output}", *COUNTS, *words, "--jobs", jobs]
    )


def write_all(folder):
    """Write every data set that is read from files; :func:`build` finds them there."""
    write_idx(folder / "raw/train-images-idx3-ubyte.gz", 6, 0)
    write_idx(folder / "t10k-images-idx3-ubyte", 4, 1, compress=False)
    for name, write in (WRITERS | MATTING_WRITERS).items():
        write(folder / name)


def write_idx(path, count, seed, compress=True):
    images = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    content = b"\x00\x00\x08\x03" + np.array(images.shape, ">u4").tobytes() + images.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if compress else content)
    return images


def build(name, task, root, **given):
    """Build any data set, of few and small samples."""
    options = {
        "photos": {"train_count": 20, "test_count": 10},
        "scenes": {"size": 48, "train_count": 12, "test_count": 6, "validation_count": 4},
        "mnist": {"root": str(root)},
        "fashion_mnist": {"root": str(root), "fit": "pad"},
        **{name: {"root": str(root / name)} | MATTING_OPTIONS[name] for name in MATTING_WRITERS},
        **{name: {"root": str(root / name), "size": 12} for name in WRITERS},
        "portrait2k": {"root": str(root / "portrait2k"), "size": 12, "trimap_width": 5},
    }
    return create_data(name, task=task, **options[name] | given)


def gray_pairs(index):
    """Load an item of a store; like what follows, by a name that a spawned process finds."""
    return (np.full((100, 10), index, np.uint8), np.zeros(5, np.float32))


def no_bytes(index):
    return 0


def ask_store(store, connection):
    connection.send((int(store[1][0][0, 0]), store.kept is not None))
