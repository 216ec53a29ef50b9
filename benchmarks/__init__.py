"""Benchmarks of fine-tuning methods: suites of cells, run through `train_many`, with statistics and a report."""
