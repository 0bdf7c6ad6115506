"""The program `doctor`: what keeps this robot from acting with a policy, and what to do."""
