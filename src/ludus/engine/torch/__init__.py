"""The embedded engine: one decoder in this process, sampled from and trained on one thread. Needs the extra `train`."""

import os

# Before OpenMP starts: threads that wait for work sleep instead of spinning. Spinning ones take the core that the event
# loop, or another process, needs, and two of them turned a 5 us product into 7 ms beside a busy process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
