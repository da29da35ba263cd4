"""Running rollouts: one attempt, its score, groups of them, worker processes, the event loop's lag."""
