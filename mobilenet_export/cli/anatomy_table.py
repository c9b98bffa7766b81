"""The tables of `mnx inspect`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from mobilenet_export.anatomy import Anatomy, Block, Layer, Pair
from mobilenet_export.cli.tables import CHEAP, Column, Table, print_table
from mobilenet_export.graph import Shape

if TYPE_CHECKING:
    from mobilenet_export.inspection import Inspection

_TITLES = ("V1", "V2")
_RULES = (
    "MACs: multiply-accumulates of convolutions and the linear layer, one image.",
    "params: weights and one bias per output channel; BatchNorm is folded into them.",
    "live: what is in memory while the layer runs: its inputs, its output, and what a later layer still reads; "
    "batch 1. The peak is the greatest of these sums.",
    "dw: depthwise; conv 3×3 /2: of stride 2.",
)


def print_inspection(screen: Console, found: "Inspection") -> None:
    """Print what a bundle holds, the layers, their sums, and the comparisons."""
    if found.kind == "bundle":
        print_table(screen, _files_table(found))
        screen.print()
    anatomy = found.anatomy
    screen.print(f"{anatomy.name}, input {_size(anatomy.input.shape)}", markup=False, style="bold")
    print_table(screen, layer_table(anatomy, files=bool(found.files)))
    _print_sums(screen, found)
    if anatomy.pairs():
        screen.print(
            "\ndepthwise + pointwise beside the standard convolution of the same shapes", style="bold"
        )
        print_table(screen, pair_table(anatomy))
        fewer = anatomy.standard_weights / anatomy.weights
        screen.print(
            "share: of the weights as of the MACs, 1/N + 1/k² (N channels out, k×k kernel); of the whole network, "
            f"which keeps its other layers, of the MACs (weights 1/{fewer:.1f})",
            style="dim",
        )
    if found.networks:
        _print_networks(screen, found.networks)
    screen.print()
    for line in _RULES:
        screen.print(line, style="dim")


def _right(*titles: str) -> tuple[Column, ...]:
    return tuple(Column(title, right=True) for title in titles)


def _files_table(found: "Inspection") -> Table:
    columns = (Column("file"), Column("layers"), *_right("bytes", "peak"))
    rows = []
    for one in found.files:
        layers = ", ".join(f"{count} {precision}" for precision, count in one.precisions.items())
        rows.append((one.file, layers, f"{one.bytes:,}", _mib(one.anatomy.peak_bytes())))
    return Table(columns, tuple(rows))


def layer_table(anatomy: Anatomy, *, files: bool) -> Table:
    """Return one row per layer; of a file with its precision."""
    columns = (
        Column("layer"),
        Column("operator"),
        *([Column("type")] if files else []),
        Column("input", spare=CHEAP + 1),
        Column("output"),
        *_right("params", "MACs"),
        Column("out\nKiB", right=True, spare=CHEAP),
        *_right("live\nKiB"),
    )
    rows = [
        (
            layer.name,
            layer.label.replace("depthwise", "dw"),
            *([layer.precision] if files else []),
            _size(layer.inputs[0].shape),
            _size(layer.output.shape),
            f"{layer.parameters:,}" if layer.parameters else "",
            _millions(layer.macs) if layer.macs else "",
            f"{layer.output.bytes / 1024:,.0f}",
            f"{live / 1024:,.0f}",
        )
        for layer, live in zip(anatomy.layers, anatomy.live_bytes(), strict=True)
    ]
    return Table(columns, tuple(rows))


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
    columns = (
        Column("depthwise"),
        *_right("weights", "MACs", "standard\nweights"),
        Column("standard\nMACs", right=True, spare=CHEAP),
        *_right("share"),
        Column("1/n", right=True, spare=CHEAP + 1),
    )
    macs, weights = anatomy.standard_macs, anatomy.standard_weights
    whole = (
        "whole network",
        f"{anatomy.weights:,}",
        _millions(anatomy.macs),
        f"{weights:,}",
        _millions(macs),
        f"{100 * anatomy.macs / macs:.1f} %",
        f"1/{macs / anatomy.macs:.1f}",
    )
    pairs = [_pair_cells(pair) for pair in anatomy.pairs()]
    return Table(columns, (*pairs, whole), styles=(*[""] * len(pairs), "bold"))


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
    names = " and ".join(network.name for network in networks)
    screen.print(f"\nV1's block beside V2's inverted residual ({names})", markup=False, style="bold")
    print_table(screen, block_table(networks))
    screen.print()
    print_table(screen, stage_table(networks))


def typical_block(anatomy: Anatomy) -> Block:
    """Return the first block that keeps its shape where the map is a sixteenth of the image, or the last block."""
    size = anatomy.input.shape[1] // 16
    blocks = anatomy.blocks()
    return next((b for b in blocks if b.keeps_shape and b.output.shape[1] == size), blocks[-1])


def block_table(networks: Sequence[Anatomy]) -> Table:
    """Return a block of each network, layer beside layer."""
    blocks = [typical_block(network) for network in networks]
    titles = [f"{title}\n{block.name}" for title, block in zip(_TITLES, blocks, strict=True)]
    rows = (
        ("in", *(_size(block.input.shape) for block in blocks)),
        *(
            (title, *(_step(block, part) for block in blocks))
            for part, title in enumerate(("expand 1×1", "filter 3×3", "project 1×1"))
        ),
        ("shortcut", *("adds its input" if _adds(block) else "none" for block in blocks)),
        ("params", *(f"{block.parameters:,}" for block in blocks)),
        ("MACs", *(_millions(block.macs) for block in blocks)),
        ("between blocks", *(f"{block.output.bytes / 1024:,.0f} KiB in fp32" for block in blocks)),
    )
    return Table((Column(""), *map(Column, titles)), rows)


def _step(block: Block, part: int) -> str:
    """What the expansion, the filter or the projection of a block makes."""
    kernels = [layer for layer in block.layers if layer.weight]
    steps: list[Layer | None] = [*([None] * (3 - len(kernels))), *kernels]
    layer = steps[part]
    if layer is None:
        return "–"
    kind = "dw, " if layer.operator == "depthwise" else ""
    after = {"none": "linear", "": "", "relu": "ReLU", "relu6": "ReLU6"}.get(
        layer.activation, layer.activation
    )
    return f"{_size(layer.output.shape)}, {kind}{after}".rstrip(", ")


def _adds(block: Block) -> bool:
    return any(layer.operator == "add" for layer in block.layers)


def stage_table(networks: Sequence[Anatomy]) -> Table:
    """Return a row per size of the map and network: how many blocks it has there, and what they cost."""
    columns = (*_right("map px"), Column(""), *_right("blocks", "channels", "params", "MACs"))
    sizes = dict.fromkeys(block.output.shape[1] for network in networks for block in network.blocks())
    rows = [
        (str(size), title, *_stage_cells(blocks))
        for size in sorted(sizes, reverse=True)
        for title, network in zip(_TITLES, networks, strict=True)
        if (blocks := [block for block in network.blocks() if block.output.shape[1] == size])
    ]
    return Table(columns, tuple(rows), names=2)


def _stage_cells(blocks: Sequence[Block]) -> tuple[str, ...]:
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
