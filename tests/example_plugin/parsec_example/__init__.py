"""An example of each part that parsecrl takes from other packages."""
