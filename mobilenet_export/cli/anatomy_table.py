"""The tables of `mnx inspect`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from mobilenet_export.anatomy import Anatomy, Block, Layer, Pair
from mobilenet_export.graph import Shape

if TYPE_CHECKING:
    from mobilenet_export.inspection import Inspection

_ROOM_FOR_INPUTS = 100
"""Columns from which on the shapes that a layer reads fit."""
_ROOM_FOR_OUTPUTS = 86
"""Columns from which on the size of what a layer makes fits beside its type, without folding names."""
_TITLES = ("V1", "V2")
_RULES = (
    "MACs: multiply-accumulates of convolutions and the linear layer, one image.",
    "params: weights and one bias per output channel; BatchNorm is folded into them.",
    "live: what is in memory while the layer runs: its inputs, its output, and what",
    "a later layer still reads; batch 1. The peak is the greatest of these sums.",
)


def print_inspection(screen: Console, found: "Inspection") -> None:
    """Print what a bundle holds, the layers, their sums, and the comparisons."""
    if found.kind == "bundle":
        screen.print(_files_table(found))
        screen.print()
    anatomy = found.anatomy
    screen.print(f"{anatomy.name}, input {_size(anatomy.input.shape)}", markup=False, style="bold")
    screen.print(layer_table(anatomy, screen.width, files=bool(found.files)))
    _print_sums(screen, found)
    if anatomy.pairs():
        screen.print(
            "\ndepthwise + pointwise beside the standard convolution of the same shapes", style="bold"
        )
        screen.print(pair_table(anatomy))
        fewer = anatomy.standard_weights / anatomy.weights
        for line in (
            "share: of the weights as of the MACs, 1/N + 1/k² (N channels out, k×k kernel);",
            f"of the whole network, which keeps its other layers, of the MACs (weights 1/{fewer:.1f})",
        ):
            screen.print(line, style="dim")
    if found.networks:
        _print_networks(screen, found.networks)
    screen.print()
    for line in _RULES:
        screen.print(line, style="dim")


def _table() -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")


def _files_table(found: "Inspection") -> Table:
    table = _table()
    table.add_column("file", overflow="fold")
    table.add_column("layers", overflow="fold")
    for name in ("bytes", "peak"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found.files:
        layers = ", ".join(f"{count} {precision}" for precision, count in one.precisions.items())
        table.add_row(one.file, layers, f"{one.bytes:,}", _mib(one.anatomy.peak_bytes()))
    return table


def layer_table(anatomy: Anatomy, width: int, *, files: bool) -> Table:
    """Return one row per layer; of a file with its precision."""
    table = _table()
    table.add_column("layer", overflow="fold")
    table.add_column("operator", overflow="fold")
    if files:
        table.add_column("type", overflow="fold")
    if width >= _ROOM_FOR_INPUTS:
        table.add_column("input", no_wrap=True)
    table.add_column("output", no_wrap=True)
    outputs = not files or width >= _ROOM_FOR_OUTPUTS
    for name in ("params", "MACs", *(["out\nKiB"] if outputs else []), "live\nKiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer, live in zip(anatomy.layers, anatomy.live_bytes(), strict=True):
        table.add_row(
            layer.name,
            layer.label,
            *([layer.precision] if files else []),
            *([_size(layer.inputs[0].shape)] if width >= _ROOM_FOR_INPUTS else []),
            _size(layer.output.shape),
            f"{layer.parameters:,}" if layer.parameters else "",
            _millions(layer.macs) if layer.macs else "",
            *([f"{layer.output.bytes / 1024:,.0f}"] if outputs else []),
            f"{live / 1024:,.0f}",
        )
    return table


def _print_sums(screen: Console, found: "Inspection") -> None:
    anatomy = found.anatomy
    biases = anatomy.parameters - anatomy.weights
    lines = [
        f"{anatomy.macs / 1e6:,.1f} M MACs; {anatomy.parameters:,} params: "
        f"{anatomy.weights:,} weights, {biases:,} biases"
    ]
    if found.kind != "bundle":
        peaks = found.peaks()
        live = anatomy.live_bytes()
        where = anatomy.layers[live.index(max(live))].name
        memory = ", ".join(
            f"{_mib(size)} {name}" if len(peaks) > 1 else _mib(size) for name, size in peaks.items()
        )
        lines.append(f"peak activation memory {memory} ({where})")
    for line in lines:
        screen.print(line, markup=False, style="bold")


def pair_table(anatomy: Anatomy) -> Table:
    """Return one row per depthwise-separable convolution, and one of the whole network."""
    table = _table()
    table.add_column("depthwise", overflow="fold")
    for name in ("weights", "MACs", "standard\nweights", "standard\nMACs", "share", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for pair in anatomy.pairs():
        table.add_row(*_pair_cells(pair))
    macs, weights = anatomy.standard_macs, anatomy.standard_weights
    table.add_row(
        "whole network",
        f"{anatomy.weights:,}",
        _millions(anatomy.macs),
        f"{weights:,}",
        _millions(macs),
        f"{100 * anatomy.macs / macs:.1f} %",
        f"1/{macs / anatomy.macs:.1f}",
        style="bold",
    )
    return table


def _pair_cells(pair: Pair) -> tuple[str, ...]:
    return (
        pair.depthwise.name,
        f"{pair.weights:,}",
        _millions(pair.macs),
        f"{pair.standard_weights:,}",
        _millions(pair.standard_macs),
        f"{100 * pair.ratio:.1f} %",
        f"1/{1 / pair.ratio:.1f}",
    )


def _print_networks(screen: Console, networks: Sequence[Anatomy]) -> None:
    screen.print("\nV1's block beside V2's inverted residual", style="bold")
    screen.print(block_table(networks))
    screen.print()
    screen.print(stage_table(networks))


def typical_block(anatomy: Anatomy) -> Block:
    """Return the first block that keeps its shape where the map is a sixteenth of the image, or the last block."""
    size = anatomy.input.shape[1] // 16
    blocks = anatomy.blocks()
    return next((b for b in blocks if b.keeps_shape and b.output.shape[1] == size), blocks[-1])


def block_table(networks: Sequence[Anatomy]) -> Table:
    """Return a block of each network, layer beside layer."""
    blocks = [typical_block(network) for network in networks]
    table = _table()
    table.add_column("")
    for network, block in zip(networks, blocks, strict=True):
        table.add_column(f"{network.name}\n{block.name}", overflow="fold")
    table.add_row("in", *(_size(block.input.shape) for block in blocks))
    for title, part in (("expand 1×1", 0), ("filter 3×3", 1), ("project 1×1", 2)):
        table.add_row(title, *(_step(block, part) for block in blocks))
    table.add_row("shortcut", *("adds its input" if _adds(block) else "none" for block in blocks))
    table.add_row("params", *(f"{block.parameters:,}" for block in blocks))
    table.add_row("MACs", *(_millions(block.macs) for block in blocks))
    table.add_row("between blocks", *(f"{block.output.bytes / 1024:,.0f} KiB in fp32" for block in blocks))
    return table


def _step(block: Block, part: int) -> str:
    """What the expansion, the filter or the projection of a block makes."""
    kernels = [layer for layer in block.layers if layer.weight]
    steps: list[Layer | None] = [*([None] * (3 - len(kernels))), *kernels]
    layer = steps[part]
    if layer is None:
        return "–"
    kind = "depthwise, " if layer.operator == "depthwise" else ""
    after = {"none": "linear", "": "", "relu": "ReLU", "relu6": "ReLU6"}.get(
        layer.activation, layer.activation
    )
    return f"{_size(layer.output.shape)}, {kind}{after}".rstrip(", ")


def _adds(block: Block) -> bool:
    return any(layer.operator == "add" for layer in block.layers)


def stage_table(networks: Sequence[Anatomy]) -> Table:
    """Return a row per size of the map: how many blocks each network has there, and what they cost."""
    table = _table()
    table.add_column("map\npx", justify="right")
    for title in _TITLES[: len(networks)]:
        table.add_column(f"{title}\nblocks", justify="right", no_wrap=True)
        for name in ("channels", "params", "MACs"):
            table.add_column(f"\n{name}", justify="right", no_wrap=True)
    sizes = dict.fromkeys(block.output.shape[1] for network in networks for block in network.blocks())
    for size in sorted(sizes, reverse=True):
        groups = [[b for b in network.blocks() if b.output.shape[1] == size] for network in networks]
        table.add_row(str(size), *(cell for group in groups for cell in _stage_cells(group)))
    return table


def _stage_cells(blocks: Sequence[Block]) -> tuple[str, ...]:
    if not blocks:
        return "", "", "", ""
    channels = [block.output.shape[0] for block in blocks]
    span = f"{min(channels)}–{max(channels)}" if min(channels) < max(channels) else str(channels[0])
    macs, parameters = sum(block.macs for block in blocks), sum(block.parameters for block in blocks)
    return str(len(blocks)), span, f"{parameters:,}", _millions(macs)


def _size(shape: Shape) -> str:
    return "×".join(map(str, shape))


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"


def _mib(size: int) -> str:
    return f"{size / 2**20:.2f} MiB"
