"""Workers: one device at work, and how it joins a sweep from anywhere."""
