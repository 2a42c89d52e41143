"""Data sets: official annotation files and images become tables of records."""
