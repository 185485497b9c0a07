"""What leaves a run and what comes in: agents over HTTP, agents' files, datasets."""
