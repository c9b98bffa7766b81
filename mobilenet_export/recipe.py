"""How to quantize, as data: `calibration/recipes/*.toml`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilenet_export.documents import parse_toml
from mobilenet_export.errors import DamagedInputError, UsageError, unknown_name
from mobilenet_export.shipped import shipped_path


@dataclass(frozen=True, slots=True)
class QuantRecipe:
    """The knobs of the quantizer.

    Attributes:
        name: Of the recipe.
        summary: What it is for, on one line.
        calibration_images: Images that set ranges and biases, at most.
        held_out_images: How many of them only judge whether a step is kept.
        check_images: Images set aside for the drift check, at most.
        seed: Of the choice of images where there are more than are used.
        bias_correction: Shift each bias by the mean error that quantization causes.
        bias_correction_images: Images that it holds in memory, at most.
        channel_splitting: Give the places of dead channels to copies of those whose rounding costs most.
        equalization: Bring channels to like ranges, where that helps.
        range_search: Choose every range by what it costs at the logits, from gradients.
        range_search_images: Images that it looks at, at most.
        rounding: Round weights so that the layer's output, not each weight, comes out closest.
        rounding_images: Images that it holds in memory, at most.
        reach: How much farther than on the calibration images the activations are expected to reach.
        logits_reach: The same, of the highest logit.
        drawn_reach: As reach, where the images are drawn: photos excite the late layers more.
        drawn_logits_reach: As logits_reach, where the images are drawn.
        per_tensor_weights: One scale per weight tensor, as some NPUs and DSPs need, instead of one per channel.
        saturation_safe: Keep every pair of weights summable in int16, so that every CPU gives one answer.
    """

    name: str
    summary: str
    calibration_images: int = 64
    held_out_images: int = 16
    check_images: int = 32
    seed: int = 0
    bias_correction: bool = True
    bias_correction_images: int = 16
    channel_splitting: bool = True
    equalization: bool = True
    range_search: bool = True
    range_search_images: int = 24
    rounding: bool = True
    rounding_images: int = 48
    reach: float = 1.1
    logits_reach: float = 1.1
    drawn_reach: float = 1.25
    drawn_logits_reach: float = 2.0
    per_tensor_weights: bool = False
    saturation_safe: bool = True

    @property
    def tries_steps(self) -> bool:
        """Has steps that held-out images judge."""
        return (
            self.bias_correction
            or self.channel_splitting
            or self.equalization
            or self.range_search
            or self.rounding
        )


def recipe_names() -> tuple[str, ...]:
    """Return the shipped recipes' names, sorted."""
    return tuple(sorted(path.stem for path in shipped_path("calibration", "recipes").glob("*.toml")))


def find_recipe(name: str) -> QuantRecipe:
    """Return the shipped recipe of that name, or read it from a path that ends in `.toml`.

    Raises:
        UsageError: No such recipe; the hint names the nearest.
        DamagedInputError: The TOML is not one of a recipe.
    """
    if not name.endswith(".toml"):
        if name not in recipe_names():
            raise unknown_name("recipe", name, recipe_names())
        return read_recipe(shipped_path("calibration", "recipes", f"{name}.toml"))
    return read_recipe(Path(name))


def read_recipe(path: Path) -> QuantRecipe:
    """Read a recipe from a TOML file.

    Raises:
        UsageError: There is no such file.
        DamagedInputError: It is not TOML, or a field is missing, unknown or out of range.
    """
    try:
        table = parse_toml(path.read_bytes())
        unknown = sorted(table.keys() - QuantRecipe.__annotations__.keys())
        if unknown:
            raise ValueError(f"unknown field {unknown[0]}")
        for field in ("name", "summary"):
            if field not in table:
                raise ValueError(f"{field} is missing")
        recipe = QuantRecipe(**{field: _whole_as_float(field, value) for field, value in table.items()})
        _check(recipe)
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}", "shipped recipes: " + ", ".join(recipe_names())) from None
    except (OSError, TypeError, ValueError) as error:
        reason = str(error).removeprefix("QuantRecipe.__init__() ")
        raise DamagedInputError(f"{path}: {reason}", "compare calibration/recipes/int8.toml") from None
    return recipe


def _whole_as_float(field: str, value: Any) -> Any:
    return float(value) if QuantRecipe.__annotations__[field] is float and type(value) is int else value


def _check(recipe: QuantRecipe) -> None:
    for field, kind in QuantRecipe.__annotations__.items():
        if type(getattr(recipe, field)) is not kind:
            raise ValueError(f"{field} must be of type {kind.__name__}")
    if not 0 < recipe.held_out_images < recipe.calibration_images:
        raise ValueError("held_out_images must be above 0 and below calibration_images")
    for field in ("check_images", "bias_correction_images", "range_search_images", "rounding_images"):
        if getattr(recipe, field) < 1:
            raise ValueError(f"{field} must be above 0")
    if recipe.seed < 0:
        raise ValueError("seed must not be below 0")
    for field in ("reach", "logits_reach", "drawn_reach", "drawn_logits_reach"):
        if not 1 <= getattr(recipe, field) <= 4:
            raise ValueError(f"{field} must lie within 1 to 4")
