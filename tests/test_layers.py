"""The layers: values ◀ steps ◀ plugins ◀ pipeline ◀ cli; heavy packages stay in their corner."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mobilenet_export

ROOT = Path(mobilenet_export.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if "_shipped" not in path.parts
}

VALUES = [
    "spec",
    "graph",
    "anatomy",
    "inspection",
    "quantized",
    "model_card",
    "recipe",
    "artifact",
    "report",
    "findings",
    "latency",
    "candidate",
    "published",
    "machine",
    "bundle",
    "documents",
    "arguments",
    "errors",
    "scratch",
    "shipped",
    "plugins",
]
STEPS = [
    "architectures",
    "capture",
    "passes",
    "images",
    "thumbnails",
    "dead_leaves",
    "lint",
    "interpreter",
    "quantize",
    "checks",
    "compat",
]
LAYERS = [
    [*VALUES, "__init__"],
    STEPS,
    ["formats", "readers", "runtimes", "requirements", "packages", "devices", "snippets"],
    ["agent", "deployment", "phone"],
    ["html_report"],
    ["pipeline"],
    ["api", "cli"],
    ["__main__"],
]

PROTOCOLS = {"checks.drift": {"runtimes"}, "checks.latency": {"runtimes"}, "__init__": {"api"}}
"""Of a layer to the right, a module may read a Protocol in the package itself: drift takes any `Session`. The
package itself names its front door for whoever checks types, and imports it on use.
"""


def part_of(module: str) -> str:
    """The file or folder under `mobilenet_export/` that a module belongs to."""
    return module.split(".", maxsplit=1)[0] or "__init__"


def imports_of(module: str) -> set[str]:
    """Every module that a module imports, inside functions too: `torch`, or `mobilenet_export.spec`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            assert node.module
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = {name for name in inside if name.removeprefix("mobilenet_export.") in MODULES}
            found |= submodules or {node.module}
    return found


def own(names: set[str]) -> set[str]:
    """The imports that are ours, without the package's name."""
    return {name.removeprefix("mobilenet_export").lstrip(".") for name in names if is_own(name)}


def is_own(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] == "mobilenet_export"


def foreign(names: set[str]) -> set[str]:
    """The top-level packages that are neither ours nor Python's."""
    tops = {name.split(".")[0] for name in names if not is_own(name)}
    return tops - set(sys.stdlib_module_names)


def rank(module: str) -> int:
    (found,) = [index for index, layer in enumerate(LAYERS) if part_of(module) in layer]
    return found


def test_every_module_has_a_layer() -> None:
    parts = {part_of(module) for module in MODULES}
    assert parts == {part for layer in LAYERS for part in layer}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_leftwards_only(module: str) -> None:
    for name in own(imports_of(module)):
        if name in PROTOCOLS.get(module, set()):
            continue
        assert rank(name) <= rank(module), f"{module or 'the package'} imports {name}"


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in VALUES])
def test_values_import_only_numpy_beside_python_itself(module: str) -> None:
    assert foreign(imports_of(module)) <= {"numpy"}


def test_formats_do_not_know_the_runtimes() -> None:
    for module in MODULES:
        if part_of(module) == "formats":
            assert "runtimes" not in {part_of(name) for name in own(imports_of(module))}, module


def test_only_the_pipeline_and_the_front_join_plugins() -> None:
    """One format does not know another, nor one runtime another; what they share starts with an underscore."""
    for module in MODULES:
        folder, _, name = module.partition(".")
        if folder not in ("formats", "runtimes") or not name or name.startswith("_"):
            continue
        siblings = {n for n in own(imports_of(module)) if part_of(n) == folder and n != folder}
        siblings -= DERIVED.get(module, set())
        assert all(n.split(".")[1].startswith("_") for n in siblings), module


DERIVED = {"formats.ort": {"formats.onnx"}}
"""A file of the one is made of a file of the other."""


ALLOWED = {
    "torch": {"architectures", "capture", "runtimes.torch", "quantize.sensitivity"},
    "typer": {"cli"},
    "rich": {"cli"},
    "onnx": {"capture", "formats.onnx", "readers.onnx", "requirements.onnx"},
    "onnxsim": {"capture"},
    "h5py": {"architectures.keras_file"},
    "onnxruntime": {"runtimes.onnxruntime", "formats.ort"},
    "ai_edge_litert": {"formats.tflite", "readers.tflite", "requirements.tflite", "runtimes.litert"},
    "tflite_runtime": {"runtimes.tflite_runtime"},
    "flatbuffers": {"formats.tflite", "formats._tflite_metadata", "formats._ort_flatbuffer"},
    "PIL": {"images", "thumbnails", "dead_leaves", "checks.mistakes", "agent", "html_report.holdings"},
    "safetensors": {"architectures", "pipeline.analyze", "pipeline.cache", "pipeline.contents"},
    "matplotlib": {"cli.anatomy_plot", "cli.layer_plot", "cli.pick_plot", "html_report.figures"},
}


@pytest.mark.parametrize("package", ALLOWED)
def test_a_heavy_package_is_imported_only_in_its_corner(package: str) -> None:
    users = {module for module in MODULES if package in foreign(imports_of(module))}
    assert users
    strays = {m for m in users if m not in ALLOWED[package] and part_of(m) not in ALLOWED[package]}
    assert not strays


def test_every_package_that_is_imported_is_declared() -> None:
    names = {"PIL": "pillow", "ai_edge_litert": "ai-edge-litert", "google": "protobuf"}
    text = (ROOT.parent / "pyproject.toml").read_text(encoding="utf-8")
    used = {package for module in MODULES for package in foreign(imports_of(module))}
    optional = {"tflite_runtime", "google"}  # legacy, and onnx's own dependency
    for package in used - optional:
        assert f'"{names.get(package, package)}' in text, package


@pytest.mark.parametrize(
    "module", [module for module in MODULES if part_of(module) not in ("cli", "__main__")]
)
def test_the_library_is_silent(module: str) -> None:
    if module in ("dead_leaves", "agent.run", "agent.command", "agent.cold"):
        return  # scripts of their own
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    loud = {
        "print",
        "sys.exit",
        "exit",
        "warnings.warn",
        "sys.stdout.write",
        "sys.stderr.write",
        "logging.warning",
    }
    assert not loud & set(calls)


def test_nothing_at_the_top_of_a_module_is_unused() -> None:
    texts = [path.read_text(encoding="utf-8") for path in MODULES.values()]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT.parent / "tests").rglob("*.py")]
    texts.append((ROOT.parent / "pyproject.toml").read_text(encoding="utf-8"))
    counts: dict[str, int] = {}
    for text in texts:
        for word in re.findall(r"\w+", text):
            counts[word] = counts.get(word, 0) + 1
    plugged = {"DEVICE", "FORMAT", "PACKAGE", "REQUIREMENT", "RUNTIME", "__all__"}
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            if isinstance(node, ast.Assign):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            for name in set(names) - plugged:
                assert counts[name] > 1, f"{module}.{name}"


def test_help_needs_neither_torch_nor_onnxruntime_nor_numpy() -> None:
    code = (
        "import sys\nfrom mobilenet_export.cli import run\n"
        "for command in ([], ['export'], ['validate'], ['analyze'], ['models'],\n"
        "                ['compat'], ['recipes'], ['deploy'], ['report'], ['bench'], ['doctor'],\n"
        "                ['calibration', 'lint'], ['calibration', 'synth']):\n"
        "    assert run([*command, '--help']) == 0\n"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'numpy', 'PIL', 'ai_edge_litert', 'matplotlib'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
