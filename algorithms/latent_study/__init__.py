"""What experiments on latent dynamics in grid worlds share: worlds as tables, models by name, measures."""
