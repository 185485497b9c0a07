"""rllib: any algorithm of RLlib as a phase, to compare with."""
