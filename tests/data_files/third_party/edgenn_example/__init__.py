"""A camera and a sink that `pip install` adds to edgenn."""
