"""What reports are made with: numbers as text, statistics over trials, figures, films and HTML.

Nothing here knows of runs, phases or storage, and nothing imports Ray.
"""
