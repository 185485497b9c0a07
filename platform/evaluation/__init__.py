"""Episodes of a trained agent: statistics, videos, `parsec evaluate`."""
