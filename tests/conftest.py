"""What holds for every test."""

from __future__ import annotations

import os
import signal

# A suite that a script starts in the background inherits SIGINT as ignored, and with it every
# process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Ray gives its actors the least right to the processors (nice 15): beside the tests of another
# process they starve, for minutes on two cores.
os.environ.setdefault("RAY_worker_niceness", "0")
