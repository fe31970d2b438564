"""A finished model as one file, to be used without the data."""
