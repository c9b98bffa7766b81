"""Looks at images before they calibrate: one pass over the pixels, then checks over what was noted of each."""
