"""indexnet.report.figures: well-formed SVG whose marks stand where the numbers say."""

from __future__ import annotations

import itertools
import math
from xml.etree import ElementTree

import pytest

from indexnet.report.figures.axes import Axis, Series, fit_axis, tick_text
from indexnet.report.figures.curves import average, curve_panels, learning_curves, thin
from indexnet.report.figures.plots import dot_plot, scatter


def parse(svg):
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    width, height = (float(v) for v in root.get("viewBox").split()[2:])
    for text in root.iter("text"):
        assert -1 <= float(text.get("x")) <= width + 1
        assert 0 <= float(text.get("y")) <= height
    for circle in root.iter("circle"):
        assert 0 <= float(circle.get("cx")) <= width
        assert 0 <= float(circle.get("cy")) <= height
    return root


def discs(root):
    found = [(float(c.get("cx")), float(c.get("cy"))) for c in root.iter("circle") if c.get("class") == "disc"]
    squares = [r for r in root.iter("rect") if r.get("class") == "disc"]
    return found + [(float(r.get("x")) + float(r.get("width")) / 2, float(r.get("y"))) for r in squares]


def series(number, values, label="", best=False):
    mean = sum(values) / len(values)
    sd = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else None
    return Series(number, label or f"row <{number}> & co", values, mean, sd, best)


@pytest.mark.parametrize("narrow", [False, True])
def test_dot_plot_orders_means_from_left_to_right(narrow):
    rows = [series(1, [20.0, 21.0]), series(2, [36.0, 37.0], best=True), series(3, [28.0])]
    root = parse(dot_plot(rows, "PSNR (dB)", 2, narrow=narrow))
    x = [position[0] for position in discs(root)]
    assert x[0] < x[2] < x[1]
    # linear: 28 stands (28 - 20.5) / (36.5 - 20.5) of the way
    assert (x[2] - x[0]) / (x[1] - x[0]) == pytest.approx(7.5 / 16, abs=0.01)
    assert sum(c.get("class") == "ring" for c in root.iter("circle")) == 5
    assert "36.50 ± 0.71" in "".join(root.itertext())


def test_scatter_uses_a_logarithmic_axis_for_wide_costs():
    points = [(series(1, [20.0]), 1e5), (series(2, [30.0]), 1e6), (series(3, [36.0]), 1e7)]
    for narrow in (False, True):
        root = parse(scatter(points, "parameters", "PSNR (dB)", 2, narrow=narrow))
        (a, ay), (b, by), (c, cy) = sorted(discs(root))
        assert b - a == pytest.approx(c - b, abs=0.2)
        assert ay > by > cy  # more is higher up
        text = "".join(root.itertext())
        assert "(logarithmic)" in text
        assert "1M" in text
    assert "(logarithmic)" not in scatter([(p, 1.0 + i) for i, (p, _) in enumerate(points)], "GFLOPs", "PSNR", 2)


def test_scatter_names_what_has_room_and_names_do_not_overlap():
    apart = [(series(i, [20.0 + 2 * i], label=f"row {i}"), 1.0 + i) for i in range(1, 9)]
    near = [(series(i, [20.0 + 0.01 * i], label=f"a rather long name {i}"), 1.0 + 0.001 * i) for i in range(1, 9)]
    same = [(series(i, [20.0], label=f"a rather long name {i}"), 1.0) for i in range(1, 13)]
    for points, named in ((apart, 8), (near, 8), (same, 4)):  # four spots around a disc have room, and no name is cut
        root = parse(scatter(points, "GFLOPs", "PSNR", 2))
        names = [text for text in root.iter("text") if "label" in text.get("class", "")]
        assert len(names) == named
        boxes = []
        for name in names:
            x, y = float(name.get("x")), float(name.get("y"))
            boxes.append((x, y - 10, x + 6.9 * len(name.text), y + 3))
        for a, b in itertools.combinations(boxes, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert len(discs(root)) == len(points)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(
    "label",
    [
        "average pooling with a gate on top of it (resampling.kernel={})",
        "average pooling with a gate (resampling.kernel={}, seen twice)",
        "{} average pooling with a gate, and a long tail of other words behind it",
        "gates, {} more words, then a long tail of other words",
    ],
)
def test_long_labels_that_differ_are_cut_so_that_they_still_do(label, narrow):
    labels = [label.format(value) for value in (1, 3, 5)]
    rows = [series(number, [20.0, 20.0 + number], text) for number, text in enumerate(labels, 1)]
    root = parse(dot_plot(rows, "PSNR (dB)", 2, narrow=narrow))
    names = [text.text for text in root.iter("text") if text.get("class") == "label"]
    shown = {name.removeprefix(f"{row.number}  " * narrow) for name, row in zip(names, rows, strict=True)}
    assert len(shown) == 3
    assert all("…" in name and len(name) < 38 for name in shown)
    lines = parse(learning_curves([(row, [[(0, 1.0), (9, 0.1)]]) for row in rows]))
    ends = [text.text.partition(" ")[2] for text in lines.iter("text") if "…" in text.text]
    assert len(set(ends)) == 3


def test_single_values_and_equal_values_draw():
    parse(dot_plot([series(1, [0.0])], "SAD", 1))
    parse(scatter([(series(1, [5.0]), 2.0), (series(2, [5.0]), 2.0)], "GFLOPs", "SAD", 1))
    parse(learning_curves([(series(1, [0.0]), [[(0, 0.0), (1, 0.0)]])]))


@pytest.mark.parametrize("narrow", [False, True])
def test_learning_curves_show_seeds_faint_and_their_mean(narrow):
    falling = [(step, math.exp(-step / 50)) for step in range(200)]
    higher = [(step, value + 0.5) for step, value in falling]
    root = parse(learning_curves([(series(1, [0.0]), [falling, higher]), (series(2, [0.0]), [falling])], narrow=narrow))
    lines = list(root.iter("polyline"))
    assert [line.get("class") for line in lines] == ["faint", "faint", "curve", "curve"]
    ys = [float(point.split(",")[1]) for point in lines[3].get("points").split()]
    assert ys == sorted(ys)  # falling loss goes down the page
    assert "logarithmic" in "".join(root.itertext())


def test_curve_panels_share_their_axes():
    rows = [(f"row {i}", [(series(i, [0.0]), [[(0, 1.0), (100, 0.1 * i)]])]) for i in range(1, 12)]
    shared, drawn = curve_panels(rows, others="all-loss")
    panels = [parse(panel) for panel in drawn]
    assert len(panels) == 11
    starts = {next(panel.iter("polyline")).get("points").split()[0] for panel in panels}
    assert len(starts) == 1
    assert shared.count("<polyline") == 11  # drawn once, and used behind each
    assert all(panel.count('href="#all-loss"') == 1 for panel in drawn)


def test_curve_panels_with_several_lines():
    lines = [(series(i, [0.0], label=f"sigma {i}"), [[(0, 1.0), (100, 0.1 * i)]]) for i in (1, 2)]
    shared, (panel,) = curve_panels([("1 M2O & co", lines)])
    assert shared == ""
    root = parse(panel)
    assert root.get("aria-label") == "Training loss over steps: 1 M2O & co"
    assert [title.text for title in root.iter("title")] == ["sigma 1", "sigma 2"]
    assert [group.get("style") for group in root.iter("g")] == [
        f"--s:var(--c{i});--t:var(--t{i})" for i in (0, 1, 1, 0)
    ]
    ends = [text.text for text in root.iter("text") if "coloured" in text.get("class")]
    assert ends == ["2", "1"]  # from top to bottom; told apart by number as well as by colour


def test_a_name_that_has_no_room_beside_its_mark_stands_aslant():
    points = [("a name of twenty letters", 28.9, 0.009), ("b", 29.3, 0.014), ("c", 20.0, 0.03), ("d", 32.0, 0.035)]
    drawn = scatter([(Series(n, name, [], mean), cost) for n, (name, mean, cost) in enumerate(points, 1)], "x", "y", 1)
    assert [e.text for e in ElementTree.fromstring(drawn).iter("text") if "label" in e.get("class")] == [
        "d", "c", "b", "a name of twenty letters"
    ]  # fmt: skip


def test_axes_and_ticks():
    axis = Axis(0, 10, 100, 200)
    assert (axis(0), axis(5), axis(10)) == (100, 150, 200)
    assert axis.ticks(5) == [0, 2, 4, 6, 8, 10]
    log = Axis(10, 1000, 0, 1, True)
    assert log(100) == pytest.approx(0.5)
    assert log.ticks() == [10, 100, 1000]
    fitted = fit_axis([20.0, 30.0], 0, 1, margin=0.1)
    assert (fitted.low, fitted.high) == (19.0, 31.0)
    assert [tick_text(t, [0, 0.25, 0.5]) for t in (0, 0.25, 0.5)] == ["0.00", "0.25", "0.50"]
    assert [tick_text(t, [20, 25, 30]) for t in (20, 25, 30)] == ["20", "25", "30"]
    assert Axis(0, 0.52, 0, 1).ticks(5) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert [tick_text(t, [0.1, 0.15, 0.2]) for t in (0.1, 0.15, 0.2)] == ["0.10", "0.15", "0.20"]
    assert tick_text(0.002, [0.001, 0.002]) == "0.002"
    assert tick_text(22.5, [22.5, 25.0]) == "22.5"
    assert tick_text(-1, [-1, 0]) == "−1"


def test_thinning_keeps_the_mean_and_the_last_step():
    curve = [(step, float(step)) for step in range(1, 1001)]
    short = thin(curve, 100)
    assert len(short) <= 100
    assert short[-1][0] == 1000
    assert short[0] == (10, 5.5)  # steps 1 ... 10
    assert thin(curve[:5], 100) == curve[:5]


def test_average_takes_common_steps():
    assert average([[(0, 1.0), (1, 3.0), (2, 9.0)], [(0, 3.0), (1, 5.0)]]) == [(0, 2.0), (1, 4.0)]
    assert average([]) == []
