"""Readers of user-supplied data, one file per kind of source. See docs/your-own-task.md."""
