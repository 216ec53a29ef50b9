"""What may be learnt of rows: a task is what it reads, its loss, its answers, its metrics."""
