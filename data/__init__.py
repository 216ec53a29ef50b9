"""Rows: where they come from, what their values mean, and what batches are made of them."""
