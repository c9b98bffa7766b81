"""What runs where a bundle lies, without torch and without the rest of this package: check, bench, classify.

`MODULES` are all that it needs; an export packs them into the bundle's `device.zip`, so that the code that checks
on the device is the code that checked on the PC.
"""

MODULES = (
    "__init__",
    "agent.__init__",
    "agent.bench",
    "agent.check",
    "agent.cold",
    "agent.command",
    "agent.request",
    "artifact",
    "bundle",
    "checks.__init__",
    "checks.latency",
    "checks.mistakes",
    "documents",
    "errors",
    "graph",
    "images",
    "interpreter",
    "latency",
    "machine",
    "plugins",
    "quantized",
    "runtimes.__init__",
    "runtimes._tflite_session",
    "runtimes.litert",
    "runtimes.onnxruntime",
    "runtimes.tflite_runtime",
    "scratch",
    "shipped",
    "spec",
)
