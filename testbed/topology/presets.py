"""Links as people know them, for `link: satellite` in a topology: each way, as they would be written in the file.

Typical values and no more: what a link says itself stands over them. A queue is what such a link is known for, not what
would be best for it.
"""

from __future__ import annotations

PRESETS: dict[str, dict[str, str]] = {
    "lan": {"delay": "100us", "rate": "1gbit", "queue": "200pkt"},
    "wifi": {"delay": "2ms", "jitter": "1ms", "rate": "50mbit", "queue": "100pkt", "loss": "0.5%"},
    "dsl": {"delay": "12ms", "rate": "16mbit", "queue": "100ms"},
    "lte": {"delay": "30ms", "jitter": "8ms", "rate": "20mbit", "queue": "250ms", "loss": "0.1%"},  # deep buffers
    "satellite": {"delay": "280ms", "rate": "20mbit", "queue": "1bdp", "loss": "0.1%"},  # 36,000 km up, and down again
    "intercontinental": {"delay": "75ms", "rate": "100mbit", "queue": "1bdp"},
}
