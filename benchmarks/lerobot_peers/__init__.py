"""LeRobot's policies on this package's demonstrations, episodes and clock."""
