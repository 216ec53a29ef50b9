"""Reports: what evaluations say of adapters, looked at closely, as one page and as JSON."""
