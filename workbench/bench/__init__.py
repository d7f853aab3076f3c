"""Speed, measured as ratios within one run: each shortcut beside the plain way, and the floor the machine sets."""
