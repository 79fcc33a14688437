"""Architectures: their published sizes, written out longhand, and the same stacked as apart."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import conv2d, cross_entropy

from sweeps.models.builtin import ARCHITECTURES

IMAGES = sorted(name for name, own in ARCHITECTURES.items() if not own.reads_tokens)
DIGITS, FASHION, CIFAR = (1, 8, 8), (1, 28, 28), (3, 32, 32)
OF_IMAGES = ("cnn", "resnet8", "resnet20", "resnet18", "vit")


def build(name, shape, classes=10, seed=0):
    """A module whose BatchNorms are not all alike, as after some training."""
    torch.manual_seed(seed)
    module = ARCHITECTURES[name].build(shape, classes).double()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    return module


def images(*size):
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("shape", [DIGITS, FASHION, CIFAR, (2, 9, 14)])
def test_inputs_become_finite_logits(name, shape):
    logits = ARCHITECTURES[name].build(shape, 7).eval()(images(3, *shape).float())
    assert logits.shape == (3, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("mlp", DIGITS, 26_122),
        ("cnn", FASHION, 421_738),
        ("vit", FASHION, 204_938),
        ("resnet8", CIFAR, 78_042),
        ("resnet20", CIFAR, 272_474),  # He et al. 2016, table 6: 0.27 M
        ("resnet18", CIFAR, 11_173_962),  # the usual variant for CIFAR: 11.17 M
    ],
)
def test_sizes_are_those_published(name, shape, parameters):
    module = ARCHITECTURES[name].build(shape, 10)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters


@pytest.mark.parametrize(("name", "layers"), [("resnet8", 8), ("resnet20", 20), ("resnet18", 18)])
def test_the_number_in_a_name_counts_layers_off_the_shortcuts(name, layers):
    parts = ARCHITECTURES[name].build(CIFAR, 10).modules()
    counted = [isinstance(one, nn.Linear) or getattr(one, "kernel_size", 0) == (3, 3) for one in parts]
    assert sum(counted) == layers


def normalise(values, scale, shift):
    mean = values.mean((0, 2, 3), keepdim=True)
    variance = ((values - mean) ** 2).mean((0, 2, 3), keepdim=True)
    return (values - mean) / (variance + 1e-5) ** 0.5 * scale[:, None, None] + shift[:, None, None]


def test_resnet8_longhand():
    module = build("resnet8", (3, 12, 10), classes=4)
    inputs = images(5, 3, 12, 10)
    take = iter(module.parameters())

    def normalised(values, stride, side=3):
        return normalise(conv2d(values, next(take), stride=stride, padding=side // 2), next(take), next(take))

    values = normalised(inputs, 1).relu()
    values = (values + normalised(normalised(values, 1).relu(), 1)).relu()
    for _ in range(2):
        residual = normalised(normalised(values, 2).relu(), 1)
        values = (normalised(values, 2, side=1) + residual).relu()
    assert values.shape == (5, 64, 3, 3)
    expected = values.mean((2, 3)) @ next(take).T + next(take)
    torch.testing.assert_close(module.train()(inputs), expected)
    assert next(take, None) is None


def test_cnn_longhand():
    module = build("cnn", (2, 9, 13), classes=4)
    inputs = images(5, 2, 9, 13)
    take = iter(module.parameters())
    values = inputs
    for _ in range(2):
        values = conv2d(values, next(take), padding=1)
        height, width = values.shape[2] // 2, values.shape[3] // 2
        even = values[:, :, : 2 * height, : 2 * width]
        quarters = [even[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        values = normalise(torch.stack(quarters).amax(0), next(take), next(take)).relu()
    hidden = (values.flatten(1) @ next(take).T + next(take)).relu()
    torch.testing.assert_close(module.train()(inputs), hidden @ next(take).T + next(take))
    assert next(take, None) is None


@pytest.mark.parametrize("name", IMAGES)
def test_every_parameter_gets_a_gradient(name):
    module = build(name, DIGITS)
    cross_entropy(module(images(6, *DIGITS)), torch.arange(6)).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


@pytest.mark.parametrize("name", IMAGES)
def test_an_example_does_not_depend_on_its_batch_after_training(name):
    module = build(name, DIGITS)
    inputs = images(6, *DIGITS)
    module.train()(inputs)
    torch.testing.assert_close(module.eval()(inputs)[2:3], module(inputs[2:3]))


# resnet18 is made of the same blocks as resnet20, and slow.
@pytest.mark.parametrize("name", sorted({*IMAGES} - {"resnet18"}))
def test_stacked_members_compute_the_same_as_apart(name):
    apart = [build(name, DIGITS, seed=seed) for seed in range(3)]
    parameters, buffers = stack_module_state([build(name, DIGITS, seed=seed) for seed in range(3)])
    skeleton = build(name, DIGITS, seed=9)
    untouched = {key: buffer.clone() for key, buffer in skeleton.named_buffers()}

    def forward(parameters, buffers, inputs):
        return functional_call(skeleton, (parameters, buffers), (inputs,))

    for step in range(2):
        inputs = images(3, 6, *DIGITS) * (step + 1) + 0.3
        expected = torch.stack([module.train()(own) for module, own in zip(apart, inputs, strict=True)])
        skeleton.train()
        torch.testing.assert_close(vmap(forward)(parameters, buffers, inputs), expected)
    for key, stacked in buffers.items():
        torch.testing.assert_close(stacked, torch.stack([module.get_buffer(key) for module in apart]))
        assert not key.endswith("num_batches_tracked") or stacked.tolist() == [2, 2, 2]
        assert torch.equal(skeleton.get_buffer(key), untouched[key])
    probe = images(4, *DIGITS)
    skeleton.eval()
    with torch.no_grad():
        expected = torch.stack([module.eval()(probe) for module in apart])
        torch.testing.assert_close(vmap(forward, in_dims=(0, 0, None))(parameters, buffers, probe), expected)


@pytest.mark.parametrize("name", OF_IMAGES)
def test_a_step_never_looks_at_values(name):
    # On the meta device there are none: what passes here can be compiled and replayed as a CUDA graph.
    module = ARCHITECTURES[name].build(FASHION, 10).to("meta").train()
    module(torch.empty(4, *FASHION, device="meta")).sum().backward()


@pytest.mark.parametrize("name", OF_IMAGES)
@pytest.mark.parametrize("shape", [(64,), (8, 8), (3, 32, 3), (3, 3, 32)])
def test_inputs_that_are_no_images_are_refused(name, shape):
    wanted = (
        r"inputs have shape \(.*\); wanted images \(channel, height, width\) of at least [48] pixels a side"
    )
    with pytest.raises(ValueError, match=wanted):
        ARCHITECTURES[name].build(shape, 10)


@pytest.mark.parametrize(
    ("dataset", "name"),
    [("digits", "mlp"), *[("fashion_mnist", name) for name in ("mlp", "cnn", "resnet8", "resnet20", "vit")]]
    + [("cifar10", name) for name in ("resnet8", "resnet20", "resnet18", "vit")]
    + [("fsdd", "cnn"), ("fsdd_by_speaker", "cnn"), ("trec", "text_cnn"), ("trec", "text_transformer")],
)
def test_recipes_are_made_for_their_data(dataset, name):
    assert dataset in ARCHITECTURES[name].recipes


def test_digits_are_never_mirrored():
    for architecture in ARCHITECTURES.values():
        assert "flip" not in architecture.recipe("digits").augment
        assert "flip" not in architecture.recipe("data set of one's own").augment


def test_residual_networks_learn_cifar_as_published():
    recipe = ARCHITECTURES["resnet18"].recipe("cifar10")
    assert (recipe.optimiser, recipe.weight_decay, recipe.augment) == ("sgd", 5e-4, ("flip", "translate:4"))
