"""Official annotation formats, and pairs of one's own, read into records."""
