"""A model card: what a file says about itself, in whatever way its format has."""

from dataclasses import dataclass

from mobilenet_export.spec import ModelSpec, Preprocess


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a reader or an app has to know of a classifier that it holds nothing but the file of.

    Attributes:
        name: Of the variant.
        description: One line.
        author: Who trained the weights; empty where it is not known.
        licence: Of the weights; empty where it is not known.
        labels: Class names, in the order of the outputs.
        preprocess: From photo to input.
    """

    name: str
    description: str
    author: str
    licence: str
    labels: tuple[str, ...]
    preprocess: Preprocess


def card_of(spec: ModelSpec, labels: tuple[str, ...]) -> ModelCard:
    """Return the card of a variant; of weights that are the user's own it knows neither author nor licence."""
    author, licence = (spec.weights.source, spec.weights.licence) if spec.weights else ("", "")
    return ModelCard(spec.name, spec.summary, author, licence, labels, spec.preprocess)
