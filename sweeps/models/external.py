"""User-supplied networks: a function of one's own, a model of `timm`, or of Hugging Face's `transformers`."""

import importlib
import inspect
import math
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, final

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from typing_extensions import override

from sweeps.data.readers import python_source
from sweeps.data.readers.hub import extra, tokenizer_of
from sweeps.errors import WrongInput
from sweeps.models.registry import Architecture, Build, Reads
from sweeps.task import Recipe

FRESH = ":fresh"
"""Behind the name of a model: its weights are drawn at random, nothing is fetched."""
FINE_TUNING = Recipe(epochs=5, batch_size=32, learning_rate=1e-4, weight_decay=1e-2, clip=1.0)
"""For networks that begin with trained weights: few epochs, small steps."""
FINE_TUNING_TEXT = Recipe(epochs=4, batch_size=32, learning_rate=5e-5, weight_decay=1e-2, clip=1.0)
"""Devlin et al. 2019, appendix A.3."""

IMAGES = Reads(("images",))
MEANS: dict[str, str] = {
    **dict.fromkeys(("shape", "input_shape", "in_shape"), "shape"),
    **dict.fromkeys(
        ("classes", "num_classes", "n_classes", "num_labels", "n_labels", "out_features", "output_dim"),
        "classes",
    ),
    **dict.fromkeys(
        ("vocabulary", "vocab_size", "num_embeddings", "n_tokens", "num_tokens", "vocab"), "vocabulary"
    ),
    **dict.fromkeys(
        ("in_features", "input_dim", "n_features", "num_features", "in_dim", "input_size"), "features"
    ),
    **dict.fromkeys(("in_channels", "in_chans", "channels", "num_channels"), "channels"),
}
"""What the parameters of a builder are called."""


def architecture_of(name: str, spec: str) -> Architecture:
    """The architecture that a spec names: `package.module:function`, `timm:NAME`, `hf:NAME` or `hf:FOLDER`.

    Errors: WrongInput where there is no such thing, or a package is missing.
    """
    if spec.startswith("timm:"):
        return of_timm(name, spec.removeprefix("timm:"))
    if spec.startswith("hf:"):
        return of_hugging_face(name, spec.removeprefix("hf:"))
    return of_code(name, spec)


def of_code(name: str, spec: str) -> Architecture:
    """A function or class of one's own. Recipes are those of its decorator `architecture`, or of its
    attribute `recipes`.
    """
    function = python_source.found(spec)
    registered: Architecture | None = getattr(function, "architecture", None)
    recipes = registered.recipes if registered else getattr(function, "recipes", {})
    if not isinstance(recipes, Mapping) or not all(isinstance(one, Recipe) for one in recipes.values()):
        raise WrongInput(
            f"{spec} has recipes {recipes!r}; wanted a mapping such as {{'*': Recipe(epochs=10)}}."
        )
    return Architecture(
        name,
        adapted(function, spec),
        recipes,
        python_source.version(function),
        registered.declared if registered else None,
    )


def adapted(function: Callable[..., Any], spec: str) -> Build:
    """A builder that is called as ours are, from one whose parameters may have other names.

    Errors: WrongInput where it has parameters that cannot be filled in.
    """
    parameters = inspect.signature(function).parameters.values()
    known = {one.name: MEANS[one.name] for one in parameters if one.name in MEANS}
    needed = [
        one
        for one in parameters
        if one.default is one.empty and one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    strange = [
        one.name
        for one in parameters
        if one.default is one.empty and one.kind != one.VAR_KEYWORD and one.name not in MEANS
    ]
    if strange and len(needed) == 2 and not known:
        known = {needed[0].name: "shape", needed[1].name: "classes"}
    elif strange:
        raise WrongInput(
            f"{spec}{inspect.signature(function)} cannot be called: unknown parameters"
            f" {' and '.join(strange)}. Wanted a"
            " function (shape, classes), with a parameter vocabulary where inputs are token ids; understood"
            f" are {', '.join(MEANS)}."
        )

    def module(values: Mapping[str, Any]) -> nn.Module:
        filled = {parameter: values[meaning] for parameter, meaning in known.items()}
        ordered = [filled.pop(one.name) for one in needed if one.name in filled]
        built = function(*ordered, **filled)
        if not isinstance(built, nn.Module):
            raise WrongInput(f"{spec} returned {type(built).__name__}; wanted a torch.nn.Module.")
        return built

    def filled(shape: tuple[int, ...], classes: int) -> dict[str, Any]:
        return {"shape": shape, "classes": classes, "features": math.prod(shape), "channels": shape[0]}

    def of_tokens(shape: tuple[int, ...], classes: int, vocabulary: int) -> nn.Module:
        return module({**filled(shape, classes), "vocabulary": vocabulary})

    def of_numbers(shape: tuple[int, ...], classes: int) -> nn.Module:
        return module(filled(shape, classes))

    return of_tokens if "vocabulary" in known.values() else of_numbers


def of_timm(name: str, model: str) -> Architecture:
    """An image model of timm, with its published weights, or freshly drawn ones for `NAME:fresh`."""
    try:
        timm = importlib.import_module("timm")
    except (ImportError, RuntimeError) as error:  # RuntimeError: its torchvision is that of another torch
        raise WrongInput(
            f"--architecture timm:{model} needs timm, which cannot be imported: {error}. pip install"
            " 'lscal[timm]'."
        ) from error
    fresh = model.endswith(FRESH)
    model = model.removesuffix(FRESH)
    if not timm.is_model(model.partition(".")[0]):
        near = get_close_matches(model, timm.list_models(), n=3)
        raise WrongInput(
            f"timm has no model {model!r}." + (f" Did you mean {' or '.join(near)}?" if near else "")
        )
    fixed = getattr(timm.get_pretrained_cfg(model), "fixed_input_size", False)

    def build(shape: tuple[int, ...], classes: int) -> nn.Module:
        if len(shape) != 3:
            raise ValueError(
                f"inputs have shape {shape}; a model of timm takes images (channel, height, width)"
            )
        size = {"img_size": shape[1:]} if fixed else {}
        try:
            built: nn.Module = timm.create_model(
                model, pretrained=not fresh, num_classes=classes, in_chans=shape[0], **size
            )
        except (OSError, RuntimeError) as error:
            if fresh:
                raise
            raise WrongInput(
                f"the weights of timm:{model} cannot be had: {str(error).splitlines()[0]} Fetch them on a"
                " machine that reaches huggingface.co and copy its cache here, or train from random"
                f" weights: --architecture timm:{model}{FRESH}."
            ) from error
        return built

    return Architecture(name, build, {} if fresh else {"*": FINE_TUNING}, declared=IMAGES)


def of_hugging_face(name: str, model: str) -> Architecture:
    """A model of transformers by its name, folder or config.json: for images or for texts, as its
    configuration has it.

    With its weights, or freshly drawn ones for `NAME:fresh` and for a config.json. A text model with its
    weights reads the tokens of its own tokenizer alone: the data set is to have `tokenizer`. Errors:
    WrongInput where it cannot be had.
    """
    transformers = extra("transformers", f"--architecture hf:{model}")
    fresh = model.endswith((FRESH, ".json"))
    source = str(Path(model.removesuffix(FRESH)).expanduser())
    config = configuration(transformers, source)
    pictures = hasattr(config, "num_channels")
    kind = (
        transformers.AutoModelForImageClassification
        if pictures
        else transformers.AutoModelForSequenceClassification
    )

    def loaded(classes: int, changes: Mapping[str, Any]) -> Any:
        if fresh:
            own = type(config).from_dict({**config.to_dict(), **changes})
            own.num_labels = classes
            return kind.from_config(own)
        return pretrained(transformers, kind, source, classes)

    def of_images(shape: tuple[int, ...], classes: int) -> nn.Module:
        if len(shape) != 3:
            raise ValueError(f"inputs have shape {shape}; {model} takes images (channel, height, width)")
        return ImageModel(
            loaded(
                classes,
                {
                    "num_channels": shape[0],
                    "image_size": shape[1] if shape[1] == shape[2] else list(shape[1:]),
                },
            )
        )

    def of_texts(shape: tuple[int, ...], classes: int, vocabulary: int) -> nn.Module:
        if fresh:
            longest = getattr(config, "max_position_embeddings", shape[0])
            changes = {
                "vocab_size": vocabulary,
                "pad_token_id": 0,
                "max_position_embeddings": max(longest, shape[0] + 2),
            }
            return TextModel(loaded(classes, changes), 0)
        if vocabulary != len(tokenizer_of(source)):
            raise ValueError(
                "its weights are for the tokens of its own tokenizer; give the data with --tokenizer"
                f" hf:{source}"
            )
        return TextModel(loaded(classes, {}), int(config.pad_token_id or 0))

    if pictures:
        return Architecture(name, of_images, {} if fresh else {"*": FINE_TUNING}, declared=IMAGES)
    return Architecture(name, of_texts, {} if fresh else {"*": FINE_TUNING_TEXT}, declared=Reads(("tokens",)))


def configuration(transformers: Any, source: str) -> Any:
    """The configuration of a model. Errors: WrongInput where it cannot be had."""
    try:
        return transformers.AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise WrongInput(
            f"the configuration of hf:{source} cannot be had: {str(error).splitlines()[0]} Where this machine"
            " reaches no huggingface.co, copy the model's folder (config.json, model.safetensors,"
            " tokenizer.json) here and give that: --architecture hf:FOLDER."
        ) from error


def pretrained(transformers: Any, kind: Any, source: str, classes: int) -> Any:
    """A model with its weights and a new head. Errors: WrongInput where the weights cannot be had."""
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()  # that the head is new is as it should be
    try:
        return kind.from_pretrained(
            source, num_labels=classes, ignore_mismatched_sizes=True, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise WrongInput(
            f"the weights of hf:{source} cannot be had: {str(error).splitlines()[0]} Train from random"
            f" ones: --architecture hf:{source}{FRESH}."
        ) from error
    finally:
        transformers.logging.set_verbosity(verbosity)


@final
class ImageModel(nn.Module):
    """The logits alone of a model of transformers for images."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    @override
    def forward(
        self, images: Float[Tensor, "example channel height width"]
    ) -> Float[Tensor, "example class"]:
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


@final
class TextModel(nn.Module):
    """The logits alone of a model of transformers for texts. Where its padding is not 0, that and 0 have
    changed places in its inputs.
    """

    def __init__(self, model: nn.Module, padding: int):
        super().__init__()
        self.model, self.padding = model, padding

    @override
    def forward(self, tokens: Shaped[Tensor, "example position"]) -> Float[Tensor, "example class"]:
        own = tokens
        if self.padding:
            own = torch.where(tokens == 0, self.padding, torch.where(tokens == self.padding, 0, tokens))
        logits: Tensor = self.model(input_ids=own, attention_mask=(tokens != 0).long()).logits
        return logits
