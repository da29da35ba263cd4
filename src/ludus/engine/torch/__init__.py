"""The embedded engine: one decoder in this process, sampled from and trained on one thread. Needs the extra `train`."""
