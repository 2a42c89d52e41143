"""The embedded data set *shapes*, drawn by the project itself."""
