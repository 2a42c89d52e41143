"""Training: from records to a model's weights."""
