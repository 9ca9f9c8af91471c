"""Real links: needs an engine whose kernel has sch_netem, and the image (`make image`)."""
