"""The tests, a module for each stage. Importing them is what makes them known (catalog.py)."""

from testbed.grading.stages import (
    close,
    congestion_control,
    connection,
    data,
    flow_control,
    loss,
    reordering,
    robustness,
    rto,
)

__all__ = [
    "close",
    "congestion_control",
    "connection",
    "data",
    "flow_control",
    "loss",
    "reordering",
    "robustness",
    "rto",
]
