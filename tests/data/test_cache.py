"""Decoding once, and the views that training samples are."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexnet.core.conventions import IGNORE
from indexnet.core.errors import UserError
from indexnet.core.files import format_bytes
from indexnet.core.machine import available_memory
from indexnet.data.io import cache as module
from indexnet.data.io.cache import Store, check_cache
from indexnet.data.transforms import MEAN_COLOUR, affine, colour_jitter, random_crop, warp, warp_nearest


class Loader:
    def __init__(self, bad=(), seconds=0.0):
        self.calls, self.bad, self.seconds = [], bad, seconds

    def __call__(self, index):
        self.calls.append(index)
        time.sleep(self.seconds)
        if index in self.bad:
            raise UserError(f"item {index} is bad.")
        return (np.full((100, 10), index % 256, np.uint8), np.zeros(5, np.float32))


def test_items_are_decoded_once_and_stay_the_same():
    load = Loader()
    store = Store(4, load, lambda i: 1020, True, "photographs")
    before = store[2]
    assert store[2][0] is not before[0]  # not kept yet
    assert store.prepare() == "4 photographs decoded once, 4.1 kB in memory"
    assert sorted(load.calls) == [0, 1, 2, 2, 2, 3]
    assert store[2][0] is store[2][0]
    assert np.array_equal(store[2][0], before[0])
    assert store.nbytes == 4080
    assert store.prepare() == "4 photographs decoded once, 4.1 kB in memory"
    assert len(load.calls) == 6
    with pytest.raises(ValueError, match="read-only"):
        store[0][0][0] = 1
    for index in (-1, 4):
        with pytest.raises(IndexError):
            store[index]


def test_auto_keeps_what_fits_in_a_quarter_of_the_memory(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(module, "available_memory", lambda: 4_000_000)
    fits = Store(2, Loader(), lambda i: 500_000)
    assert "decoded once" in fits.prepare()
    too_much = Store(2, Loader(), lambda i: 500_001)
    assert too_much.prepare() == (
        "2 images would take 1.0 MB decoded, more than a quarter of the 4.0 MB available, and are read again for every "
        "sample (data.cache=true keeps them)"
    )
    assert too_much.kept is None
    assert too_much[1][0][0, 0] == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # each of two processes would keep them
    again = Store(2, Loader(), lambda i: 500_000)
    assert "read again" in again.prepare()
    assert "decoded once" in Store(2, Loader(), lambda i: 10**18, True).prepare()
    assert Store(2, Loader(), lambda i: 0, False).prepare() == ""


def test_one_item_is_said_as_one(monkeypatch):
    monkeypatch.setattr(module, "available_memory", lambda: 4_000_000)
    assert (
        Store(1, Loader(), lambda i: 1, True, "foregrounds").prepare() == "1 foreground decoded once, 1.0 kB in memory"
    )
    one = Store(1, Loader(), lambda i: 10**7, "auto", "photographs at 4 scales").prepare()
    assert one.startswith("1 photograph at 4 scales would take 10.0 MB decoded, ")
    assert one.endswith(" and is read again for every sample (data.cache=true keeps it)")


def test_a_folder_of_many_items_holds_few_files_open(tmp_path):
    load = Loader()
    store = Store(400, load, lambda i: 0, str(tmp_path), "foregrounds", str)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # the first descriptor that is free
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 180, before[1]))
    try:
        for _ in range(2):  # the second time all is there, and found faster than it is taken
            assert store.prepare() == f"400 foregrounds decoded once, 408.0 kB in {tmp_path}"
        for index in (*range(400), *range(400)):
            assert store[index][0][0, 0] == index % 256
        assert store[399][0] is store[399][0]  # stays mapped
        assert store[0][0] is not store[399][0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(load.calls) == 400


def test_a_bad_item_stops_the_preparation_with_its_sentence():
    load = Loader(bad=(3, 5), seconds=0.001)
    store = Store(500, load, lambda i: 0, True)
    with pytest.raises(UserError, match=r"^item 3 is bad\.$"):
        store.prepare()
    assert store.kept is None
    assert len(load.calls) < 500


def _unknown(index):
    return 0


def _ask(store, connection):
    connection.send((int(store[1][0][0, 0]), store.kept is not None))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
def test_workers_have_what_was_prepared(method):
    store = Store(2, Loader(), _unknown, True)
    store.prepare()
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    worker = context.Process(target=_ask, args=(store, theirs))
    worker.start()
    theirs.close()  # so that a worker that fails ends the wait
    assert ours.recv() == (1, True)
    worker.join()
    copy = pickle.loads(pickle.dumps(store))  # what a spawned one gets
    assert (copy[1][0][0, 0], copy.kept is not None) == (1, True)
    assert copy.nbytes == store.nbytes


def test_options_words_and_memory():
    assert [check_cache(c) for c in ("auto", True, False)] == ["auto", True, False]
    for wrong in ("yes", 1, None):
        with pytest.raises(UserError, match=r"data\.cache must be auto, true or false"):
            check_cache(wrong)
    assert [format_bytes(n) for n in (12, 1500, 13_000_000, 2_340_000_000)] == [
        "12 bytes",
        "1.5 kB",
        "13.0 MB",
        "2.3 GB",
    ]
    assert 10**7 < available_memory() < 10**14
    assert Store(1000, Loader(), lambda i: 7).estimate() == 7000
    assert Store(3, Loader(), lambda i: i).estimate() == 3
    assert abs(Store(1000, Loader(), lambda i: i).estimate() - 499500) < 1000


IMAGE = np.random.default_rng(0).integers(0, 256, (36, 48, 3), dtype=np.uint8)


def test_plain_views_are_exact():
    whole = affine((36, 48), (18, 24))
    assert np.array_equal(warp(IMAGE, whole, (36, 48)), IMAGE)
    mirrored = affine((36, 48), (18, 24), mirrored=True)
    assert np.array_equal(warp(IMAGE, mirrored, (36, 48)), IMAGE[:, ::-1])
    crop = affine((10, 9), (4 + 5, 7 + 4.5))
    assert np.array_equal(warp(IMAGE, crop, (10, 9)), IMAGE[4:14, 7:16])
    square = affine((48, 48), (18, 24), angle=90)
    assert np.array_equal(warp(IMAGE, square, (48, 48), (0, 0, 0))[:, 6:42], np.rot90(IMAGE, -1))  # clockwise
    both = affine((48, 48), (18, 24), angle=90, mirrored=True)
    assert np.array_equal(warp(IMAGE, both, (48, 48), (0, 0, 0))[:, 6:42], np.rot90(IMAGE, -1)[:, ::-1])
    larger = warp(IMAGE, affine((72, 144), (18, 24), (2.0, 3.0)), (72, 144))
    expected = cv2.resize(IMAGE, (144, 72), interpolation=cv2.INTER_LINEAR)
    assert np.abs(larger.astype(int) - expected).max() <= 4  # OpenCV warps by 32nds of a pixel


def test_nearest_views_invent_no_values():
    depth = np.random.default_rng(0).uniform(0.5, 10, (36, 48)).astype(np.float32)
    seen = warp_nearest(depth, affine((30, 30), (18, 24), (0.7, 1.3), angle=17), (30, 30), 0.0)
    assert seen.dtype == np.float32
    assert np.isin(seen, np.append(depth, 0)).all()
    assert (seen == 0).any()


def blocks(height, width, block=12):
    g = np.random.default_rng(1)
    label = np.kron(g.integers(0, 11, (-(-height // block), -(-width // block))), np.ones((block, block)))
    label = np.ascontiguousarray(label[:height, :width]).astype(np.uint8)
    return np.repeat((label * 20)[..., None], 3, axis=2), label


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(20, 90),
    width=st.integers(20, 90),
    size=st.integers(8, 80),
    low=st.floats(0.5, 1.5),
    more=st.floats(0, 0.5),
    seed=st.integers(0, 2**32),
)
def test_crops_keep_image_and_labels_together(height, width, size, low, more, seed):
    image, label = blocks(height, width)
    crop, labels = random_crop(image, label, size, (low, low + more), np.random.default_rng(seed))
    assert crop.shape == (size, size, 3)
    assert labels.shape == (size, size)
    assert crop.dtype == labels.dtype == np.uint8
    around = cv2.dilate(cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3))), np.ones((3, 3)))
    inner, padded = around == 0, labels == IGNORE
    expected = np.where(padded[..., None], MEAN_COLOUR, labels[..., None].astype(int) * 20)
    assert (
        np.abs(crop.astype(int) - expected)[inner[1:-1, 1:-1].nonzero()[0] + 1, inner[1:-1, 1:-1].nonzero()[1] + 1].max(
            initial=0
        )
        <= 2
    )
    rows, columns = (~padded).any(1).sum(), (~padded).any(0).sum()
    for found, length in ((rows, height), (columns, width)):
        assert min(size, int(length * low)) - 1 <= found <= min(size, int(length * (low + more)) + 1)


def test_crops_repeat_vary_and_mirror():
    image, label = blocks(60, 80)
    first = random_crop(image, label, 32, (0.5, 2.0), np.random.default_rng(3))
    again = random_crop(image, label, 32, (0.5, 2.0), np.random.default_rng(3))
    other = random_crop(image, label, 32, (0.5, 2.0), np.random.default_rng(4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])
    whole = [random_crop(IMAGE[:, :36], IMAGE[:, :36, 0], 36, (1, 1), np.random.default_rng(s))[0] for s in range(40)]
    straight = sum(np.array_equal(crop, IMAGE[:, :36]) for crop in whole)
    assert straight + sum(np.array_equal(crop, IMAGE[:, 35::-1]) for crop in whole) == 40
    assert 10 <= straight <= 30


def test_crops_reach_every_place():
    label = np.arange(40, dtype=np.uint8)[None].repeat(40, 0)
    image = np.repeat(label[..., None], 3, axis=2)
    g = np.random.default_rng(0)
    corners = {int(random_crop(image, label, 36, (1, 1), g)[1].min()) for _ in range(100)}
    assert corners == {0, 1, 2, 3, 4}


def test_colour_jitter():
    g = np.random.default_rng
    assert np.array_equal(colour_jitter(IMAGE, 0.0, g(0)), IMAGE)
    assert np.array_equal(colour_jitter(IMAGE, 0.4, g(1)), colour_jitter(IMAGE, 0.4, g(1)))
    means = [colour_jitter(IMAGE, 0.4, g(seed)).mean() / IMAGE.mean() for seed in range(60)]
    assert 0.59 <= min(means) < 0.8
    assert 1.15 < max(means) <= 1.41
    assert colour_jitter(IMAGE, 0.4, g(1)).shape == IMAGE.shape
