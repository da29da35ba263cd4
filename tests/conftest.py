"""What all tests need."""

import os

# Several workers test at once: operators of one that spin on many threads would hold up the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")
