"""Find rows that may describe the same user or the same pet."""
