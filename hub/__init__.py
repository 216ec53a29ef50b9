"""A hub of adapters: what a store of directories knows of adapters beyond their files."""
