"""What a TCP is worth: tests of its behaviour by stages, run against a submission that is locked up."""
