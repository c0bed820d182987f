"""Import and export of CSV files."""
