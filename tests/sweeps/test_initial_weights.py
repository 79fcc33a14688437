import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from sweeps.data.load import load
from sweeps.errors import WrongInput
from sweeps.models import initial_weights
from sweeps.settings import read_yaml, resolve, site_of
from sweeps.site import to_yaml
from sweeps.studies.opening import join_study, open_study
from sweeps.studies.retrying_storage import open_storage
from sweeps.training.autotune import choose
from sweeps.training.execution import network
from sweeps.training.export import weights_of
from sweeps.training.member import Member
from sweeps.training.population import initialised
from sweeps.workers.join import other_sweep


def mlp(seed):
    """The weights of digits/mlp under a seed."""
    plan = resolve({"tasks": ["digits/mlp"]})
    module = initialised(partial(network, plan.tasks[0], load("digits")), seed)
    return {name: value.clone() for name, value in module.state_dict().items()}


@pytest.fixture
def file(tmp_path):
    """The weights of a network as a file."""
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(mlp(77), path)
    return str(path)


@pytest.mark.parametrize("engine", ["fused", "looped"])
def test_every_member_begins_with_the_weights_and_seeds_still_differ(file, engine):
    plan = resolve({"start_from": file, "epochs": 1, "train_examples": 100})
    dataset = load("digits", train_examples=100)
    made = choose(plan.tasks[0], dataset, ("uniform",), torch.device("cpu"), 2, engine)
    members = [Member(0.0, seed, 1e-3, 0.0) for seed in (3, 4)]
    state = made.population(members).state()
    for name, value in mlp(77).items():
        assert torch.equal(state[f"parameter/{name}"], torch.stack([value, value]))
    trained = made.train(members, lambda _: None)
    one, other = weights_of(trained, 0), weights_of(trained, 1)
    assert not torch.equal(one["1.weight"], other["1.weight"])


def test_the_digest_of_the_weights_is_part_of_the_science_and_their_place_is_not(file, tmp_path):
    plan = resolve({"start_from": file})
    digest = plan.science(plan.tasks[0], "d")["start_from"]
    assert digest == initial_weights.digest(file)
    elsewhere = tmp_path / "copy.safetensors"
    elsewhere.write_bytes(Path(file).read_bytes())
    again = resolve({"start_from": str(elsewhere)})
    assert again.science(again.tasks[0], "d") == plan.science(plan.tasks[0], "d")
    assert str(again.tasks[0]) == str(plan.tasks[0])  # by which a checkpoint is known
    assert "start_from" not in resolve({}).science(resolve({}).tasks[0], "d")
    (tmp_path / "plan.yaml").write_text(to_yaml(plan, site_of({"start_from": file})))
    assert resolve(read_yaml(str(tmp_path / "plan.yaml"))) == plan


def test_prefixes_of_wrappers_are_understood(tmp_path):
    weights = mlp(5)
    for prefix in ("", "module.", "_orig_mod."):
        path = tmp_path / f"{prefix}x.safetensors"
        safetensors.torch.save_file({f"{prefix}{name}": value for name, value in weights.items()}, path)
        plan = resolve({"start_from": str(path)})
        assert torch.equal(network(plan.tasks[0], load("digits"))[1].weight, weights["1.weight"])


def test_weights_that_do_not_fit_are_named(tmp_path):
    path = tmp_path / "other.safetensors"
    weights = mlp(5)
    others = {"5.weight": torch.zeros(7, 128), "6.scale": torch.zeros(3)}
    safetensors.torch.save_file({**weights, **others}, path)
    plan = resolve({"start_from": str(path)})
    with pytest.raises(WrongInput) as caught:
        network(plan.tasks[0], load("digits"))
    assert "not in the network: 6.scale" in str(caught.value)
    assert "of another shape: 5.weight (7, 128) instead of (10, 128)" in str(caught.value)
    part = tmp_path / "part.safetensors"
    safetensors.torch.save_file({"1.weight": weights["1.weight"]}, part)
    fresh = network(replace(plan.tasks[0], start_from=None), load("digits"))
    with pytest.raises(WrongInput, match=r"not in the file: 1\.bias, 3\.weight, 3\.bias, 5\.weight, 5\.bias"):
        initial_weights.take_over(fresh, str(part))


def test_a_pickle_is_not_read(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "x.safetensors")
    plan = resolve({"start_from": str(tmp_path / "x.safetensors")})
    with pytest.raises(WrongInput, match="Wanted safetensors"):
        network(plan.tasks[0], load("digits"))
    with pytest.raises(WrongInput, match="cannot read the weights"):
        initial_weights.digest(str(tmp_path / "nowhere"))


def test_tied_weights_need_to_be_there_once(tmp_path):
    module = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    module["b"].weight = module["a"].weight
    own = {name: torch.randn_like(value) for name, value in module.named_parameters()}
    safetensors.torch.save_file(own, tmp_path / "tied.safetensors")
    initial_weights.take_over(module, str(tmp_path / "tied.safetensors"))
    assert torch.equal(module["b"].weight, own["a.weight"])


def test_a_worker_names_which_of_code_weights_and_data_differs(file, tmp_path):
    url = f"sqlite:///{tmp_path}/optuna.db"
    storage = open_storage(url)
    plan = resolve({"start_from": file, "storage": url, "trials": 2, "seeds": 1})
    digits = load("digits")
    study, _ = open_study(storage, plan, plan.tasks[0], digits.digest)
    assert "start_from" not in study.noted("settings")
    joined = join_study(storage, study.name, {"start_from": file})
    assert joined.expected(digits.digest) == study.name
    without = join_study(storage, study.name, {})
    assert without.task.start_from is None
    weights = (
        f"begin with the weights {initial_weights.digest(file)}, those of this worker with fresh weights"
    )
    assert weights in other_sweep(without, digits)
    part = load("digits", train_examples=100)
    assert "the data of digits on this machine are not those" in other_sweep(joined, part)
    kept = json.loads(study.noted("plan"))
    study.note("plan", json.dumps({**kept, "code": "12345678"}))
    assert "the code of mlp on this machine is not that of the sweep" in other_sweep(joined, digits)
    storage.engine.dispose()
