"""Real Docker: needs an engine that answers, and the image (`make image`)."""
