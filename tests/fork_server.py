"""Runs `mnx` many times, each in a process of its own, without loading torch each time.

A line of stdin is the arguments, as JSON; a line of stdout the process's id; and one more its exit code, negative
for a signal.
"""

import json
import os
import sys

import onnxruntime  # noqa: F401 (what is imported here need not be imported in every process)
import onnxsim  # noqa: F401
import torch  # noqa: F401
from ai_edge_litert import interpreter  # noqa: F401

import mobilenet_export.pipeline.export
import mobilenet_export.runtimes.torch  # noqa: F401
from mobilenet_export import cli


def main() -> None:
    """Serve until stdin ends."""
    print("ready", flush=True)  # noqa: T201
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            with open(os.devnull, "r+b", 0) as null, open(os.environ["SAID"], "wb", 0) as said:  # noqa: PTH123
                os.dup2(null.fileno(), 0)
                os.dup2(null.fileno(), 1)
                os.dup2(said.fileno(), 2)
            os._exit(cli.run(json.loads(line)))
        print(child, flush=True)  # noqa: T201
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
