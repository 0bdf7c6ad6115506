"""The simulated robot (LIBERO) and its scripted expert."""
