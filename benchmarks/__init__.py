"""How fast it is: our TCP beside what a relay in plain Python, and the kernel's TCP, reach on the same machine.

`python -m benchmarks` runs it; docs/performance.md explains it. A figure alone says more of the machine than of us, so
each has a reference that was measured in the same run, in turns, and the ratio of the two is what is compared.
"""
