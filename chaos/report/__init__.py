"""Shows a run: on a screen while it is on, as a picture, a page and a folder afterwards."""
