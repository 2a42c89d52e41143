"""The embedded data set, drawn by the project itself."""
