"""Summaries, records and masks in; tables and figures out."""
