"""What the load tests share: a server under measurement, seeded data, codes, histograms, metrics."""
