"""Mean IoU and pixel accuracy: their definitions, what does not count, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics import Accuracy, JaccardIndex, MetricCollection

from indexnet.core.errors import UserError
from indexnet.metrics import create_metric

NAMES = ["miou", "pixel_accuracy"]


def value(name, classes, prediction, label):
    """The metric of lists, tensors or (N, H, W) maps."""
    prediction, label = torch.as_tensor(prediction), torch.as_tensor(label)
    if label.ndim == 1:
        prediction, label = prediction[None, None], label[None, None]
    metric = create_metric(name, classes=classes)
    metric.update(prediction[:, None], label)
    return metric.compute().item()


def maps(seed, classes, n=3, size=(9, 7), ignored=0.2, right=0.5):
    """Predictions and labels (N, H, W); every class occurs where the maps are large enough."""
    g = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (n, *size), generator=g)
    random = torch.randint(classes, (n, *size), generator=g)
    prediction = torch.where(torch.rand(label.shape, generator=g) < right, label, random)
    return prediction, label.masked_fill(torch.rand(label.shape, generator=g) < ignored, 255)


def test_by_hand():
    label = [0, 0, 0, 0, 1, 1, 2, 255]
    prediction = [0, 0, 0, 1, 1, 1, 0, 3]
    # Class 0: 3 of 5; 1: 2 of 3; 2: 0 of 1; 3: predicted where nothing counts, so it occurs nowhere
    assert value("miou", 4, prediction, label) == pytest.approx(100 * (3 / 5 + 2 / 3 + 0) / 3)
    assert value("pixel_accuracy", 4, prediction, label) == pytest.approx(100 * 5 / 7)


def test_the_confusion_matrix_has_a_row_a_label():
    metric = create_metric("miou", classes=3)
    label, prediction = torch.tensor([[[0, 0, 0, 1, 2, 255]]]), torch.tensor([[[[0, 1, 1, 1, 0, 2]]]])
    metric.update(prediction, label)
    assert metric.matrix(metric.total).tolist() == [[1, 2, 0], [0, 1, 0], [1, 0, 0]]


def test_a_class_that_was_only_predicted_counts_with_0():
    assert value("miou", 9, [0, 0, 5, 5], [0, 0, 0, 0]) == pytest.approx(100 * (0.5 + 0) / 2)


def test_a_class_that_occurs_in_one_image_only_is_pooled_over_both():
    """The mean of the two images' own numbers is another one: absent classes are judged over all images."""
    metric = create_metric("miou", classes=3)
    prediction, label = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]]), torch.tensor([[0, 0, 1, 0], [0, 0, 0, 0]])
    metric.update(prediction[:, None, None], label[:, None])
    assert metric.latest.tolist() == pytest.approx([100 * (2 / 3 + 1 / 2) / 2, 100])
    assert metric.compute().item() == pytest.approx(100 * (6 / 7 + 1 / 2) / 2)


@pytest.mark.parametrize("classes", [2, 11, 37, 150])
def test_torchmetrics_gives_the_same(classes):
    """With the same arguments in the same order; only the percent differ."""
    prediction, label = maps(classes, classes, size=(60, 50))
    scores = torch.nn.functional.one_hot(prediction, classes).permute(0, 3, 1, 2) + 0.3 * torch.rand(3, classes, 60, 50)
    options = {"num_classes": classes, "ignore_index": 255}
    own = MetricCollection({name: create_metric(name, classes=classes) for name in NAMES})
    theirs = MetricCollection({
        "miou": JaccardIndex(task="multiclass", average="macro", **options),
        "pixel_accuracy": Accuracy(task="multiclass", average="micro", **options),
    })  # fmt: skip
    for predicted in (prediction, scores):
        for collection in (own, theirs):
            collection.reset()
        for start in (0, 1):
            own.update(predicted[start : start + 2], label[start : start + 2])
            theirs.update(predicted[start : start + 2], label[start : start + 2])
        expected = {name: pytest.approx(100 * number.item(), rel=1e-5) for name, number in theirs.compute().items()}
        assert {name: number.item() for name, number in own.compute().items()} == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.sampled_from(NAMES), st.floats(0, 1))
def test_properties(seed, classes, name, right):
    prediction, label = maps(seed, classes, right=right)
    expected = value(name, classes, prediction, label)
    assert 0 <= expected <= 100
    order = torch.randperm(classes, generator=torch.Generator().manual_seed(seed))
    renamed = torch.where(label == 255, 255, order[label.clamp(max=classes - 1)])
    assert value(name, classes, order[prediction], renamed) == pytest.approx(expected, rel=1e-12)
    assert value(name, classes, prediction.flip(1), label.flip(1)) == expected
    assert value(name, classes, prediction.flip(0), label.flip(0)) == expected
    assert value(name, classes, prediction.flatten()[None, None], label.flatten()[None, None]) == expected
    assert value(name, classes + 3, prediction, label) == pytest.approx(expected, rel=1e-12)
    elsewhere = torch.where(label == 255, (prediction + 1) % classes, prediction)
    assert value(name, classes, elsewhere, label) == expected
    right_everywhere = torch.where(label == 255, 0, label)
    assert value(name, classes, right_everywhere, label) == 100
    assert (expected == 100) == bool(((prediction == label) | (label == 255)).all())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_any_integers_will_do(dtype):
    prediction, label = maps(0, 100)
    expected = value("miou", 100, prediction, label)
    assert value("miou", 100, prediction.to(dtype), label.to(dtype)) == expected


def test_counts_stay_exact_beyond_what_float32_can_count():
    metric = create_metric("pixel_accuracy", classes=1)
    metric.total += 2.0**24
    metric.update(torch.zeros(1, 1, 1, 1, dtype=torch.int64), torch.zeros(1, 1, 1, dtype=torch.int64))
    assert metric.total.item() == 2**24 + 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", [4, 254, -1])
def test_impossible_labels_are_named(name, wrong):
    prediction, label = maps(0, 4)
    label[1, 2, 3] = wrong
    with pytest.raises(
        UserError, match=f"an image has label {wrong}, but labels must be class numbers below 4, or 255"
    ):
        value(name, 4, prediction, label)


def test_impossible_predictions_are_named():
    prediction, label = maps(0, 4)
    prediction[label == 255] = 9  # nothing counts there
    value("miou", 4, prediction, label)
    prediction[label != 255] = 9
    with pytest.raises(ValueError, match="predictions must be class numbers below 4, got 9"):
        value("miou", 4, prediction, label)


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_scores_are_taken_in_every_usual_form(name):
    prediction, label = maps(0, 4)
    label[label == 3] = 0  # the last class is only predicted
    expected = value(name, 4, prediction, label)
    scores = torch.nn.functional.one_hot(prediction, 4).permute(0, 3, 1, 2) + 0.3 * torch.rand(3, 4, 9, 7)
    for predicted in (prediction, prediction[:, None], scores, scores.softmax(1), scores.half()):
        for truth in (label, label[:, None]):
            metric = create_metric(name, classes=4)
            metric(predicted, truth)
            assert metric.compute().item() == expected


def test_other_shapes_are_refused():
    prediction, label = maps(0, 4)
    metric = create_metric("miou", classes=4)
    wrong = [
        (torch.rand(3, 5, 9, 7), label), (prediction[:, :5], label), (prediction[:2], label), (prediction[0], label[0]),
        (torch.rand(3, 4, 9, 7), label[:, :5]), (torch.zeros(3, 4, 9, 7, dtype=torch.int64), label),
    ]  # fmt: skip
    for predicted, truth in wrong:
        with pytest.raises(ValueError, match="of one size") as error:
            metric.update(predicted, truth)
        assert f"got {tuple(predicted.shape)} and {tuple(truth.shape)}" in str(error.value)
    for predicted, truth in (
        (prediction.float(), label),
        (prediction[:, None].double(), label),
        (prediction, label > 0),
    ):
        with pytest.raises(ValueError, match=r"must be integers, got torch\.\w+ and"):
            metric.update(predicted, truth)
    assert not metric.total.any()
