"""Reports for CI: Markdown and JUnit of a report with a failure and a doubt."""

from xml.etree import ElementTree

from mobilenet_export.cli.reports import junit, markdown
from mobilenet_export.report import DriftReport, DriftRow


def row(file: str, runtime: str, *, labelled: bool) -> DriftRow:
    top1 = (81.0, 95.0, 0.5, (-0.25, 1.25)) if labelled else (None, None, None, None)
    return DriftRow(file, "onnx", "int8", runtime, "CPU", *top1, 97.5, 20.04, 0.99, 1.5, 0.01)


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
    assert lines[2] == "| file | runtime | agree | SQNR | top-1 | drop | 95 % interval |"
    assert lines[4] == "| a.onnx | onnxruntime | 97.5 % | 20.0 dB | 81.00 % | +0.50 | -0.25 … +1.25 |"
    assert "* failed: a.onnx in onnxruntime: SQNR 20.0 dB is below 23 dB" in lines
    assert "* in doubt: b.tflite in litert: 200 images cannot tell" in lines


def test_markdown_without_labels_has_no_accuracy() -> None:
    assert "| file | runtime | agree | SQNR |" in markdown(report(labelled=False)).splitlines()


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
