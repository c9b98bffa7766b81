"""Records what torchvision's and timm's own networks compute, so that the tests need neither of them.

Run it in an environment that has torch, torchvision and timm (they need not fit this project's torch):

    python tests/recorded/record.py

It rewrites the JSON files beside it: keys and shapes of the state_dict, and the logits of one seeded image
under the weights of `recorded_weights`. The recipes are numpy's, so that the tests rebuild the same weights
and the same image.
"""

import json
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
NETWORKS = ("torchvision_mobilenet_v2", "timm_mobilenetv2_100", "timm_mobilenetv1_100")
SIZE_PX = 96


def recorded_weights(shapes: dict[str, list[int]]) -> dict[str, NDArray[np.float32]]:
    """Return weights by key: noise seeded by the key, at a scale that keeps activations in range."""
    return {key: _draw(key, tuple(shape)) for key, shape in shapes.items()}


def _draw(key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    random = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    noise = random.standard_normal(shape)
    if key.endswith("running_var"):
        values = 0.5 + random.random(shape)
    elif key.endswith(("running_mean", "bias")):
        values = 0.3 * noise
    elif len(shape) == 1:  # the scale of a BatchNorm
        values = 1 + 0.2 * noise
    else:
        values = noise * np.sqrt(2 / np.prod(shape[1:]))
    return values.astype(np.float32)


def recorded_image() -> NDArray[np.float32]:
    """Return one preprocessed image, (1, 3, SIZE_PX, SIZE_PX)."""
    random = np.random.Generator(np.random.PCG64(1))
    return random.standard_normal((1, 3, SIZE_PX, SIZE_PX)).astype(np.float32)


def record(name: str) -> None:
    """Write one network's keys, shapes and logits."""
    import timm  # noqa: PLC0415
    import torch  # noqa: PLC0415
    import torchvision  # noqa: PLC0415

    library, model = name.split("_", 1)
    if library == "timm":
        network, version = timm.create_model(model), timm.__version__
    else:
        network, version = getattr(torchvision.models, model)(), torchvision.__version__.split("+")[0]
    state = network.eval().state_dict()
    shapes = {
        key: list(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")
    }
    weights = {key: torch.from_numpy(value) for key, value in recorded_weights(shapes).items()}
    network.load_state_dict(weights, strict=False)
    with torch.no_grad():
        logits = network(torch.from_numpy(recorded_image()))[0]
    rows = ",\n  ".join(f"{json.dumps(key)}: {json.dumps(shape)}" for key, shape in shapes.items())
    numbers = json.dumps([float(f"{value:.9g}") for value in logits.tolist()])
    head = f'"library": "{library} {version}", "model": "{model}",\n "logits": {numbers}'
    text = f'{{{head},\n "shapes": {{\n  {rows}\n}}}}\n'
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for each in NETWORKS:
        record(each)
