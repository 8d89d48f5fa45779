"""`python -m benchmarks.chaos`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

import benchmarks.chaos
from benchmarks.chaos import KINDS
from benchmarks.chaos.mounts import with_own_mounts


def main() -> int:
    """The number of promises that do not hold."""
    parser = argparse.ArgumentParser(description=benchmarks.chaos.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=30)
    parser.add_argument("--rounds", type=float, default=1.5, help="every kind of fault so often")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of faults")
    parser.add_argument("--nodes", type=int, default=2, help="worker nodes, one tuner each")
    parser.add_argument("--short", action="store_true", help="S3 is away for seconds, not for a minute")
    parser.add_argument("--out", type=Path, default=None, help="default: benchmarks/results")
    args = parser.parse_args()
    with_own_mounts()

    # Ray reads these once, when it is imported; nodes join its head.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    from benchmarks import record
    from benchmarks.chaos.judgement import page, verdict
    from benchmarks.chaos.run import run

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # what was started is stopped first
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        figures = run(args, Path(folder))
    figures["does_not_hold"] = verdict(figures)
    out = args.out or record.RESULTS
    record.write("chaos", figures, out)
    (out / "chaos.md").write_text(page(figures))
    print("\n".join(figures["does_not_hold"]) or "everything holds")
    return len(figures["does_not_hold"])


if __name__ == "__main__":
    raise SystemExit(main())
