"""A store: directories of files kept by their digests under names and versions, on a disk or in an object store."""
