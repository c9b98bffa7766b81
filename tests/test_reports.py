"""Reports for CI: Markdown and JUnit of a report with a failure and a doubt."""

import dataclasses
from xml.etree import ElementTree

from mobilenet_export.cli.drift_table import referee
from mobilenet_export.cli.reports import junit, markdown
from mobilenet_export.report import DriftReport, DriftRow, Referee


def row(file: str, runtime: str, *, labelled: bool) -> DriftRow:
    top1 = (81.0, 95.0, 0.5, (-0.25, 1.25)) if labelled else (None, None, None, None)
    referee = Referee(2, 63.26, 8) if runtime == "litert" else Referee(0, 100.0, 8)
    return DriftRow(file, "onnx", "int8", runtime, "CPU", *top1, 97.5, 20.04, 0.99, 1.5, 0.01, referee)


def report(*, labelled: bool) -> DriftReport:
    rows = (row("a.onnx", "onnxruntime", labelled=labelled), row("b.tflite", "litert", labelled=labelled))
    failures = ("a.onnx in onnxruntime: SQNR 20.0 dB is below 23 dB",)
    doubts = ("b.tflite in litert: 200 images cannot tell",)
    return DriftReport(
        "torch", "val", 200, 200 if labelled else 0, 81.5 if labelled else None, rows, failures, doubts
    )


def test_markdown_has_the_verdict_the_table_and_the_reasons() -> None:
    lines = markdown(report(labelled=True)).splitlines()
    assert lines[0].startswith("**fail** — drift against torch on 200 images of val, 200 labelled")
    assert lines[2] == "| file | runtime | agree | SQNR | referee | top-1 | drop | 95 % interval |"
    assert (
        lines[4]
        == "| a.onnx | onnxruntime | 97.5 % | 20.0 dB | bit-equal | 81.00 % | +0.50 | -0.25 … +1.25 |"
    )
    assert lines[5].startswith("| b.tflite | litert | 97.5 % | 20.0 dB | ≤ 2 LSB, 63.2 % = | ")
    assert "* failed: a.onnx in onnxruntime: SQNR 20.0 dB is below 23 dB" in lines
    assert "* in doubt: b.tflite in litert: 200 images cannot tell" in lines


def test_markdown_without_labels_has_no_accuracy() -> None:
    assert "| file | runtime | agree | SQNR | referee |" in markdown(report(labelled=False)).splitlines()


def test_what_no_row_has_is_no_column() -> None:
    rows = tuple(dataclasses.replace(row, referee=None) for row in report(labelled=False).rows)
    lines = markdown(dataclasses.replace(report(labelled=False), rows=rows, warnings=("no referee: b",)))
    assert "| file | runtime | agree | SQNR |" in lines.splitlines()
    assert "* no referee: b" in lines.splitlines()
    assert "referee: logits" not in lines


def test_a_share_that_is_not_whole_is_never_shown_as_whole() -> None:
    found = dataclasses.replace(row("b.tflite", "litert", labelled=False), referee=Referee(1, 99.9999, 8))
    assert referee(found) == "≤ 1 LSB, 99.9 % ="


def test_junit_has_a_case_per_file_and_runtime() -> None:
    suite = ElementTree.fromstring(junit(report(labelled=True)))
    assert {key: suite.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "2", "failures": "1", "errors": "1",
    }  # fmt: skip
    first, second = suite.findall("testcase")
    assert (first.get("classname"), first.get("name")) == ("a.onnx", "onnxruntime int8")
    failure, error = first.find("failure"), second.find("error")
    assert failure is not None
    assert failure.get("message") == "SQNR 20.0 dB is below 23 dB"
    assert error is not None
    assert error.get("message") == "200 images cannot tell"
    assert first.findtext("system-out") == "referee: bit-equal on 8 images"
    assert second.findtext("system-out") == "referee: ≤ 2 LSB, 63.2 % = on 8 images"
