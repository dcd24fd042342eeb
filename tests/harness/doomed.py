"""The daemon, killed with SIGKILL at the fault point that its first argument names: `python doomed.py POINT serve …`.

A real kill at a real place: nothing is cleaned up, no handler runs, and what is on disk is what the next start finds.
"""

from __future__ import annotations

import os
import signal
import sys

from interlock import fault_points
from interlock.cli.main import main

if __name__ == "__main__":
    point = sys.argv.pop(1)
    if point not in fault_points.RELEASE_PATH:
        raise SystemExit(f"there is no fault point {point}")

    def die_there(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    fault_points.hook = die_there
    main()
