"""Applications as chisocket has them, for a simulation to run: what they do, none of those that are shipped does."""
