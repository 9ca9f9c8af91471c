"""testbed: builds a lab of hosts, links and applications from a topology, runs it, and collects what happened."""
