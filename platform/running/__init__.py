"""A run from its spec to its report."""
