"""What trials share: settings of RLlib, seeds, finite checks, measurements, process tuning."""
