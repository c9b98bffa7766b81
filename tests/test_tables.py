"""Tables on narrow terminals: every cell of every row is there, whole, and nothing is wider than the screen."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mobilenet_export.cli.tables import CHEAP, Column, Table, print_table, shared_beginning

FILES = ("net_fp32.onnx", "net_fp32.tflite", "net_int8_io_uint8.onnx")
TABLE = Table(
    (
        Column("file"),
        Column("runtime"),
        Column("p50\nms", right=True),
        Column("p99\nms", right=True, spare=2),
        Column("load", right=True, spare=1),
        Column("check", prose=True),
    ),
    tuple((file, "onnxruntime:CPU", "12.34", "100.00", "5", "ok: as on this computer") for file in FILES),
)


def printed(table: Table, width: int) -> list[str]:
    stream = io.StringIO()
    print_table(Console(file=stream, width=width, highlight=False), table)
    return stream.getvalue().splitlines()


def test_a_wide_terminal_shows_all_on_one_line_per_row() -> None:
    assert printed(TABLE, 100) == [
        "                                           p50     p99",
        "file                    runtime             ms      ms  load  check",
        "net_fp32.onnx           onnxruntime:CPU  12.34  100.00     5  ok: as on this computer",
        "net_fp32.tflite         onnxruntime:CPU  12.34  100.00     5  ok: as on this computer",
        "net_int8_io_uint8.onnx  onnxruntime:CPU  12.34  100.00     5  ok: as on this computer",
    ]


def test_what_all_names_begin_with_is_said_once_above() -> None:
    assert printed(TABLE, 82)[:4] == [
        "net_…",
        "                                       p50     p99",
        "file                runtime             ms      ms  load  check",
        "fp32.onnx           onnxruntime:CPU  12.34  100.00     5  ok: as on this computer",
    ]


def test_names_stand_above_their_rows_before_columns_go() -> None:
    lines = printed(TABLE, 65)
    assert lines[2:4] == [
        "net_fp32.onnx",
        "  onnxruntime:CPU  12.34  100.00     5  ok: as on this computer",
    ]
    lines = printed(TABLE, 56)
    assert lines[3] == "  onnxruntime:CPU  12.34     5  ok: as on this computer"
    assert lines[-1].startswith("left out for want of room: p99 ms; ")
    cheap = Table((Column("file"), Column("kind", spare=CHEAP), Column("share")), (("a" * 9, "b" * 9, "c"),))
    assert printed(cheap, 18) == [
        "file       share",
        "aaaaaaaaa  c",
        "left out for want ",
        "of room: kind; ",
        "--json has all",
    ]


def test_a_name_that_repeats_is_shown_once() -> None:
    rows = (("pi1", "a.onnx", "1"), ("pi1", "a.onnx", "2"), ("pi1", "b.onnx", "1"), ("pi2", "b.onnx", "1"))
    table = Table((Column("device"), Column("file"), Column("thr")), rows, names=2)
    assert printed(table, 40)[1:] == [
        "pi1     a.onnx  1",
        "                2",
        "        b.onnx  1",
        "pi2     b.onnx  1",
    ]


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (["net_a.onnx", "net_b.onnx"], "net_"),
        (["x/net_a", "x/net_b"], "x/net_"),
        (["x/a", "x/b"], "x/"),
        (["net_a", "net_a"], ""),
        (["one_name"], ""),
        (["neta", "netb"], ""),
        ([], ""),
    ],
)
def test_a_shared_beginning_ends_at_a_mark(names: list[str], shared: str) -> None:
    assert shared_beginning(names) == shared


@given(
    st.lists(
        st.lists(st.text("ab_/é", min_size=1, max_size=40), min_size=4, max_size=4), min_size=1, max_size=5
    ),
    st.integers(20, 130),
)
def test_no_name_is_lost_at_any_width(rows: list[list[str]], width: int) -> None:
    columns = (Column("file"), Column("runtime"), Column("p99", right=True, spare=1), Column("speed"))
    lines = printed(Table(columns, tuple(map(tuple, rows))), width)
    beginning = lines[0].removesuffix("…") if lines[0].endswith("…") else ""
    whole = "\n".join(lines)
    for name, runtime, _, speed in rows:
        assert name.removeprefix(beginning) in whole
        assert runtime in whole
        assert speed in whole
