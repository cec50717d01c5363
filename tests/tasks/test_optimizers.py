"""Optimizers and schedules of a task: every name goes on from a checkpoint exactly; groups; what is refused."""

from __future__ import annotations

import io

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from indexnet.core.errors import UserError
from indexnet.core.schedules import SCHEDULES
from indexnet.networks import create_network
from indexnet.tasks import create_optimizer, get_task
from indexnet.tasks.optimizers import list_optimizers, parameter_groups

NETWORK = {"name": "autoencoder", "widths": [4, 8], "resampling": "max_unpool"}
STEPS, CUT = 9, 4


def _module():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 1, 1)
    )


def _train(module, optimizer, first, last):
    for step in range(first, last):
        torch.manual_seed(step)  # as a run does: a step's randomness follows from the step
        x = torch.randn(2, 3, 8, 8)
        optimizer.zero_grad()
        module(x).square().mean().backward()
        optimizer.step()


def _saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _optimizer(name, module):
    groups = [{"params": [p for p in module.parameters() if p.ndim > 1], "lr": 1e-2},
              {"params": [p for p in module.parameters() if p.ndim <= 1], "lr": 1e-3}]  # fmt: skip
    return create_optimizer({"name": name, "lr": 1e-2}, groups)


NAMES = [pytest.param(name, marks=[pytest.mark.long] * name.startswith("kron")) for name in list_optimizers()]


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_goes_on_from_a_checkpoint_of_plain_data(name):
    whole, half, rest = _module(), _module(), _module()
    _train(whole, _optimizer(name, whole), 0, 8)
    optimizer = _optimizer(name, half)
    _train(half, optimizer, 0, 4)
    saved = _saved({"module": half.state_dict(), "optimizer": optimizer.state_dict()})
    optimizer = _optimizer(name, rest)
    rest.load_state_dict(saved["module"])
    optimizer.load_state_dict(saved["optimizer"])
    _train(rest, optimizer, 4, 8)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(rest.parameters(), whole.parameters(), strict=True))
    assert not all(
        torch.equal(ours, start) for ours, start in zip(rest.parameters(), _module().parameters(), strict=True)
    )


@pytest.mark.parametrize(("name", "cls"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD),
                                           ("adamw", torch.optim.AdamW), ("rmsprop", torch.optim.RMSprop)])  # fmt: skip
def test_a_name_of_torch_is_its_class_with_its_defaults(name, cls):
    ours, theirs = (
        create_optimizer({"name": name, "lr": 0.1}, [{"params": [nn.Parameter(torch.zeros(1))]}]),
        cls([nn.Parameter(torch.zeros(1))], lr=0.1),
    )
    assert type(ours) is cls
    assert ours.defaults == theirs.defaults


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"name": "adamv"}, "unknown optimizer 'adamv'. Did you mean 'adam"),
        ({"name": "lbfgs"}, "optimizer=lbfgs cannot be used here: it evaluates a batch several times"),
        ({"name": "bnbadam"}, "unknown optimizer 'bnbadam'"),
        ({"name": "lion", "eps": 1e-8}, "optimizer 'lion' has no option 'eps'"),
        ({"name": "adam", "fused": True, "foreach": True}, "optimizer=adam does not take these options: `fused` and"),
        ({"name": "adamw", "betas": [0.9, 2]}, "optimizer=adamw does not take these options: Invalid beta"),
        ({"name": "rprop", "no_decay_norms_and_biases": True}, "but optimizer=rprop has no weight decay"),
    ],
)
def test_mistakes_are_one_sentence(spec, sentence):
    with pytest.raises(UserError) as error:
        create_optimizer({"lr": 0.1, **spec}, [{"params": [nn.Parameter(torch.zeros(1))]}])
    assert sentence in str(error.value)


def test_groups_of_parameters_keep_their_order():
    network = create_network("matting_unet", encoder={"name": "mobilenetv2_released", "width": 0.25})
    spec = {"name": "adamw", "lr": 1.0, "encoder_lr_multiplier": 0.5, "no_decay_norms_and_biases": True}
    groups = parameter_groups(network, spec)
    assert [(group["lr"], group.get("weight_decay")) for group in groups] == [(1, None), (1, 0), (0.5, None), (0.5, 0)]
    assert all(each.ndim > 1 for group in groups[::2] for each in group["params"])
    assert all(each.ndim == 1 for group in groups[1::2] for each in group["params"])
    encoder = {id(each) for each in network.encoder.parameters()}
    assert {id(each) for group in groups[2:] for each in group["params"]} == encoder
    (plain,) = parameter_groups(network, {"name": "adamw", "lr": 1.0})
    assert [id(each) for each in plain["params"]] == [id(each) for each in network.parameters()]
    assert sum(len(group["params"]) for group in groups) == len(plain["params"])


def test_what_does_not_decay_stays_without_a_gradient():
    network = create_network(**NETWORK)
    spec = {"name": "adamw", "lr": 0.1, "weight_decay": 0.5, "no_decay_norms_and_biases": True}
    before = {name: each.detach().clone() for name, each in network.named_parameters()}
    for each in network.parameters():
        each.grad = torch.zeros_like(each)
    create_optimizer(spec, parameter_groups(network, spec)).step()
    kept = {name for name, each in network.named_parameters() if torch.equal(each, before[name])}
    assert kept == {name for name, each in before.items() if each.ndim == 1}


# --- schedules in a plain Trainer ------------------------------------------------------------------------------------

QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
         "enable_model_summary": False}  # fmt: skip
OPTIONS = {"multistep": {"milestones": [3, 6], "gamma": 0.1}, "step": {"step_size": 2.5, "gamma": 0.5},
           "plateau": {"factor": 0.5, "patience": 1}, "onecycle": {"cycle_momentum": True}}  # fmt: skip
SPECS = [{"name": name, **OPTIONS.get(name, {}), **more} for name in SCHEDULES for more in ({}, {"warmup": 0.5})
         if not (name == "onecycle" and more)]  # fmt: skip


class Validated(get_task("reconstruction")):
    """Validation that never gets better."""

    def validation_step(self, batch, batch_index, dataloader_idx=0):
        self.log("val/psnr", -float(self.current_epoch), on_epoch=True, batch_size=1)


class Watch(pl.Callback):
    """Note the rates of every step; stop after some."""

    def __init__(self, stop):
        self.stop, self.rates = stop, []

    def on_train_batch_start(self, trainer, module, batch, index):
        self.rates.append([(group["lr"], group.get("betas")) for group in trainer.optimizers[0].param_groups])

    def on_train_epoch_end(self, trainer, module):
        trainer.should_stop = trainer.global_step >= self.stop


def _fit(spec, path, stop=STEPS, resume=None):
    torch.manual_seed(0)
    optimizer = {"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "no_decay_norms_and_biases": True}
    task, watch = Validated(NETWORK, optimizer, spec), Watch(stop)
    batch = {"image": torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)), "name": ["a", "b"]}
    loader = DataLoader([batch], batch_size=None)
    trainer = pl.Trainer(max_epochs=STEPS, callbacks=[watch], default_root_dir=path, num_sanity_val_steps=1, **QUIET)
    trainer.fit(task, loader, loader, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(path / f"{stop}.ckpt")
    return task.state_dict(), watch.rates


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec['name']}-{spec.get('warmup', 0)}")
def test_every_schedule_goes_on_exactly_in_a_plain_trainer(spec, tmp_path):
    weights, rates = _fit(spec, tmp_path)
    _, first = _fit(spec, tmp_path, CUT)
    again, second = _fit(spec, tmp_path, STEPS, tmp_path / f"{CUT}.ckpt")
    assert len(rates) == STEPS
    assert first + second == rates
    assert all(torch.equal(again[key], value) for key, value in weights.items())
    assert (len({tuple(rate) for rate in rates}) == 1) == (spec["name"] == "constant" and "warmup" not in spec)


@pytest.mark.filterwarnings("ignore")
def test_plateau_is_stepped_by_validations(tmp_path):
    _, rates = _fit({"name": "plateau", "factor": 0.5, "patience": 1}, tmp_path)
    assert [rate[0][0] / 0.01 for rate in rates] == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125])


@pytest.mark.filterwarnings("ignore")
def test_plateau_without_validation_is_refused():
    trainer = pl.Trainer(max_epochs=1, **QUIET)
    with pytest.raises(UserError, match="plateau follows the metric of a validation"):
        trainer.fit(Validated(NETWORK, None, {"name": "plateau"}), DataLoader([{}], batch_size=None))


def test_multistep_without_warm_up_is_torchs_class_so_that_earlier_checkpoints_go_on():
    task = get_task("reconstruction")(NETWORK, None, {"name": "multistep", "milestones": [2], "gamma": 0.1})
    scheduler = task.configure_optimizers()["lr_scheduler"]["scheduler"]
    assert type(scheduler) is torch.optim.lr_scheduler.MultiStepLR
    assert (dict(scheduler.milestones), scheduler.gamma) == ({2: 1}, 0.1)
