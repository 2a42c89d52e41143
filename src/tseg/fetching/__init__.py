"""A source of the catalogue: downloaded, verified, unpacked, put in place."""
