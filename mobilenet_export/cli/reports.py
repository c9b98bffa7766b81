"""A drift report as Markdown and as JUnit XML, for CI."""

from xml.etree import ElementTree

from mobilenet_export.cli.drift_table import columns, measures, referee, referee_note, summary
from mobilenet_export.report import DriftReport


def markdown(report: DriftReport) -> str:
    """Return the table of drift and the verdict as GitHub-flavoured Markdown."""
    titles = ["file", *columns(report)]
    rows = [[row.file, *measures(row, report)] for row in report.rows]
    lines = [titles, ["---"] * len(titles), *rows]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    notes = [f"* failed: {reason}" for reason in report.failures]
    notes += [f"* in doubt: {reason}" for reason in report.doubts]
    notes += [f"* {warning}" for warning in report.warnings]
    verdict = f"**{report.verdict}** — {summary(report)}"
    parts = (verdict, table, referee_note(report), "\n".join(notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def junit(report: DriftReport) -> str:
    """Return one test case per file and runtime; a limit not met is a failure, one in doubt an error.

    What the referee found of a case is its `system-out`.
    """
    suite = ElementTree.Element("testsuite", name="mnx validate", tests=str(len(report.rows)))
    counts = {"failure": 0, "error": 0}
    for row in report.rows:
        case = ElementTree.SubElement(
            suite, "testcase", classname=row.file, name=f"{row.runtime} {row.precision}"
        )
        where = f"{row.file} in {row.runtime}: "
        for kind, reasons in (("failure", report.failures), ("error", report.doubts)):
            for reason in reasons:
                if reason.startswith(where):
                    counts[kind] += 1
                    ElementTree.SubElement(case, kind, message=reason.removeprefix(where))
        if row.referee:
            told = f"referee: {referee(row)} on {row.referee.images} images"
            ElementTree.SubElement(case, "system-out").text = told
    suite.set("failures", str(counts["failure"]))
    suite.set("errors", str(counts["error"]))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
