"""The way of the data, and the only place that joins steps.

spec ─▶ reference (module) ─▶ source (graph) ─┬─▶ fp32, fp16 files
checkpoint ─▶ weights in our form, variant, card
images ─▶ activations ─▶ quantized graph ─────┴─▶ int8 files ─▶ sessions ─▶ drift ─▶ bundle
bundle ─▶ integers, layer by layer against the source ─▶ layer report
bundle ─▶ report.html; bundles ─▶ one page that compares them
bundle ─▶ page ─▶ browsers: check, bench ─▶ bundle/devices/
bundle ─▶ devices: probe ─▶ choose ─▶ send ─▶ check, bench ─▶ bundle/devices/
published top-1 or bundles, latency, size, memory ─▶ Pareto front ─▶ pick
files ─▶ sessions ─▶ latency report; files, tables of releases and boards ─▶ compat report
"""

from mobilenet_export.pipeline.analyze import AnalyzeRequest, analyze
from mobilenet_export.pipeline.bench import BenchRequest, measure_latency
from mobilenet_export.pipeline.cache import cache_folder
from mobilenet_export.pipeline.compat import CompatRequest, compat
from mobilenet_export.pipeline.deploy import DeployRequest, deploy
from mobilenet_export.pipeline.doctor import diagnose
from mobilenet_export.pipeline.download import fetch, find_download
from mobilenet_export.pipeline.export import Export, ExportRequest, check_request, export
from mobilenet_export.pipeline.importing import Imported, ImportRequest, import_checkpoint
from mobilenet_export.pipeline.lint import LintRequest, lint
from mobilenet_export.pipeline.pick import PickRequest, pick
from mobilenet_export.pipeline.reference import open_checkpoint, unknown_preprocessing
from mobilenet_export.pipeline.report import ReportRequest, report
from mobilenet_export.pipeline.validate import ValidateRequest, find_target, validate

__all__ = [
    "AnalyzeRequest",
    "BenchRequest",
    "CompatRequest",
    "DeployRequest",
    "Export",
    "ExportRequest",
    "ImportRequest",
    "Imported",
    "LintRequest",
    "PickRequest",
    "ReportRequest",
    "ValidateRequest",
    "analyze",
    "cache_folder",
    "check_request",
    "compat",
    "deploy",
    "diagnose",
    "export",
    "fetch",
    "find_download",
    "find_target",
    "import_checkpoint",
    "lint",
    "measure_latency",
    "open_checkpoint",
    "pick",
    "report",
    "unknown_preprocessing",
    "validate",
]
