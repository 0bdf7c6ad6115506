"""Acting without ROS: all state of an episode lives here."""
