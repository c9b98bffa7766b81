"""`mnx`, and `python -m mobilenet_export`: an interrupt while Python still imports ends in one message, too."""

import sys


def main() -> None:
    """Run `mnx` and exit with a documented code."""
    try:
        from mobilenet_export.cli import main as run  # noqa: PLC0415 (takes a moment)

        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\nhint: the same command starts again\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
