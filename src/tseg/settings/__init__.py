"""Configuration files: their schema, the runs and experiments that they describe, and the plan."""
