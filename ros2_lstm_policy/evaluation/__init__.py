"""Closed-loop success: rollouts, intervals, reports, pictures."""
