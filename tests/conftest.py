"""What holds for every test."""

from __future__ import annotations

import signal

# A suite that a script starts in the background inherits SIGINT as ignored, and with it every
# process that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
