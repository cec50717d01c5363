"""``indexnet bench``: small networks, operators on small maps, and figures beside a baseline."""

from __future__ import annotations

import csv
import gc
import json

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from commands_support import autoencoder_checkpoint, matting_checkpoint
from indexnet.cli import main
from indexnet.inference import latency
from indexnet.networks.architectures.autoencoder import Autoencoder
from indexnet.resampling import Nearest
from indexnet.resampling.functional import crop_to


@pytest.fixture(autouse=True, scope="module")
def _frozen():
    """Before each figure of memory garbage is collected, which takes long among all that the tests before have left."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch):
    monkeypatch.setenv("INDEXNET_KEEP_MEMORY", "0")  # or later tests of this process would measure other memory


def run(*words):
    return main(["bench", "latency", *map(str, words), "--device", "cpu", "--repeats", "2"])


@pytest.fixture
def checkpoint(tmp_path):
    return autoencoder_checkpoint(tmp_path / "pool.ckpt")


def test_several_networks_at_several_sizes(tmp_path, checkpoint, capsys):
    other = matting_checkpoint(tmp_path / "matte.ckpt")
    files = {kind: tmp_path / "out" / f"a.{kind}" for kind in ("json", "csv", "png")}
    before = torch.get_num_threads()
    words = ["--sizes", "33,96x40,64", "--json", files["json"], "--csv", files["csv"], "--plot", files["png"]]
    assert run(checkpoint, other, *words, "--threads", "1") == 0
    assert torch.get_num_threads() == before
    shown = capsys.readouterr().out
    assert "64x64" in shown
    notes = json.loads(files["json"].read_text())
    assert notes["threads"] == 1
    # all at the sizes that suit matting, in order, 33 and 64 being the same then
    sizes = [(64, 64), (96, 64)]
    assert [(m["network"], m["width"], m["height"]) for m in notes["measurements"]] == [
        (name, *size) for name in ("max_unpool (pool)", "max_unpool (matte)") for size in sizes
    ]
    for line in notes["measurements"]:
        assert 0 < line["fastest_s"] <= line["median_s"] <= line["slowest_s"] < 60
        assert len(line["times_s"]) == 2
        assert line["memory_bytes"] is None or line["memory_bytes"] >= 0
    rows = list(csv.DictReader(files["csv"].open()))
    assert [float(row["median_s"]) for row in rows] == [m["median_s"] for m in notes["measurements"]]
    assert set(rows[0]) >= {"fastest_s", "slowest_s", "memory_bytes"}
    assert "(1 thread)" in notes["device"]
    assert "some 20 MB are the kernels' own" in " ".join(shown.split())
    assert Image.open(files["png"]).size[0] > 100


def test_memory_is_that_of_the_forward_pass(checkpoint):
    from indexnet.core.machine import reset_peak_memory
    from indexnet.networks import create_network
    from indexnet.networks.tiled.memory import live_bytes

    if not reset_peak_memory():
        pytest.skip("peaks of a process cannot be forgotten here")
    network = create_network("autoencoder", widths=[16, 16]).eval()  # wide maps cost time, not memory alone
    (line,) = latency.measure([("a", network)], [(800, 800)], torch.device("cpu"), 1)
    assert line.memory_bytes is not None
    assert 0.5 < line.memory_bytes / live_bytes(network, (network.in_channels, 800, 800)) < 2.5


def test_memory_grows_with_the_size():
    """Also for the first sizes of a process, in which kernels load."""
    from indexnet.core.machine import reset_peak_memory
    from indexnet.networks import create_network

    if not reset_peak_memory():
        pytest.skip("peaks of a process cannot be forgotten here")
    encoder = {"name": "mobilenetv2_released"}
    network = create_network("matting_unet", encoder=encoder, context="none", resampling="indexnet").eval()
    sizes = [(64, 64), (160, 160), (256, 256)]
    found = [line.memory_bytes for line in latency.measure([("a", network)], sizes, torch.device("cpu"), 1)]
    assert found == sorted(found)
    assert found[0] > 2 * 10**6
    assert found[2] > 2 * found[0]


def test_what_does_not_fit_is_said_and_the_rest_goes_on(tmp_path, checkpoint, capsys, monkeypatch):
    forward = Autoencoder.forward

    def scarce(self, x):
        if x.shape[-1] > 64 and x.device.type == "cpu":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(self, x)

    monkeypatch.setattr(Autoencoder, "forward", scarce)
    assert run(checkpoint, "--sizes", "64,128", "--plot", tmp_path / "a.svg") == 3
    out, err = capsys.readouterr()
    assert "does not fit" in out
    assert "pool at 128x128: out of memory" in err
    drawn = (tmp_path / "a.svg").read_text()
    assert drawn.lstrip().startswith("<?xml")
    assert "side of the image, pixels" in drawn
    assert run(checkpoint, "--sizes", "128") == 2
    monkeypatch.setattr("indexnet.inference.latency.available_memory", lambda: 10**6)
    capsys.readouterr()
    assert run(checkpoint, "--sizes", "64") == 2
    assert "pool at 64x64: needs about 0." in capsys.readouterr().err


def test_mistakes_are_one_sentence(tmp_path, checkpoint, mistake):
    there = tmp_path / "there.json"
    there.write_text("mine")
    for words, fragment in (
        ([checkpoint, "--sizes", "64,big"], "--sizes: 'big' must be a side in pixels"),
        ([checkpoint, "--sizes", "64,0"], "--sizes: '0' must be"),
        ([checkpoint, "--sizes", "100000"], "more than 100 megapixels"),
        ([checkpoint, "--threads", "0"], "--threads 0 must be at least 1"),
        ([checkpoint, "--json", there], "there.json exists; give --overwrite"),
        ([checkpoint, "--plot", tmp_path / "a.pdf"], "must end with .png or .svg"),
        ([checkpoint, checkpoint], "a checkpoint is given twice"),
        ([tmp_path / "none.ckpt"], "none.ckpt"),
    ):
        mistake(run(*words), fragment)
    assert there.read_text() == "mine"


# --- operators ----------------------------------------------------------------------------------------------------


def bench_operators(*words):
    usual = ["--device", "cpu", "--repeats", "1", *([] if "--threads" in words else ["--threads", "1"])]
    return main(["bench", "operators", *map(str, words), *usual])


def test_every_operator_and_every_pooling_is_measured(tmp_path, capsys):
    from indexnet.resampling import list_resampling
    from indexnet.resampling.pooling import POOLINGS

    files = tmp_path / "costs.md", tmp_path / "costs.json"
    assert bench_operators("--size", "1,16,10,7", "--output", files[0], "--json", files[1]) == 0
    notes = json.loads(files[1].read_text())
    names = [line["operator"] for line in notes["measurements"]]
    assert names[0] == "bilinear"
    assert set(names) == {
        *(info.name for info in list_resampling()),
        *(f"nearest:pooling={pooling}" for pooling in set(POOLINGS) - {"max", "encoder"}),
    }
    assert notes["size"] == [1, 16, 10, 7]
    assert notes["options"] == {"quick": False, "turns": 1, "threads": [1]}
    for line in notes["measurements"]:
        assert min(line["forward_s"], line["backward_s"]) > 0
        assert line["step_s"] == line["forward_s"] + line["backward_s"]
        assert line["saved_bytes"] >= 0
    shown = capsys.readouterr().out
    assert "bilinear" in shown
    assert "1.00" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    written = [line for line in files[0].read_text().splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in written] == names


def test_memory_of_operators_is_what_their_formulas_say(tmp_path):
    """Bytes that are saved for the backward pass, beside the encoder map and the weights."""
    file = tmp_path / "a.json"
    operators = ["nearest:pooling=avg", "nearest:pooling=conv", "max_unpool", "deconv", "indexnet:family=hin"]
    assert bench_operators(*operators, "--size", "2,8,16,12", "--json", file) == 0
    found = {line["operator"]: line for line in json.loads(file.read_text())["measurements"]}
    cells = 2 * 8 * 8 * 6
    assert found["bilinear"]["saved_bytes"] == 8 * cells  # where the maxima are
    assert found["max_unpool"]["saved_bytes"] == 8 * cells
    assert found["nearest:pooling=avg"]["saved_bytes"] == 0
    assert found["nearest:pooling=conv"]["saved_bytes"] == 0  # its input and its weights are kept anyway
    assert found["deconv"]["saved_bytes"] == 4 * cells  # the halved map
    assert found["indexnet:family=hin"]["saved_bytes"] > 4 * cells
    assert found["deconv"]["parameters"] == 9 * 64 + 8 + 16 * 64 + 8


def test_operators_that_do_not_fit_are_said_and_the_rest_goes_on(capsys):
    assert bench_operators("haar", "dysample:groups=4", "--size", "1,6,8,8") == 3
    out, err = capsys.readouterr()
    assert "haar" in out
    assert "dysample:groups=4: " in err
    assert "groups=4" in err


@pytest.mark.parametrize("crops", [True, False])
def test_an_operator_that_does_not_double_is_said(capsys, monkeypatch, crops):
    def up(self, x, guide, size):
        large = F.interpolate(x, scale_factor=4.0)
        return crop_to(large, size) if crops else large

    monkeypatch.setattr(Nearest, "up", up)
    assert bench_operators("nearest", "--size", "1,2,8,10") == 3
    out, err = capsys.readouterr()
    assert "bilinear" in out
    said = "a map of 16x20 cannot be cut to 8x10:" if crops else "up made a map of 16x20, and was asked for one of 8x"
    assert f"nearest: resampling 'nearest': {said}" in err


def test_mistakes_about_operators_are_one_sentence(tmp_path, mistake):
    there = tmp_path / "there.md"
    there.write_text("mine")
    for words, fragment in (
        (["carafee"], "Did you mean 'carafe'?"),
        (["carafe:k_upp=3"], "Did you mean 'k_up'?"),
        (["carafe:channels=3"], "'carafe' has no option 'channels'"),
        (["carafe:k_up=3,k_up=5"], "k_up is given twice"),
        (["carafe:k_up"], "'k_up' must be OPTION=VALUE"),
        (["indexnet:family=hinn"], "Did you mean 'hin'?"),
        (["nearest:pooling=encoder"], "leaves the halving to a network"),
        (["none"], "nothing to measure"),
        (["carafe", "carafe"], "'carafe' is given twice"),
        (["carafe", "--size", "4,64,128"], "--size 4,64,128 must be batch, channels, height and width"),
        (["carafe", "--size", "1,8,2,8"], "at least 3"),
        (["carafe", "--size", "9999,99999,9999,9999"], "does not fit into memory; give a smaller one"),
        (["carafe", "--threads", "100000000"], "--threads 100000000 are more than this machine's"),
        (["carafe", "--threads", "1,one"], "--threads 1,one must be numbers, each once, as 1,2"),
        (["carafe", "--threads", "1,1"], "each once"),
        (["carafe", "--json", tmp_path / "one.md", "--output", tmp_path / "one.md"], "give each a name of its own"),
        (["carafe", "--output", there], "there.md exists; give --overwrite"),
        (["carafe", "--output", tmp_path / "a.csv"], "must end with .md"),
    ):
        mistake(bench_operators(*words), fragment)
    assert there.read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "keeps"),
    [(["operators", "nearest"], True), (["metrics"], True), (["latency", "none.ckpt"], False)],
)
def test_all_but_latency_keep_freed_memory_as_runs_do(words, keeps, monkeypatch):
    kept = []
    monkeypatch.setattr("indexnet.commands.bench.keep_freed_memory", lambda: kept.append(True))
    for name in ("bench_operators", "bench_parts", "bench_latency"):
        monkeypatch.setattr(f"indexnet.commands.bench.{name}", lambda *given: 0)
    assert main(["bench", *words]) == 0
    assert bool(kept) is keeps


# --- figures beside a baseline --------------------------------------------------------------------------------------


@pytest.fixture
def baseline(tmp_path):
    path = tmp_path / "baseline.json"
    assert small_operators("nearest", "--check", path, "--write-baseline") == 0
    return path


def small_operators(*words):
    # what is noise here is far below the tolerance
    return main(["bench", "operators", *map(str, words), "--quick", "--turns", "1", "--tolerance", "1000"])


def edit(path, change):
    notes = json.loads(path.read_text())
    change(notes)
    path.write_text(json.dumps(notes))
    return path


def test_a_part_is_a_table_and_a_file_of_ratios(tmp_path, capsys):
    file = tmp_path / "metrics.json"
    assert main(["bench", "metrics", "--quick", "--turns", "1", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "metrics, 1 thread; median of 1" in shown
    assert "conn, hair" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    notes = json.loads(file.read_text())
    assert set(notes["versions"]) == {"indexnet", "torch", "python"}
    assert notes["device"]
    assert notes["options"] == {"quick": True, "turns": 1, "threads": [1]}
    for figure in notes["figures"]:
        assert figure["ratio"] == figure["value"] / figure["reference_value"]
        assert (figure["part"], figure["quantity"], figure["threads"]) == ("metrics", "time", 1)


def test_figures_pass_beside_their_own_baseline(baseline, capsys):
    capsys.readouterr()
    assert small_operators("nearest", "--check", baseline) == 0
    out, err = capsys.readouterr()
    assert f"1 figures compared with {baseline}, 0 worse by over" in out
    assert err == ""


def test_a_figure_that_is_worse_is_named(baseline, capsys):
    def faster(notes):
        notes["figures"][0]["ratio"] /= 1e6

    edit(baseline, faster)
    assert small_operators("nearest", "--check", baseline) == 3
    out, err = capsys.readouterr()
    assert "1 worse by over" in out
    assert "worse: operators: nearest: stage / bilinear, time, 1 thread(s): " in err


def test_figures_that_one_side_lacks_are_said(baseline, capsys):
    assert small_operators("nearest", "max_unpool", "--check", baseline) == 0
    assert (
        f"operators: max_unpool: stage / bilinear, time, 1 thread(s): is not in {baseline}" in capsys.readouterr().err
    )

    def further(notes):
        row = notes["figures"][0]
        notes["figures"] += [row | {"key": "operators: old"}, row | {"key": "stages: other", "part": "stages"}]

    edit(baseline, further)
    assert small_operators("nearest", "--check", baseline) == 0
    err = capsys.readouterr().err
    assert "operators: old: was not measured" in err
    assert "stages" not in err  # of a part that was not asked for


def test_a_baseline_of_other_hardware_is_said_and_compared(baseline, capsys):
    edit(baseline, lambda notes: notes.update(device="abacus"))
    assert small_operators("nearest", "--check", baseline) == 0
    out, err = capsys.readouterr()
    assert f"{baseline} was measured on abacus, this is " in err
    assert "1 figures compared" in out


def test_a_baseline_keeps_the_figures_of_other_parts(baseline, mistake, monkeypatch, capsys):
    other = {"key": "stages: other", "part": "stages", "ratio": 1.0, "threads": 1}
    edit(baseline, lambda notes: notes["figures"].append(other))
    assert small_operators("max_unpool", "--check", baseline, "--write-baseline") == 0
    keys = [row["key"] for row in json.loads(baseline.read_text())["figures"]]
    assert keys == ["stages: other", "operators: max_unpool: stage / bilinear, time, 1 thread(s)"]
    edit(baseline, lambda notes: notes.update(device="abacus"))
    capsys.readouterr()
    monkeypatch.setattr("indexnet.inference.operator_costs.measure_operators", None)  # it is said before measuring
    code = small_operators("nearest", "--check", baseline, "--write-baseline")
    mistake(code, "holds other figures of abacus; measure all parts here")
    edit(baseline, lambda notes: notes["options"].update(quick=False))
    mistake(small_operators("nearest", "--check", baseline, "--write-baseline"), "was measured without --quick")
    baseline.write_text("{}")
    mistake(small_operators("nearest", "--check", baseline, "--write-baseline"), "is no file of `indexnet bench`")


def test_mistakes_about_baselines_are_one_sentence(tmp_path, baseline, mistake, capsys):
    capsys.readouterr()
    (tmp_path / "damaged.json").write_text("{")
    (tmp_path / "other.json").write_text('{"figures": [1]}')
    full = tmp_path / "full.json"
    full.write_text(edit(baseline, lambda notes: None).read_text().replace('"quick": true', '"quick": false'))
    for words, fragment in (
        (["--check", tmp_path / "none.json"], "there is no baseline"),
        (["--check", tmp_path / "damaged.json"], "damaged.json"),
        (["--check", tmp_path / "other.json"], "is no file of `indexnet bench`"),
        (["--check", full], "was measured without --quick, so that no figure can be compared; leave it out"),
        (["--write-baseline"], "--write-baseline needs --check FILE"),
        (["--check", baseline, "--size", "1,8,8,8"], "--size and --check do not go together"),
        (["max_unpool", "--check", baseline], "has none of these figures"),
    ):
        mistake(small_operators(*(words if words[0] == "max_unpool" else ["nearest", *words])), fragment)


def test_an_unknown_part_is_one_sentence(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["bench", "speed"])
    assert ended.value.code == 2
    assert "argument WHAT: invalid choice: 'speed' (choose from 'stages', 'operators'" in capsys.readouterr().err


def test_samples_of_all_kinds_of_data(tmp_path, capsys):
    """Those of matting are compared with the published order before anything is timed."""
    file = tmp_path / "data.json"
    assert main(["bench", "data", "--quick", "--turns", "1", "--feed", "500", "--json", str(file)]) == 0
    shown = capsys.readouterr().out
    found = json.loads(file.read_text())
    cases = {line["case"] for line in found["rates"]}
    assert cases >= {"dim", "dim, from files", "gca", "scenes, depth", "camvid, segmentation", "nyuv2, depth"}
    assert all(case in shown for case in cases)
    for line in found["rates"]:
        assert line["cores"] - 1 < 500 * line["seconds"] <= line["cores"]
        assert line["per_second"] == pytest.approx(1 / line["seconds"])
    published = {each["case"] for each in found["figures"] if each["reference"] == "the published order"}
    assert published == {"dim", "dim, from files", "gca", "a2u"}


@pytest.mark.parametrize("words", [["--turns", "0"], ["--feed", "0"], ["--feed", "nan"], ["--feed", "-3"]])
def test_impossible_options_of_data(words, capsys):
    assert main(["bench", "data", *words]) == 2
    assert words[0] in capsys.readouterr().err
