"""Writes MobileNets with real Keras and TensorFlow, and what those compute: `make_files.py FOLDER`.

It runs in an environment of its own (requirements.txt), which has neither torch nor this package. Each file of
weights comes with an .npz of one image (H, W, 3) and the logits that its own library computes of it.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import keras
import numpy as np
import tensorflow as tf

CLASSES = 12
EPSILON = 1e-3  # slim's default for both networks
V1_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
V1_CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

random = np.random.Generator(np.random.PCG64(7))


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return values that are nothing like an initializer's, BatchNorm statistics included."""
    noise = random.standard_normal(shape)
    if name.endswith("moving_variance"):
        values = 0.5 + random.random(shape)
    elif name.endswith("gamma"):
        values = 1 + 0.2 * noise
    elif len(shape) == 1:
        values = 0.3 * noise
    else:
        taps = shape[0] * shape[1] * (1 if shape[-1] == 1 else shape[2]) if len(shape) == 4 else shape[0]
        values = noise * np.sqrt(2 / taps)
    return values.astype(np.float32)


def image(size_px: int) -> np.ndarray:
    return random.uniform(-1, 1, (1, size_px, size_px, 3)).astype(np.float32)


def record(path: Path, picture: np.ndarray, logits: np.ndarray) -> None:
    np.savez(path, image=picture[0], logits=logits.reshape(-1))


# Keras


def keras_networks() -> Iterator[tuple[str, Any, int]]:
    options = {"weights": None, "classes": CLASSES, "classifier_activation": None}
    yield "v1_0.25", keras.applications.MobileNet(input_shape=(96, 96, 3), alpha=0.25, **options), 96
    for alpha in (0.35, 1.4):
        yield (
            f"v2_{alpha}",
            keras.applications.MobileNetV2(input_shape=(96, 96, 3), alpha=alpha, **options),
            96,
        )
    options["classes"] = 1000
    yield "v1_224", keras.applications.MobileNet(input_shape=(224, 224, 3), **options), 224
    yield "v2_224", keras.applications.MobileNetV2(input_shape=(224, 224, 3), **options), 224
    for name, kind in (("v1", keras.applications.MobileNet), ("v2", keras.applications.MobileNetV2)):
        body = kind(input_shape=(96, 96, 3), alpha=0.5, weights=None, include_top=False)
        pool, head = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5, name="flowers")
        tuned = keras.Sequential([body, pool, keras.layers.Dropout(0.2), head])
        tuned.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        tuned.build((None, 96, 96, 3))
        tuned.optimizer.build(tuned.trainable_variables)  # so that the files hold an optimizer's state too
        yield f"{name}_tuned", tuned, 96


def write_keras(folder: Path) -> None:
    for name, network, size_px in keras_networks():
        network.set_weights(
            [drawn(one.name, tuple(one.shape)) for one in network.weights if "seed" not in one.name]
        )
        picture = image(size_px)
        logits = network(picture, training=False).numpy()
        for suffix in (".keras", ".h5", ".weights.h5"):
            save = network.save_weights if suffix == ".weights.h5" else network.save
            save(folder / f"keras_{name}{suffix}")
            record(folder / f"keras_{name}{suffix}.npz", picture, logits)


# Frozen graphs with the names of tensorflow/models, research/slim

Values = Callable[[str, tuple[int, ...]], np.ndarray]


def variable(values: Values, shape: tuple[int, ...], name: str) -> Any:
    full = f"{tf.compat.v1.get_variable_scope().name}/{name}"
    return tf.compat.v1.get_variable(name, initializer=tf.constant(values(full, shape)))


def layer(x: Any, values: Values, scope: str, channels: int | None, size: int, stride: int) -> Any:
    """A convolution (depthwise where `channels` is None), its BatchNorm and, but for projections, ReLU6."""
    inputs = x.shape[-1]
    with tf.compat.v1.variable_scope(scope):
        if channels is None:
            weights = variable(values, (size, size, inputs, 1), "depthwise_weights")
            x = tf.nn.depthwise_conv2d(x, weights, (1, stride, stride, 1), "SAME")
        else:
            x = tf.nn.conv2d(x, variable(values, (size, size, inputs, channels), "weights"), stride, "SAME")
        with tf.compat.v1.variable_scope("BatchNorm"):
            names = ("gamma", "beta", "moving_mean", "moving_variance")
            four = [variable(values, (x.shape[-1],), name) for name in names]
        x, *_ = tf.compat.v1.nn.fused_batch_norm(x, *four, epsilon=EPSILON, is_training=False)
    return x if scope == "project" else tf.nn.relu6(x)


def head(x: Any, values: Values, classes: int) -> Any:
    x = tf.reduce_mean(x, (1, 2), keepdims=True)
    with tf.compat.v1.variable_scope("Logits/Conv2d_1c_1x1"):
        weights = variable(values, (1, 1, x.shape[-1], classes), "weights")
        return tf.squeeze(
            tf.nn.conv2d(x, weights, 1, "SAME") + variable(values, (classes,), "biases"), name="logits"
        )


def slim_v1(x: Any, values: Values, classes: int, width: float) -> Any:
    with tf.compat.v1.variable_scope("MobilenetV1"):
        x = layer(x, values, "Conv2d_0", int(32 * width), 3, 2)
        for index, (channels, stride) in enumerate(zip(V1_CHANNELS, V1_STRIDES, strict=True), 1):
            x = layer(x, values, f"Conv2d_{index}_depthwise", None, 3, stride)
            x = layer(x, values, f"Conv2d_{index}_pointwise", int(channels * width), 1, 1)
        return head(x, values, classes)


def divisible(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def slim_v2(x: Any, values: Values, classes: int, width: float) -> Any:
    with tf.compat.v1.variable_scope("MobilenetV2"):
        x = layer(x, values, "Conv", divisible(32 * width), 3, 2)
        rows = [(t, c, s if n == 0 else 1) for t, c, count, s in V2_STAGES for n in range(count)]
        for index, (expansion, channels, stride) in enumerate(rows):
            with tf.compat.v1.variable_scope(f"expanded_conv_{index}" if index else "expanded_conv"):
                before = x
                if expansion != 1:
                    x = layer(x, values, "expand", x.shape[-1] * expansion, 1, 1)
                x = layer(x, values, "depthwise", None, 3, stride)
                x = layer(x, values, "project", divisible(channels * width), 1, 1)
                x = x + before if x.shape == before.shape else x
        x = layer(x, values, "Conv_1", max(1280, divisible(1280 * width)), 1, 1)
        return head(x, values, classes)


def write_frozen(path: Path, network: Any, values: Values, size_px: int, classes: int, width: float) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, (1, size_px, size_px, 3), name="input")
        logits = network(x, values, classes, width)
        session.run(tf.compat.v1.global_variables_initializer())
        picture = image(size_px)
        record(path.with_name(f"{path.name}.npz"), picture, session.run(logits, {x: picture}))
        graph = tf.compat.v1.graph_util.convert_variables_to_constants(
            session, session.graph.as_graph_def(), [logits.op.name]
        )
        path.write_bytes(graph.SerializeToString())


def of_google(weights: Path) -> Values:
    """Return the values of the shipped MobileNetV1 by slim's names, with a background class before its 1000."""
    data = weights.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    entries = json.loads(data[8:start])

    def value(key: str) -> np.ndarray:
        first, last = entries[key]["data_offsets"]
        return np.frombuffer(data[start + first : start + last], "<f4").reshape(entries[key]["shape"])

    parts = {
        "gamma": "weight",
        "beta": "bias",
        "moving_mean": "running_mean",
        "moving_variance": "running_var",
    }

    def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
        layer, _, part = name.removeprefix("MobilenetV1/").partition("/")
        if layer == "Logits":
            key = f"classifier.1.{'bias' if part.endswith('biases') else 'weight'}"
            found = np.concatenate([np.zeros_like(value(key)[:1]), value(key)])
            return found.T.reshape(shape).copy()
        _, index, *kind = layer.split("_")
        prefix = f"features.{index}" + (f".{int(kind == ['pointwise'])}" if kind else "")
        if part.startswith("BatchNorm"):
            return value(f"{prefix}.1.{parts[part.partition('/')[2]]}").copy()
        order = (2, 3, 0, 1) if part == "depthwise_weights" else (2, 3, 1, 0)
        return np.ascontiguousarray(value(f"{prefix}.0.weight").transpose(order))

    return values


def main(folder: Path, google: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_keras(folder)
    write_frozen(folder / "slim_v1_google.pb", slim_v1, of_google(google), 224, 1001, 1.0)
    write_frozen(folder / "slim_v1_0.5.pb", slim_v1, drawn, 96, CLASSES, 0.5)
    write_frozen(folder / "slim_v2_1.0.pb", slim_v2, drawn, 224, 1001, 1.0)
    write_frozen(folder / "slim_v2_1.4.pb", slim_v2, drawn, 96, CLASSES, 1.4)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
