"""Checkpoints whose numbers are no numbers or whose networks cannot be: refused in a sentence, nothing is written."""

from __future__ import annotations

import copy
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from commands_support import autoencoder_checkpoint, labelled_checkpoint, matting_checkpoint, photograph, save_image
from indexnet.cli import main
from indexnet.core.errors import UserError
from indexnet.inference.loading import load_task
from indexnet.interop import convert
from indexnet.networks.encoders import create_encoder
from predict_support import files_of, predict
from released import released_state

WEIGHT = "network.head.weight"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return autoencoder_checkpoint(tmp_path_factory.mktemp("good") / "a.ckpt", "bilinear")


def changed(source, target, change):
    content = torch.load(source, weights_only=True)
    change(content)
    torch.save(content, target)
    return target


def weights_changed(source, target, change, key=WEIGHT):
    def change_one(content):
        content["state_dict"][key] = change(content["state_dict"][key])

    return changed(source, target, change_one)


def put(target, places, value):
    """Put a value into nested mappings."""
    for place in places[:-1]:
        target = target[place]
    target[places[-1]] = value


def refused(path, *words):
    """Check that a checkpoint is refused in one sentence, and what that says."""
    with pytest.raises(UserError) as error:
        load_task(path)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def first_of(number):
    def change(weight):
        weight = weight.clone()
        weight.view(-1)[0] = number
        return weight

    return change


KINDS = {
    "nan": (first_of(torch.nan), "is not finite"),
    "infinite": (first_of(-torch.inf), "is not finite"),
    "too large for float32": (lambda weight: torch.full_like(weight, 1e300, dtype=torch.float64), "is not finite"),
    "complex": (lambda weight: weight.to(torch.complex64), "holds complex numbers, where real numbers are expected"),
    "boolean": (lambda weight: weight > 0, "holds truth values, where real"),
    "int8": (lambda weight: weight.to(torch.int8), "holds integers, where real"),
    "sparse": (lambda weight: weight.to_sparse(), "is no plain tensor"),
    "text": (lambda weight: "weights", "is no plain tensor"),
    "repeated": (lambda weight: torch.zeros(1).expand(weight.shape), "is larger than what the file holds"),
    "larger": (lambda weight: torch.zeros(1).expand(10**6, 10**6), "is larger than what the file holds"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_no_numbers_are_refused(good, tmp_path, kind):
    change, words = KINDS[kind]
    path = weights_changed(good, tmp_path / "x.ckpt", change)
    refused(path, str(path), "head.weight", words)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_widths_of_real_numbers_are_taken(good, tmp_path, dtype):
    task, _ = load_task(weights_changed(good, tmp_path / "x.ckpt", lambda weight: weight.to(dtype)))
    assert task.network.head.weight.dtype == torch.float32


def test_no_command_uses_weights_that_are_no_numbers(matting, folder, tmp_path, mistake):
    path = weights_changed(matting, tmp_path / "bad.ckpt", first_of(torch.nan), "network.head.1.weight")
    before = files_of(tmp_path)
    mistake(predict(path, folder), str(path), "head.1.weight is not finite")
    for words in (
        ["evaluate", path, "--output", tmp_path / "out"],
        ["robustness", path, "--output", tmp_path / "out"],
        ["compare", matting, path, "--images", folder / "images", "--trimaps", folder / "trimaps", "--output",
         tmp_path / "out"],
        ["export", path, "--format", "torch_export"],
        ["bench", "latency", path, "--sizes", "64"],
        ["app", path],
    ):  # fmt: skip
        mistake(main([str(word) for word in words]), str(path), "head.1.weight is not finite")
    assert files_of(tmp_path) == before


def overflow(content):
    for key, value in content["state_dict"].items():
        if key.endswith("weight"):
            value.fill_(1e20)


def writes_nothing(path, folder, capsys, trimaps=False):
    assert predict(path, folder, trimaps=trimaps) == 2
    assert "the network's output is not finite; its training diverged" in capsys.readouterr().err
    assert files_of(folder / "out") in ([], ["classes.txt"])


def test_a_network_that_gives_no_numbers_writes_nothing(good, tmp_path, capsys):
    """Its weights are finite, what it makes of them is not, even where clipping hides it."""
    save_image(tmp_path / "images" / "x.png", photograph(40, 40))
    writes_nothing(changed(good, tmp_path / "images.ckpt", overflow), tmp_path, capsys)


@pytest.mark.long
def test_networks_that_give_no_numbers_are_neither_measured_nor_exported(matting, good, folder, tmp_path, capsys):
    path = changed(good, tmp_path / "images.ckpt", overflow)
    words = ["--gallery", "0", "--limit", "1", "--output", str(tmp_path / "measured")]
    assert main(["evaluate", str(path), *words]) == 2
    assert "nothing in it can be measured; the prediction is not finite" in capsys.readouterr().err
    assert main(["export", str(path), "--format", "torch_export"]) == 2
    assert "the network's output is not finite, so the file was not written" in capsys.readouterr().err
    assert not (tmp_path / "measured").exists()

    def huge(weight):
        return torch.full_like(weight, 3e38)

    path = weights_changed(matting, tmp_path / "matting.ckpt", huge, "network.head.1.weight")
    writes_nothing(path, folder, capsys, trimaps=True)
    save_image(tmp_path / "one" / "images" / "x.png", photograph(40, 40))
    path = changed(labelled_checkpoint(tmp_path / "s.ckpt"), tmp_path / "classes.ckpt", overflow)
    writes_nothing(path, tmp_path / "one", capsys)


def nested(inner, times, branches):
    """A value within lists within lists, each of which holds the next one so many times."""
    for _ in range(times):
        inner = [inner] * branches
    return inner


IMPOSSIBLE = [
    (("indexnet", "network", "widths"), "x", "network.widths='x' must be a list of integers"),
    (("indexnet", "network", "widths"), [10**7, 4], "weights do not fit the network 'autoencoder'"),
    (("indexnet", "network", "widths"), [[4], 4], "network.widths=[[4], 4] must be a list of integers"),
    (("indexnet", "network", "in_channels"), -1, "network.in_channels=-1 must be a positive integer"),
    (("indexnet", "network", "in_channels"), 10**9, "weights do not fit the network"),
    (("indexnet", "network", "in_channels"), 10**30, "network=autoencoder cannot be built from its options"),
    (("indexnet", "network", "in_channels"), [1], "network.in_channels=[1] must be a positive integer"),
    (("indexnet", "network", "in_channels"), True, "network.in_channels=True must be a positive integer"),
    (("indexnet", "network", "name"), "dncnn\n", "unknown network"),
    (("indexnet", "network"), {"name": "dncnn", "depth": 10**9}, "would have more than"),
    (("indexnet", "network", "resampling"), 3, "resampling must be a name or a mapping"),
    (("indexnet", "network", "resampling"), {"name": "indexnet", "family": 7}, "resampling.family=7 must be"),
    (("indexnet", "network", "encoder"), {"name": "vgg11_bn"}, "has no option 'encoder'"),
    (("indexnet", "network", "own"), {}, "has no option 'own'"),
    (("indexnet", "task", "name"), "x", "unknown task"),
    (("indexnet", "task", "name"), 3, "its entry indexnet.task has no name"),
    (("indexnet", "task", "classes"), 3, "has no option 'classes'"),
    (("indexnet", "config"), [1], "its entry indexnet.config must be a mapping, not [1]"),
    (("indexnet", "config", "data"), "scenes", "its entry indexnet.config.data must be a mapping, not 'scenes'"),
    (("indexnet", "config", "plugins"), "os", "its entry indexnet.config.plugins must be a list of texts"),
    (("indexnet", "config", "experiment"), [], "its entry indexnet.config.experiment must be a mapping"),
    (("indexnet", "config", "data", 7), 7, "has the key 7; checkpoints have text keys only"),
    (("indexnet", "notice"), 3, "its entry indexnet.notice must be a text, not 3"),
    (("indexnet", "source"), b"x", "indexnet.source is a bytes; checkpoints hold plain data only"),
    (("indexnet", "version"), "1", "checkpoint format '1'"),
    (("indexnet", "version"), True, "checkpoint format True"),
    (("indexnet", "config", "data"), {"name": nested([], 150, 1)}, "is nested more than 100 deep"),
    (("indexnet", "config", "data"), {"name": nested("x", 60, 2)}, "comes to more than 1000000 values"),
    (("state_dict", 7), torch.zeros(1), "a weight is called 7, which is no text"),
    (("hyper_parameters",), [1], "its entry hyper_parameters.optimizer must be a mapping"),
    (("hyper_parameters",), {"optimizer": "adam"}, "its entry hyper_parameters.optimizer must be a mapping"),
]


@pytest.mark.parametrize(("places", "value", "words"), IMPOSSIBLE, ids=[words for *_, words in IMPOSSIBLE])
def test_entries_that_cannot_be_are_refused_before_memory_is_asked_for(good, tmp_path, places, value, words):
    path = changed(good, tmp_path / "x.ckpt", lambda content: put(content, places, value))
    refused(path, words, *([] if words == "unknown task" else [str(path)]))


@pytest.mark.parametrize(
    ("key", "words"), [("seed", "data 'photos' has no option 'seed'"), ("test_count", "data.test_count='x' must be an")]
)
def test_a_data_set_of_a_checkpoint_that_cannot_be(good, tmp_path, mistake, key, words):
    places = ("indexnet", "config", "data", key)
    path = changed(good, tmp_path / "x.ckpt", lambda content: put(content, places, "x"))
    mistake(main(["evaluate", str(path), "--output", str(tmp_path / "out")]), words)


def test_an_archive_that_grows_is_not_opened(good, tmp_path):
    """PyTorch never compresses; a compressed file of kilobytes could hold gigabytes."""
    path = tmp_path / "x.ckpt"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(UserError, match="is no complete checkpoint file"):
        load_task(path)


def test_weights_of_an_encoder_are_looked_at_likewise(tmp_path):
    state = create_encoder("mobilenetv1_fastdepth").state_dict()
    for key, change, words in (
        (next(iter(state)), first_of(torch.nan), "is not finite"),
        (next(iter(state)), lambda weight: weight.to(torch.complex64), "holds complex numbers"),
        ("classifier", lambda weight: None, ""),  # more than the encoder's own is left out
    ):
        torch.save({**state, key: change(state.get(key))}, tmp_path / "x.pth")
        if not words:
            create_encoder("mobilenetv1_fastdepth", pretrained=str(tmp_path / "x.pth"))
            continue
        with pytest.raises(UserError, match=words) as error:
            create_encoder("mobilenetv1_fastdepth", pretrained=str(tmp_path / "x.pth"))
        assert "x.pth" in str(error.value)


def test_released_weights_are_looked_at_likewise(shared, tmp_path):
    state = released_state(shared, "code_b11_maxunpool")
    for key, change, words in (
        ("pred.0.0.weight", first_of(torch.nan), "is not finite"),
        ("pred.0.0.weight", lambda weight: weight.to(torch.int8), "holds integers, where real numbers are expected"),
        ("layer7.0.conv.6.weight", lambda w: torch.zeros(1).expand(10**9, *w.shape[1:]), "than what the file holds"),
    ):
        torch.save({**state, key: change(state[key])}, tmp_path / "x.pth.tar")
        with pytest.raises(UserError, match=words):
            convert(tmp_path / "x.pth.tar", tmp_path / "out.ckpt")
    assert not (tmp_path / "out.ckpt").exists()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([10**9, -1, "indexnet", "hin", "scenes", "matting", "vgg16_bn"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=8) | st.just("name"), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


def _places(node, above=()):
    for key, value in node.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _places(value, (*above, key))


def mutate(good, tmp_path, examples):
    """Put anything anywhere into the plain part: it is loaded, or refused in a sentence."""
    content = torch.load(good, weights_only=True)
    places = sorted(_places(content["indexnet"]))
    path, refused = tmp_path / "x.ckpt", []

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True,
              suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
    @given(st.sampled_from(places), plain)
    def check(at, value):
        entry = copy.deepcopy(content["indexnet"])
        put(entry, at, value)
        torch.save({**content, "indexnet": entry}, path)
        try:
            load_task(path)
        except UserError as error:
            refused.append(str(error))

    check()
    return refused


def test_anything_in_the_plain_part_is_loaded_or_refused(good, tmp_path):
    assert len(mutate(good, tmp_path, 60)) > 15


@pytest.mark.long
@pytest.mark.nightly
def test_anything_in_the_plain_part_is_loaded_or_refused_many_times(good, tmp_path):
    assert len(mutate(good, tmp_path, 1000)) > 250
    path = matting_checkpoint(tmp_path / "m.ckpt", {"name": "indexnet", "family": "hin"})
    assert len(mutate(path, tmp_path, 1000)) > 250
