"""Models: networks that can be trained, built in and user-supplied."""
