"""One run for everything: a learner that takes likelihood, value, decoder and policy loss together."""
