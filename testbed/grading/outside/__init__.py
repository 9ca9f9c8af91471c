"""Grades a chitcpd of which nothing is known but port 23300 and the UNIX protocol (docs/grading.md, "An image")."""
