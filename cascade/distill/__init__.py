"""From texts to a certified proxy: read, sample, label, fit, calibrate, export."""
