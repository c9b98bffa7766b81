"""The plot of a network's layers, as `mnx inspect --plot` draws it; needs matplotlib, which is optional."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenet_export.anatomy import Anatomy
from mobilenet_export.cli.anatomy_table import typical_block

if TYPE_CHECKING:
    from mobilenet_export.inspection import Inspection

_SEPARABLE, _STANDARD, _MEMORY, _OTHER = "#0b6e99", "#e8743b", "#4a9d5b", "#7a5195"
_COLOURS = {"conv": _SEPARABLE, "depthwise": _STANDARD, "linear": _OTHER}


def draw_anatomy(found: "Inspection", path: Path) -> None:
    """Draw what every layer costs, pairs beside standard convolutions, and V1's block beside V2's."""
    import matplotlib  # noqa: PLC0415 (optional)
    from matplotlib.figure import Figure  # noqa: PLC0415

    anatomy = found.anatomy
    settings = {"svg.hashsalt": "mnx", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    below = [anatomy.pairs(), found.networks]
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(15, 12.5 if any(below) else 8), layout="constrained")
        grid = figure.add_gridspec(4 if any(below) else 3, 2, height_ratios=(2, 2, 2, 2.6)[: 3 + any(below)])
        top = figure.add_subplot(grid[0, :])
        _draw_bars(top, anatomy, [layer.macs / 1e6 for layer in anatomy.layers], "MACs (M)")
        _put_kinds(top, anatomy)
        middle = figure.add_subplot(grid[1, :], sharex=top)
        _draw_bars(middle, anatomy, [layer.parameters / 1e3 for layer in anatomy.layers], "parameters (k)")
        _draw_memory(figure.add_subplot(grid[2, :], sharex=top), anatomy)
        for axes in (top, middle):
            axes.tick_params(axis="x", labelbottom=False)
        if anatomy.pairs():
            _draw_pairs(figure.add_subplot(grid[3, 0] if found.networks else grid[3, :]), anatomy)
        if found.networks:
            _draw_blocks(figure.add_subplot(grid[3, 1]), found.networks)
        figure.suptitle(_title(found), fontsize=12)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, dpi=110, metadata=metadata)


def _title(found: "Inspection") -> str:
    anatomy, peaks = found.anatomy, found.peaks()
    memory = {anatomy.name: anatomy.peak_bytes()} if found.files else peaks
    names = " in fp32, ".join(f"{size / 2**20:.2f} MiB" for size in memory.values())
    end = "" if found.files else " in int8"
    return (
        f"{anatomy.name}: {anatomy.macs / 1e6:,.1f} M MACs, {anatomy.parameters / 1e6:.2f} M parameters, "
        f"peak activation memory {names}{end}"
    )


def _draw_bars(axes: Any, anatomy: Anatomy, heights: Sequence[float], title: str) -> None:
    colours = [_COLOURS.get(layer.operator, "#999999") for layer in anatomy.layers]
    axes.bar(range(len(heights)), heights, color=colours)
    axes.set_ylabel(title)
    axes.grid(axis="y", alpha=0.3)
    axes.set_xlim(-0.7, len(heights) - 0.3)


def _put_kinds(axes: Any, anatomy: Anatomy) -> None:
    from matplotlib.patches import Patch  # noqa: PLC0415 (optional)

    there = {layer.operator for layer in anatomy.layers}
    patches = [Patch(color=colour, label=kind) for kind, colour in _COLOURS.items() if kind in there]
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": len(patches)}
    axes.legend(handles=patches, frameon=False, **place)


def _draw_memory(axes: Any, anatomy: Anatomy) -> None:
    live = [size / 2**20 for size in anatomy.live_bytes()]
    made = [layer.output.bytes / 2**20 for layer in anatomy.layers]
    axes.fill_between(range(len(live)), live, step="mid", color=_MEMORY, alpha=0.3, label="live")
    axes.bar(range(len(made)), made, color=_MEMORY, label="the layer's output")
    axes.set_ylabel("activation memory (MiB)")
    axes.set_xlabel("layer, in the order in which they run")
    names = [layer.name for layer in anatomy.layers]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper right")


def _draw_pairs(axes: Any, anatomy: Anatomy) -> None:
    pairs = anatomy.pairs()
    places = range(len(pairs))
    standard = [pair.standard_macs / 1e6 for pair in pairs]
    axes.bar([x - 0.2 for x in places], standard, 0.4, color=_STANDARD, label="standard convolution")
    separable = [pair.macs / 1e6 for pair in pairs]
    axes.bar([x + 0.2 for x in places], separable, 0.4, color=_SEPARABLE, label="depthwise + pointwise")
    for place, pair in enumerate(pairs):
        axes.annotate(
            f"1/{1 / pair.ratio:.1f}", (place, pair.standard_macs / 1e6), ha="center", va="bottom", fontsize=7
        )
    axes.set_ylabel("MACs (M)")
    axes.margins(y=0.3)
    axes.set_title(
        "each pair takes 1/N + 1/k² of the standard convolution; the whole network "
        f"1/{anatomy.standard_macs / anatomy.macs:.1f} of the MACs",
        fontsize=9,
    )
    names = [pair.depthwise.name for pair in pairs]
    axes.set_xticks(list(places), names, rotation=90, fontsize=7)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper left", ncols=2, fontsize=8)


def _draw_blocks(axes: Any, networks: Sequence[Anatomy]) -> None:
    """The width of what runs through a block: V1's stays wide, V2's is narrow between blocks."""
    labels: list[str] = []
    for network, title, colour in zip(networks, ("V1", "V2"), (_STANDARD, _SEPARABLE), strict=False):
        block = typical_block(network)
        steps = [block.input, *(layer.output for layer in block.layers)]
        names = ["in", *(layer.label for layer in block.layers)]
        start = len(labels)
        label = f"{title}'s {block.name}: {block.macs / 1e6:.1f} M MACs, {block.parameters / 1e3:.1f} k parameters"
        channels = [tensor.shape[0] for tensor in steps]
        bars = axes.bar(range(start, start + len(steps)), channels, color=colour, label=label)
        axes.bar_label(bars, fontsize=8)
        labels += [*names, ""]
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right", fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("channels")
    axes.margins(y=0.25)
    axes.set_title("V1's block beside V2's inverted residual: channels after each step", fontsize=9)
    axes.legend(loc="upper right", fontsize=8)
