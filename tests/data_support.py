"""Tiny data sets in the layouts of the real ones, written to disk."""

from __future__ import annotations

import numpy as np

from indexnet.data.images import write_png


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


WRITERS = {"train400": write_train400, "camvid": write_camvid, "sunrgbd": write_sunrgbd, "ade20k": write_ade20k}
WRITERS |= {"nyuv2": write_nyuv2, "nyuv2_h5": write_nyuv2_h5}
