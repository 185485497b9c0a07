"""A spec as a Ray job."""
