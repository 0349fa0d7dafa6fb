"""The worlds a tier runs in: `browser` for the page, `server` for edge and cloud."""
