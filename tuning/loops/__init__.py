"""Training loops of others: adapters that are trained call by call, many of them in one batch."""
