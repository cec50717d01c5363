"""Scores of test splits, their intervals and differences, tables of them, and the worst images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from commands_support import (
    autoencoder_checkpoint,
    matting_checkpoint,
    read,
)
from indexnet.core.statistics import interval
from indexnet.data import create_data
from indexnet.inference.comparison_table import (
    compare_scores,
    print_comparison,
    print_single,
    table_markdown,
    table_rows,
)
from indexnet.inference.evaluation import Scores, bootstrap, evaluate
from indexnet.inference.loading import load_task, predict_sample
from indexnet.inference.worst_images import WorstImages
from indexnet.metrics import create_metric


@pytest.fixture(scope="module")
def matting(tmp_path_factory):
    return matting_checkpoint(tmp_path_factory.mktemp("matting") / "m.ckpt")


@pytest.mark.parametrize("name", ["matting", "reconstruction"])
def test_evaluation_gives_the_metrics_of_the_task(name, matting, tmp_path):
    """One number, whichever way it is computed: over the split, and image by image."""
    if name == "matting":
        task, _ = load_task(matting)
        dataset = create_data("scenes", task=name, size=64, test_count=3).test()
    else:
        task, _ = load_task(autoencoder_checkpoint(tmp_path / "a.ckpt"))
        dataset = create_data("photos", task=name, size=32, test_count=3).test()
    scores = evaluate(task, {"": dataset}, {"": 2})
    rows = scores.rows
    assert [row["name"] for row in rows] == [dataset.name(0), dataset.name(1)]
    assert not scores.failed
    assert scores.over(scores.names) == pytest.approx(scores.results, rel=1e-12)
    for key, value in scores.results.items():
        metric = create_metric(key)
        for index in range(2):
            sample = dict(dataset.sample(index, np.random.default_rng(0)))
            batch = default_collate([sample])
            metric.update(*task.metric_inputs(predict_sample(task, sample)[None], batch))
            assert rows[index][key] == pytest.approx(metric.latest[0].item(), rel=1e-6)
        assert value == pytest.approx(metric.compute().item(), rel=1e-6)


def scored(values, groups=None):
    """Scores of images with these squared errors, as the metric ``mse`` would have measured them."""
    metric = create_metric("mse")
    scores = Scores(metrics={"mse": metric})
    for place, value in enumerate(values):
        name = f"i{place}"
        scores.rows.append({"name": name, "group": groups[place] if groups else name, "mse": value})
        scores.sums.setdefault("mse", {})[name] = np.array([value, 1.0])
    return scores


def test_bootstrap_draws_groups_not_images():
    """The interval of a mean is that of the normal approximation, and wider where images come in groups."""
    rng = np.random.default_rng(3)
    centres = rng.normal(5, 1, 40)
    values = np.repeat(centres, 10) + rng.normal(0, 0.1, 400)
    groups = [f"g{k}" for k in range(40) for _ in range(10)]
    low, high = interval(bootstrap(scored(values, groups), "mse"))
    half = 1.96 * centres.std() / np.sqrt(40)
    assert (high - low) / 2 == pytest.approx(half, rel=0.12)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=half / 4)
    narrow = interval(bootstrap(scored(values), "mse"))
    assert narrow[1] - narrow[0] < (high - low) / 2.5
    assert bootstrap(scored(range(5)), "mse") is None
    assert bootstrap(scored(range(12), [f"{k % 5}" for k in range(12)]), "mse") is None  # groups count, not images
    assert bootstrap(scored(range(6)), "mse") is not None


def test_too_few_images_have_no_intervals_and_no_marks(capsys):
    few = compare_scores([("a", "", scored([1.0, 2.0])), ("b", "", scored([0.5, 1.0]))])
    cell = few.lines[1].cells["mse"]
    assert (cell.bounds, cell.difference, cell.difference_bounds, cell.differs) == (None, -0.75, None, False)
    text = table_markdown("t", few)
    assert "2 images are too few for 95 % intervals; signed: difference from the first method." in text
    assert r"\*" not in text
    print_comparison("t", few)
    print_single("t", scored([1.0, 2.0, 3.0], ["x", "x", "y"]))
    shown = " ".join(capsys.readouterr().out.split())
    assert "2 groups of 3 images are too few for 95 % intervals" in shown
    assert "95 % interval " not in shown
    print_single("t", scored(range(6)))
    assert "95 % bootstrap intervals over 6 images" in capsys.readouterr().out


def test_bootstrap_of_a_metric_that_is_no_mean_of_images():
    """Mean IoU over resampled images is that of their summed confusion, not the mean of their IoUs."""
    metric = create_metric("miou", classes=2)
    rng = np.random.default_rng(0)
    scores = Scores(metrics={"miou": metric}, sums={"miou": {}})
    for place in range(6):
        labels = torch.from_numpy(rng.integers(0, 2, (1, 9, 9)))
        flips = torch.from_numpy(rng.random((1, 9, 9)) < 0.1 * place)
        guess = torch.where(flips, 1 - labels, labels)
        scores.sums["miou"][f"{place}"] = metric.statistics(guess[:, None], labels)[0].numpy()
        scores.rows.append({"name": f"{place}", "group": f"{place}"})
    found = bootstrap(scores, "miou", replicates=20)
    counts = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), size=20)
    for line, value in zip(counts, found, strict=True):
        total = sum(n * scores.sums["miou"][f"{i}"] for i, n in enumerate(line))
        assert value == pytest.approx(metric.value(torch.from_numpy(total)).item())


def test_paired_differences_tell_apart_what_single_intervals_cannot():
    rng = np.random.default_rng(1)
    hard = rng.uniform(1, 9, 30)
    first, second = scored(hard), scored(hard - 0.2 + rng.normal(0, 0.05, 30))
    comparison = compare_scores([("a", "a.ckpt", first), ("b", "b.ckpt", second)])
    one, other = (line.cells["mse"] for line in comparison.lines)
    assert one.difference is None
    assert other.bounds[0] < one.value < other.bounds[1]  # each on its own: no telling
    assert other.differs
    assert other.difference == pytest.approx(-0.2, abs=0.05)
    assert other.difference_bounds[0] < -0.2 < other.difference_bounds[1] < 0
    same = compare_scores([("a", "", first), ("b", "", scored(hard))]).lines[1].cells["mse"]
    assert (same.difference, same.difference_bounds, same.differs) == (0, (0, 0), False)
    text = table_markdown("t", comparison)
    assert f"**{other.value:.4g}**" in text
    assert f"{other.difference:+.4g} \\* [" in text
    row_a, row_b = table_rows(comparison)
    assert row_a["mse_difference"] is None
    assert row_b["mse_difference_high"] == other.difference_bounds[1]


def test_several_methods_are_compared_over_the_images_that_all_could_do():
    first, second = scored([1.0, 2.0, 3.0]), scored([1.0, 2.0])
    comparison = compare_scores([("a", "", first), ("b", "", second)])
    assert comparison.images == 2
    assert [line.cells["mse"].value for line in comparison.lines] == [1.5, 1.5]


def test_the_gallery_shows_the_worst_images_and_what_the_method_made_of_them(matting, tmp_path):
    task, _ = load_task(matting)
    dataset = create_data("scenes", task="matting", size=64, test_count=4).test()
    gallery = WorstImages(task, 2, ["a & b"])
    scores = evaluate(task, {"": dataset}, {"": 4}, watches=[gallery.watch(0)])
    order = sorted(scores.rows, key=lambda row: -row["sad"])
    assert [shown.name for shown in gallery.kept] == [row["name"] for row in order[:2]]
    index = [dataset.name(i) for i in range(4)].index(order[0]["name"])
    sample = dataset.sample(index, np.random.default_rng(0))
    prediction = np.rint(predict_sample(task, sample)[0].numpy() * 255)
    page = gallery.write(tmp_path, "title")
    sheet = read(tmp_path / "worst" / "01.png")
    side = 64 * 8  # 64 pixels in 512, a whole factor without smoothing
    left = 8 + 3 * (side + 8)
    assert np.array_equal(sheet[28 : 28 + side : 8, left : left + side : 8, 0], prediction)
    assert "a &amp; b" in page.read_text()
