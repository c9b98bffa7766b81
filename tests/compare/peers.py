"""The peers: other people's quantizers on the same fp32 files and the same images, used as their documents advise.

    python peers.py PEER FP32 IMAGES.npy OUT

quantizes as one peer does and prints a line of JSON: its seconds. It runs in `.venv-compare`, which holds the peers
(requirements.txt) and not this package; IMAGES are preprocessed, float32 (N, 3, H, W).

Sources: onnxruntime 1.32, `quantize_static`, "Choosing parameters for CPU inference", and its guide "Quantize ONNX
Models": pre-process first; QDQ; uint8 activations and int8 weights on x86, with `reduce_range` where VNNI is
missing, "generally" so with `per_channel`; else uint8 weights. NNCF 3.4: `nncf.quantize`, `QuantizationPreset`,
`AdvancedQuantizationParameters`. ai-edge-quantizer 0.10 (AEQ): `recipe.static_wi8_ai8`, int8 activations and int8
weights per channel; and `recipe.dynamic_wi8_afp32`, which its README recommends for CPUs.

Not here: TensorFlow's own converter, which would bring 2 GB, and the converters that need it.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

Quantize = Callable[[Path, np.ndarray, Path], None]
"""Reads an fp32 file, calibrates with float32 (N, 3, H, W), writes an int8 file."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One way in which people quantize.

    Attributes:
        format: Of the files that it reads and writes: `onnx` or `tflite`.
        modules: What it imports; loaded before its time is taken.
        quantize: Does it.
    """

    format: str
    modules: tuple[str, ...]
    quantize: Quantize = field(repr=False)


def quantize_static(
    fp32: Path, images: np.ndarray, out: Path, types: tuple[str, str] | None = None, **options: Any
) -> None:
    """ONNX Runtime's static quantization of the pre-processed file.

    Args:
        fp32: File to read.
        images: To calibrate with, float32 (N, 3, H, W).
        out: File to write.
        types: Names of `QuantType` for activations and weights; else the function's own, int8 and int8.
        options: Of `quantize_static`.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static  # noqa: PLC0415
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter(feeds_of(fp32, images))

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(self.feeds, None)

    if types is not None:
        options["activation_type"], options["weight_type"] = (QuantType[name] for name in types)
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "pre_processed.onnx"
        quant_pre_process(fp32, ready)
        quantize_static(ready, out, Reader(), **options)


def nncf_quantize(
    fp32: Path,
    images: np.ndarray,
    out: Path,
    preset: str,
    *,
    fast_bias_correction: bool = True,
    for_ort: bool = False,
) -> None:
    """NNCF's post-training quantization of an ONNX model.

    Args:
        fp32: File to read.
        images: To calibrate with, float32 (N, 3, H, W).
        out: File to write.
        preset: `PERFORMANCE`, its default: symmetric activations; or `MIXED`: asymmetric ones.
        fast_bias_correction: Its default; without it, the accurate one that runs the network layer by layer.
        for_ort: Set what its parameters offer against what costs most in ONNX Runtime: activations with a scale
            per channel, which leave depthwise convolutions float, and weights that saturate.
    """
    import nncf  # noqa: PLC0415
    import onnx  # noqa: PLC0415
    from nncf.quantization.advanced_parameters import QuantizationParameters  # noqa: PLC0415

    advanced = nncf.AdvancedQuantizationParameters()
    if for_ort:
        advanced.activations_quantization_params = QuantizationParameters(per_channel=False)
        advanced.overflow_fix = nncf.OverflowFix.ENABLE
    quantized = nncf.quantize(
        onnx.load(fp32),
        nncf.Dataset(feeds_of(fp32, images)),
        preset=nncf.QuantizationPreset[preset],
        fast_bias_correction=fast_bias_correction,
        subset_size=len(images),
        advanced_parameters=advanced,
    )
    onnx.save(quantized, out)


def aeq_quantize(fp32: Path, images: np.ndarray, out: Path, recipe_name: str) -> None:
    """ai-edge-quantizer, with float input and output as the other files have them.

    Args:
        fp32: File to read.
        images: To calibrate with, float32 (N, 3, H, W).
        out: File to write.
        recipe_name: Function of `ai_edge_quantizer.recipe`.
    """
    from ai_edge_quantizer import quantizer, recipe  # noqa: PLC0415
    from ai_edge_quantizer.qtyping import TFLOperationName  # noqa: PLC0415

    engine = quantizer.Quantizer(fp32, getattr(recipe, recipe_name)())
    for place in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
        engine.update_quantization_recipe(".*", place, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE)
    feeds = [{"input": image} for image in np.split(images.transpose(0, 2, 3, 1), len(images))]
    ranges = engine.calibrate({"serving_default": feeds}) if engine.need_calibration else None
    out.write_bytes(engine.quantize(ranges, enable_progress_report=False).quantized_model)


def feeds_of(fp32: Path, images: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Name the file's input with each image, float32 (1, 3, H, W)."""
    import onnx  # noqa: PLC0415

    (entry,) = onnx.load(fp32).graph.input
    return [{entry.name: image} for image in np.split(images, len(images))]


def _static(types: tuple[str, str] | None = None, **options: Any) -> Peer:
    modules = ("onnxruntime.quantization", "onnxruntime.quantization.shape_inference")
    return Peer("onnx", modules, partial(quantize_static, types=types, **options))


def _nncf(preset: str, *, fast_bias_correction: bool = True, for_ort: bool = False) -> Peer:
    quantize = partial(
        nncf_quantize, preset=preset, fast_bias_correction=fast_bias_correction, for_ort=for_ort
    )
    return Peer("onnx", ("nncf", "nncf.onnx.quantization.quantize_model"), quantize)


def _aeq(recipe_name: str) -> Peer:
    return Peer("tflite", ("ai_edge_quantizer.quantizer",), partial(aeq_quantize, recipe_name=recipe_name))


_U8S8 = ("QUInt8", "QInt8")

PEERS: dict[str, Peer] = {
    "ORT default": _static(),
    "ORT uint8 weights": _static(("QUInt8", "QUInt8")),
    "ORT per-channel": _static(_U8S8, per_channel=True),
    "ORT per-channel, reduce_range": _static(_U8S8, per_channel=True, reduce_range=True),
    "NNCF performance": _nncf("PERFORMANCE"),
    "NNCF mixed": _nncf("MIXED"),
    "NNCF mixed, accurate bias": _nncf("MIXED", fast_bias_correction=False),
    "NNCF mixed, for ORT": _nncf("MIXED", for_ort=True),
    "NNCF mixed, for ORT, accurate bias": _nncf("MIXED", for_ort=True, fast_bias_correction=False),
    "AEQ static": _aeq("static_wi8_ai8"),
    "AEQ dynamic": _aeq("dynamic_wi8_afp32"),
}


def main() -> None:
    """Quantize as the command line says."""
    name, fp32, images, out = sys.argv[1:]
    peer = PEERS[name]
    os.environ["NNCF_CI"] = "1"  # it sends no telemetry then
    for module in peer.modules:
        import_module(module)
    values = np.load(images)
    start = time.perf_counter()
    peer.quantize(Path(fp32), values, Path(out))
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds}))  # noqa: T201


if __name__ == "__main__":
    main()
