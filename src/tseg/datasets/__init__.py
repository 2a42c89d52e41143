"""Raw files to records, records to batches."""
