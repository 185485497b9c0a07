"""How an algorithm is described: its entry, its settings, and code of users' own. Neither Ray nor torch is imported."""
