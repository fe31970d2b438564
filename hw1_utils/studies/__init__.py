"""Questions beside the comparison, one a file."""
