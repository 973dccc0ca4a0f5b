"""Resume is bit-equal: every part of a real training, in a new process, and each forgotten part found out."""

from __future__ import annotations

import copy
import functools
import itertools
import multiprocessing
import os
import random as python_random
import re
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset

from tutorlib import checkpoint, sharding
from tutorlib.checkpoint import Batches, CheckpointError, proofs, resume, resume_proof, save
from tutorlib.samplers import EpochSampler
from tutorlib.sharding import Sharded

# Where new processes import torch anew, 40 workers would take minutes; the samplers' own tests have workers everywhere.
FORKED = sys.platform == "linux"
WORKERS = {"num_workers": 2, "multiprocessing_context": "fork"} if FORKED else {"num_workers": 0}
forks = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Noisy(Dataset):
    """22 samples with augmentation that is a function of seed, epoch and index."""

    def __getitems__(self, keys):
        found = []
        for key in keys:
            with sharding.randomness(keys.seed, keys.epoch, key):
                found.append(torch.full((4,), key / 22) + 0.1 * torch.randn(4))
        return found

    def __len__(self):
        return 22


def make_everything():
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    sampler = EpochSampler(22, batch_size=4, seed=5)
    return {
        "model": model,
        "optimizer": optimizer,
        "scheduler": lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.5),
        # It grows until the gradients overflow and a step is skipped: then a forgotten scaler is seen in the losses.
        "scaler": torch.amp.GradScaler(
            "cpu", init_scale=2.0**64, growth_factor=2.0**8, backoff_factor=2.0**-16, growth_interval=1
        ),
        "averaged": AveragedModel(model),
        "data": Batches(sampler, DataLoader(Noisy(), batch_sampler=sampler, **WORKERS)),
        "random": checkpoint.RandomState(),
    }


def step_of_everything(model, optimizer, scheduler, scaler, averaged, data, random):
    optimizer.zero_grad()
    loss = (model(next(data)) - python_random.random() * np.random.rand()).pow(2).mean() * 2**20
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    scheduler.step()
    averaged.update_parameters(model)
    return loss


@forks
def test_the_whole_training_goes_on_in_a_new_process_and_each_forgotten_part_is_found_out():
    proof = resume_proof(make_everything, step_of_everything, 4, 5, process="new")
    parts = ("model", "optimizer", "scheduler", "scaler", "averaged", "data", "random")
    assert proof.equal and proof.forgotten == () and proof.needed == parts
    assert [run.name for run in proof.runs[:3]] == ["straight", "resumed", "resumed in a new process"]
    assert proof.summary() == (
        "4 steps, save, resume, 5 steps against 9 steps straight: bit-equal, also in a new process; "
        "needed: model, optimizer, scheduler, scaler, averaged, data, random"
    )
    without = {run.name.removeprefix("without "): run for run in proof.runs[3:]}
    assert without["averaged"].first is None  # only the averages themselves differ
    assert all(run.first is not None for name, run in without.items() if name != "averaged")
    assert all(not run.equal[name] for name, run in without.items() if name != "scheduler")


def states(parts):
    return copy.deepcopy({name: part.state_dict() for name, part in parts.items()})


@forks
def test_the_order_of_parameters_may_change_in_the_middle_of_a_training(tmp_path):
    """Two groups, their parameters turned round: the state follows the names, and the weights go on as they would have."""

    def made(turned):
        torch.manual_seed(1), np.random.seed(1), python_random.seed(1)
        parts = make_everything()
        names = {"first": ["0.weight", "0.bias"], "second": ["2.weight", "2.bias"]}
        groups = [[(n, parts["model"].get_parameter(n)) for n in group] for group in names.values()]
        groups = [group[::-1] if turned else group for group in groups]
        # torch's own names on one side only, and another name for the model's: both must not disturb
        groups = [
            {"params": group if turned else [p for _, p in group], "lr": lr}
            for group, lr in zip(groups, (0.05, 0.01), strict=True)
        ]
        parts["optimizer"] = torch.optim.Adam(groups)
        parts["scheduler"] = lr_scheduler.StepLR(parts["optimizer"], step_size=2, gamma=0.5)
        return parts

    straight = made(False)
    losses = [step_of_everything(**straight).item() for _ in range(7)]
    stopped = made(False)
    again = [step_of_everything(**stopped).item() for _ in range(4)]
    save(tmp_path / "x.pt", **stopped)
    fresh = made(True)
    resume(tmp_path / "x.pt", **fresh)
    again += [step_of_everything(**fresh).item() for _ in range(3)]
    assert again == losses
    for one, other in zip(straight["model"].state_dict().values(), fresh["model"].state_dict().values(), strict=True):
        assert torch.equal(one, other)
    for name, parameter in fresh["model"].named_parameters():
        mine = straight["optimizer"].state[straight["model"].get_parameter(name)]
        assert all(torch.equal(mine[key], value) for key, value in fresh["optimizer"].state[parameter].items()), name


def test_torchs_own_parameter_names_match_a_file_of_torch_save(tmp_path):
    def made(turned):
        model = nn.Linear(3, 3)
        named = list(model.named_parameters())
        optimizer = torch.optim.SGD(named[::-1] if turned else named, lr=0.1, momentum=0.9)
        model(torch.eye(3)).pow(2).sum().backward()
        optimizer.step()
        return model, optimizer

    model, optimizer = made(False)
    torch.save({"optimizer": optimizer.state_dict()}, tmp_path / "x.pt")
    fresh, turned = made(True)
    resume(tmp_path / "x.pt", optimizer=turned)
    for name, parameter in fresh.named_parameters():
        mine = optimizer.state[model.get_parameter(name)]["momentum_buffer"]
        assert torch.equal(turned.state[parameter]["momentum_buffer"], mine)
    assert turned.param_groups[0]["param_names"] == ["bias", "weight"]
    other = torch.optim.SGD([("w", nn.Parameter(torch.ones(3, 3))), ("b", nn.Parameter(torch.ones(3)))], lr=0.1, momentum=0.9)
    with pytest.raises(CheckpointError, match="optimizer group 0 belongs to other parameters: b, bias, w, weight on one side"):
        resume(tmp_path / "x.pt", optimizer=other)
    for names in ("ab", ["weight"], ["weight", "weight"], [["weight"], "bias"], None):  # a file may hold anything
        state = copy.deepcopy(optimizer.state_dict())
        state["param_groups"][0]["param_names"] = names
        torch.save({"optimizer": state}, tmp_path / "odd.pt")
        resume(tmp_path / "odd.pt", optimizer=made(False)[1])


SCHEDULERS = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.5, total_steps=20),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 3),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 10),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_of_torch_goes_on_where_it_was(name):
    def make():
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return {"model": model, "optimizer": optimizer, "scheduler": SCHEDULERS[name](optimizer)}

    def step(model, optimizer, scheduler):
        optimizer.zero_grad()
        loss = (model(torch.eye(2)) - 1).pow(2).mean()
        loss.backward()
        optimizer.step()
        scheduler.step(*([loss.item()] if name == "ReduceLROnPlateau" else []))
        return loss

    assert resume_proof(make, step, 3, 3).equal


def test_a_scaler_of_a_file_without_one_is_refused_and_all_stays(tmp_path):
    off, on = torch.amp.GradScaler("cpu", enabled=False), torch.amp.GradScaler("cpu", init_scale=8.0)
    save(tmp_path / "x.pt", scaler=off, model=nn.Linear(1, 1))
    model = nn.Linear(1, 1)
    before = states({"model": model, "scaler": on})
    with pytest.raises(CheckpointError, match=r"scaler refused its state: RuntimeError: .*; nothing was changed"):
        resume(tmp_path / "x.pt", model=model, scaler=on)
    assert str(states({"model": model, "scaler": on})) == str(before)


def test_a_scheduler_that_does_not_come_back_bit_equal_is_taken_back(tmp_path):
    class Rounding(lr_scheduler.StepLR):
        def load_state_dict(self, state):
            super().load_state_dict({**state, "gamma": round(state["gamma"], 1)})

    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    save(tmp_path / "x.pt", scheduler=Rounding(optimizer, 2, gamma=0.25))
    fresh = Rounding(optimizer, 7, gamma=0.5)
    with pytest.raises(
        CheckpointError, match=r"not bit-equal after loading: scheduler.gamma is 0.2 instead of 0.25; nothing was"
    ):
        resume(tmp_path / "x.pt", scheduler=fresh)
    assert (fresh.step_size, fresh.gamma) == (7, 0.5)


# ------------------------------------------------------------------------------------------------------------ the data


def made_data(kind, workers, batch=4):
    settings = {**WORKERS, "num_workers": workers} if workers else {}
    if kind is Sharded:
        position = Sharded(range(22), chunk=batch)
        return Batches(position, DataLoader(position, batch_size=batch, **settings))
    position = EpochSampler(22, batch_size=batch, seed=5)
    return Batches(position, DataLoader(range(22), batch_sampler=position, **settings))


@forks
@pytest.mark.parametrize("workers", [0, 2] if FORKED else [0])
@pytest.mark.parametrize("kind", [EpochSampler, Sharded])
def test_the_position_in_the_data_comes_back_at_every_stop(tmp_path, kind, workers):
    whole = [next(data).tolist() for data in [made_data(kind, workers)] for _ in range(14)]
    assert all(sorted(itertools.chain(*whole[begin : begin + 6])) == list(range(22)) for begin in (0, 6))
    for stop in (0, 1, 5, 6, 7, 12):
        data = made_data(kind, workers)
        for _ in range(stop):
            next(data)
        assert data.epoch == stop // 6 or (kind is Sharded and stop % 6 == 0)
        save(tmp_path / "x.pt", data=data)
        fresh = made_data(kind, workers)
        next(fresh)
        resume(tmp_path / "x.pt", data=fresh)
        assert [next(fresh).tolist() for _ in range(14 - stop)] == whole[stop:], stop


def test_batches_draw_nothing_from_the_random_state_of_the_training_and_leave_the_loader_as_it_was():
    before = torch.get_rng_state()
    position = EpochSampler(6, batch_size=2)
    loader = DataLoader(range(6), batch_sampler=position)
    data = Batches(position, loader)
    for _ in range(8):
        next(data)
    assert torch.equal(torch.get_rng_state(), before) and loader.generator is None
    mine = torch.Generator().manual_seed(3)
    own = Batches(position, DataLoader(range(6), batch_sampler=position, generator=mine))
    started = mine.get_state()
    next(own)
    assert own.loader.generator is mine and not torch.equal(mine.get_state(), started)


@pytest.mark.parametrize("own", [True, False])
def test_a_loader_that_draws_from_the_random_state_would_not_resume_in_the_middle_of_an_epoch(own):
    def make():
        data = made_data(EpochSampler, 0)
        if not own:
            data.loader.generator = data._seeds = None  # as a plain loader is
        model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        return {"model": model, "data": data, "random": checkpoint.RandomState()}

    def step(model, data, random):
        return model(next(data).float()[:, None]).pow(2).mean()

    proof = resume_proof(make, step, 4, 3)
    assert proof.equal is own
    assert own or proof.forgotten == ("a state that is in no state_dict(); different in the end: random",)


def test_bad_input_of_batches():
    position = EpochSampler(6, batch_size=2)
    with pytest.raises(TypeError, match=r"a range has no follow, state_dict, load_state_dict: give a samplers.EpochSampler or a"):
        Batches(range(6), DataLoader(range(6)))
    with pytest.raises(TypeError, match="the loader is a list, expected a DataLoader"):
        Batches(position, [1])
    with pytest.raises(ValueError, match="follow counts what its own sampler dealt, the loader draws from another"):
        Batches(position, DataLoader(range(6)))
    stream = Sharded([])
    with pytest.raises(ValueError, match="the loader has no batches: its dataset is empty, or this rank has no share of it"):
        next(Batches(stream, DataLoader(stream)))


# ------------------------------------------------------------------------------------------------------------ proofs

CALLS = {"count": 0}


def make_small(forgetting=()):
    model = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))
    parts = {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1), "random": checkpoint.RandomState()}
    return {name: part for name, part in parts.items() if name not in forgetting}


def step_small(model, optimizer, random=None):
    optimizer.zero_grad()
    loss = (model(torch.eye(2)) - 1).pow(2).mean()
    loss.backward()
    optimizer.step()
    return loss


def step_that_ends_its_process(model, optimizer, random=None):
    if multiprocessing.parent_process() is not None:
        os._exit(3)
    return step_small(model, optimizer)


def test_a_forgotten_random_state_is_named():
    proof = resume_proof(functools.partial(make_small, ("random",)), step_small)
    assert not proof.equal
    assert proof.forgotten == ("the random state: make() needs random=checkpoint.RandomState()",)
    assert "not equal; forgotten: the random state: make() needs" in proof.summary()
    assert [run.name for run in proof.runs[1:3]] == ["resumed", "resumed, random state too"]
    assert proof.runs[1].first == 3 and proof.runs[2].same and resume_proof(make_small, step_small).equal


def test_what_a_part_forgets_is_named():
    class Forgetful(checkpoint.RandomState):
        """Brings its own count back, but not the state."""

        def __init__(self):
            self.count = 0

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = 0

    class Silent(Forgetful):
        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    def step(model, optimizer, counter, random):
        counter.count += 1
        return step_small(model, optimizer).item() + counter.count

    lost = resume_proof(lambda: {**make_small(), "counter": Forgetful()}, step)
    assert not lost.equal and lost.forgotten == ("counter.count is 0 instead of 3 after resume",)
    silent = resume_proof(lambda: {**make_small(), "counter": Silent()}, step)
    assert silent.forgotten == ("a state that is in no state_dict(); different in the end: no part",)


def step_with_a_setting(model, optimizer, random=None):
    return step_small(model, optimizer).item() + CALLS["count"]


def test_a_global_variable_is_found_in_a_new_process():
    CALLS["count"] = 1
    try:
        assert resume_proof(make_small, step_with_a_setting, 2, 2).equal
        proof = resume_proof(make_small, step_with_a_setting, 2, 2, process="new")
    finally:
        CALLS["count"] = 0
    assert not proof.equal and proof.runs[1].same and proof.runs[2].first == 2
    assert proof.forgotten == ("a state of the process that is in no part (a global variable, a default of torch)",)


def test_a_new_process_that_fails_is_one_clear_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"^the new process failed: it ended without a result \(exit code 3\)$"):
        resume_proof(make_small, step_that_ends_its_process, 1, 1, process="new")
    told = []  # what it says of an error, without the seconds that one more process takes
    work = (make_small, step_small, 1, 0, tmp_path, [None], torch.get_num_threads())
    proofs._all_second_halves(*work, types.SimpleNamespace(send=told.append))
    assert len(told) == 1 and told[0].startswith("FileNotFoundError: there is no checkpoint ")


def test_bad_input_of_a_proof_in_a_new_process():
    with pytest.raises(ValueError, match="process is 'fork', expected 'same' or 'new'"):
        resume_proof(make_small, step_small, process="fork")
    with pytest.raises(
        TypeError, match=r"a new process cannot import .*<lambda>': define it in a module, or in a cell under %%imp"
    ):
        resume_proof(lambda: make_small(), step_small, process="new")
    with pytest.raises(TypeError, match="a new process cannot import 'make_small': define it in a module"):
        resume_proof(functools.partial(make_small, (lambda: 0,)), step_small, process="new")


# ------------------------------------------------------------------------------------------------------------ several models


def make_pair(seed=0):
    torch.manual_seed(seed)
    generator, critic = nn.Linear(3, 3), nn.Linear(3, 3)
    of = functools.partial(torch.optim.Adam, lr=0.1)
    return {"G": generator, "D": critic, "optimizer_G": of(generator.parameters()), "optimizer_D": of(critic.parameters())}


def step_pair(G, D, optimizer_G, optimizer_D):
    for optimizer, target in ((optimizer_D, 0.0), (optimizer_G, 1.0)):
        optimizer.zero_grad()
        loss = (D(G(torch.eye(3))) - target).pow(2).mean()
        loss.backward()
        optimizer.step()
    return loss


def test_two_models_and_two_optimizers_in_one_file_go_on_as_one_training():
    proof = resume_proof(make_pair, step_pair, 2, 3)
    assert proof.equal and proof.needed == ("G", "D", "optimizer_G", "optimizer_D")


def test_what_belongs_to_the_other_model_is_refused_though_every_shape_is_equal(tmp_path):
    parts = make_pair()
    step_pair(**parts)
    save(tmp_path / "x.pt", **parts)
    fresh = make_pair(1)
    crossed = {**fresh, "optimizer_G": fresh["optimizer_D"], "optimizer_D": fresh["optimizer_G"]}
    before = states(fresh)
    with pytest.raises(
        CheckpointError, match=r"optimizer_G group 0 belongs to other parameters: D.bias, D.weight, G.bias, G.wei"
    ):
        resume(tmp_path / "x.pt", **crossed)
    assert str(states(fresh)) == str(before)


def test_two_optimizers_share_memory_when_one_is_loaded_from_the_other_but_not_through_a_file(tmp_path):
    """CK-10: what torch does, and that two resumes from one file, or two parts of it, share nothing."""
    first, second, third = (make_pair(seed) for seed in range(3))
    step_pair(**first)
    buffer = lambda parts: parts["optimizer_G"].state[parts["G"].weight]["exp_avg"]  # noqa: E731
    second["optimizer_G"].load_state_dict(first["optimizer_G"].state_dict())
    assert buffer(second).data_ptr() == buffer(first).data_ptr()
    save(tmp_path / "x.pt", **first)
    kept = buffer(first).clone()
    for parts in (second, third):
        resume(tmp_path / "x.pt", **parts)
    assert len({buffer(parts).data_ptr() for parts in (first, second, third)}) == 3
    step_pair(**second)
    assert torch.equal(buffer(first), kept) and torch.equal(buffer(third), kept) and not torch.equal(buffer(second), kept)


def test_match_says_whose_state_each_parameter_would_get(tmp_path):
    parts = make_pair()
    step_pair(**parts)
    save(tmp_path / "x.pt", **parts)
    assert checkpoint.match(tmp_path / "x.pt", **parts).summary() == (
        "4 parameters; by position 0 would get the state of another one, 0 of another shape"
    )
    crossed = checkpoint.match(tmp_path / "x.pt", G=parts["G"], D=parts["D"], optimizer_G=parts["optimizer_D"])
    assert crossed.crossed == 0 and [row["resume gives"] for row in crossed.rows()] == ["refused", "refused"]
    turned = torch.optim.Adam([parts["G"].bias, parts["G"].weight])
    found = checkpoint.match(tmp_path / "x.pt", G=parts["G"], optimizer_G=turned)
    assert (found.crossed, found.misfits) == (2, 2)
    assert found.rows()[0] == {
        "optimizer": "optimizer_G",
        "parameter": "G.bias",
        "shape": (3,),
        "torch gives": "G.weight",
        "of shape": (3, 3),
        "resume gives": "G.bias",
    }
    assert found.tree()[0]["rule"] == "other shape" and found.tree()[0]["surprise"]
    wider = nn.Linear(3, 5)
    found = checkpoint.match(tmp_path / "x.pt", G=wider, optimizer_G=torch.optim.Adam(wider.parameters()))
    assert (found.crossed, found.misfits) == (0, 2) and {row["resume gives"] for row in found.rows()} == {"refused"}
    more = torch.optim.Adam([*parts["G"].parameters(), nn.Parameter(torch.ones(1))])
    assert {row["torch gives"] for row in checkpoint.match(tmp_path / "x.pt", optimizer_G=more).rows()} == {"refused"}

    torch.save({"optimizer": parts["optimizer_G"].state_dict()}, tmp_path / "torch.pt")  # no names: by position, and by shape
    rows = checkpoint.match(tmp_path / "torch.pt", G=parts["G"], optimizer=turned).rows()
    assert [(row["parameter"], row["torch gives"], row["of shape"], row["resume gives"]) for row in rows] == [
        ("G.bias", "parameter 0", (3, 3), "refused"),
        ("G.weight", "parameter 1", (3,), "refused"),
    ]
    rows = checkpoint.match(tmp_path / "torch.pt", optimizer=parts["optimizer_G"]).rows()
    assert [row["resume gives"] for row in rows] == ["parameter 0", "parameter 1"]


def test_bad_input_of_match(tmp_path):
    parts = make_pair()
    torch.save({"G": parts["G"].state_dict(), "optimizer_G": 3}, tmp_path / "x.pt")
    with pytest.raises(TypeError, match=r"match needs an optimizer, and the model that it trains: match\(path, model=model, opt"):
        checkpoint.match(tmp_path / "x.pt", G=parts["G"])
    for name in ("optimizer_G", "optimizer_D"):
        with pytest.raises(CheckpointError, match=f"has no state of an optimizer called {name}: it holds G, optimizer_G"):
            checkpoint.match(tmp_path / "x.pt", **{name: parts[name]})


def test_the_text_of_a_skipped_file():
    resumed = checkpoint.Resumed(path=None, parts=(), values={}, changed=(), skipped=("step-00000002.pt (damaged)",))
    assert resumed.summary() == "0 parts resumed, 0 values given back; skipped step-00000002.pt (damaged)"
    assert re.fullmatch(r"0 parts.*", str(resumed))
