"""Changed conditions for evaluation: one module a kind of axis, all seeded by the episode."""
