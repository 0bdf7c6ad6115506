"""What is learned: pure torch, no files but the checkpoint's, no ROS."""
