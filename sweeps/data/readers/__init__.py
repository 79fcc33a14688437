"""Data sets and architectures of one's own, which the command line or a plan names: `bring` makes them known.
See docs/your-own-task.md.
"""
