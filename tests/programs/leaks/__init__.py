"""Ten programs that leak in ten ways and six healthy ones, and what the probe finds out about them."""
