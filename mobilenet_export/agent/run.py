"""Check, measure or use the files beside this script: python3 run.py check|bench|classify IMAGE...

Needs Python 3.11, numpy, Pillow and one of onnxruntime, ai-edge-litert, tflite-runtime. No torch. What it runs is
in device.zip: plain Python, the same code that checked the files where they were made.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
import os
import sys
import zipfile

FOLDER = os.path.dirname(os.path.abspath(__file__))
MISSING = 3


def fail(message, hint):
    sys.stderr.write("error: %s\nhint: %s\n" % (message, hint))
    sys.exit(MISSING)


if __name__ == "__main__":
    if sys.version_info < (3, 11):
        fail(
            "Python %d.%d is too old, 3.11 is needed" % sys.version_info[:2],
            "Raspberry Pi OS 12 has it; or: uv run --python 3.11 run.py",
        )
    code = os.path.join(FOLDER, "device.zip")
    if not zipfile.is_zipfile(code):
        fail("device.zip is missing or damaged", "send the bundle again")
    sys.path.insert(0, code)
    for module, package in (("numpy", "numpy"), ("PIL", "pillow")):
        try:
            __import__(module)
        except ImportError as error:
            fail("cannot import %s: %s" % (module, error), "pip install %s" % package)
    from mobilenet_export.agent.command import main

    sys.exit(main(FOLDER))
