"""What is true of the releases of a runtime: one module per runtime, each ends in `PACKAGE: Package`."""

LISTED_ON = "2026-11-24"
"""When PyPI listed the wheels in the tables; `pip index versions -vvv NAME` names every file."""
