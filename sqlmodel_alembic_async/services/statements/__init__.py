"""What the services share: one row, many rows, filters, pages, savepoints, and column values."""
