"""From recordings to windows to batches."""
