"""Box files, as people, spreadsheets and detectors write them."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexnet.core.errors import UserError
from indexnet.data.io.boxes import parse_box, read_boxes

WANTED = {"a b.jpg": [(1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.5, 8.0)], "ü": [(0.0, 0.0, 9.0, 9.0)]}
PLAIN = "a b.jpg,1,2,3,4\nü, 0, 0, 9, 9\n\na b.jpg,5,6,7.5,8\n"

FILES = {
    "plain.csv": PLAIN,
    "mark.csv": "\ufeffname,x0,y0,x1,y1\r\n" + PLAIN.replace("\n", "\r\n"),
    "semicolon.csv": PLAIN.replace(",", ";"),
    "decimal comma.csv": "Image;Left;Top;Right;Bottom\n" + PLAIN.replace(",", ";").replace(".5", ",5"),
    "tab.tsv": "file\txmin\tymin\txmax\tymax\n" + PLAIN.replace(", ", ",").replace(",", "\t"),
    "score.csv": "".join(f"{line},0.25\n" for line in PLAIN.splitlines() if line),
    "quoted.csv": PLAIN.replace("a b.jpg", '"a b.jpg"'),
    "detector.csv": "filename,width,height,class,score,xmin,ymin,xmax,ymax\n"
    "a b.jpg,64,48,cat,0.9,1,2,3,4\nü,64,48,a dog,1,0,0,9,9\na b.jpg,64,48,cat,,5,6,7.5,8\n",
    "sides.csv": "x,y,w,h,name\n1,2,2,2,a b.jpg\n0,0,9,9,ü\n5,6,2.5,2,a b.jpg\n",
    "annotated.csv": "image,xmin,ymin,width,height\na b.jpg,1,2,2,2\n\u00fc,0,0,9,9\na b.jpg,5,6,2.5,2\n",
    "lists.json": json.dumps({"a b.jpg": [[1, 2, 3, 4], [5, 6, 7.5, 8, 0.5]], "ü": [0, 0, 9, 9]}),
    "marked.json": "\ufeff" + json.dumps({"a b.jpg": [[1, 2, 3, 4], [5, 6, 7.5, 8]], "ü": [0, 0, 9, 9]}),
    "objects.json": json.dumps(
        [
            {"image": "a b.jpg", "box": [1, 2, 3, 4], "label": "cat"},
            {"file_name": "ü", "bbox": [0, 0, 9, 9], "score": 0.5},
            {"file_name": "a b.jpg", "x": 5, "y": 6, "w": 2.5, "h": 2},
        ]
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_box_files_of_all_kinds(tmp_path, name):
    (tmp_path / name).write_text(FILES[name], encoding="utf-8", newline="")
    assert read_boxes(tmp_path / name) == WANTED


MISTAKES = {
    "empty.csv": (b"", "holds no box"),
    "heading.csv": (b"name,x0,y0,x1,y1\n", "holds no box"),
    "three.csv": (b"cat,1,2,3\n", r"line 1: '1,2,3' is not four numbers"),
    "word.csv": (b"cat,1,2,3,4\ndog,1,2,3,x\n", "line 2.*not four numbers"),
    "score.csv": (b"cat,1,2,3,4,97\n", "line 1: the fifth number is a score, from 0 to 1; got 97"),
    "score.json": (b'{"cat": [[1, 2, 3, 4, 97]]}', "'cat': .* is a score, from 0 to 1; got 97"),
    "coco.json": (b'{"images": [], "annotations": [], "categories": []}', "is a COCO file, .*file_name"),
    "nan.csv": (b"cat,1,2,3,nan\n", "not four numbers"),
    "bytes.csv": (b"\xff\xfe\x00", "is not UTF-8 text"),
    "more.csv": (b"cat,dog,1,2,3,4\n", "more columns need a heading"),
    "columns.csv": (b"name,u,v\ncat,1,2\n", "line 2: there are no columns for a box among 'name, u, v'"),
    "nameless.csv": (b"id,x0,y0,x1,y1\n1,1,2,3,4\n", "line 2: no image is named"),
    "cells.csv": (b"name,x0,y0,x1,y1\ncat,1,2,3,4,5\n", "line 2: it has 6 cells, but the heading has 5"),
    "flat.csv": (b"name,x,y,w,h\ncat,1,2,0,4\n", "has no area"),
    "field.csv": (b"name,x0,y0,x1,y1\n" + b"x" * 200_000 + b",1,2,3,4\n", "line 2: it is no table: field larger than"),
    "cut.json": (b"{", "is not valid JSON"),
    "list.json": (b"[1]", "must hold"),
    "two.json": (b'{"cat": [[1, 2]]}', "'cat'.*not four numbers"),
    "deep.json": (b"[" * 10_000 + b"]" * 10_000, "nested more than"),
    "deep box.json": (b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested more than"),
    "digits.json": (b'{"a": [1, 2, 3, 1' + b"0" * 400 + b"]}", "not four numbers"),
    "object.json": (b'[{"image": "a", "box": [1, 2]}]', "entry 1: .* is not four numbers"),
    "number.json": (b'[{"image_id": 5, "bbox": [1, 2, 3, 4]}]', "entry 1: no image is named"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_box_files_with_mistakes(tmp_path, name):
    content, fragment = MISTAKES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=fragment) as error:
        read_boxes(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert len(str(error.value)) < 1000


def test_box_words(tmp_path):
    assert parse_box("1, 2,3.5,4") == (1, 2, 3.5, 4)
    for text in ("1,2,3", "a,b,c,d", "", "1,2,3,inf"):
        with pytest.raises(UserError, match="four numbers"):
            parse_box(text)
    with pytest.raises(UserError, match=r"none\.csv does not exist"):
        read_boxes(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=r"folder\.csv is a folder, not a file"):
        read_boxes(tmp_path / "folder.csv")


EXAMPLES = [40, pytest.param(3000, marks=[pytest.mark.long, pytest.mark.nightly])]
NUMBERS = st.integers(-5000, 5000).map(lambda number: number / 4)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Z"]), min_size=1)
BOXES = st.lists(st.tuples(NAMES, st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS)), min_size=1, max_size=6)
CELLS = st.one_of(st.text(max_size=8), st.sampled_from([*",;\t\n\"'\0", "name", "x0", "1", "nan", "x" * 66_000]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.sampled_from(["image", "box", "bbox", "x0", "name", "a"]), inner, max_size=5)
    ),
    max_leaves=15,
)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_table_of_any_marks_holds_what_was_written(tmp_path, examples):
    @settings(max_examples=examples, deadline=None)
    @given(BOXES, st.sampled_from(",;\t"), st.booleans())
    def check(boxes, mark, headed):
        path, wanted = tmp_path / "boxes.csv", {}
        lines = [mark.join(["name", "x0", "y0", "x1", "y1"])] if headed else []
        for name, box in boxes:
            wanted.setdefault(name, []).append(box)
            quoted = '"' + name.replace('"', '""') + '"'
            cells = [f"{value:g}".replace(".", "," if mark == ";" else ".") for value in box]
            lines.append(mark.join([quoted, *cells]))
        path.write_text("\n".join(lines), encoding="utf-8")
        assert read_boxes(path) == wanted

    check()


@pytest.mark.parametrize("examples", EXAMPLES)
def test_whatever_a_file_holds_is_read_as_finite_boxes_or_refused_by_name(tmp_path, examples):
    @settings(max_examples=examples, deadline=None)
    @given(
        st.tuples(st.binary(max_size=60), st.sampled_from(["csv", "json"]))
        | st.tuples(st.lists(CELLS, max_size=8).map(lambda cells: "".join(cells).encode()), st.just("csv"))
        | st.tuples(JSON.map(lambda value: json.dumps(value).encode()), st.just("json"))
    )
    def check(case):
        content, ending = case
        path = tmp_path / f"boxes.{ending}"
        path.write_bytes(content)
        try:
            found = read_boxes(path)
        except UserError as error:
            refusal = str(error)
        else:
            refusal = str(path)
            assert all(math.isfinite(value) for boxes in found.values() for box in boxes for value in box)
        assert str(path) in refusal

    check()
