"""`permaflow`: the console script. What asks for no command line parser does not wait for one."""

from __future__ import annotations

import sys


def main() -> None:
    """Run a command; exit codes are 0 done, 1 failed, 2 not understood, 124 timed out."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["version"]):
        print(f"permaflow {version()}")
        return
    try:
        from pipeline.cli.app import run
    except KeyboardInterrupt:
        sys.exit(130)  # 128 and the number of the signal, as `run` gives it
    sys.exit(run(arguments))


def version() -> str:
    """The installed version."""
    from importlib.metadata import version as installed

    return installed("permaflow")


if __name__ == "__main__":
    main()
