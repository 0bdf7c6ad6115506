"""The simulator and the policy as processes: demo and evaluate_nodes."""
